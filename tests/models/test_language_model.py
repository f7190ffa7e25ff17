"""Laws of the whole network: causality, receptive field, carried state, counts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from gcnn.config.compose import compose_config
from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.config.schema import SCHEMAS
from gcnn.models.language_model import ENCODERS, build_model

VOCABULARY = 50
BOTTLENECK = [
    BlockConfig(convs=[[3, 8]]),
    BlockConfig(convs=[[1, 4], [4, 4], [1, 12]], repeat=2),
    BlockConfig(convs=[[1, 12]]),
]
SMALL = GCNNConfig(embedding_dim=6, blocks=BOTTLENECK, cutoffs=[10, 30])
LSTM = LSTMConfig(embedding_dim=6, hidden_dim=16, num_layers=2, cutoffs=[10, 30])
TRANSFORMER = TransformerConfig(
    embedding_dim=6,
    hidden_dim=8,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=12,
    window=4,
    cutoffs=[10, 30],
)
PROJECTED = dataclasses.replace(LSTM, projection_dim=10)
MODELS = {"gcnn": SMALL, "lstm": LSTM, "projected": PROJECTED, "transformer": TRANSFORMER}
UNCOUNTED = ("lstm", "projected", "transformer")  # torch's counter sees no recurrence or attention
FINITE = [name for name, config in MODELS.items() if config.receptive_field]  # their context
TABLE_1 = {"gcnn_13": 40, "gcnn_14b": 57, "gcnn_9": 28, "gcnn_8b": 25, "gcnn_8": 25, "gcnn_14": 47}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return build_model(MODELS[request.param], VOCABULARY).eval()


@pytest.fixture
def tokens():
    return torch.randint(0, VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_no_output_sees_the_future(model, tokens):
    """Changing a token leaves earlier hidden states bit for bit the same and changes its own."""
    before, _ = model(tokens)
    for t in (1, 7, 29):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % VOCABULARY
        after, _ = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


FIVE_LAYERS = GCNNConfig(embedding_dim=4, blocks=[BlockConfig([[4, 4]], 5)], cutoffs=[9])


def test_every_kind_has_an_encoder_and_a_model_here():
    assert ENCODERS.keys() == SCHEMAS["model"].keys()
    assert {config.kind for config in MODELS.values()} == ENCODERS.keys()


@pytest.mark.parametrize("config", [*MODELS.values(), FIVE_LAYERS])
def test_receptive_field_is_where_gradients_end(config):
    """Without a bound, gradients reach the first token of a text."""
    torch.manual_seed(0)
    model = build_model(config, VOCABULARY).eval()
    time = 40 if model.receptive_field is None else model.receptive_field + 10
    embedded = []
    model.encoder.embedding.register_forward_hook(
        lambda *args: embedded.append(args[2].requires_grad_()) or args[2]
    )
    hidden, _ = model(torch.randint(0, VOCABULARY, (1, time)))
    (gradient,) = torch.autograd.grad(hidden[0, -1].sum(), embedded[0])
    touched = gradient[0].abs().sum(dim=1).nonzero().squeeze(1)
    assert time - int(touched[0]) == (model.receptive_field or time)


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[1], [13], [1, 2, 3, 4], [5, 29]])
def test_carried_state_equals_the_full_pass(model, tokens, cuts):
    full, last = model(tokens)
    state, parts = None, []
    for part in torch.tensor_split(tokens, cuts, dim=1):
        hidden, state = model(part, state)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=0, atol=1e-5)
    for found, expected in zip(state, last, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_state_holds_no_more_memory_than_its_own(model, tokens):
    """A view would keep the whole activation of every layer for as long as the state is carried."""
    _, state = model(tokens)
    for part in state:
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


@torch.no_grad()
@pytest.mark.parametrize("name", FINITE)
def test_the_start_is_the_state_after_one_type_without_end(name):
    torch.manual_seed(0)
    model = build_model(MODELS[name], VOCABULARY, before_text=3).eval()
    for scale in (1, 2):  # with other weights, another start
        model.encoder.embedding.weight.mul_(scale)
        model.eval()
        _, expected = model(torch.full((2, 500), 3))
        for found, part in zip(model.start_state(2), expected, strict=True):
            torch.testing.assert_close(found, part, rtol=0, atol=1e-6)
            assert part[..., 0].any() or part.size(1) == 0


@torch.no_grad()
@pytest.mark.parametrize("name", FINITE)
def test_the_start_has_the_type_that_the_model_was_cast_to(name):
    model = build_model(MODELS[name], VOCABULARY, before_text=3).eval()
    model.start_state(1)
    model.to(torch.float64)
    _, expected = model(torch.full((1, 500), 3))
    torch.testing.assert_close(model.start_state(1), expected)


def test_a_model_without_such_a_type_and_an_lstm_begin_with_zeros():
    assert build_model(SMALL, VOCABULARY).start_state(2) is None
    assert build_model(LSTM, VOCABULARY, before_text=3).start_state(2) is None


@torch.no_grad()
def test_empty_state_is_the_start_of_a_text(model, tokens):
    torch.testing.assert_close(model(tokens, model.empty_state(2))[0], model(tokens)[0])


@torch.no_grad()
def test_rows_of_a_state_belong_to_rows_of_the_batch(model, tokens):
    _, state = model(tokens)
    _, alone = model(tokens[1:])
    for found, expected in zip(state, alone, strict=True):
        torch.testing.assert_close(found[1:], expected, rtol=0, atol=1e-5)


def softmax_size(hidden_dim, cutoffs, vocabulary_size):
    ends = [*cutoffs, vocabulary_size]
    total = hidden_dim * (cutoffs[0] + len(cutoffs))
    for i in range(len(cutoffs)):
        narrow = hidden_dim // 4 ** (i + 1)
        total += hidden_dim * narrow + narrow * (ends[i + 1] - ends[i])
    return total


def normalised_linear(inputs, outputs):
    return inputs * outputs + 2 * outputs  # weight, gain, bias


def gcnn_size(config, vocabulary_size):
    """Parameters by a walk through Table 1's notation."""
    channels = config.blocks[0].convs[0][1]
    body = normalised_linear(config.embedding_dim, channels)
    for block in config.blocks:
        for _ in range(block.repeat):
            first = channels
            for kernel_size, out in block.convs:
                body += normalised_linear(kernel_size * channels, 2 * out)
                channels = out
            body += normalised_linear(first, channels) if first != channels else 0
    embedding = vocabulary_size * config.embedding_dim
    softmax = softmax_size(channels, config.cutoffs, vocabulary_size)
    return {
        "total": embedding + body + softmax,
        "embedding": embedding,
        "body": body,
        "softmax": softmax,
    }


