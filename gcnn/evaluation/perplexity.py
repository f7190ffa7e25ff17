"""Exact perplexity: as the state is carried from block to block, it does not depend on their size.

Every text, a sentence alone and running text alike, begins with the model's `start_state`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from gcnn.base.numbers import exp
from gcnn.data.batches import IGNORE, RunningText, Sentences, to_device
from gcnn.data.stream import TokenStream
from gcnn.models.language_model import LanguageModel, State

# These decide memory and speed, never the result.
BATCH_SIZE, BLOCK_SIZE = 8, 1000  # sequences, tokens a sequence
POSITIONS = 2048  # tokens of a sequence that are read at once


@torch.no_grad()
def token_nlls(
    model: LanguageModel,
    stream: TokenStream,
    sentences: bool = False,
    batch_size: int = BATCH_SIZE,
    block_size: int = BLOCK_SIZE,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the tokens of a text in pieces: positions in `stream` (n,) and their negative
    log-likelihoods in nats (n,), float64. Every token comes once, in no particular order.

    sentences: score each line alone; otherwise all as running text.
    batch_size, block_size: of running text, the most sequences that a process reads at once, and
    tokens of each; of sentences, their product is the most positions at once, padding included, or
    one longer line. But for rounding, the result does not depend on them. A model without a
    receptive field (the LSTM) reads running text as one sequence.
    rank, world_size: this process among those that share the text; each yields its own part. Rank 0
    reads running text alone if it has fewer than `receptive_field - 1` tokens for each process, or
    if the model has no receptive field.
    The model must be in evaluation mode; no gradients are kept.
    """
    if sentences:
        batches = Sentences(stream.tokens, stream.eos_id, batch_size, block_size)
        yield from sentence_nlls(model, batches, rank, world_size)
        return
    rows = rows_of_process(model.receptive_field, len(stream), batch_size, world_size)
    if rows > 0:
        batches = RunningText(
            stream.tokens, stream.eos_id, rows * world_size, block_size, None, rank, world_size
        )
        yield from running_text_nlls(model, batches)
    elif rank == 0:
        batches = RunningText(stream.tokens, stream.eos_id, 1, block_size)
        yield from running_text_nlls(model, batches)


