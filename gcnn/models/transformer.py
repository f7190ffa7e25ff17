"""A Transformer decoder of today, to compare with: attention over a window, gated layers.

Not in the paper. Pre-norm residual blocks (RMSNorm), rotary relative positions (Su et al., arXiv
2104.09864), and a feed-forward layer whose gate is one of the project's own (Shazeer, arXiv
2002.05202). The window makes the context finite, as a GCNN's is.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn.base.gates import GATES
from gcnn.config.models import TransformerConfig
from gcnn.models.layers import apply_gate, drop, last, linear, weight_count

EMBEDDING_STD = 0.1  # of the fresh embedding
ROTARY_BASE = 10_000.0  # wavelengths of the rotations reach 2 pi times it (arXiv 2104.09864)
# Of the last window - 1 positions: which hold a token, (batch, window - 1), and each layer's keys
# and values, (batch, window - 1, 2 * hidden_dim)
State = list[Tensor]


class Transformer(nn.Module):
    """Tokens to hidden states with a finite context, `receptive_field` tokens."""

    def __init__(self, config: TransformerConfig, vocabulary_size: int):
        """Initialises the weights from torch's random state.

        The config's dropout is on the embeddings and on what each block adds, not on the hidden
        states that are returned.
        """
        super().__init__()
        self.receptive_field = config.receptive_field
        self.dropout = config.dropout
        self.context = config.window - 1
        self.hidden_dim = config.hidden_dim
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.input_projection = linear(
            config.embedding_dim, config.hidden_dim, False, config.dropout
        )
        # The residual stream begins with unit variance, beside which what a block adds is small.
        # (A small embedding, because Adam turns small vectors faster than large ones.)
        with torch.no_grad():
            self.input_projection.weight.div_(EMBEDDING_STD)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_dim)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) -> hidden (batch, time, hidden_dim), and the state after them.

        state: laid out as in `empty_state`; None: the empty state, without earlier tokens. The one
        returned is not detached. There must be at least one token.
        """
        if state is None:
            # With nothing before a short block, its attention takes a third less time. A long one
            # gets zeros before it: attention is cut into chunks only after a whole context.
            context = self.context if tokens.size(1) > 2 * self.context else 0
            state = self.empty_state(len(tokens), context)
        present, *caches = state
        embedded = drop(self.embedding(tokens), self.dropout, self.training)
        hidden = self.input_projection(embedded)  # (batch, time, hidden_dim)
        # (batch, context + time)
        present = torch.cat([present, present.new_ones(tokens.shape)], dim=1)
        new_state = [last(present, self.context)]
        for block, cache in zip(self.blocks, caches, strict=True):
            hidden, cache = block(hidden, cache, present)
            new_state.append(cache)
        return self.norm(hidden), new_state

    def empty_state(self, batch_size: int, context: int | None = None) -> State:
        """The state before a text: zeros, which mean that no earlier position holds a token.

        A list of: 1 where one of the last `context` positions holds a token, else 0, (batch,
        context); then for each block, their keys and values, (batch, context, 2 * hidden_dim).
        context: window - 1, or 0 for no earlier positions at all; None: window - 1.
        """
        if context is None:
            context = self.context
        weight = self.embedding.weight
        keys_and_values = (batch_size, context, 2 * self.hidden_dim)
        caches = [weight.new_zeros(keys_and_values) for _ in self.blocks]
        return [weight.new_zeros(batch_size, context), *caches]

    def macs(self) -> int:
        """Multiply-accumulate operations per token, without the softmax.

        Each token is counted as attending to `window` tokens; the first of a text see fewer.
        """
        window = self.context + 1
        return weight_count(self) + len(self.blocks) * 2 * window * self.hidden_dim

    def recurrent_macs(self) -> int:
        """Multiply-accumulate operations per token that must wait for the token before: none."""
        return 0


class Block(nn.Module):
    """A pre-norm residual block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: TransformerConfig):
        """Initialises the weights from torch's random state.

        Those of `attention.output` and `contract`, the last layers of the two branches, are divided
        by sqrt(2 * number of blocks).
        """
        super().__init__()
        width = config.hidden_dim
        inner = config.feed_forward_dim
        self.dropout = config.dropout
        self.gate = config.gate
        self.attention_norm = RMSNorm(width)
        self.attention = WindowAttention(width, config.num_heads, config.window)
        self.feed_forward_norm = RMSNorm(width)
        self.expand = linear(width, inner * GATES[config.gate].paths, False, 0.0)
        with torch.no_grad():
            self.expand.weight.mul_(math.sqrt(GATES[config.gate].gain))
            self.expand.bias[inner:].fill_(GATES[config.gate].gate_bias)
        self.contract = linear(inner, width, False, 0.0)
        # All blocks together then add about the variance of one block's output
        with torch.no_grad():
            for layer in (self.attention.output, self.contract):
                layer.weight.div_(math.sqrt(2 * config.num_layers))

    def forward(self, hidden: Tensor, cache: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (batch, time, hidden_dim) -> the same shape, and the cache after it.

        cache, present: as in WindowAttention.forward.
        """
        attended, cache = self.attention(self.attention_norm(hidden), cache, present)
        hidden = hidden + drop(attended, self.dropout, self.training)
        expanded = apply_gate(self.expand(self.feed_forward_norm(hidden)), self.gate)
        hidden = hidden + drop(self.contract(expanded), self.dropout, self.training)
        return hidden, cache


