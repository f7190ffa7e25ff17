"""trainer.compile, by Dynamo alone: one graph for batches of all kinds, and the LSTM left out of
it.
"""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.models.adaptive_softmax import LEAST_INDICES, pad_indices
from gcnn.models.layers import drop

TOKENS = 160


@pytest.fixture
def dynamo(monkeypatch):
    """torch.compile without a compiler behind it."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield counters
    torch._dynamo.reset()


def targets_with(*counts):
    """Targets of which so many are in each of three clusters; the others in the head."""
    targets = torch.zeros(TOKENS, dtype=torch.long)
    at = 0
    for cluster, count in enumerate(counts, start=1):
        targets[at : at + count] = 10 * cluster + 1
        at += count
    return targets[torch.randperm(TOKENS)].view(4, -1)


@pytest.mark.parametrize("kind", ["gcnn", "lstm", "transformer"])
def test_few_graphs_do_for_clusters_of_all_sizes(kind, config, make_trainer, dynamo):
    """Empty ones, of one target, of as many as another: none of them falls back to eager."""
    config.model = GCNNConfig(
        embedding_dim=8, blocks=[BlockConfig([[3, 8]])], cutoffs=[10, 20, 30], dropout=0.0
    )
    if kind == "lstm":
        config.model = LSTMConfig(
            embedding_dim=8, hidden_dim=8, cutoffs=[10, 20, 30], dropout=0.0, output_dropout=0.0
        )
    if kind == "transformer":
        config.model = TransformerConfig(
            embedding_dim=8, hidden_dim=8, num_layers=1, num_heads=2, feed_forward_dim=8, window=5,
            cutoffs=[10, 20, 30], dropout=0.0, output_dropout=0.0,
        )  # fmt: skip
    plain = make_trainer(config, "plain", carry_state=False)
    trainer = make_trainer(config, "compiled", compile=True, carry_state=False)
    trainer.model.load_state_dict(plain.model.state_dict())
    tokens = torch.randint(40, (4, TOKENS // 4))
    sizes = [(9, 5, 3), (0, 5, 3), (1, 0, 3), (1, 1, 1), (0, 0, 0), (70, 0, 1), (70, 70, 2)]
    sizes += [(5, 70, 70), (1, 1, 100), (TOKENS, 0, 0), (4, 2, 0), (80, 40, 40)]
    nats = []
    for counts in sizes:
        targets = targets_with(*counts)
        for which in (plain, trainer):
            few_sizes = which.config.trainer.compile
            indices = which.model.softmax.cluster_indices(targets, few_sizes)
            nats.append(which.updater.backward((tokens, targets, indices), None, TOKENS)[0])
    for expected, compiled in zip(nats[::2], nats[1::2], strict=True):
        torch.testing.assert_close(compiled, expected)
    for expected, compiled in zip(
        plain.model.parameters(), trainer.model.parameters(), strict=True
    ):
        torch.testing.assert_close(compiled.grad, expected.grad, rtol=1e-4, atol=1e-6)
    graphs = {
        "gcnn": 1,
        "transformer": 1,
        "lstm": 4,
    }  # of the functions around the LSTM, before and after it
    assert dynamo["stats"]["unique_graphs"] == graphs[kind]
    for reason in dynamo["graph_break"]:
        assert kind == "lstm"
        assert "recur" in reason


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 159])
def test_padded_indices_are_the_clusters_and_one_free_position(count):
    indices = torch.randperm(160)[:count].sort().values
    padded = pad_indices(indices, 160)
    assert len(padded) == max(LEAST_INDICES, 1 << max(0, count - 1).bit_length())
    assert torch.equal(padded[:count], indices)
    free = set(padded[count:].tolist())
    assert len(free) <= 1
    assert not free & set(indices.tolist())
    assert max(padded) < 160


def test_a_cluster_that_has_every_target_stays_as_it_is():
    indices = torch.arange(160)
    assert pad_indices(indices, 160) is indices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_model_drops_by_torchs_own_dropout(dtype):
    """Inductor's code for 16 random bits an element ends in an error beside a convolution."""
    called = []

    def compiler(graph, inputs):
        called.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(drop, backend=compiler, fullgraph=True)
    hidden = compiled(torch.ones(100, 100, dtype=dtype), 0.25, True)
    assert called == [torch.nn.functional.dropout]
    assert hidden.dtype == dtype
    assert hidden.unique().tolist() == pytest.approx([0, 4 / 3], rel=0.01)
    assert (hidden == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    torch._dynamo.reset()
