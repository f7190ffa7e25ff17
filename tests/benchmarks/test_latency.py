"""The latency benchmark: its protocol, its counts against closed forms, and its JSON."""

import dataclasses
import json
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gcnn.base.files import write_json
from gcnn.benchmarks import latency
from gcnn.benchmarks.bounds import SIZES, Bound, Machine, Sizes, Work, work_of
from gcnn.benchmarks.latency import BLOCK, LENGTHS, Candidate, Zipf, benchmark, score
from gcnn.commands import benchmark as benchmark_command
from gcnn.commands.benchmark import paper_candidates, run_candidates
from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.models.inference import prepare_for_inference
from gcnn.models.language_model import LanguageModel, build_model
from gcnn.reporting.latency import latency_table, load_latency, ratio_table, speed_table

VOCABULARY = 100
BLOCKS = [BlockConfig(convs=[[4, 6]]), BlockConfig(convs=[[1, 2], [5, 2], [1, 8]])]
GCNN = GCNNConfig(embedding_dim=5, blocks=BLOCKS, cutoffs=[20, 60])
LSTM = LSTMConfig(embedding_dim=5, hidden_dim=8, cutoffs=[20, 60])
TRANSFORMER = TransformerConfig(
    embedding_dim=5, hidden_dim=8, num_layers=3, num_heads=2, feed_forward_dim=6, window=4,
    cutoffs=[20, 60],
)  # fmt: skip
PRODUCTS, MEMORY, CACHE = 1000.0, 100.0, 400.0  # a made-up machine's rates


class MadeUp(Machine):
    def _multiply(self, rows):
        return PRODUCTS if rows > 100 else PRODUCTS / 2

    def _read(self, size):
        return CACHE if size < 10_000 else MEMORY


@pytest.fixture
def machine():
    return MadeUp(torch.device("cpu"), torch.float32)


@pytest.fixture
def seen(monkeypatch):
    """Records the texts that each model scores: name of the encoder -> sequences of targets."""
    seen, nll = {}, LanguageModel.nll

    def recording(model, hidden, targets):
        seen.setdefault(type(model.encoder).__name__, []).append(targets)
        return nll(model, hidden, targets)

    monkeypatch.setattr(LanguageModel, "nll", recording)
    return seen


def candidates():
    return [
        Candidate("small_gcnn", "tiny", lambda: build_model(GCNN, VOCABULARY)),
        Candidate("small_lstm", "tiny", lambda: build_model(LSTM, VOCABULARY)),
    ]


def test_a_model_that_is_named_twice_is_measured_once(machine):
    groups = paper_candidates(["lstm_1024", "gcnn_9", "gcnn_8", "lstm_1024"], machine)
    names = [[candidate.name for candidate in group] for group in groups]
    assert names == [["lstm_1024", "lstm_1024_packed", "gcnn_8"], ["gcnn_9"]]


def test_a_run_is_named_by_its_path_where_its_experiment_names_something_else(monkeypatch):
    experiments = {"a": "mine", "b": "twice", "c": "twice", "d": "gcnn_8"}
    loaded = {Path(run): SimpleNamespace(experiment=name) for run, name in experiments.items()}
    monkeypatch.setattr(benchmark_command, "load_config", loaded.get)
    tokenizer = SimpleNamespace(vocabulary_size=100)
    monkeypatch.setattr(benchmark_command, "load_tokenizer", lambda _: tokenizer)
    (group,) = run_candidates(list(loaded))
    assert [candidate.name for candidate in group] == ["mine", "b", "c", "d"]


def test_a_group_is_out_of_memory_when_the_next_one_is_loaded(machine, monkeypatch):
    monkeypatch.setattr(latency, "measure", lambda *_: None)
    monkeypatch.setattr(latency, "report", lambda _: {})
    loaded = []

    def load():
        assert all(model() is None for model in loaded)
        model = build_model(GCNN, VOCABULARY)
        loaded.append(weakref.ref(model))
        return model

    benchmark([[Candidate(name, "tiny", load)] for name in ("a", "b", "c")], machine)
    assert len(loaded) == 3


