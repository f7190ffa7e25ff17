"""The exact perplexity of a trained model on a text: `gcnn evaluate --run DIR [--split SPLIT | --file TEXT]`."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import torch

from gcnn.checks import check_count
from gcnn.data.batches import line_ends
from gcnn.data.corpus import load_corpus
from gcnn.data.stream import TokenStream, cached_stream, encode_file
from gcnn.data.tokenizers import Tokenizer
from gcnn.errors import UsageError
from gcnn.evaluation.perplexity import evaluate, sentence_nlls, token_nlls
from gcnn.evaluation.run import LoadedRun, add_run_argument, load_model
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, perplexity


def main() -> None:
    arguments = parse_arguments()
    check_count("--batch-size", arguments.batch_size)
    check_count("--block-size", arguments.block_size)
    run = load_model(arguments.run, arguments.device)
    sentences = run.config.data.sentences if arguments.sentences is None else arguments.sentences
    if arguments.per_token and sentences:
        raise UsageError("--per-token scores running text; add --no-sentences, or use --per-line.")
    stream = load_text(arguments, run)
    sizes = arguments.batch_size, arguments.block_size
    sys.stdout.reconfigure(encoding="utf-8")
    if arguments.per_token:
        names, nlls = names_of_types(run.tokenizer), token_nlls_in_order(run, stream, *sizes)
        sys.stdout.writelines(f"{names[i]}\t{nll:.6f}\n" for i, nll in zip(stream.tokens, nlls, strict=True))
    elif arguments.per_line:
        lines = line_nlls(run, stream, sentences, *sizes)
        sys.stdout.writelines(f"{nll:.6f}\t{tokens}\n" for nll, tokens in zip(*lines, strict=True))
    else:
        found = evaluate(run.model, stream, sentences, *sizes)
        print(json.dumps(found) if arguments.json else summary(found, sentences))
    sys.stdout.flush()


def load_text(arguments: argparse.Namespace, run: LoadedRun) -> TokenStream:
    """The text to evaluate, encoded with the run's tokenizer."""
    if arguments.file is not None:
        return encode_file(arguments.file, run.tokenizer, arguments.column)
    data = run.config.data
    if arguments.data_path is not None:
        data = dataclasses.replace(data, path=arguments.data_path, files={})
    return cached_stream(load_corpus(data, "--data-path"), arguments.split or "test", run.tokenizer)


def token_nlls_in_order(run: LoadedRun, stream: TokenStream, batch_size: int, block_size: int) -> np.ndarray:
    """The negative log-likelihood of each token of running text: (tokens,), nats."""
    nlls = np.empty(len(stream))
    with torch.inference_mode():
        for positions, values in token_nlls(run.model, stream, batch_size, block_size):
            nlls[positions] = values
    return nlls


def line_nlls(
    run: LoadedRun, stream: TokenStream, sentences: bool, batch_size: int, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The negative log-likelihood of each line, in nats, and its tokens: (lines,), (lines,)."""
    ends = line_ends(stream.tokens, stream.eos_id)
    counts = np.diff(ends, prepend=0)
    if not sentences:
        nlls = token_nlls_in_order(run, stream, batch_size, block_size)
        return np.add.reduceat(nlls, ends - counts), counts
    nlls = np.empty(len(ends))
    with torch.inference_mode():
        for rows, values in sentence_nlls(run.model, stream, batch_size, block_size):
            nlls[rows] = values
    return nlls, counts


def names_of_types(tokenizer: Tokenizer) -> list[str]:
    """How each type is written in one column of a table."""
    if tokenizer.kind == "word":
        return tokenizer.types
    pieces = tokenizer.processor.id_to_piece(tokenizer.model_ids.tolist())
    return [piece.replace("\t", "<0x09>") for piece in pieces]  # as SentencePiece writes bytes


def summary(found: dict[str, float], sentences: bool) -> str:
    rows = [
        ["perplexity", perplexity(found["perplexity"])],
        ["without unknown tokens", perplexity(found["known_perplexity"])],
        ["per word", perplexity(found["word_perplexity"])],
        ["bits per byte", decimals(found["bits_per_byte"], 4)],
        ["nats", decimals(found["nll_nats"], 1)],
        ["tokens", count(found["tokens"])],
        ["unknown tokens", count(found["unknown"])],
        ["words", count(found["words"])],
        ["bytes", count(found["bytes"])],
    ]
    return to_text(Table(["", "sentences" if sentences else "running text"], rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a trained model on a split of its data or on any text.")
    add_run_argument(parser)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--split", choices=["valid", "test", "train"], help="of the run's data; default: test")
    text.add_argument("--file", type=Path, metavar="TEXT", help="text, JSON lines, Parquet, a pipe; default: a split")
    parser.add_argument("--column", default="text", help="the text's in a --file with columns; default: %(default)s")
    parser.add_argument("--data-path", metavar="DIR", help="where the splits are; default: the run's data.path")
    parser.add_argument(
        "--sentences",
        action=argparse.BooleanOptionalAction,
        help="score each line alone, or as running text; default: as the run's data.sentences says",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--per-token", action="store_true", help="print a line a token: its type, a tab, nats; default: sums"
    )
    output.add_argument(
        "--per-line", action="store_true", help="print a line a line: nats, a tab, tokens; default: sums"
    )
    output.add_argument("--json", action="store_true", help="print JSON, named as in results.json; default: a table")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows at once; default: %(default)s")
    parser.add_argument("--block-size", type=int, default=1000, metavar="N", help="tokens a row; default: %(default)s")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if any; default: %(default)s"
    )
    return parser.parse_args()
