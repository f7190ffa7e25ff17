"""Exact perplexity: the same whatever the block and batch size, for the state is carried over every border."""

import math
import os
from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from gcnn.data.batches import IGNORE, RunningText, Sentences
from gcnn.data.stream import TokenStream
from gcnn.models.language_model import LanguageModel, State

# These decide memory and speed, never the result.
BATCH_SIZE, BLOCK_SIZE = 8, 1000  # sequences, tokens a sequence
POSITIONS = 2048  # of a row, read at once


@torch.no_grad()
def token_nlls(
    model: LanguageModel,
    stream: TokenStream,
    sentences: bool = False,
    batch_size: int = BATCH_SIZE,
    block_size: int = BLOCK_SIZE,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score a text: yields positions in it (n,) and their negative log-likelihoods (n,), nats; each position once.

    `sentences`: each line alone. Else running text, read by `batch_size` rows at once. Each row starts with the state
    that the text before it leaves: with a finite receptive field, `receptive_field - 1` tokens of overlap give it
    exactly. A model without one (the LSTM) reads the text as one row.
    """
    if sentences:
        yield from sentence_nlls(model, Sentences(stream.tokens, stream.eos_id, batch_size, block_size))
        return
    device = next(model.parameters()).device
    context = model.receptive_field - 1 if model.receptive_field else None
    batch_size = 1 if context is None else max(1, min(batch_size, len(stream) // max(1, context)))
    batches = RunningText(stream.tokens, stream.eos_id, batch_size, block_size)
    state = state_before_rows(model, batches, context or 0, device)
    for i in range(len(batches)):
        tokens, targets = batches[i]
        hidden, state = model(tokens.to(device), state)
        nll = model.nll(hidden, targets.to(device)).double().cpu().numpy()
        positions, counted = batches.positions(i)
        yield positions[counted], nll[counted]


def state_before_rows(model: LanguageModel, batches: RunningText, context: int, device: torch.device) -> State | None:
    """The state of each row's first token; None where it is the start of the text."""
    rows = len(batches.row_starts)
    if rows == 1 or context == 0:
        return None
    overlap = batches.before_rows(context)  # (batch, context)
    _, state = model(overlap.to(device))
    first = torch.arange(rows, device=device) == 0
    return [torch.where(first.view(-1, *[1] * (part.dim() - 1)), 0, part) for part in state]


def sentence_nlls(model: LanguageModel, batches: Sentences) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (n,) and negative log-likelihoods (n,) of lines each alone; a long one is read in blocks, with the
    state carried over their borders, so that memory stays bounded."""
    device = next(model.parameters()).device
    starts = batches.ends - batches.lengths
    for i in range(len(batches)):
        tokens, targets = batches[i]
        state, at = None, starts[batches.rows(i), None] + np.arange(tokens.size(1))  # (batch, time)
        for first in range(0, tokens.size(1), POSITIONS):
            block = slice(first, first + POSITIONS)
            hidden, state = model(tokens[:, block].to(device), state)
            nll = model.nll(hidden, targets[:, block].to(device)).double().cpu().numpy()
            counted = (targets[:, block] != IGNORE).numpy()
            yield at[:, block][counted], nll[counted]


def nlls_in_order(
    model: LanguageModel,
    stream: TokenStream,
    sentences: bool = False,
    batch_size: int = BATCH_SIZE,
    block_size: int = BLOCK_SIZE,
) -> np.ndarray:
    """The negative log-likelihood of each token: (tokens,), nats."""
    nlls = np.empty(len(stream))
    for positions, values in token_nlls(model, stream, sentences, batch_size, block_size):
        nlls[positions] = values
    return nlls


def evaluate(
    model: LanguageModel,
    stream: TokenStream,
    sentences: bool = False,
    batch_size: int = BATCH_SIZE,
    block_size: int = BLOCK_SIZE,
) -> dict[str, float]:
    """The perplexity of a text and its normalisations.

    Returns nll_nats (the text's total), tokens, perplexity (per token), unknown (of the tokens, those that are <unk>),
    known_perplexity (per other token, without the nats of the unknown ones), words, word_perplexity (per white-space
    word and end of line, whatever the tokenizer), bytes, bits_per_byte.
    """
    training = model.training
    model.eval()
    total = of_unknown = 0.0
    unknown = 0
    quiet = True if os.environ.get("RANK", "0") != "0" else None  # None: where nobody watches
    with tqdm(total=len(stream), unit=" tokens", unit_scale=True, disable=quiet, delay=2, leave=False) as bar:
        for positions, nll in token_nlls(model, stream, sentences, batch_size, block_size):
            is_unknown = stream.tokens[positions] == stream.unk_id
            total += float(nll.sum())
            of_unknown += float(nll[is_unknown].sum())
            unknown += int(is_unknown.sum())
            bar.update(len(positions))
    model.train(training)
    return normalised(total, stream, of_unknown, unknown)


def normalised(total: float, stream: TokenStream, of_unknown: float = 0.0, unknown: int = 0) -> dict[str, float]:
    """The normalisations of a total negative log-likelihood in nats, and of its part that unknown tokens have."""
    known = max(1, len(stream) - unknown)  # in a text, each line's end
    return {
        "nll_nats": total,
        "tokens": len(stream),
        "perplexity": exp(total / len(stream)),
        "unknown": unknown,
        "known_perplexity": exp((total - of_unknown) / known),
        "words": stream.words,
        "word_perplexity": exp(total / stream.words),
        "bytes": stream.bytes,
        "bits_per_byte": total / math.log(2) / stream.bytes,
    }


def exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def type_counts(stream: TokenStream) -> np.ndarray:
    """How often each type occurs: (vocabulary,)."""
    pieces = (stream.tokens[at : at + (1 << 24)] for at in range(0, len(stream), 1 << 24))
    return sum(np.bincount(piece, minlength=stream.vocabulary_size) for piece in pieces)


def unigram_perplexity(counts: np.ndarray, stream: TokenStream) -> float:
    """The perplexity of the types' training frequencies alone, one added to each count."""
    log_probs = np.log((counts + 1) / (counts.sum() + len(counts)))
    return exp(-float(type_counts(stream) @ log_probs) / len(stream))
