"""Score each line of standard input (UTF-8, one sentence a line) and print one line for it.

The printed line has the log-probability in nats of the sentence's words and <eos>, given an <eos>
before them; how many tokens those are; how many of them are unknown; and the perplexity:
`gcnn score --run DIR < sentences`.
"""

import argparse
import codecs
import math
import os
import select
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from gcnn.base.errors import UsageError
from gcnn.base.files import to_json
from gcnn.base.text_files import check_no_archive, check_no_pointer, check_no_utf16, compression
from gcnn.base.torchrun import rank
from gcnn.base.values import check_text
from gcnn.commands.arguments import (
    Several,
    add_column,
    add_device,
    add_precision,
    add_run,
    add_threads,
    given_path,
    new_parser,
    set_threads,
)
from gcnn.evaluation.nbest import KINDS, Hypothesis, Ranker, Scored, line_parser

if TYPE_CHECKING:
    from gcnn.evaluation.scoring import Scorer

STDIN = 0
CHUNK = 1 << 16  # bytes read at once
WINDOW = 1 << 18  # bytes of lines scored together; smaller than the scorer's own
PATIENCE = 0.002  # seconds that lines at hand wait for others

CARRIED = (
    "this model was trained on running text with the state carried on (trainer.carry_state), and "
    "never on the start of a text: each sentence is scored as after <eos> without end. To score "
    "sentences, train with data.sentences=true where lines stand alone, or "
    "trainer.carry_state=false."
)

Line = TypeVar("Line")


def main() -> None:
    """Run `gcnn score`: score standard input line by line, or with --input whole files.

    Scores of standard input are printed as its lines arrive (`score_windows`), or with --nbest the
    hypotheses of each list best first. Files are written to --output with their rows and scores
    (`score_files`), and what this process did is printed as a line of JSON: the fields of
    `ScoringStats` and tokens_per_second. Warnings go to stderr. Sets torch's threads.
    Raises UsageError for invalid options, for a run that cannot be loaded, for a bad line and for
    what `read_windows` refuses; UsageError and OSError as `score_files` does; RunError for damaged
    weights or a failed download. The scores of the lines before a bad one are printed first; of
    n-best lists, those of all lists before it but the last.
    """
    arguments = parse_arguments()
    check_arguments(arguments)
    from gcnn.evaluation.corpus_scoring import score_files
    from gcnn.evaluation.scoring import Scorer

    set_threads(arguments.threads)
    scorer = Scorer.from_run(arguments.run, arguments.device, arguments.precision)
    if scorer.model.before_text is not None and rank() == 0:
        print(f"warning: {CARRIED}", file=sys.stderr)
    if arguments.input is not None:
        column = arguments.column or "text"
        prefix = arguments.prefix or ""
        done = score_files(scorer, arguments.input, arguments.output, column, prefix)
        print(to_json(asdict(done) | {"tokens_per_second": done.tokens_per_second}))
        return
    windows = read_windows(STDIN)
    ranker = Ranker(arguments.lm_weight, arguments.unknown_penalty, arguments.word_weight)
    if arguments.nbest is None:
        output = score_windows(scorer, windows, arguments.format)
    else:
        output = rerank_windows(scorer, windows, arguments.nbest, ranker)
    sys.stdout.reconfigure(encoding="utf-8")
    for text in output:
        sys.stdout.write(text)
        sys.stdout.flush()
    if warning := ranker.warning():
        print(warning, file=sys.stderr)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options that exclude each other or lack another, and for invalid values.

    Raises it also if standard input is to be scored, and the process was started without standard
    input or output. arguments: of `parse_arguments`.
    """
    for option, number, least in (
        ("--lm-weight", arguments.lm_weight, -math.inf),
        ("--word-weight", arguments.word_weight, -math.inf),
        ("--unknown-penalty", arguments.unknown_penalty, 0.0),
    ):
        if number is None:
            continue
        if not math.isfinite(number) or number < least:
            kind = "a finite number from 0" if least == 0 else "a finite number"
            raise UsageError(f"{option} is {number:g}; give {kind}.")
        if arguments.nbest is None:
            raise UsageError(f"{option} goes with --nbest; give both or leave it out.")
    if (arguments.input is None) != (arguments.output is None):
        raise UsageError(
            "--input and --output belong together; give both, or neither to score standard input."
        )
    if arguments.input is None and (sys.__stdin__ is None or sys.__stdout__ is None):
        raise UsageError("standard input or output is closed. Give both, or --input and --output.")
    if arguments.input is not None and (arguments.nbest or arguments.format):
        raise UsageError(
            "--input writes Parquet files; --format and --nbest are of standard input. Leave them "
            "out."
        )
    for option in ("column", "prefix"):
        if arguments.input is None and getattr(arguments, option) is not None:
            raise UsageError(
                f"--{option} is of the files of --input; leave it out to score standard input."
            )
    if arguments.prefix is not None:
        check_text("--prefix", arguments.prefix)


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn score`, from sys.argv; `check_arguments` checks how they go together.

    The run is found, maybe downloaded, and errors raised for it, as `add_run` says. All others but
    `device` and `precision` are None where they are not given; --nbest without a value is "any".
    Raises UsageError for an invalid option.
    """
    parser = new_parser(__doc__, "files are typed as --input FILE, with --output DIR")
    add_run(parser)
    output = parser.add_mutually_exclusive_group()
    help = "an object or a row a line; default: jsonl"
    output.add_argument("--format", choices=["jsonl", "tsv"], help=help)
    help = (
        "read n-best lists in a format: lines `id ||| sentence [||| features] [||| score]` "
        "(moses), `utt-1 words` (kaldi), `acoustic language n words` (srilm, one list), or the one "
        "of these that the first line has (any, and without a value); print the lines of each list "
        "best first, ` ||| log_prob` appended; default: no lists"
    )
    output.add_argument("--nbest", nargs="?", const="any", choices=KINDS, help=help)
    help = (
        "rank n-best lists by score + W * log_prob, and append that sum too; the score is moses' "
        "last one or srilm's acoustic one, turned into nats; default: rank by log_prob alone"
    )
    parser.add_argument("--lm-weight", type=float, metavar="W", help=help)
    help = (
        "take P nats off the log_prob of a hypothesis for each of its words that the model does "
        "not know, and append their number and the sum; default: none, and a warning on standard "
        "error"
    )
    parser.add_argument("--unknown-penalty", type=float, metavar="P", help=help)
    help = (
        "add V nats to the log_prob of a hypothesis for each of its words, for a model prefers "
        "short ones; append their number and the sum; gcnn tune-nbest finds W and V; default: none"
    )
    parser.add_argument("--word-weight", type=float, metavar="V", help=help)
    help = (
        "score the rows of text, JSON lines or Parquet files instead; processes with the same "
        "command share them (torchrun, a Slurm array), and files whose scores are there already "
        "are skipped; default: none"
    )
    parser.add_argument(
        "--input", nargs="+", action=Several, type=given_path, metavar="FILE", help=help
    )
    help = "folder for --input's scores, as <name>.parquet; default: none"
    parser.add_argument("--output", type=given_path, metavar="DIR", help=help)
    help = (
        "begins the names of the columns that --input's scores get, as in web_log_prob; "
        "default: none"
    )
    parser.add_argument("--prefix", metavar="NAME", help=help)
    add_column(parser)
    add_device(parser)
    add_precision(parser)
    add_threads(parser)
    return parser.parse_args()


