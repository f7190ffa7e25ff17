"""Products padded to multiples of 8: the same results, and the sizes that tensor cores take."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gcnn.config.models import BlockConfig, GCNNConfig, TransformerConfig
from gcnn.models import half_precision, layers
from gcnn.models.language_model import build_model

BLOCKS = [BlockConfig([[4, 33]]), BlockConfig([[1, 9], [3, 10], [1, 35]]), BlockConfig([[1, 35]])]
MODELS = {
    "adaptive": GCNNConfig(
        embedding_dim=13, blocks=BLOCKS, cutoffs=[11, 21], dropout=0.0, weight_norm=True
    ),
    "tied": GCNNConfig(
        embedding_dim=13, blocks=BLOCKS, cutoffs=[11, 21], dropout=0.0, tie_embeddings=True
    ),
    "full": GCNNConfig(embedding_dim=13, blocks=BLOCKS, cutoffs=[], dropout=0.0, projection_dim=9),
    "transformer": TransformerConfig(
        embedding_dim=13, hidden_dim=12, num_layers=1, num_heads=2, feed_forward_dim=19, window=4,
        cutoffs=[11],
    ),
}  # fmt: skip


@pytest.fixture
def forced(monkeypatch):
    """Has products padded here too."""
    for module in (half_precision, layers):
        monkeypatch.setattr(module, "on_tensor_cores", lambda hidden: True)


def loss_and_gradients(model, tokens, state):
    hidden, after = model(tokens, state)
    nll = model.nll(hidden, tokens)
    nll.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return [hidden, nll, *after, *gradients]


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_padding_changes_no_result_and_no_gradient(kind, carried, request):
    torch.manual_seed(1)
    model = build_model(MODELS[kind], 43).double()
    tokens = torch.randint(43, (2, 7))
    state = [part.detach() for part in model(tokens)[1]] if carried else None
    plain = loss_and_gradients(model, tokens, state)
    request.getfixturevalue("forced")
    for expected, padded in zip(plain, loss_and_gradients(model, tokens, state), strict=True):
        torch.testing.assert_close(padded, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["adaptive", "tied", "full"])
def test_every_product_gets_multiples_of_eight(kind, forced, monkeypatch):
    seen = []

    def recorded(product):
        def call(hidden, weight, *rest):
            channels = hidden.size(1) if weight.dim() == 4 else hidden.size(-1)
            seen.append((channels, *weight.shape[:2]))
            return product(hidden, weight, *rest)

        return call

    monkeypatch.setattr(F, "linear", recorded(F.linear))
    monkeypatch.setattr(F, "conv2d", recorded(F.conv2d))
    model = build_model(MODELS[kind], 43)
    tokens = torch.randint(43, (2, 7))
    hidden, _ = model(tokens)
    model.nll(hidden, tokens)
    assert len(seen) >= 7
    assert {size % 8 for sizes in seen for size in sizes} == {0}


def test_half_precision_on_a_gpu_alone_is_padded():
    def hidden(device, dtype):
        return SimpleNamespace(device=torch.device(device), dtype=dtype)

    assert half_precision.on_tensor_cores(hidden("cuda", torch.bfloat16))
    assert half_precision.on_tensor_cores(hidden("cuda", torch.float16))
    assert not half_precision.on_tensor_cores(hidden("cuda", torch.float32))
    assert not half_precision.on_tensor_cores(hidden("cpu", torch.bfloat16))
    assert not half_precision.on_tensor_cores(hidden("meta", torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert half_precision.compute_dtype(torch.zeros(1)) == torch.bfloat16


def test_a_float32_convolution_on_a_gpu_is_not_forced_channels_last():
    def suits(device, dtype, channels=4):
        hidden = SimpleNamespace(
            device=torch.device(device), dtype=dtype, size=lambda dimension: channels
        )
        return layers.suits_channels_last(hidden)

    assert not suits("cuda", torch.float32)
    assert suits("cpu", torch.bfloat16)
    assert not suits("cpu", torch.bfloat16, channels=layers.MOST_CHANNELS + 1)


def test_the_cast_to_half_precision_comes_before_the_zeros():
    """And a sum of bf16 products is padded exactly: zeros add nothing."""
    hidden = torch.randn(3, 5, 13)
    weight = torch.randn(9, 13)
    bias = torch.randn(9)
    with torch.autocast("cpu", torch.bfloat16):
        padded = half_precision.pad_to_multiples(hidden, weight, bias)
        expected = F.linear(hidden, weight, bias)
    assert [part.dtype for part in padded] == [torch.bfloat16] * 3
    assert [tuple(part.shape) for part in padded] == [(3, 5, 16), (16, 16), (16,)]
    torch.testing.assert_close(F.linear(*padded)[..., :9], expected, rtol=0.02, atol=0.02)
