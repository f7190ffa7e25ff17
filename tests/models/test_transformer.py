"""Attention over a sliding window, against a slow reference that looks at one query at a time."""

import math

import pytest
import torch

from gcnn.config.models import TransformerConfig
from gcnn.models.transformer import RMSNorm, Transformer, WindowAttention


def rotation(channels: int, position: int) -> torch.Tensor:
    """The matrix that turns pairs (i, i + channels / 2) by position * 10,000^(-2 i / channels)."""
    half = channels // 2
    matrix = torch.zeros(channels, channels, dtype=torch.float64)
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / channels)
        matrix[i, i] = matrix[i + half, i + half] = math.cos(angle)
        matrix[i + half, i] = math.sin(angle)
        matrix[i, i + half] = -math.sin(angle)
    return matrix


def slow_attention(attention: WindowAttention, hidden: torch.Tensor) -> torch.Tensor:
    """hidden (time, width) -> (time, width): query by query, with the keys of its window."""
    width = hidden.size(-1)
    channels = width // attention.num_heads
    queries, keys, values = attention.inputs(hidden).split(width, dim=-1)
    outputs = torch.zeros_like(hidden)
    for t in range(len(hidden)):
        window = range(max(0, t - attention.window + 1), t + 1)
        for head in range(attention.num_heads):
            part = slice(head * channels, (head + 1) * channels)
            query = rotation(channels, t) @ queries[t, part]
            scores = [
                query @ (rotation(channels, s) @ keys[s, part]) / math.sqrt(channels)
                for s in window
            ]
            weights = torch.stack(scores).softmax(dim=0)
            outputs[t, part] = sum(
                weight * values[s, part] for weight, s in zip(weights, window, strict=True)
            )
    return attention.output(outputs)


@pytest.mark.parametrize("earlier", [0, 4], ids=["no positions before", "positions without tokens"])
@pytest.mark.parametrize("time", [1, 3, 4, 5, 7, 10, 23])
@torch.no_grad()
def test_attention_is_that_of_each_query_to_its_window(time, earlier):
    torch.manual_seed(0)
    attention = WindowAttention(width=8, num_heads=2, window=5).double()
    hidden = torch.randn(2, time, 8, dtype=torch.float64)
    before = torch.zeros(2, earlier, 16).double()
    present = torch.cat([torch.zeros(2, earlier), torch.ones(2, time)], 1)
    found, cache = attention(hidden, before, present)
    for row in range(2):
        torch.testing.assert_close(found[row], slow_attention(attention, hidden[row]))
    keys_and_values = attention.inputs(hidden)[..., 8:]
    padded = torch.cat([torch.zeros(2, 4, 16).double(), keys_and_values], 1)
    torch.testing.assert_close(cache, padded[:, -4:])


@torch.no_grad()
def test_a_row_that_begins_a_text_attends_to_nothing_before_it():
    """As evaluation has it: one row goes on, another begins, by zeros in all of its state."""
    torch.manual_seed(0)
    attention = WindowAttention(width=8, num_heads=2, window=5).double()
    before, hidden = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    _, cache = attention(
        before, torch.zeros(2, 4, 16).double(), torch.cat([torch.zeros(2, 4), torch.ones(2, 6)], 1)
    )
    present = torch.ones(2, 4 + 6)
    cache[1], present[1, :4] = 0, 0
    found, _ = attention(hidden, cache, present)
    whole = slow_attention(attention, torch.cat([before[0], hidden[0]]))
    torch.testing.assert_close(found[0], whole[6:])
    torch.testing.assert_close(found[1], slow_attention(attention, hidden[1]))


@torch.no_grad()
def test_the_embedding_keeps_its_share_of_the_residual_stream():
    """All blocks together add about as much as it brings: untrained, the second moment doubles."""
    torch.manual_seed(0)
    config = TransformerConfig(
        embedding_dim=64, hidden_dim=64, num_layers=8, num_heads=4, feed_forward_dim=160, window=32
    )
    model = Transformer(config, 100)
    blocks = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, outputs: blocks.append((inputs, outputs)))
    model(torch.randint(100, (4, 100)))
    first = blocks[0][0][0].square().mean().item()
    last = blocks[-1][1][0].square().mean().item()
    assert 0.5 < first < 1.5
    assert 1 < last / first < 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.no_grad()
def test_rms_norm_is_computed_in_float32_or_wider(dtype):
    norm = RMSNorm(6)
    norm.weight.copy_(torch.linspace(0.5, 2, 6))
    hidden = torch.randn(2, 3, 6, dtype=torch.float64).to(dtype)
    exact = hidden.double()
    expected = exact / exact.square().mean(dim=-1, keepdim=True).sqrt() * norm.weight.double()
    assert norm(hidden).dtype == dtype
    torch.testing.assert_close(norm(hidden), expected.to(dtype))