def model_config(name, schema):
    config = OmegaConf.load(Path(__file__).parents[2] / "configs" / "model" / f"{name}.yaml")
    del config["defaults"]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))


@pytest.mark.parametrize("name", [*TABLE_1, "gcnn_small"])
def test_parameters_and_receptive_field_of_table_1(name):
    config = model_config(name, GCNNConfig)
    vocabulary_size = 267_735 if name in ("gcnn_8", "gcnn_14") else 793_471
    with torch.device("meta"):
        model = build_model(config, vocabulary_size)
    assert model.parameter_counts() == gcnn_size(config, vocabulary_size)
    assert model.receptive_field == TABLE_1.get(name, 19)


def test_lstm_parameters():
    e, d = LSTM.embedding_dim, LSTM.hidden_dim
    layers = 4 * d * (e + d + 2) + 4 * d * (d + d + 2)
    expected = {
        "embedding": VOCABULARY * e,
        "body": layers,
        "softmax": softmax_size(d, LSTM.cutoffs, VOCABULARY),
    }
    found = build_model(LSTM, VOCABULARY).parameter_counts()
    assert found == {"total": sum(expected.values()), **expected}


@pytest.mark.parametrize("name", MODELS)
def test_tied_parameters_and_operations(name):
    """Beside the embeddings the softmax has a projection, vectors of clusters, a bias a logit."""
    config = MODELS[name]
    model = build_model(dataclasses.replace(config, tie_embeddings=True), VOCABULARY)
    clusters = len(config.cutoffs)
    e = config.embedding_dim
    d = model.encoder.hidden_dim
    assert model.parameter_counts()["softmax"] == d * e + clusters * e + VOCABULARY + clusters
    last = torch.zeros(VOCABULARY)
    last[-1] = 1
    head = config.cutoffs[0] + clusters
    tail = VOCABULARY - config.cutoffs[-1]
    assert model.flops_per_token(last) == 2 * (model.encoder.macs() + e * (d + head + tail))


QUICKSTARTS = ["experiment=quickstart", "experiment=quickstart_lstm"]
FOR_ONE_CORE = ["model=cpu/gcnn_8", "model=cpu/lstm_376", "model=cpu/lstm_234x2"]


@pytest.mark.parametrize(
    ("vocabulary_size", "peers"),
    [
        (8_000, [*QUICKSTARTS, "experiment=quickstart_transformer"]),
        (33_278, [*FOR_ONE_CORE, "model=cpu/transformer"]),
        (65_536, [*FOR_ONE_CORE, "model=cpu/transformer"]),
    ],
)
def test_models_that_are_compared_have_equal_parameters_and_operations(vocabulary_size, peers):
    """Within 1 %, and the same part of them in the softmax, as RESULTS.md says."""
    counts = []
    for choice in peers:
        with torch.device("meta"):
            model = build_model(compose_config(choice).model, vocabulary_size)
        sizes = model.parameter_counts()
        counts.append([sizes["total"], sizes["softmax"], model.flops_per_token()])
    for found in counts[1:]:
        assert found == pytest.approx(counts[0], rel=0.01)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNCOUNTED])