def score_windows(
    scorer: "Scorer", windows: Iterator[list[bytes]], form: str | None
) -> Iterator[str]:
    """Score windows of lines; yields the text to print for each window, a line for each score.

    windows: lines in UTF-8 without line ends, as `read_windows` yields them. form: "jsonl" or None:
    objects with the keys log_prob, tokens, unknown and perplexity; "tsv": these as columns, with a
    header that is yielded first, even if there are no windows. A value that is not finite, as a
    perplexity too large for a float, is inf or nan in tsv and null in jsonl. Raises UsageError,
    with the number of the line, for one that is not UTF-8; the scores of all lines before it are
    yielded first.
    """
    if form == "tsv":
        yield "log_prob\ttokens\tunknown\tperplexity\n"
    for lines in parse_windows(windows, decoded):
        scores = scorer.stream(lines)
        if form == "tsv":
            yield "".join("\t".join(map(str, score)) + "\n" for score in scores)
        else:
            yield "".join(to_json(score._asdict()) + "\n" for score in scores)


def rerank_windows(
    scorer: "Scorer", windows: Iterator[list[bytes]], kind: str, ranker: Ranker
) -> Iterator[str]:
    """Score and rank n-best lists; yields the text to print of each list (`Ranker.rank`).

    Each hypothesis is a line with its newline; the best one comes first. The lists are those of
    `split_into_lists`. A list is yielded when the next list's name or the end of the input comes.
    No input: no text.
    windows: lines in UTF-8 without line ends, as `read_windows` yields them. kind: the lists'
    format, of KINDS ("any": see `line_parser`); with `ranker.weight`, each hypothesis must have a
    score of its own. Adds to the counts of `ranker`. Raises UsageError, with the number of the
    line, for one that is not of this kind or not UTF-8; the last list before it is not yielded
    then.
    """
    read_hypothesis = line_parser(kind, ranker.weight is not None)
    return ranker.rank(score_hypotheses(scorer, windows, read_hypothesis))


