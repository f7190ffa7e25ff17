"""The softmax benchmark: its slopes, what it leaves out, and that its JSON serves the figures."""

import json
import multiprocessing
import os
from functools import partial
from xml.etree import ElementTree

import pytest

from gcnn.benchmarks import softmax_size
from gcnn.benchmarks.softmax_size import Size, Step, build, growth, least_bytes, measure
from gcnn.commands import benchmark_softmax
from gcnn.reporting.softmax_size import softmax_figures
from tests.processes import FORKS


def test_growth_is_the_exponent_of_a_power():
    def entry(n: int, power: float) -> dict:
        return {"parameters": 7 * n**power, "seconds": 1e-6 * n**power, "memory_bytes": None}

    found = growth(
        {str(n): {"adaptive": entry(n, 0.25), "full": entry(n, 1)} for n in (10, 100, 5000)}
    )
    assert found["adaptive"] == pytest.approx({"parameters": 0.25, "seconds": 0.25})
    assert found["full"] == pytest.approx({"parameters": 1, "seconds": 1})


def test_a_softmax_past_the_memory_is_not_run(monkeypatch):
    """The full one needs 4 * (9 * 30,000 weights + 3 * 16 * 30,000 logits) bytes.

    That is 6.8 MB, and twice as much of a heap.
    """
    monkeypatch.setattr(softmax_size, "in_own_process", lambda call: call())
    monkeypatch.setattr(softmax_size, "reuse_large_blocks", lambda: None)
    found = measure(
        Size(vocabulary=30_000, hidden_dim=8, tokens=16, threads=1), rounds=1, most_bytes=13e6
    )
    assert found["full"] == {"parameters": (8 + 1) * 30_000, "seconds": None, "memory_bytes": None}
    head, tails = 8 * (2000 + 2), [8 * 2 + 2 * 8000, 8 * 1 + 1 * 20_000]  # cutoffs 2,000 and 10,000
    assert found["adaptive"]["parameters"] == head + sum(tails)
    assert found["adaptive"]["seconds"] > 0


def test_what_was_measured_of_no_softmax_has_no_figure():
    """Neither softmax fits into the memory at the one vocabulary, or its peak is not known."""
    costs = {kind: {"seconds": None, "memory_bytes": None} for kind in softmax_size.KINDS}
    sizes = {"hidden_dim": 32, "tokens": 64, "threads": 1}
    results = {**sizes, "vocabularies": {"60000": costs}, "growth": {"adaptive": {}, "full": {}}}
    assert softmax_figures(results) == {}
    costs["adaptive"]["seconds"] = 0.1
    assert list(softmax_figures(results)) == ["seconds"]


def test_both_softmaxes_have_the_whole_vocabulary():
    size = Size(vocabulary=12_345, hidden_dim=4, tokens=1, threads=1)
    assert build("adaptive", size).ends == [2000, 10_000, 12_345]
    assert build("full", size).layers[-1].out_features == 12_345


def test_below_all_cutoffs_the_adaptive_softmax_is_the_head_alone():
    size = Size(vocabulary=1000, hidden_dim=4, tokens=2, threads=1)
    assert build("adaptive", size).ends == [1000]
    assert least_bytes(size, "adaptive", parameters=4000) == 4 * (4000 + 3 * 2 * 1000)
    assert Step("adaptive", size)() > 0


def test_a_process_that_is_killed_is_one_line(call, tmp_path, monkeypatch):
    def killed(*arguments):
        return softmax_size.in_own_process(partial(os._exit, 9))

    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: fork)
    monkeypatch.setattr(benchmark_softmax, "measure", killed)
    outcome = call("benchmark_softmax", "--vocabularies", 60_000, "--out", "size.json")
    assert (outcome.code, outcome.out) == (1, "")
    *_, message = outcome.err.splitlines()
    assert message.startswith("error: the process that measured 60,000 types was killed")
    assert not (tmp_path / "size.json").exists()


def test_the_command_writes_json_and_figures(call, tmp_path, monkeypatch):
    # Forked: imports take most of a new process's time.
    monkeypatch.setattr(softmax_size.multiprocessing, "get_context", lambda kind: FORKS)
    size = ["--vocabularies", 60_000, "--hidden-dim", 32, "--tokens", 64]
    how = ["--rounds", 1, "--threads", 1, "--out", "out/size.json"]
    outcome = call("benchmark_softmax", *size, *how)
    assert outcome.code in (None, 0), outcome.err
    results = json.loads((tmp_path / "out" / "size.json").read_text())
    assert list(results["vocabularies"]) == ["60000"]
    full = results["vocabularies"]["60000"]["full"]
    # The head's weights, and two tensors like the logits.
    assert full["memory_bytes"] > 4 * 60_000 * (32 + 2 * 64)
    assert {"command", "git_commit", "hardware", "versions"} <= results.keys()
    for name in ("size.svg", "size_memory.svg"):
        ElementTree.parse(tmp_path / "out" / name)
    assert "60,000" in outcome.out
    assert "exponent of growth" in outcome.out