def rows_of_process(
    receptive_field: int | None, tokens: int, batch_size: int, world_size: int
) -> int:
    """Into how many rows, at most batch_size, running text is cut for each process; 0: it must stay
    whole.

    Each row starts with the state after the text before it, which the receptive_field - 1 tokens
    before the row give exactly. So at least that many must stand before every row but the first.
    A model without a receptive field needs the whole text before.
    """
    if receptive_field is None:
        return 0
    context = receptive_field - 1
    return min(batch_size, tokens // max(1, context * world_size))


def running_text_nlls(
    model: LanguageModel, batches: RunningText
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `token_nlls`, for running text in rows: yields positions in the text and nats.

    batches: this process's rows, as many as `rows_of_process` says, or the whole text as one row;
    `shift` must be 0. The model must be in evaluation mode; the caller switches gradients off.
    """
    device = next(model.parameters()).device
    state = state_before_rows(model, batches)
    for i in range(len(batches)):
        tokens, targets = batches[i]
        hidden, state = model(to_device(tokens, device), state)
        nll = model.nll(hidden, targets).double().cpu().numpy()
        positions, counted = batches.target_positions(i)
        yield positions[counted], nll[counted]


def state_before_rows(model: LanguageModel, batches: RunningText) -> State | None:
    """The state before each row's first token; None: zeros.

    Arguments and conditions are those of `running_text_nlls`. Do not write to the result: it may be
    the model's own start state.
    """
    start = model.start_state(len(batches.row_starts))
    starts_text = not batches.row_starts.any()  # its one row, as always without a receptive field
    if starts_text or model.receptive_field == 1:
        return start

    # Other rows begin with the context that they have in the text
    device = next(model.parameters()).device
    overlap = batches.before_rows(model.receptive_field - 1)  # (batch, context)
    _, state = model(overlap.to(device))
    if batches.row_starts[0] == 0:  # this row alone begins with the text
        for i, part in enumerate(state):
            part[0] = 0 if start is None else start[i][0]
    return state


def read_blocks(
    model: LanguageModel, tokens: Tensor, state: State | None = None
) -> Iterator[tuple[Tensor, State]]:
    """Read texts in blocks of POSITIONS tokens, so that memory stays bounded. Yields each block's
    hidden states, (batch, at most POSITIONS, channels), and the state after it.

    tokens: (batch, time), on any device. At the start of a text they begin with <eos>.
    state: the one before them; None: they start a text, with the model's `start_state`.
    The model must be in evaluation mode; the caller switches gradients off.
    """
    device = next(model.parameters()).device
    if state is None:
        state = model.start_state(len(tokens))
    for block in tokens.split(POSITIONS, dim=1):
        hidden, state = model(to_device(block, device), state)
        yield hidden, state


def read_to_the_end(model: LanguageModel, tokens: Tensor) -> tuple[Tensor, State]:
    """The last hidden state of each text, (batch, channels), and the state after them.

    tokens: (batch, time), whole texts from the start, <eos> first. Otherwise as `read_blocks`.
    """
    for hidden, state in read_blocks(model, tokens):
        last = hidden[:, -1], state
    return last


class Context(NamedTuple):
    """A text that has been read up to its last token."""

    last: int  # the last token, not yet read
    state: State  # before it, for a batch of one


def read_context(model: LanguageModel, tokens: list[int], eos_id: int) -> Context | None:
    """Read a text as the context of others; None if it has no tokens.

    tokens: its ids, without the <eos> before its first word. The model must be in evaluation mode;
    the caller switches gradients off.
    """
    if not tokens:
        return None
    _, state = read_to_the_end(model, torch.tensor([[eos_id, *tokens[:-1]]]))
    return Context(tokens[-1], state)


def sentence_nlls(
    model: LanguageModel,
    batches: Sentences,
    rank: int = 0,
    world_size: int = 1,
    context: Context | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `token_nlls`, for lines that are scored alone: yields positions in `batches.tokens` and
    nats.

    batches: the lines of the whole text; each process reads every `world_size`-th batch.
    context: the text that each line continues, so that no <eos> is before its first word; None:
    each line is the start of a text.
    The model must be in evaluation mode; the caller switches gradients off.
    """
    starts = batches.ends - batches.lengths
    for i in range(rank, len(batches), world_size):
        tokens, targets = batches[i]
        lines = batches.rows(i)
        positions = starts[lines, None] + np.arange(tokens.size(1))  # (batch, time)
        state = None
        if context is not None:
            tokens[:, 0] = context.last  # in the place of <eos>
            state = [part.expand(len(tokens), *part.shape[1:]) for part in context.state]
        first = 0
        for hidden, _ in read_blocks(model, tokens, state):
            block = slice(first, first + hidden.size(1))
            nll = model.nll(hidden, targets[:, block]).double().cpu().numpy()
            counted = (targets[:, block] != IGNORE).numpy()
            yield positions[:, block][counted], nll[counted]
            first = block.stop


def nlls_in_order(
    model: LanguageModel,
    stream: TokenStream,
    sentences: bool = False,
    batch_size: int = BATCH_SIZE,
    block_size: int = BLOCK_SIZE,
) -> np.ndarray:
    """The negative log-likelihood of each token of a text, in its order: (tokens,), nats, float64.

    Arguments are as in `token_nlls`; the model must be in evaluation mode.
    """
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
    shared: bool = False,
) -> dict[str, float | None]:
    """The perplexity of a text and other measures: the dictionary that `normalised` returns.

    sentences, batch_size, block_size: as in `token_nlls`.
    shared: each of torch.distributed's processes reads a part; all must call it, and all get the
    result. Otherwise this process reads the whole text.
    The model is put in evaluation mode and afterwards back in its own. Rank 0 shows a progress bar
    on a terminal after two seconds.
    """
    training = model.training
    model.eval()
    sums = np.zeros(3)  # nats, those of unknown tokens, unknown tokens
    rank = 0
    world_size = 1
    if shared:
        rank = dist.get_rank()
        world_size = dist.get_world_size()
    shows_bar = not dist.is_initialized() or dist.get_rank() == 0
    bar = tqdm(
        total=len(stream) // world_size,
        unit=" tokens",
        unit_scale=True,
        disable=None if shows_bar else True,  # None: only on a terminal
        delay=2,
        leave=False,
    )
    pieces = token_nlls(model, stream, sentences, batch_size, block_size, rank, world_size)
    with bar:
        for positions, nll in pieces:
            is_unknown = stream.tokens[positions] == stream.unk_id
            sums += (nll.sum(), nll[is_unknown].sum(), is_unknown.sum())
            bar.update(len(positions))
    if shared:
        dist.all_reduce(torch.from_numpy(sums))  # in place: the tensor has the memory of `sums`
    model.train(training)
    total, unknown_nats, unknown = sums.tolist()
    return normalised(total, stream, unknown_nats, int(unknown))


def normalised(
    total: float, stream: TokenStream, unknown_nats: float = 0.0, unknown: int = 0
) -> dict[str, float | None]:
    """The measures of a text, from its total negative log-likelihood in nats.

    unknown: how many tokens are <unk>. unknown_nats: their part of the total. Returns a dictionary:
    - nll_nats, tokens, perplexity: the total, the number of tokens, and the perplexity per token;
    - unknown: the number of tokens that are <unk>;
    - out_of_vocabulary: how many of these are written as another word in the text (WikiText itself
      has the word <unk>);
    - known_perplexity: per token that is not <unk>, without the nats of those that are;
    - words, word_perplexity: per white-space word and end of line, whatever the tokenizer;
    - bytes, bits_per_byte: per byte of UTF-8, with one for each end of line (see TokenStream).

    Perplexities are infinity if they are too large for a float, and nan if the nats are.
    word_perplexity and bits_per_byte compare models with different tokenizers. They are None if a
    word is out of vocabulary: the more words a model does not know, the better they would be.
    """
    known = max(1, len(stream) - unknown)  # 0 only if one type is both eos and unk
    out_of_vocabulary = unknown - stream.written_unknown
    all_is_spelled = out_of_vocabulary == 0
    return {
        "nll_nats": total,
        "tokens": len(stream),
        "perplexity": exp(total / len(stream)),
        "unknown": unknown,
        "out_of_vocabulary": out_of_vocabulary,
        "known_perplexity": exp((total - unknown_nats) / known),
        "words": stream.words,
        "word_perplexity": exp(total / stream.words) if all_is_spelled else None,
        "bytes": stream.bytes,
        "bits_per_byte": total / math.log(2) / stream.bytes if all_is_spelled else None,
    }


def type_counts(stream: TokenStream) -> np.ndarray:
    """How often each type occurs in a text: (vocabulary,), whole numbers."""
    counts = 0
    for first in range(0, len(stream), 1 << 24):  # in pieces, to bound the memory
        piece = stream.tokens[first : first + (1 << 24)]
        counts = counts + np.bincount(piece, minlength=stream.vocabulary_size)
    return counts


def unigram_perplexity(counts: np.ndarray, stream: TokenStream) -> float:
    """The perplexity of a text per token under a unigram model with add-one smoothing.

    counts: how often each type occurs in the training text, (vocabulary,).
    """
    log_probs = np.log((counts + 1) / (counts.sum() + len(counts)))
    return exp(-float(type_counts(stream) @ log_probs) / len(stream))
