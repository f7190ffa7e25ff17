"""Find the weights with which a model ranks n-best lists at the fewest word errors, on lists with
references.

Reads the lists that `gcnn score --nbest` ranks, each hypothesis with a score of its own, from
standard input, and prints the word error rates of the first hypotheses before and after, that of
the best ones of all (the oracle), and the command that ranks with the weights found:
`gcnn tune-nbest --run DIR --references FILE < lists`. Weights are tuned on one text and judged on
another.
"""

import argparse
import math
import shlex
from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.commands.arguments import (
    add_device,
    add_precision,
    add_run,
    add_threads,
    given_path,
    new_parser,
    set_threads,
)
from gcnn.commands.score import STDIN, read_windows, score_hypotheses
from gcnn.evaluation.nbest import line_parser
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count


def main() -> None:
    """Run `gcnn tune-nbest`: print the word error rates and the command with the best weights.

    The rates are a table: of the first hypotheses by their own scores, of the first ones with the
    model, and the oracle. Reads the lists from standard input. References without a list are left
    out, with a warning. Sets torch's threads. Raises UsageError for an invalid option, list or
    reference, for no list and for one without a reference, for references without words, for a run
    that cannot be loaded, and where the package jiwer is not installed; OSError for references that
    may not be read; RunError for damaged weights or a failed download.
    """
    arguments = parse_arguments()
    penalty = arguments.unknown_penalty
    if penalty is not None and not 0 <= penalty < math.inf:
        raise UsageError("--unknown-penalty is a number from 0; give another or leave it out.")
    references = read_references(arguments.references)
    from gcnn.evaluation.nbest_tuning import make_lists, tune, word_errors
    from gcnn.evaluation.scoring import Scorer

    word_errors("", [])  # before minutes of work: whether they can be counted
    set_threads(arguments.threads)
    scorer = Scorer.from_run(arguments.run, arguments.device, arguments.precision)
    hypotheses = score_hypotheses(scorer, read_windows(STDIN), line_parser(arguments.nbest, True))
    lists = make_lists(hypotheses, references, penalty or 0.0)
    if lists.reference_words == 0:
        raise UsageError(f"--references: {arguments.references} has no words. Give what was said.")
    weights = tune(lists)
    errors_by_title = {
        "their own scores": lists.errors_at(0.0, 0.0),
        "with the model": lists.errors_at(*weights),
        "oracle": lists.oracle(),
    }
    rows = []
    for title, errors in errors_by_title.items():
        rate = f"{100 * errors / lists.reference_words:.2f} %"
        rows.append([title, count(errors), rate])
    caption = f"{count(len(lists.own))} lists, {count(lists.reference_words)} words of references"
    print(f"{caption}\n\n{to_text(Table(['', 'word errors', 'rate'], rows))}\n")
    print(f"{ranking_command(arguments, weights)} < lists")


def ranking_command(arguments: argparse.Namespace, weights: tuple[float, float]) -> str:
    """The shell command that ranks lists with the weights that were found, without its input.

    arguments: of this command; --device and --threads are not repeated. weights: of the model and
    of a word, as `tune` returns them.
    """
    words = ["gcnn", "score", "--run", str(arguments.run), "--nbest", arguments.nbest]
    if arguments.precision != "float32":
        words += ["--precision", arguments.precision]
    words += ["--lm-weight", f"{weights[0]:g}", f"--word-weight={weights[1]:g}"]
    if arguments.unknown_penalty is not None:
        words += ["--unknown-penalty", f"{arguments.unknown_penalty:g}"]
    return shlex.join(words)


def read_references(path: Path) -> dict[str, str]:
    """Read the references: by the name of each list, its correct words, as one string.

    path: a file as `read_lines` reads it (text, or a table with a column `text`), with lines
    `name ||| words`, or Kaldi's `name words`. A name alone has no words. Lines without a name, and
    rows of a table without a text, are skipped.
    Empty if there is no other line. Raises UsageError for a name that comes twice, even with the
    same words; UsageError and OSError as read_lines does.
    """
    from gcnn.data.tables import read_lines

    references: dict[str, str] = {}
    for rows in read_lines(path):
        for line in rows.drop_null().to_pylist():
            name, bars, words = line.partition("|||")
            if not bars:  # Kaldi's: the name ends at the first white space
                fields = line.split(maxsplit=1)
                name = fields[0] if fields else ""
                words = fields[1] if len(fields) > 1 else ""
            name = name.strip()
            if name in references:
                raise UsageError(
                    f"--references: {path} names {name!r} twice. Give a line for each list."
                )
            if name:
                references[name] = words.strip()
    return references


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn tune-nbest`, from sys.argv. Raises UsageError for an invalid one.

    The run is found, maybe downloaded, and errors raised for it, as `add_run` says. `threads` and
    `unknown_penalty` are None where they are not given; the latter may be out of its range, which
    `main` checks.
    """
    parser = new_parser(__doc__, "lists are read from standard input")
    add_run(parser)
    help = "what was said or meant: a line `name ||| words`, or Kaldi's `name words`, for each list"
    parser.add_argument("--references", type=given_path, required=True, metavar="FILE", help=help)
    help = "the kind of the lists: the one that has names and scores; default: %(default)s"
    parser.add_argument("--nbest", default="moses", choices=["moses"], help=help)
    help = "nats taken off for each unknown word, as in gcnn score; default: none"
    parser.add_argument("--unknown-penalty", type=float, metavar="P", help=help)
    add_device(parser)
    add_precision(parser)
    add_threads(parser)
    return parser.parse_args()
