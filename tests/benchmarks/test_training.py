"""The speed of training: what is counted, and that the real update is what is timed."""

import json

import numpy as np
import pytest
import torch

from gcnn.benchmarks.bounds import Machine
from gcnn.benchmarks.training import Speed, make_trainer, measure
from gcnn.commands import benchmark_train

TINY = (
    "model.embedding_dim=4",
    "model.blocks=[{convs:[[2,8]]}]",
    "trainer.batch_size=2",
    "trainer.block_size=8",
)


def test_rates_and_shares_are_those_of_the_counts():
    """1,000 tokens of 2 MFLOP, three passes: 6 GFLOP; products at 20, 40 and 20 GFLOP/s."""
    speed = Speed(
        "made up", 1000, 2e6, 7, [0.5, 1.0, 0.5], [20e9, 40e9, 20e9], [2e-4] * 3, [1e-4] * 3
    )
    expected = {
        "tokens_per_second": 2000,
        "flops_per_second": 12e9,
        "matrix_product_flops_per_second": 20e9,
        "share_of_matrix_product": 0.6,
        "evaluation_tokens_per_second": 5000,
        "evaluation_share_of_forward": 0.5,
        "peak_memory_bytes": 7,
    }
    assert speed.report() == pytest.approx(expected)


def test_the_real_update_is_timed(monkeypatch):
    monkeypatch.setattr(Machine, "_multiply", lambda self, rows: 1e9)
    trainer = make_trainer("small", *TINY)
    assert trainer.data.streams["train"].tokens.dtype == np.int32  # as TokenStream has them
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    speed = measure(trainer, "small", rounds=2, steps=3)
    assert trainer.progress.step == 2 + 2 * 3  # the warm-up, and the rounds
    assert speed.tokens_per_step == 16
    assert (
        len(speed.steps)
        == len(speed.products)
        == len(speed.evaluations)
        == len(speed.forwards)
        == 2
    )
    assert any(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    head = (2000 + 2) * 8
    tails = [8 * 2 + 2 * 8000, 8 * 1 + 1 * 23_280]
    body = 4 * 8 + 2 * 8 * 16
    least, most = (2 * (body + head + extra) for extra in (0, sum(tails)))
    assert least < speed.flops_per_token < most


def test_the_precision_that_an_override_sets_is_recorded(monkeypatch, tmp_path, capsys):
    """It counts over --precision, whose default is float32."""
    monkeypatch.setattr(Machine, "_multiply", lambda self, rows: 1e9)
    out = tmp_path / "speed.json"
    options = ["--workloads", "small", "--rounds", "1", "--steps", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["gcnn", *options, *TINY, "trainer.precision=bf16"])
    benchmark_train.main()
    assert json.loads(out.read_text())["precision"] == "bf16"
    assert capsys.readouterr().out.startswith("bf16, ")


def test_a_profile_has_the_memory_of_all_within_a_module(capsys):
    """A module's own memory is none: what its operators take is theirs."""
    sizes = ("trainer.batch_size=8", "trainer.block_size=256", "trainer.precision=float32")
    trainer = make_trainer("small", "model.blocks=[{convs:[[2,64]]}]", *sizes)
    benchmark_train.print_profile(trainer, warm_up=1, steps=1)
    _, by_module = capsys.readouterr().out.split("by module")
    memory = {}
    for line in by_module.splitlines()[1:]:
        if line:
            memory[line.split()[0]] = float(line.split()[-1])
    # Its output alone, which the softmax reads, is 8 x 256 x 64 float32 numbers: 0.5 MiB
    assert memory["encoder"] > 0.4
