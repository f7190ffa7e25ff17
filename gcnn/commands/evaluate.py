"""Measure the exact perplexity of a trained model on a split of its data or on any text."""

import argparse
import sys

from gcnn.base.files import to_json
from gcnn.commands.arguments import (
    add_device,
    add_number,
    add_run,
    add_text,
    add_threads,
    check_text,
    new_parser,
    read_stream,
    set_threads,
)
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, perplexity
from gcnn.runs.json_files import checked
from gcnn.runs.results import Split


def main() -> None:
    arguments = parse_arguments()
    check_text(arguments)
    import numpy as np

    from gcnn.evaluation.perplexity import evaluate, nlls_in_order
    from gcnn.evaluation.run import load_model
    from gcnn.models.inference import limit_kernel_cache

    set_threads(arguments.threads)
    limit_kernel_cache()
    run = load_model(arguments.run, arguments.device)
    sentences = run.config.data.sentences if arguments.sentences is None else arguments.sentences
    stream = read_stream(arguments, run.config.data, run.tokenizer)
    inputs = run.model, stream, sentences, arguments.batch_size, arguments.block_size
    sys.stdout.reconfigure(encoding="utf-8")
    if arguments.per_token:
        names = [
            name.replace("\t", "<0x09>") for name in run.tokenizer.types
        ]  # as SentencePiece writes bytes
        rows = zip(stream.tokens, -nlls_in_order(*inputs), strict=True)
        sys.stdout.writelines(f"{names[i]}\t{log_prob:.6f}\n" for i, log_prob in rows)
    elif arguments.per_line:
        starts = np.flatnonzero(np.append(True, stream.tokens[:-1] == stream.eos_id))
        counts = np.diff(starts, append=len(stream))
        rows = zip(np.add.reduceat(-nlls_in_order(*inputs), starts), counts, strict=True)
        sys.stdout.writelines(f"{log_prob:.6f}\t{tokens}\n" for log_prob, tokens in rows)
    else:
        scores = evaluate(*inputs)
        print(
            to_json(scores)
            if arguments.json
            else summary(checked(scores, Split, "the scores"), sentences)
        )
    sys.stdout.flush()


def summary(scores: Split, sentences: bool) -> str:
    """The scores of a text as a table, and why some are missing."""
    rows = [
        ["perplexity", perplexity(scores.perplexity)],
        ["without unknown tokens", perplexity(scores.known_perplexity)],
        ["per word", perplexity(scores.word_perplexity)],
        ["bits per byte", decimals(scores.bits_per_byte, 4)],
        ["nats", decimals(scores.nll_nats, 1)],
        ["tokens", count(scores.tokens)],
        ["unknown tokens", count(scores.unknown)],
        ["words", count(scores.words)],
        ["bytes", count(scores.bytes)],
    ]
    table = to_text(Table(["", "sentences" if sentences else "running text"], rows))
    reason = scores.why_no_words
    return f"{table}\nper word, bits per byte: {reason}." if reason else table


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, "a file is typed as --file FILE")
    add_run(parser)
    add_text(parser)
    output = parser.add_mutually_exclusive_group()
    help = "print a line a token: its type, a tab, its log-probability in nats, as score gives it"
    output.add_argument("--per-token", action="store_true", help=help)
    help = "print a line a line: its log-probability in nats, a tab, tokens"
    output.add_argument("--per-line", action="store_true", help=help)
    output.add_argument(
        "--json", action="store_true", help="print JSON, named as in results.json; default: a table"
    )
    add_number(parser, "--batch-size", 8, "rows at once")
    add_number(parser, "--block-size", 1000, "tokens a row")
    add_device(parser)
    add_threads(parser)
    return parser.parse_args()
