"""Measure the exact perplexity of a trained model on a split of its data or on any text."""

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gcnn.base.files import to_json
from gcnn.commands.arguments import (
    add_device,
    add_number,
    add_run,
    add_text,
    add_threads,
    check_text_options,
    new_parser,
    path_of_text,
    read_stream,
    read_text,
    set_threads,
    warn_of_changed_text,
)
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, perplexity
from gcnn.runs.json_files import checked
from gcnn.runs.results import Split

if TYPE_CHECKING:
    import numpy as np

    from gcnn.data.stream import TokenStream
    from gcnn.evaluation.run import LoadedRun


def main() -> None:
    """Run `gcnn evaluate`: print the scores of a text, by default the test split (`add_text`).

    That is the table of `summary`; with --json an object by the keys of `perplexity.normalised`,
    infinity and nan as null; with --per-token, --per-word or --per-line the lines of `token_rows`,
    `word_rows` or `line_rows`. Sets torch's threads. Raises UsageError for invalid options and for
    a run that cannot be loaded; UsageError and OSError as `read_stream` does; RunError for damaged
    weights or a failed download. Warnings go to stderr.
    """
    arguments = parse_arguments()
    check_text_options(arguments)
    from gcnn.evaluation.perplexity import evaluate, nlls_in_order
    from gcnn.evaluation.run import load_model
    from gcnn.models.inference import limit_kernel_cache

    set_threads(arguments.threads)
    limit_kernel_cache()
    run = load_model(arguments.run, arguments.device)
    sentences = run.config.data.sentences if arguments.sentences is None else arguments.sentences
    sys.stdout.reconfigure(encoding="utf-8")
    if arguments.per_word:
        sys.stdout.writelines(word_rows(arguments, run, sentences))
        sys.stdout.flush()
        return
    stream = read_stream(arguments, run.config.data, run.tokenizer)
    warn_of_changed_text(arguments.run, arguments, stream)
    inputs = run.model, stream, sentences, arguments.batch_size, arguments.block_size
    if arguments.per_token:
        log_probs = -nlls_in_order(*inputs)
        sys.stdout.writelines(token_rows(stream, run.tokenizer.types, log_probs))
    elif arguments.per_line:
        log_probs = -nlls_in_order(*inputs)
        sys.stdout.writelines(line_rows(stream, log_probs))
    else:
        scores = evaluate(*inputs)
        if arguments.json:
            print(to_json(scores))
        else:
            print(summary(checked(scores, Split, "the scores"), sentences))
    sys.stdout.flush()


def token_rows(stream: "TokenStream", types: list[str], log_probs: "np.ndarray") -> Iterator[str]:
    """Yield a line for each token: its type, a tab, its log-probability in nats, a newline.

    A tab in a type is written <0x09>. types: the tokenizer's, by id. log_probs: of the tokens in
    the stream's order, (tokens,), nats.
    """
    # A tab would look like the column's end: it is written as SentencePiece writes bytes.
    names = [name.replace("\t", "<0x09>") for name in types]
    for token, log_prob in zip(stream.tokens, log_probs, strict=True):
        yield f"{names[token]}\t{log_prob:.6f}\n"


def line_rows(stream: "TokenStream", log_probs: "np.ndarray") -> Iterator[str]:
    """A line for each line of a text: its log-probability in nats, a tab, its number of tokens.

    Both include the line's <eos>; a newline follows. log_probs: of each token, (tokens,), nats.
    """
    import numpy as np

    starts_line = np.append(True, stream.tokens[:-1] == stream.eos_id)
    starts = np.flatnonzero(starts_line)
    counts = np.diff(starts, append=len(stream))
    sums = np.add.reduceat(log_probs, starts)
    for log_prob, tokens in zip(sums, counts, strict=True):
        yield f"{log_prob:.6f}\t{tokens}\n"


def word_rows(arguments: argparse.Namespace, run: "LoadedRun", sentences: bool) -> Iterator[str]:
    """Read and score the text of the options; yield a line to print for each word and line end.

    It has, with tabs between them, the word (the tokenizer's `eos` at a line's end), its
    log-probability in nats, its number of tokens, and how many of these are unknown; then a
    newline. Rows of the input without a text are left out, with a warning.
    arguments: of `parse_arguments`. sentences: score each line alone, else the lines as running
    text. All is read and scored when the first line is taken; UsageError and OSError are then
    raised as read_stream does.
    """
    import pyarrow as pa

    from gcnn.data.stream import encode_text
    from gcnn.evaluation.perplexity import nlls_in_order
    from gcnn.evaluation.words import add_up_words

    rows = read_text(arguments, run.config.data)
    what = f"the {arguments.split or 'test'} split"
    if arguments.file is not None:
        what = str(path_of_text(arguments))
    stream = encode_text(rows, run.tokenizer, what)
    warn_of_changed_text(arguments.run, arguments, stream)
    sizes = arguments.batch_size, arguments.block_size
    nlls = nlls_in_order(run.model, stream, sentences, *sizes)
    lines = pa.concat_arrays([batch.drop_null() for batch in rows])
    scores = add_up_words(run.tokenizer, lines, stream.tokens, -nlls)
    for word, log_prob, tokens, unknown in zip(*scores, strict=True):
        yield f"{word}\t{log_prob:.6f}\t{tokens}\t{unknown}\n"


def summary(scores: Split, sentences: bool) -> str:
    """The scores of a text as a table to print; if those per word and byte are missing, why.

    It has a row a score: name and value; None is a dash. No newline at the end. sentences: each
    line was scored alone, else all as running text.
    """
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
    """The options of `gcnn evaluate`, from sys.argv. Raises UsageError for an invalid one.

    The run is found, maybe downloaded, and errors raised for it, as `add_run` says. `threads` and
    the options of `add_text`, which `check_text_options` checks, are None where they are not given.
    """
    parser = new_parser(__doc__, "a file is typed as --file FILE")
    add_run(parser)
    add_text(parser)
    output = parser.add_mutually_exclusive_group()
    help = "print a line for each token: its type, a tab, its log-probability in nats"
    output.add_argument("--per-token", action="store_true", help=help)
    help = (
        "print a line for each white-space word, and one for each line's end: the word, a tab, its "
        "log-probability in nats, its pieces added up, a tab, tokens, a tab, how many are unknown"
    )
    output.add_argument("--per-word", action="store_true", help=help)
    help = "print a line for each line: its log-probability in nats, a tab, its number of tokens"
    output.add_argument("--per-line", action="store_true", help=help)
    output.add_argument(
        "--json", action="store_true", help="print JSON, named as in results.json; default: a table"
    )
    add_number(parser, "--batch-size", 8, "rows at once")
    add_number(parser, "--block-size", 1000, "tokens a row")
    add_device(parser)
    add_threads(parser)
    return parser.parse_args()
