"""Models made ready for inference compute what they computed in training."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.models import adaptive_softmax
from gcnn.models.inference import PackedConv, PackedLinear, PackedLSTM, prepare_for_inference
from gcnn.models.language_model import build_model

VOCABULARY = 90
BOTTLENECK = [BlockConfig(convs=[[1, 12]]), BlockConfig(convs=[[1, 4], [5, 4], [1, 12]], repeat=2)]
PLAIN = [BlockConfig(convs=[[4, 16]]), BlockConfig(convs=[[2, 8], [3, 24]])]
CONFIGS = {
    "bottleneck": GCNNConfig(
        embedding_dim=8, blocks=BOTTLENECK, cutoffs=[20, 50], dropout=0.5, output_dropout=0.5
    ),
    "plain": GCNNConfig(embedding_dim=8, blocks=PLAIN, cutoffs=[30], gate="tanh"),
    "not normalised": GCNNConfig(embedding_dim=8, blocks=PLAIN, cutoffs=[30], weight_norm=False),
    "full softmax": GCNNConfig(embedding_dim=8, blocks=PLAIN, cutoffs=[], projection_dim=6),
    "tied": GCNNConfig(embedding_dim=8, blocks=PLAIN, cutoffs=[20, 50], tie_embeddings=True),
    "lstm": LSTMConfig(embedding_dim=8, hidden_dim=16, cutoffs=[20, 50]),
    "two layers": LSTMConfig(embedding_dim=8, hidden_dim=16, num_layers=2, cutoffs=[], dropout=0.5),
    "transformer": TransformerConfig(
        embedding_dim=8,
        hidden_dim=12,
        num_layers=2,
        num_heads=3,
        feed_forward_dim=20,
        window=5,
        cutoffs=[20, 50],
        dropout=0.5,
        output_dropout=0.5,
    ),
}
packs = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@packs
@pytest.mark.parametrize("rows", [0, 1, 3, 21, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_is_linear(rows, bias):
    weight = torch.randn(70, 33)
    offset = torch.randn(70) if bias else None
    inputs = torch.randn(rows, 33)
    packed = PackedLinear(weight, offset)
    torch.testing.assert_close(
        packed(inputs), F.linear(inputs, weight, offset), rtol=1e-5, atol=1e-5
    )


@packs
@pytest.mark.parametrize("kernel_size", [1, 2, 5])
def test_packed_convolution_is_convolution(kernel_size):
    conv = nn.Conv1d(9, 14, kernel_size)
    hidden = torch.randn(3, 11, 9)
    expected = conv(hidden.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(PackedConv(conv)(hidden), expected, rtol=1e-5, atol=1e-5)


@packs
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_packed_lstm_is_lstm(layers, batch):
    lstm = nn.LSTM(6, 10, layers)
    inputs = torch.randn(7, batch, 6)
    packed = PackedLSTM(lstm)
    state = torch.randn(2, layers, batch, 10).unbind()
    with torch.no_grad():
        for before in (None, state):
            torch.testing.assert_close(
                packed(inputs, before), lstm(inputs, before), rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_ready_model_gives_the_same_numbers(name, batch):
    model = build_model(CONFIGS[name], VOCABULARY).eval()
    tokens, targets = torch.randint(VOCABULARY, (2, batch, 25))
    hidden, state = model(tokens)
    expected = [hidden, *state, model.nll(hidden, targets), model.log_prob(hidden)]
    flops = model.flops_per_token()
    prepare_for_inference(model)
    with torch.inference_mode():
        hidden, state = model(tokens)
        found = [hidden, *state, model.nll(hidden, targets), model.log_prob(hidden)]
        first, state = model(tokens[:, :9])
        second, _ = model(tokens[:, 9:], state)
    torch.testing.assert_close(
        found, [tensor.detach() for tensor in expected], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(torch.cat([first, second], dim=1), hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.empty_state(batch), [torch.zeros_like(part) for part in state])
    assert model.flops_per_token() == flops


@packs
@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_matrix_is_packed_on_a_cpu(name):
    model = build_model(CONFIGS[name], VOCABULARY)
    prepare_for_inference(model)
    assert not [
        module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.LSTM)
    ]


@pytest.mark.parametrize("name", ["bottleneck", "full softmax"])
def test_few_logits_at_once_change_no_score(name, monkeypatch):
    model = build_model(CONFIGS[name], VOCABULARY).eval()
    hidden = model(torch.randint(VOCABULARY, (2, 40)))[0]
    targets = torch.randint(VOCABULARY, (2, 40))
    targets[0, :5] = -100
    at_once = model.nll(hidden, targets)  # with gradients: all logits together
    monkeypatch.setattr(adaptive_softmax, "LOGITS_AT_ONCE", {"cpu": 100})
    monkeypatch.setattr(adaptive_softmax, "LEAST_ROWS", 1)
    with torch.no_grad():
        torch.testing.assert_close(
            model.nll(hidden, targets), at_once.detach(), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ready_model_can_be_pickled_and_copied(name, dtype):
    model = build_model(CONFIGS[name], VOCABULARY).to(dtype)
    tokens = torch.randint(VOCABULARY, (2, 400))  # enough for winograd
    prepare_for_inference(model)
    with torch.inference_mode():
        expected = model.log_prob(model(tokens)[0])
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert torch.equal(other.log_prob(other(tokens)[0]), expected)
            assert other.flops_per_token() == model.flops_per_token()


def test_an_lstm_is_left_as_it_is_where_that_is_asked_for():
    model = build_model(CONFIGS["lstm"], VOCABULARY)
    prepare_for_inference(model, lstms=False)
    assert isinstance(model.encoder.lstm, nn.LSTM)