def score_hypotheses(
    scorer: "Scorer", windows: Iterator[list[bytes]], read_hypothesis: Callable[[str], Hypothesis]
) -> Iterator[Scored]:
    """Parse and score the hypotheses in windows of lines; yields them one by one, in their order.

    windows: lines in UTF-8 without line ends, as `read_windows` yields them. read_hypothesis:
    parses a line, as `line_parser` returns it. After the hypotheses before it, raises UsageError,
    with the number of the line, for one that it refuses or that is not UTF-8.
    """
    for hypotheses in parse_windows(windows, lambda raw: read_hypothesis(decoded(raw))):
        sentences = [hypothesis.sentence for hypothesis in hypotheses]
        ids = scorer.tokenizer.encode_lines(sentences)  # flat: those of all sentences
        start = 0
        for hypothesis, score in zip(hypotheses, scorer.stream(sentences), strict=True):
            stop = start + score.tokens
            tokens = ids[start:stop].tobytes()
            yield Scored(hypothesis, tokens, score.log_prob, score.unknown)
            start = stop


def decoded(raw: bytes) -> str:
    """A line of bytes as text, without a carriage return at its end.

    Raises UsageError where it is not UTF-8. Its message is to follow the name of the line, as
    "line 3 of the input".
    """
    try:
        return raw.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise UsageError(f"is not UTF-8: {byte}. Convert the text, as with iconv.") from None


def parse_windows(
    windows: Iterator[list[bytes]], parse: Callable[[bytes], Line]
) -> Iterator[list[Line]]:
    """The same windows, each with what `parse` makes of its lines.

    A byte order mark of UTF-8 before the first line is dropped. Where `parse` raises UsageError,
    what it made of the lines before that one in the window is yielded first, maybe an empty list;
    then UsageError is raised with "line N of the input " before its message, which must go on from
    there: "is not UTF-8". N counts from 1 over all windows.
    """
    number = 0
    for window in windows:
        lines = []
        for raw in window:
            number += 1
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                lines.append(parse(raw))
            except UsageError as error:
                yield lines
                raise UsageError(f"line {number} of the input {error}") from None
        yield lines


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """Read standard input in chunks of up to CHUNK bytes; each waits for its first byte.

    descriptor: of standard input, as the messages of errors call it. Raises UsageError where it
    cannot be read, where the first chunk shows a pointer of Git LFS or git-annex, an archive or a
    compressed file, and at a chunk that looks like UTF-16 (`check_no_utf16`). Empty input: no
    chunks.
    """
    is_start = True
    while True:
        try:
            chunk = os.read(descriptor, CHUNK)
        except OSError as error:  # it is closed, or a folder
            raise UsageError(
                f"standard input cannot be read ({error.strerror}). "
                "Give it text, a sentence a line."
            ) from None
        if not chunk:
            return
        if is_start:
            check_no_pointer(chunk, "standard input")
            check_no_archive(chunk, "standard input")
            if program := compression(chunk):
                raise UsageError(
                    f"standard input is compressed by {program}. "
                    f"Decompress it on the way, as with {program} -dc."
                )
            is_start = False
        check_no_utf16(chunk, "standard input")
        yield chunk


def read_windows(descriptor: int) -> Iterator[list[bytes]]:
    """Read lines of standard input, without their "\\n", in windows of about WINDOW bytes.

    A window has at least one line; empty input has no window. It also ends where no more input
    arrives within PATIENCE seconds, so that a caller who writes one line gets its answer at once.
    The last line may lack its end.
    descriptor: of a pipe, file or terminal, read without Python's buffer. Raises UsageError as
    `read_chunks` does, after the lines that were whole before it.
    """
    whole = bytearray()  # lines with their ends, not yielded yet
    begun = bytearray()  # the line after them, whose end has not been read
    try:
        for chunk in read_chunks(descriptor):
            ended, line_end, rest = chunk.rpartition(b"\n")
            if line_end:
                whole += begun + ended + line_end
                begun.clear()
            begun += rest
            is_full = len(whole) + len(begun) >= WINDOW
            # Wait for more only while the window is not full.
            if whole and (is_full or not select.select([descriptor], [], [], PATIENCE)[0]):
                yield lines_in(whole)
                whole.clear()
    except UsageError:
        if whole:
            yield lines_in(whole)
        raise
    whole += begun
    if whole:
        yield lines_in(whole)


def lines_in(text: bytearray) -> list[bytes]:
    """The lines of a text, at least one, without their "\\n"; the last one may lack its end."""
    return bytes(text.removesuffix(b"\n")).split(b"\n")
