"""Score the lines of standard input: `gcnn-score --run DIR < sentences`."""

import argparse
import itertools
import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch

from gcnn.checks import THREADS, check_count
from gcnn.errors import UsageError, run_command
from gcnn.evaluation.corpus_scoring import score_files, share_of_this_process
from gcnn.evaluation.run import find_run
from gcnn.evaluation.scoring import Scorer
from gcnn.models.inference import PRECISIONS, forget_kernels

STDIN = 0
CHUNK = 1 << 16  # bytes read at once
WINDOW = 1 << 18  # bytes of lines scored together; smaller than the scorer's own
PATIENCE = 0.002  # seconds that lines at hand wait for others

Line = TypeVar("Line")


def main() -> None:
    run_command(score)


def score() -> None:
    arguments = parse_arguments()
    if arguments.threads is not None:
        check_count("--threads", arguments.threads, THREADS)
        torch.set_num_threads(arguments.threads)
    if (arguments.input is None) != (arguments.output is None):
        raise UsageError("--input and --output belong together; give both, or neither to score standard input.")
    forget_kernels()
    scorer = Scorer.from_run(arguments.run, arguments.device, arguments.precision)
    if arguments.input is not None:
        done = score_files(scorer, arguments.input, arguments.output, arguments.column, *share_of_this_process())
        print(json.dumps(asdict(done) | {"tokens_per_second": done.tokens_per_second}))
        return
    lines = read_windows(STDIN)
    output = reranked(scorer, lines) if arguments.nbest else scored(scorer, lines, arguments.format)
    sys.stdout.reconfigure(encoding="utf-8")
    for text in output:
        sys.stdout.write(text)
        sys.stdout.flush()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gcnn-score",
        description="Score each line of standard input (UTF-8, one sentence a line) and print one line for it: the log-"
        "probability in nats of its words and <eos> after <eos>, how many tokens those are, how many of them are "
        "unknown, and the perplexity.",
    )
    parser.add_argument(
        "--run",
        type=find_run,
        required=True,
        metavar="DIR",
        help="a run, or the newest in a folder; `latest`: in runs/",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--format", choices=["jsonl", "tsv"], default="jsonl", help="default: %(default)s")
    output.add_argument(
        "--nbest",
        action="store_true",
        help="lines are `id ||| sentence [||| ...]`; print the lines of each id best first, ` ||| log_prob` appended",
    )
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="score the rows of text, JSON lines or Parquet files instead, shared out over torchrun's processes and "
        "a Slurm array's tasks; files whose scores are there already are passed over",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write <name>.parquet with score columns")
    parser.add_argument("--column", default="text", help="the text's column in --input; default: %(default)s")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the weights; bf16 is less exact, and sooner done by a processor that has it; default: %(default)s",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    return parser.parse_args()


def scored(scorer: Scorer, windows: Iterator[list[bytes]], form: str) -> Iterator[str]:
    """The scores of each window of lines, as text."""
    if form == "tsv":
        yield "log_prob\ttokens\tunknown\tperplexity\n"
    for lines in parsed(windows, to_text):
        scores = scorer.stream(lines)
        if form == "tsv":
            yield "".join("\t".join(map(str, score)) + "\n" for score in scores)
        else:
            yield "".join(json.dumps(score._asdict()) + "\n" for score in scores)


def reranked(scorer: Scorer, windows: Iterator[list[bytes]]) -> Iterator[str]:
    """Each n-best list (contiguous lines with one id) as text, best first, equal ones in their order."""

    def entries() -> Iterator[tuple[str, str, float]]:
        for hypotheses in parsed(windows, to_hypothesis):
            scores = scorer.stream(sentence for _, sentence, _ in hypotheses)
            for (name, _, line), score in zip(hypotheses, scores, strict=True):
                yield name, line, score.log_prob

    for _, group in itertools.groupby(entries(), key=lambda entry: entry[0]):
        best_first = sorted(group, key=lambda entry: -entry[2])
        yield "".join(f"{line} ||| {log_prob}\n" for _, line, log_prob in best_first)


def to_text(raw: bytes) -> str:
    try:
        return raw.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} at offset {error.start}"
        raise UsageError(f"is not UTF-8: {byte}. Convert the text, as with iconv.") from None


def to_hypothesis(raw: bytes) -> tuple[str, str, str]:
    """The id, the sentence and the line of an entry in an n-best list."""
    line = to_text(raw)
    name, *fields = line.split("|||")
    if not fields:
        raise UsageError("is not `id ||| sentence`. Give n-best lists, or leave out --nbest.")
    return name.strip(), fields[0], line.rstrip()


def parsed(windows: Iterator[list[bytes]], parse: Callable[[bytes], Line]) -> Iterator[list[Line]]:
    """Windows of lines through `parse`; the UsageError of a line comes after the lines before it."""
    number = 0
    for window in windows:
        lines = []
        for raw in window:
            number += 1
            try:
                lines.append(parse(raw))
            except UsageError as error:
                yield lines
                raise UsageError(f"line {number} of the input {error}") from None
        yield lines


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:  # it is closed, or a folder
        raise UsageError(
            f"standard input cannot be read ({error.strerror}). Give it text, a sentence a line."
        ) from None


def read_windows(descriptor: int) -> Iterator[list[bytes]]:
    """The lines of a pipe or file, as many together as are at hand, about WINDOW bytes (or one line) at most."""
    buffer, complete = bytearray(), 0  # bytes read, and how many of them are whole lines
    while chunk := read(descriptor):
        end = chunk.rfind(b"\n") + 1
        complete = len(buffer) + end if end else complete
        buffer += chunk
        if complete and (len(buffer) >= WINDOW or not select.select([descriptor], [], [], PATIENCE)[0]):
            yield bytes(buffer[: complete - 1]).split(b"\n")
            del buffer[:complete]
            complete = 0
    if buffer:
        yield bytes(buffer.removesuffix(b"\n")).split(b"\n")


if __name__ == "__main__":
    main()
