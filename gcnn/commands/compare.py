"""Compare two runs on the same text: how much they differ, and on which tokens.

The ratio of their perplexities has a 95 % interval by paired bootstrap over the text's articles,
which begin with a heading ` = Title = ` between empty lines, or over its lines where there are
none. It says what another text might give, not another seed.
"""

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING

from gcnn.base.errors import UsageError
from gcnn.base.files import to_json
from gcnn.commands.arguments import (
    add_device,
    add_text,
    add_threads,
    check_text_options,
    new_parser,
    read_stream,
    set_threads,
    warn_of_changed_text,
)
from gcnn.reporting.comparison import EXPLANATION, Comparison, compared_runs, conclusion, part_table
from gcnn.reporting.document import to_text
from gcnn.runs.directory import find_run
from gcnn.runs.json_files import checked

if TYPE_CHECKING:
    from gcnn.data.stream import TokenStream
    from gcnn.evaluation.run import LoadedRun


def main() -> None:
    """Run `gcnn compare`: score the text with both runs and print tables (`summary`).

    With --json an object instead: the entries of `made_with` and those of `Comparison`. The text is
    the test split by default, scored as the runs were trained (`add_text`). Sets torch's threads.
    Raises UsageError for invalid options and for runs that cannot be loaded or do not compare;
    UsageError and OSError as `read_stream` does; RunError for damaged weights, a failed download
    and a loss that is not finite.
    """
    arguments = parse_arguments()
    check_text_options(arguments)
    from gcnn.base.provenance import made_with
    from gcnn.evaluation.comparison import compare, unit_starts
    from gcnn.evaluation.perplexity import nlls_in_order
    from gcnn.evaluation.run import load_model
    from gcnn.models.inference import limit_kernel_cache

    # The runs and the text
    about = made_with()
    set_threads(arguments.threads)
    limit_kernel_cache()
    a = load_model(arguments.run_a, arguments.device)
    b = load_model(arguments.run_b, arguments.device)
    check_comparable(arguments, a, b)
    sentences = arguments.sentences
    if sentences is None:
        sentences = a.config.data.sentences
    stream = read_common_text(arguments, a, b)
    unit, starts = unit_starts(stream, a.tokenizer, sentences)

    # The nats of each token under both
    runs = []
    nlls = []
    for path, run in ((arguments.run_a, a), (arguments.run_b, b)):
        entry = {
            "run": str(path),
            "experiment": run.config.experiment,
            "weights_sha256": run.weights_sha256,
        }
        runs.append(entry)
        nlls.append(nlls_in_order(run.model, stream, sentences))

    # What is printed
    text = arguments.file or f"{arguments.split or 'test'} split of {a.config.data.name}"
    how = {
        "text": "standard input" if text == "-" else text,
        "scored": "each line alone" if sentences else "as running text",
        "unit": unit,
    }
    content = about | {"runs": runs} | how | compare(stream, starts, *nlls)
    sys.stdout.reconfigure(encoding="utf-8")
    if arguments.json:
        print(to_json(content, indent=2, ensure_ascii=False))
    else:
        print(summary(checked(content, Comparison, "comparison")))
    sys.stdout.flush()


def check_comparable(arguments: argparse.Namespace, a: "LoadedRun", b: "LoadedRun") -> None:
    """Raise UsageError for two runs that cannot be compared token by token.

    That is the case if they have the same weights or different tokenizers; and if one was trained
    on lines and the other on running text, unless --sentences or --no-sentences is given.
    arguments: of `parse_arguments`.
    """
    both = f"{arguments.run_a} and {arguments.run_b}"
    if a.weights_sha256 == b.weights_sha256:
        raise UsageError(f"{both} have the same weights. Give two different models.")
    if a.tokenizer.fingerprint != b.tokenizer.fingerprint:
        fingerprints = f"{a.tokenizer.fingerprint[:12]} and {b.tokenizer.fingerprint[:12]}"
        raise UsageError(
            f"{both} have different tokenizers ({fingerprints}), so nats a token do not compare. "
            "Give runs with the same tokenizer, or compare what gcnn evaluate says per word."
        )
    if arguments.sentences is None and a.config.data.sentences != b.config.data.sentences:
        how = "one scores each line alone, one running text"
        raise UsageError(f"of {both} {how}. Add --sentences or --no-sentences.")


def read_common_text(
    arguments: argparse.Namespace,
    a: "LoadedRun",
    b: "LoadedRun",
) -> "TokenStream":
    """The text to compare on, encoded by the tokenizer of A, which must be that of B too.

    arguments: of `parse_arguments`. Raises UsageError where the split of one run is another text
    than the other's; UsageError and OSError as read_stream does. Warns as `warn_of_changed_text`.
    """
    stream = read_stream(arguments, a.config.data, a.tokenizer)
    if arguments.file is None:
        other = read_stream(arguments, b.config.data, b.tokenizer)
        if other.fingerprint != stream.fingerprint:
            raise UsageError(
                f"the {arguments.split or 'test'} split of {arguments.run_a} and that of "
                f"{arguments.run_b} are different texts. Give one text by --file or --data-path."
            )
    for run in (arguments.run_a, arguments.run_b):
        warn_of_changed_text(run, arguments, stream)
    return stream


def summary(comparison: Comparison) -> str:
    """The comparison as text to print: a table of the runs, the conclusion, tables of its parts.

    Between the conclusion and the tables stands EXPLANATION. There is a table for each entry of
    `comparison.parts`, a way to divide the tokens. No newline at the end.
    """
    runs = compared_runs(comparison)
    prose = [textwrap.fill(text, 100) for text in (conclusion(comparison), EXPLANATION)]
    paragraphs = [runs.caption, to_text(runs), *prose]
    paragraphs += [to_text(part_table(comparison, way)) for way in comparison.parts]
    return "\n\n".join(paragraphs)


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn compare`, from sys.argv. Raises UsageError for an invalid one.

    Both runs are found, maybe downloaded, by `find_run`, which raises UsageError and RunError.
    `threads` and the options of `add_text` are None where they are not given.
    """
    parser = new_parser(__doc__, "a file is typed as --file FILE")
    help = "a run, or the newest in a folder; `latest`: in runs/"
    parser.add_argument("run_a", type=find_run, metavar="RUN_A", help=help)
    help = "the other one; must have the same tokenizer"
    parser.add_argument("run_b", type=find_run, metavar="RUN_B", help=help)
    add_text(parser)
    help = "print JSON, which `gcnn report --comparison` reads; default: tables"
    parser.add_argument("--json", action="store_true", help=help)
    add_device(parser)
    add_threads(parser)
    return parser.parse_args()
