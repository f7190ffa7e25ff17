"""Winograd's convolution computes what torch's does, and is taken where it pays."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode

from gcnn.models import inference, layers, winograd
from gcnn.models.inference import PackedConv
from gcnn.models.layers import GatedConv

KERNEL_SIZES = range(2, winograd.LONGEST_KERNEL + 1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def torch_conv(hidden, weight, bias):
    return F.conv1d(hidden.transpose(1, 2), weight, bias).transpose(1, 2)


def drawn(kernel_size, time, dtype=torch.float64, channels=(24, 40)):
    weight = (
        torch.randn(channels[1], channels[0], kernel_size, dtype=dtype)
        / (kernel_size * channels[0]) ** 0.5
    )
    hidden = torch.randn(3, kernel_size - 1 + time, channels[0], dtype=dtype)
    return [
        part.requires_grad_() for part in (hidden, weight, torch.randn(channels[1], dtype=dtype))
    ]


@pytest.mark.parametrize("kernel_size", KERNEL_SIZES)
@pytest.mark.parametrize("time", [1, 2, 3, 7, 30])
def test_values_and_gradients_are_those_of_torch(kernel_size, time):
    arguments = drawn(kernel_size, time)
    upstream = torch.randn(3, time, 40, dtype=torch.float64)
    found = winograd.conv(*arguments)
    expected = torch_conv(*arguments)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(outputs, arguments, upstream) for outputs in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kernel_size", KERNEL_SIZES)
def test_float32_rounds_as_adding_up_one_product_after_the_other(kernel_size):
    """Compared with sums in turn: torch's own rounding differs by a factor of 4 among processors.

    Seen: 1.7 to 2.02 times the error of sums in turn, 5e-7 to 6.5e-7 of the outputs' deviation.
    """
    arguments = [part.detach() for part in drawn(kernel_size, 60, channels=(256, 64))]
    exact = torch_conv(*arguments)
    hidden, weight, bias = [part.float() for part in arguments]
    # (batch, time, out, in, kernel_size)
    products = hidden.unfold(1, kernel_size, 1).unsqueeze(2) * weight
    in_turn = (
        np.cumsum(products.flatten(-2).numpy(), axis=-1, dtype=np.float32)[..., -1] + bias.numpy()
    )
    off = (winograd.conv(hidden, weight, bias) - exact).abs().mean()
    assert off < 2.5 * (torch.from_numpy(in_turn) - exact).abs().mean()
    assert off < 8e-7 * exact.std()


def test_what_comes_later_reaches_an_output_as_rounding_at_most():
    hidden, weight, bias = drawn(4, 30)
    before = winograd.conv(hidden, weight, bias)
    for first in (
        18,
        19,
        20,
    ):  # the first, second and third of the outputs that are computed together
        changed = hidden.detach().clone()
        changed[:, 3 + first :] = 1000.0
        after = winograd.conv(changed, weight, bias)
        torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-11)
        assert (after[:, first] - before[:, first]).abs().min() > 1e-3


def test_nothing_is_left_of_how_it_was_called_before():
    """Constants made without gradients, or by the compiler, would not do for training."""
    arguments = drawn(6, 30)
    expected = torch_conv(*arguments)
    with torch.inference_mode():
        winograd.conv(*arguments)
    with FakeTensorMode() as mode:
        winograd.conv(*map(mode.from_tensor, arguments))
    whole = torch.compile(winograd.conv, backend="eager", fullgraph=True)
    for conv in (whole, winograd.conv):
        torch.testing.assert_close(conv(*arguments), expected)
        conv(*arguments).sum().backward()


def counted(monkeypatch):
    calls = []
    original = winograd.between_transforms
    monkeypatch.setattr(winograd, "between_transforms", lambda *a: calls.append(1) or original(*a))
    return calls


def test_layers_take_it_where_it_pays(monkeypatch):
    calls = counted(monkeypatch)
    conv = GatedConv(8, 6, 4, "glu", normalised=True, dropout=0.0)
    for rows, expected in ((layers.LEAST_TOKENS, 1), (layers.LEAST_TOKENS // 2, 1)):
        hidden = torch.randn(1, rows - conv.context, 8)
        projected, _ = conv(hidden, None)
        padded = F.pad(hidden, (0, 0, conv.context, 0))
        torch.testing.assert_close(
            projected, F.glu(torch_conv(padded, conv.conv.weight, conv.conv.bias), -1)
        )
        assert len(calls) == expected


def test_bf16_and_long_kernels_are_left_to_torch(monkeypatch):
    calls = counted(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        GatedConv(8, 6, 4, "glu", normalised=False, dropout=0.0)(torch.randn(4, 600, 8), None)
    GatedConv(8, 6, winograd.LONGEST_KERNEL + 1, "glu", normalised=False, dropout=0.0)(
        torch.randn(4, 600, 8), None
    )
    assert not calls


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
@pytest.mark.parametrize("kernel_size", KERNEL_SIZES)
def test_packed_convolutions_take_it_where_it_pays(kernel_size, monkeypatch):
    calls = counted(monkeypatch)
    conv = nn.Conv1d(64, 96, kernel_size)
    packed = PackedConv(conv)
    hidden = torch.randn(5, kernel_size - 1 + 40, 64)
    expected = torch_conv(hidden, conv.weight, conv.bias)
    monkeypatch.setattr(inference, "LEAST_MULTIPLICATIONS", 200 * 64 * 96)
    torch.testing.assert_close(packed(hidden), expected, rtol=1e-5, atol=1e-5)
    assert len(calls) == 1
    torch.testing.assert_close(packed(hidden[:1]), expected[:1], rtol=1e-5, atol=1e-5)
    assert len(calls) == 1
