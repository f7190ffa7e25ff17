"""Causal convolutions, gates and weight normalisation against plain definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from gcnn.config.models import BlockConfig
from gcnn.models import layers
from gcnn.models.layers import (
    GatedConv,
    ResidualBlock,
    apply_gate,
    conv_channels_last,
    drop,
    fold_weight_norm,
    linear,
)

GATES = {
    "glu": lambda a, b: a * torch.sigmoid(b),
    "gtu": lambda a, b: torch.tanh(a) * torch.sigmoid(b),
    "bilinear": lambda a, b: a * b,
    "linear": lambda a, b: a,
    "relu": lambda a, b: a.clamp(min=0),
    "tanh": lambda a, b: torch.tanh(a),
    # Shazeer, arXiv 2002.05202
    "swiglu": lambda a, b: a * b / (1 + torch.exp(-b)),
    "geglu": lambda a, b: a * b * (1 + torch.erf(b / math.sqrt(2))) / 2,
    "reglu": lambda a, b: a * b.clamp(min=0),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_all_gates_have_a_formula_here():
    assert GATES.keys() == layers.GATES.keys()


@pytest.mark.parametrize("kind", GATES)
def test_gate_is_its_formula(kind):
    a = torch.randn(2, 3, 4)
    b = torch.randn(2, 3, 4)
    projected = torch.cat([a, b][: layers.GATES[kind].paths], dim=-1)
    torch.testing.assert_close(apply_gate(projected, kind), GATES[kind](a, b))


@pytest.mark.parametrize("kernel_size", [1, 2, 4])
@pytest.mark.parametrize("kind", ["glu", "relu"])
def test_gated_conv_is_the_plain_definition(kernel_size, kind):
    """Loops over time and taps, with the normalised weight g * v / |v| spelled out."""
    conv = GatedConv(5, 3, kernel_size, kind, normalised=True, dropout=0.0)
    gain = conv.conv.parametrizations.weight.original0
    direction = conv.conv.parametrizations.weight.original1
    with torch.no_grad():
        gain.mul_(torch.rand_like(gain) + 0.5)
        conv.conv.bias.normal_()
    # (out, in, kernel_size)
    weight = gain * direction / direction.flatten(1).norm(dim=1)[:, None, None]
    hidden = torch.randn(2, 7, 5)
    padded = torch.cat([torch.zeros(2, kernel_size - 1, 5), hidden], dim=1)
    rows = []
    for t in range(7):
        total = conv.conv.bias.expand(2, -1)
        for tap in range(kernel_size):
            total = total + padded[:, t + tap] @ weight[:, :, tap].T
        rows.append(total)
    expected = torch.stack(rows, dim=1)
    expected = (
        expected[..., :3] * torch.sigmoid(expected[..., 3:])
        if kind == "glu"
        else expected.clamp(min=0)
    )
    found, _ = conv(hidden, None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [2, 4, 7])
def test_a_gpus_convolution_is_conv1d_and_leaves_the_activations_as_they_lie(kernel_size):
    """Its results and gradients, on a CPU; (batch, time, channels) in memory."""
    torch.manual_seed(0)
    shapes = (2, 20, 16), (24, 16, kernel_size), (24,)
    ours = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    found = conv_channels_last(*ours)
    expected = F.conv1d(theirs[0].transpose(1, 2), *theirs[1:]).transpose(1, 2)
    gradient = torch.randn_like(expected)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("channels", "as_they_lie"), [(layers.MOST_CHANNELS, True), (layers.MOST_CHANNELS + 8, False)]
)
def test_in_bf16_few_channels_are_left_as_they_lie(channels, as_they_lie):
    torch.manual_seed(0)
    conv = GatedConv(channels, 8, 3, "glu", normalised=True, dropout=0.0)
    hidden = torch.randn(2, 20, channels)
    expected = F.conv1d(hidden.transpose(1, 2), conv.conv.weight, conv.conv.bias).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv.project(hidden)
    assert found.is_contiguous() == as_they_lie
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.03)


def test_folding_weight_norm_keeps_the_function_and_drops_the_gains():
    block = ResidualBlock(
        6, BlockConfig(convs=[[1, 4], [3, 4], [1, 8]]), "glu", normalised=True, dropout=0.0
    )
    hidden = torch.randn(2, 9, 6)
    before, _ = block(hidden, None)
    fold_weight_norm(block)
    after, _ = block(hidden, None)
    torch.testing.assert_close(after, before)
    assert not [name for name, _ in block.named_parameters() if "original" in name]


def test_residual_block_adds_its_input_and_keeps_the_variance():
    block = ResidualBlock(4, BlockConfig(convs=[[2, 4]]), "glu", normalised=True, dropout=0.0)
    hidden = torch.randn(3, 5, 4)
    inner, _ = block.convs[0](hidden, None)
    torch.testing.assert_close(block(hidden, None)[0], (inner + hidden) / math.sqrt(2))


def test_block_without_residual_is_its_convolutions():
    block = ResidualBlock(
        4, BlockConfig(convs=[[2, 6]], residual=False), "glu", normalised=True, dropout=0.0
    )
    hidden = torch.randn(3, 5, 4)
    torch.testing.assert_close(block(hidden, None)[0], block.convs[0](hidden, None)[0])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("kind", GATES)
def test_initialisation_keeps_the_signal_through_thirteen_blocks(kind, dropout):
    """The second moment of an embedding of variance 0.01, untrained, stays within a factor of 2."""
    for normalised in (True, False):
        blocks = [
            ResidualBlock(256, BlockConfig(convs=[[4, 256]]), kind, normalised, dropout)
            for _ in range(13)
        ]
        embedded = hidden = 0.1 * torch.randn(4, 100, 256)
        with torch.no_grad():
            for block in blocks:
                hidden, _ = block(hidden, None)
        settled = hidden[:, 13 * 3 :]  # whose context is all text
        assert 0.5 < (settled.square().mean() / embedded.square().mean()).item() < 2


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_initialisation_of_glu_is_kaimings_for_a_gate_that_halves(dropout):
    """Unit variance under dropout gives variance 4 in both paths of a GLU, 1 in a linear layer."""
    conv = GatedConv(256, 256, 4, "glu", normalised=True, dropout=dropout)
    hidden = F.dropout(torch.randn(8, 64, 256), dropout)
    assert conv.conv(hidden.transpose(1, 2)).var().item() == pytest.approx(4, rel=0.1)
    assert linear(256, 256, True, dropout)(hidden).var().item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_is_independent_and_keeps_the_mean(probability):
    hidden = torch.randn(1000, 1001, requires_grad=True)  # not a multiple of four
    dropped = drop(hidden, probability, training=True)
    kept = dropped != 0
    torch.testing.assert_close(dropped, kept * hidden / (1 - probability), rtol=1e-4, atol=0)
    dropped.sum().backward()
    torch.testing.assert_close(hidden.grad, kept / (1 - probability), rtol=1e-4, atol=0)
    flat = kept.flatten().double() - (1 - probability)
    for lag in (0, 1, 2, 3, 4, 1001):  # the mean, and neighbours that share a random word
        found = (flat if lag == 0 else flat[lag:] * flat[:-lag]).mean()
        assert abs(found) < 5 * 0.5 / 1000, lag  # five standard errors at most


def test_no_dropout_out_of_training_or_at_zero():
    hidden = torch.randn(3, 5)
    assert drop(hidden, 0.5, training=False).equal(hidden)
    assert drop(hidden, 0.0, training=True).equal(hidden)
    assert drop(hidden, 0.9999999, training=True).isfinite().all()


def test_a_rate_below_what_16_bits_can_say_drops_hardly_anything():
    hidden = torch.rand(1000, 1000) + 1
    for probability in (1e-9, 1e-6, 5e-6):
        dropped = drop(hidden, probability, training=True)
        kept = dropped != 0
        assert 1 - kept.double().mean() <= 3 * probability + 3e-6  # of a million elements
        torch.testing.assert_close(dropped, kept * hidden / (1 - probability))


@pytest.mark.parametrize("probability", [0.1, 0.3])
def test_dropout_in_bf16_keeps_the_mean(probability):
    """A scale of 8 bits would be off by as much as 0.4 %, in every element alike."""
    hidden = (torch.rand(1000, 1000) + 1).bfloat16()
    dropped = drop(hidden, probability, training=True)
    assert dropped.dtype == torch.bfloat16
    kept = dropped != 0
    scale = dropped[kept].double().mean() / hidden[kept].double().mean()
    assert scale.item() == pytest.approx(1 / (1 - probability), rel=2e-4)
