"""The LSTM computed in a type of its own, with float32 weights."""

import pytest
import torch
from torch import nn

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig
from gcnn.models.language_model import build_model
from gcnn.models.lstm import lstm_in
from gcnn.training.run import recurrent_kernel


@pytest.fixture
def lstm():
    torch.manual_seed(1)
    return nn.LSTM(8, 16, num_layers=2)


def computed(call, lstm, inputs, before):
    """Outputs, state and gradients."""
    inputs = inputs.clone().requires_grad_()
    hidden, (h, c) = call(inputs, before)
    (hidden.sum() + c.sum()).backward()
    gradients = [inputs.grad, *(p.grad.clone() for p in lstm.parameters())]
    lstm.zero_grad()
    return [hidden, h, c], gradients


@pytest.mark.parametrize("carried", [False, True])
def test_in_its_own_type_it_is_torchs_lstm(lstm, carried):
    inputs = torch.randn(5, 3, 8)
    before = (torch.randn(2, 3, 16), torch.randn(2, 3, 16)) if carried else None
    expected = computed(lstm, lstm, inputs, before)
    found = computed(lambda *given: lstm_in(torch.float32, lstm, *given), lstm, inputs, before)
    for ours, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bf16_is_what_it_says_and_gradients_are_the_weights_own_type(lstm):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor trains no LSTM in bf16")
    inputs = torch.randn(5, 3, 8)
    expected = computed(lstm, lstm, inputs, None)
    outputs, gradients = computed(
        lambda *given: lstm_in(torch.bfloat16, lstm, *given), lstm, inputs, None
    )
    assert {part.dtype for part in outputs} == {torch.bfloat16}
    assert {part.dtype for part in gradients} == {torch.float32}
    for ours, theirs in zip(outputs + gradients, [*expected[0], *expected[1]], strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)


def test_what_an_lstm_ran_by_is_said(monkeypatch):
    config = LSTMConfig(embedding_dim=4, hidden_dim=8, cutoffs=[10])
    model = build_model(config, 20)
    assert recurrent_kernel(model, torch.device("cpu"), "bf16") == "oneDNN's LSTM"
    asked = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, device, dtype: empty(size, dtype=dtype))
    monkeypatch.setattr(
        torch,
        "cudnn_is_acceptable",  # of an empty tensor it says no
        lambda t: asked.append(t.dtype) or (t.numel() > 0 and len(asked) == 1),
    )
    gpu = torch.device("cuda")
    assert recurrent_kernel(model, gpu, "float32") == "cuDNN's LSTM"
    assert recurrent_kernel(model, gpu, "bf16") == "torch's own LSTM"
    assert asked == [torch.float32, torch.bfloat16]
    gcnn = GCNNConfig(embedding_dim=4, blocks=[BlockConfig([[2, 4]])], cutoffs=[10])
    assert recurrent_kernel(build_model(gcnn, 20), gpu, "bf16") is None