def test_flops_are_twice_the_products_counted_by_torch(name):
    """Against torch's own counter, with targets in the shortlist: the expected cost is exact."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(MODELS[name], VOCABULARY).eval()
    tokens = torch.zeros(1, 64, dtype=torch.long)
    targets = torch.zeros(1, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        hidden, _ = model(tokens)
        model.nll(hidden, targets)
    frequencies = torch.zeros(VOCABULARY)
    frequencies[0] = 1
    assert counter.get_total_flops() == 64 * model.flops_per_token(frequencies)


def test_the_recurrent_products_are_a_part_of_all(model):
    recurrent = model.encoder.recurrent_macs()
    assert 0 <= recurrent < model.encoder.macs()
    assert recurrent == 0 or model.receptive_field is None


def test_the_embedding_may_have_a_dropout_of_its_own():
    torch.manual_seed(0)
    config = GCNNConfig(
        embedding_dim=100, blocks=[BlockConfig(convs=[[2, 8]])], cutoffs=[], embedding_dropout=0.25
    )
    encoder = build_model(config, VOCABULARY).encoder
    seen = []
    for module in (encoder.input_projection, encoder.blocks[0]):
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(torch.arange(50)[None])
    dropped = [(hidden == 0).float().mean().item() for hidden in seen]
    assert dropped == [pytest.approx(0.25, abs=0.03), 0]


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    config = GCNNConfig(
        embedding_dim=6, blocks=BOTTLENECK, cutoffs=[10], dropout=0.5, output_dropout=0.5
    )
    model = build_model(config, VOCABULARY)
    tokens = torch.arange(20)[None]
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_a_projected_full_softmax_drops_once_behind_its_projection():
    """As fairseq's fconv_lm: fc2, dropout, fc3."""
    torch.manual_seed(0)
    config = GCNNConfig(
        embedding_dim=4,
        blocks=[BlockConfig(convs=[[4, 1000]])],
        cutoffs=[],
        projection_dim=500,
        output_dropout=0.5,
    )
    model = build_model(config, VOCABULARY)
    hidden, _ = model(torch.arange(20)[None])
    assert (hidden != 0).all()
    projected = model.softmax.layers[:2](hidden)
    assert (projected == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_an_lstm_is_projected_before_either_softmax():
    """By hand: four gates of 16 units, two layers, and 16 units to 10 channels."""
    gates = 4 * (6 + 16) * 16 + 4 * (16 + 16) * 16
    for cutoffs in ([10, 30], []):
        model = build_model(dataclasses.replace(PROJECTED, cutoffs=cutoffs), VOCABULARY)
        assert model(torch.zeros(1, 3, dtype=torch.long))[0].shape == (1, 3, 10)
        assert model.encoder.macs() == gates + 16 * 10
        biases = 2 * 2 * 4 * 16 + 10
        assert model.parameter_counts()["body"] == model.encoder.macs() + biases
    head = dict(model.softmax.named_parameters())
    # Not projected twice.
    assert [tuple(weight.shape) for weight in head.values()] == [
        (50, 10),
        (50,),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_the_clusters_have_a_dropout_of_their_own(name):
    torch.manual_seed(0)
    config = MODELS[name]
    model = build_model(dataclasses.replace(config, dropout=0.25, softmax_dropout=0.5), VOCABULARY)
    dropouts = [
        layer.p for tail in model.softmax.tails for layer in tail if isinstance(layer, nn.Dropout)
    ]
    assert dropouts == [0.5, 0.5]
    hidden = torch.randn(1, 4, model.encoder.hidden_dim)
    frequent = torch.zeros(1, 4, dtype=torch.long)
    rare = torch.full((1, 4), 45)
    assert torch.equal(model.nll(hidden, frequent), model.nll(hidden, frequent))
    assert not torch.equal(model.nll(hidden, rare), model.nll(hidden, rare))


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_every_layer_of_an_lstm_tells_words_apart_before_training(layers):
    """The RMS of what depends on words; by torch's initialisation 0.004 after two layers."""
    torch.manual_seed(0)
    model = build_model(
        LSTMConfig(embedding_dim=128, hidden_dim=256, num_layers=layers, cutoffs=[]), 1000
    ).eval()
    with torch.no_grad():
        hidden, _ = model(torch.randint(1000, (64, 32)))
    by_words = hidden[:, -1] - hidden[:, -1].mean(dim=0)
    assert by_words.square().mean().sqrt() > 0.1