def test_a_gcnn_is_compared_with_an_lstm_and_a_transformer_with_nothing(machine, monkeypatch):
    monkeypatch.setattr(latency, "measure", lambda *_: None)
    monkeypatch.setattr(latency, "report", lambda _: {})
    monkeypatch.setattr(latency, "compare", lambda gcnn, lstm, _: (gcnn, lstm))
    other = Candidate("other", "tiny", lambda: build_model(TRANSFORMER, VOCABULARY))
    small_gcnn, small_lstm = candidates()
    for group, pairs in (
        ([other, small_lstm], []),
        ([small_lstm, other, small_gcnn], [("small_gcnn", "small_lstm")]),
    ):
        written = benchmark([group], machine)
        assert list(written["models"]) == [candidate.name for candidate in group]
        assert written["pairs"] == pairs


def test_protocol_is_that_of_table_4_and_the_same_for_both_models(machine, seen):
    benchmark([candidates()], machine, repeats=2, long_repeats=1)
    rounds = 3 + 2
    for texts in seen.values():
        shapes = [tuple(targets.shape) for targets in texts]
        sentences = shapes[: rounds * len(LENGTHS)]
        assert Counter(sentences) == {(1, words + 1): rounds for words in (5, 10, 20, 50, 100)}
        throughput, *responsiveness = shapes[len(sentences) :]
        assert throughput == (750, 20)
        assert {batch for batch, _ in responsiveness} == {1}
        assert sum(length for _, length in responsiveness) == 15_000
    for gcnn, lstm in zip(seen["GCNN"], seen["LSTM"], strict=True):
        assert torch.equal(gcnn, lstm)