class RMSNorm(nn.RMSNorm):
    """torch's, computed in float32 or wider, and returned in the type of its input."""

    def forward(self, hidden: Tensor) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weight = self.weight.to(wide)
        return F.rms_norm(hidden.to(wide), self.normalized_shape, weight).to(hidden.dtype)


class WindowAttention(nn.Module):
    """Causal self-attention of each token to itself and the `window - 1` tokens before it."""

    def __init__(self, width: int, num_heads: int, window: int):
        """width: channels of inputs and outputs, a multiple of 2 * num_heads."""
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.inputs = linear(width, 3 * width, False, 0.0)  # queries, keys and values
        self.output = linear(width, width, False, 0.0)

    def forward(self, hidden: Tensor, cache: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (batch, time, width) -> (batch, time, width), and the cache after it.

        cache: keys, not rotated, then values of the positions before, of which there are window - 1
        or, before the start of a text, none: (batch, earlier, 2 * width). The one returned is of
        the last window - 1 positions.
        present: 1 where those positions and these hold a token, 0 before the start of a text:
        (batch, earlier + time).
        """
        context = self.window - 1
        earlier = cache.size(1)
        time = hidden.size(1)
        queries, keys_and_values = self.inputs(hidden).tensor_split([hidden.size(-1)], dim=-1)
        keys_and_values = torch.cat([cache.to(keys_and_values.dtype), keys_and_values], dim=1)
        cache = last(keys_and_values, context)

        # (1) Heads, and their positions: (batch, positions, heads, channels)
        heads = (self.num_heads, -1)
        keys, values = keys_and_values.chunk(2, dim=-1)
        positions = torch.arange(earlier + time, device=hidden.device)
        queries = rotated(queries.unflatten(-1, heads), positions[earlier:])
        keys = rotated(keys.unflatten(-1, heads), positions)
        values = values.unflatten(-1, heads)

        # (2) Chunks of queries, each with the span of keys that any of them may see: the cost grows
        # with time * window. All are one chunk where there are no earlier positions.
        chunks = 1 if earlier < context else -(-time // self.window)  # rounded up
        chunk = -(-time // chunks)  # queries in each, rounded up
        span = earlier + chunk  # keys in each
        queries = spans(queries, chunk, chunk)
        keys = spans(keys, span, chunk)
        values = spans(values, span, chunk)
        # (batch * spans, span), cut as if it were one head with one channel
        is_token = spans(present[..., None, None], span, chunk).flatten(1) > 0
        sees = visible_keys(is_token, earlier, context)

        # (3) Attention, and the output without the padding
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=sees[:, None])
        # (batch, chunks * chunk, width)
        attended = attended.transpose(1, 2).reshape(len(hidden), -1, hidden.size(-1))
        return self.output(attended[:, :time]), cache


def spans(sequence: Tensor, length: int, step: int) -> Tensor:
    """The spans of `length` positions that begin `step` apart, the last one padded with zeros.

    sequence: (batch, positions, heads, channels), with `length` positions or more. Returns (batch *
    spans, heads, length, channels), as torch's fused kernels of attention want it.
    """
    padding = (length - sequence.size(1)) % step
    padded = F.pad(sequence, (0, 0, 0, 0, 0, padding))
    # (batch, spans, heads, channels, length)
    return padded.unfold(1, length, step).mT.flatten(0, 1)


def visible_keys(is_token: Tensor, earlier: int, context: int) -> Tensor:
    """Which keys of its span each query sees: (spans, queries, earlier + queries), bool.

    They are its own, token or not, and those of tokens up to `context` positions before it.
    is_token: whether each position of a span holds a token, (spans, earlier + queries), bool. The
    queries are at the positions from `earlier` on.
    """
    positions = torch.arange(is_token.size(1), device=is_token.device)
    distance = positions[earlier:, None] - positions  # (queries, earlier + queries)
    sees = (distance >= 0) & (distance <= context) & is_token[:, None, :]
    # A query in the padding sees itself, so that nothing is divided by 0
    return sees | (distance == 0)


def rotated(vectors: Tensor, positions: Tensor) -> Tensor:
    """Vectors (batch, time, heads, channels) rotated by their positions (time,), as in rotary
    embeddings.

    Channels i and i + channels / 2 are a pair, rotated by position * ROTARY_BASE^(-2 i / channels)
    radians; the number of channels is even. The product of a query and a key then depends only on
    the difference of their positions.
    """
    half = vectors.size(-1) // 2
    rates = ROTARY_BASE ** -(torch.arange(half, device=vectors.device, dtype=torch.float64) / half)
    angles = positions[:, None, None] * rates  # (time, 1, channels / 2), the same in all heads
    cosines = angles.cos().to(vectors.dtype)
    sines = angles.sin().to(vectors.dtype)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, first * sines + second * cosines], dim=-1)