def test_json_is_complete_and_the_report_reads_it(machine, tmp_path):
    written = benchmark([candidates()], machine, repeats=2, long_repeats=1)
    write_json(tmp_path / "latency.json", written)
    measured = load_latency(tmp_path / "latency.json")
    read = json.loads((tmp_path / "latency.json").read_text())
    assert read == written
    assert (read["device"], read["threads"]) == ("cpu", torch.get_num_threads())
    lengths = {"5", "10", "20", "50", "100"}
    for model in read["models"].values():
        assert model["load_seconds"] > 0
        for sentences in (model["sentences"], model["sentences_without_softmax"]):
            assert set(sentences) == lengths
            for timing in sentences.values():
                assert 0 < timing["median_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
                assert timing["bound_ms"] > 0
                assert timing["repeats"] == 2
        assert (model["throughput"]["sequences"], model["throughput"]["length"]) == (750, 20)
        assert model["responsiveness"]["tokens"] == 15_000
        assert (
            min(model[kind]["tokens_per_second"] for kind in ("throughput", "responsiveness")) > 0
        )
    parameters = {name: model["parameters"] for name, model in read["models"].items()}
    assert parameters["small_lstm"] == sum(
        p.numel() for p in build_model(LSTM, VOCABULARY).parameters()
    )
    (pair,) = read["pairs"]
    assert (pair["gcnn"], pair["lstm"]) == ("small_gcnn", "small_lstm")
    assert set(pair["ratios"]) == set(pair["ratios_without_softmax"]) == lengths
    for table in (latency_table(measured), speed_table(measured), ratio_table(measured)):
        assert "–" not in [cell for row in table.rows for cell in row[2:6]]


def test_pairs_are_ratios_of_what_was_measured(machine):
    written = benchmark([candidates()], machine, repeats=2, long_repeats=1)
    gcnn = written["models"]["small_gcnn"]
    lstm = written["models"]["small_lstm"]
    (pair,) = written["pairs"]
    medians = [model["sentences_without_softmax"]["20"]["median_ms"] for model in (gcnn, lstm)]
    assert pair["ratios_without_softmax"]["20"]["measured"] == pytest.approx(
        medians[1] / medians[0]
    )
    least = [model["sentences"]["50"]["bound_ms"] for model in (gcnn, lstm)]
    assert pair["ratios"]["50"]["bound"] == pytest.approx(least[1] / least[0])
    speeds = [model["responsiveness"]["tokens_per_second"] for model in (gcnn, lstm)]
    assert pair["responsiveness"]["measured"] == pytest.approx(speeds[0] / speeds[1])


# 5 -> 6: the input's projection; two paths a convolution; 6 -> 8: the residual's projection
GCNN_WEIGHTS = 5 * 6 + 4 * 6 * 12 + 6 * 4 + 5 * 2 * 4 + 2 * 16 + 6 * 8
HEAD = 8 * (20 + 2)
TAILS = (8 * 2 + 2 * 40, 8 * 1 + 1 * 40)  # of 60 - 20 and 100 - 60 types
LSTM_INPUT = 4 * 5 * 8
LSTM_RECURRENT = 4 * 8 * 8


@pytest.mark.parametrize("ready", [False, True])
def test_work_of_a_gcnn_is_the_closed_form(ready):
    model = build_model(GCNN, VOCABULARY)
    if ready:
        prepare_for_inference(model)
    # 8 for the head, 3 for the first tail, 1 for the second.
    targets = torch.tensor([[1, 30, 3, 19], [99, 20, 59, 2]])
    looked_up = 8 * 5
    assert work_of(model, targets, softmax=False) == Work(
        2 * 8 * GCNN_WEIGHTS, 4 * (GCNN_WEIGHTS + looked_up)
    )
    macs = 8 * (GCNN_WEIGHTS + HEAD) + 3 * TAILS[0] + TAILS[1]
    assert work_of(model, targets) == Work(
        2 * macs, 4 * (GCNN_WEIGHTS + HEAD + sum(TAILS) + looked_up)
    )


def test_clusters_that_no_target_needs_cost_nothing():
    targets = torch.tensor([[1, 30]])
    expected = Work(
        2 * (2 * (GCNN_WEIGHTS + HEAD) + TAILS[0]), 4 * (GCNN_WEIGHTS + HEAD + TAILS[0] + 2 * 5)
    )
    assert work_of(build_model(GCNN, VOCABULARY), targets) == expected


@pytest.mark.parametrize("packed", [False, True])
def test_work_of_an_lstm_counts_its_recurrent_weights_every_step(packed):
    model = build_model(LSTM, VOCABULARY)
    if packed:
        prepare_for_inference(model)
    targets = torch.zeros(3, 7, dtype=torch.long)
    expected = Work(
        2 * 21 * LSTM_INPUT,
        4 * (LSTM_INPUT + 21 * 5),
        7,
        2 * 3 * LSTM_RECURRENT,
        4 * LSTM_RECURRENT,
    )
    assert work_of(model, targets, softmax=False) == expected


@pytest.mark.parametrize("window", [2, 500])
def test_work_of_a_transformer_reads_no_weights_for_attention(window):
    config = dataclasses.replace(TRANSFORMER, window=window)
    # Queries, keys, values and output; SwiGLU's two paths and what contracts them
    weights = 5 * 8 + 3 * (4 * 8 * 8 + 3 * 8 * 6)
    targets = torch.zeros(3, 7, dtype=torch.long)
    found = work_of(build_model(config, VOCABULARY), targets, softmax=False)
    assert found == Work(2 * 21 * weights, 4 * (weights + 21 * 5))


def test_bfloat16_halves_the_bytes_and_not_the_operations():
    targets = torch.zeros(1, 4, dtype=torch.long)
    whole, half = (
        work_of(build_model(LSTM, VOCABULARY).to(dtype), targets)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert (whole.flops, whole.bytes, whole.step_bytes) == (
        half.flops,
        2 * half.bytes,
        2 * half.step_bytes,
    )


def test_bound_is_the_slower_rate_and_the_steps_come_on_top(machine):
    assert machine.bound(Work(5000, 400)) == Bound(5000 / PRODUCTS, "matrix products")
    assert machine.bound(Work(5000, 600)) == Bound(600 / MEMORY, "reading weights")
    fits = machine.bound(Work(5000, 600, steps=3, step_flops=10, step_bytes=8000))
    assert fits == Bound(6 + 3 * 8000 / CACHE, "rereading recurrent weights")
    large = machine.bound(Work(5000, 600, steps=3, step_flops=10, step_bytes=80_000))
    assert large == Bound(6 + 3 * 80_000 / MEMORY, "rereading recurrent weights")
    batched = machine.bound(Work(5000, 600, steps=3, step_flops=50_000, step_bytes=8000))
    assert batched == Bound(6 + 3 * 50_000 / PRODUCTS, "recurrent products")
    assert (
        machine.bound(Work(5000, 600, steps=1, step_flops=1, step_bytes=4)).by == "reading weights"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rates_of_this_machine_are_positive(dtype):
    machine = Machine(torch.device("cpu"), dtype, sizes=Sizes(1 << 20, 64, (21, 64)))
    assert machine.flops_per_second() > 1e6
    assert machine.read_bytes_per_second(1 << 20) > 1e6
    assert machine.bound(Work(10**6, 10**6, 2, 10**6, 10**6)).seconds > 0


def test_texts_follow_the_stated_law():
    """Shares of the most frequent types, from the law summed up plainly."""
    size = 40_000
    frequencies = [1 / rank if rank <= 10_000 else 10_000 / rank**2 for rank in range(1, size + 1)]
    words = Zipf(size, seed=3).words(200_000).numpy()
    assert words.min() == 0
    assert words.max() < size
    for types in (1, 100, 2000, 10_000):
        assert np.mean(words < types) == pytest.approx(
            sum(frequencies[:types]) / sum(frequencies), abs=0.004
        )


def test_same_seed_gives_the_same_texts_and_another_seed_others():
    first, same, other = (Zipf(1000, seed).words(3, 50) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_text_predicts_each_next_token():
    zipf = Zipf(1000, 1)
    tokens, targets = zipf.sentence(6)
    assert tokens.shape == targets.shape == (1, 7)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert tokens[0, 0] == targets[0, -1]  # <eos> before and after
    tokens, targets = zipf.text(4, 9)
    assert tokens.shape == targets.shape == (4, 9)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


def test_law_fits_real_text(shared):
    """The shares of WikiText-2's types, whose softmax clusters are then hit as in text."""
    words = (
        (shared / "data/wikitext-2/wiki.train.tokens")
        .read_text(encoding="utf-8")
        .replace("\n", " <eos> ")
        .split(" ")
    )
    counts = np.array(sorted(Counter(filter(None, words)).values(), reverse=True))
    cumulative = Zipf(len(counts), seed=1).cumulative
    for types in (2000, 10_000, 20_000):
        real = counts[:types].sum() / counts.sum()
        assert cumulative[types - 1] / cumulative[-1] == pytest.approx(real, abs=0.02)


def test_a_measurement_waits_once_whatever_the_blocks(machine, monkeypatch):
    """The nats come back at its end; on a GPU nothing else waits for it."""
    waits, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: waits.append(1) or cpu(tensor))
    tokens, targets = Zipf(VOCABULARY, 1).text(1, 3500)
    timing = score(build_model(GCNN, VOCABULARY).eval(), tokens, targets, machine)
    assert len(waits) == 1
    assert 0 < timing["hidden"][0] < timing["total"][0]


def test_a_gpu_is_measured_at_a_gpus_sizes():
    gpu = Machine(torch.device("cuda"), torch.bfloat16)
    cpu = Machine(torch.device("cpu"), torch.bfloat16)
    assert gpu.sizes == SIZES["cuda"]
    assert min(gpu.sizes.channels, max(gpu.sizes.rows)) >= 8192
    assert cpu.sizes == Sizes(1 << 29, 2048, (21, 2048))
    assert BLOCK == {"cpu": 1000, "cuda": 15_000}
