"""`gcnn benchmark-gpu`: every part at toy size from a checkout, and parts that fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.benchmarks import gpu, time_boxes
from gcnn.benchmarks.gpu import has_peak, one_by_one, train_on_text, write_made_up_text
from gcnn.benchmarks.time_boxes import Notes, Part, run_part, run_parts
from gcnn.commands import benchmark_gpu

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = """
import importlib.metadata, sys
version = importlib.metadata.version
def of_others(name):
    if name == "gcnn":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = of_others
import torch._dynamo  # once for all parts that make an optimizer, which are forked
from gcnn.commands.main import main
main()
"""


def read(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_every_part_runs_at_toy_size_and_one_that_fails_says_why(tmp_path):
    """From a checkout on PYTHONPATH, the project not installed; the text has no train.txt."""
    (tmp_path / "text").mkdir()
    options = ["--minutes", "1", "--device", "cpu", "--out", "out", "--text", "text"]
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED, "benchmark-gpu", *options], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    said = read(tmp_path / "out")
    assert set(said) == {"tests", "training", "latency", "compiled", "graphs", "text"}
    for name, part in said.items():
        assert part["part"] == name
        assert part["versions"]["gcnn"] is None
        assert part["hardware"]["gpu_count"] == 0
        assert ("failed" in part) == (name == "text"), part
    assert "train.txt" in said["text"]["failed"]
    assert said["tests"]["exit_code"] == 0
    for kind in ("training", "compiled"):
        assert said[kind]["small"]["tokens_per_second"] > 0
    assert set(said["latency"]["float32"]["models"]) == {"gcnn_8b", "gcnn_9", "lstm_2048"}
    assert said["graphs"]["lstm_2048"]["eager_ms"] > 0
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 6 parts failed: text.")


def test_a_part_that_fails_hangs_or_dies_leaves_its_reason_and_the_others_run(tmp_path):
    def fails(notes, seconds):
        notes.add(found=1)
        raise ValueError("no such\nkernel")

    def hangs(notes, seconds):
        notes.add(found=2)
        time.sleep(60)

    def dies(notes, seconds):
        notes.add(found=3)
        os._exit(9)

    def works(notes, seconds):
        notes.add(found=4, seconds=seconds)

    calls = {"fails": fails, "hangs": hangs, "dies": dies, "works": works}
    start = time.monotonic()
    outcomes = run_parts([Part(name, 1, call) for name, call in calls.items()], 4.0, tmp_path)
    assert time.monotonic() - start < 20
    said = read(tmp_path)
    assert [said[name]["found"] for name in calls] == [1, 2, 3, 4]
    assert said["fails"]["failed"] == outcomes["fails"] == "ValueError: no such kernel"
    assert "seconds ended before it did" in said["hangs"]["failed"]
    assert "exit code 9" in said["dies"]["failed"]
    assert (outcomes["works"], "failed" in said["works"]) == ("done", False)
    assert 0 < said["works"]["seconds"] <= 4


def test_the_seconds_of_a_part_have_a_decimal(tmp_path):
    outcome = run_part(Part("part", 1, lambda *_: time.sleep(60)), tmp_path / "part.json", 0.3)
    assert outcome == "its 0.3 seconds ended before it did"


def test_a_part_that_dies_before_its_first_note_keeps_nothing_of_an_older_file(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(time_boxes, "made_with", lambda: os._exit(9))
    path = tmp_path / "part.json"
    path.write_text('{"found": 1}')
    outcome = run_part(Part("part", 1, print), path, 5.0)
    assert "exit code 9" in outcome
    assert read(tmp_path)["part"] == {"failed": outcome}


def test_a_model_that_fails_does_not_take_the_next_with_it(tmp_path):
    def fails():
        raise RuntimeError("out of memory")

    notes = Notes(tmp_path / "part.json")
    with pytest.raises(Exception, match="first failed"):
        one_by_one(notes, {"first": fails, "second": lambda: {"speed": 2}})
    said = read(tmp_path)["part"]
    assert said == {"first": {"failed": "RuntimeError: out of memory"}, "second": {"speed": 2}}


@pytest.mark.parametrize(("chip", "is_known"), [
    ("NVIDIA H100 80GB HBM3", True),
    ("NVIDIA H200", True),
    ("NVIDIA H100 PCIe", False),
    ("NVIDIA H200 NVL", False),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", False),
    ("NVIDIA GH200 480GB", False),
    ("NVIDIA A100-SXM4-80GB", False),
])  # fmt: skip
def test_the_rate_of_a_datasheet_is_that_of_its_chip_alone(chip, is_known):
    assert has_peak(chip) == is_known


@pytest.mark.parametrize(("words", "counts"), [
    (10, {"train": 20, "valid": 20, "test": 20}),
    (199, {"train": 180, "valid": 20, "test": 20}),
    (1000, {"train": 1000, "valid": 100, "test": 100}),
])  # fmt: skip
def test_a_made_up_text_has_words_in_every_split(tmp_path, words, counts):
    write_made_up_text(tmp_path / "text", words)
    found = {path.stem: path.read_text() for path in (tmp_path / "text").iterdir()}
    assert {split: len(text.split()) for split, text in found.items()} == counts
    for text in found.values():
        assert {len(line.split()) for line in text.splitlines()} == {20}


def test_a_second_call_replaces_the_run_of_the_first(tmp_path, monkeypatch):
    def train(config, fit_cutoffs):
        run = Path(config.run_dir)
        run.mkdir()  # fails where there is one
        (run / "config.yaml").touch()
        return run, {}

    monkeypatch.setattr(gpu, "train", train)
    notes = Notes(tmp_path / "text.json")
    for _ in range(2):
        train_on_text("cpu", tmp_path, None, notes, 60.0)
    assert read(tmp_path)["text"]["run"] == str(tmp_path / "text_run")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_parts_have_a_least_time_on_a_cpu_however_it_was_chosen(device, monkeypatch, tmp_path):
    given = []

    def run_none(parts, seconds, folder, least):
        given.append(least)
        return {}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(time_boxes, "run_parts", run_none)
    monkeypatch.setattr("sys.argv", ["gcnn", "--device", device, "--out", str(tmp_path)])
    benchmark_gpu.main()
    assert given == [benchmark_gpu.TOY_SECONDS]


def test_the_process_that_forks_the_parts_asks_for_no_gpu_itself(monkeypatch, tmp_path):
    """torch.cuda.is_available may make CUDA fail in all processes that are forked afterwards."""
    asked = []

    def is_available():
        asked.append(os.getpid())
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(time_boxes, "run_parts", lambda *_: {})
    monkeypatch.setattr("sys.argv", ["gcnn", "--out", str(tmp_path)])
    benchmark_gpu.main()
    assert asked == []
    monkeypatch.setattr("sys.argv", ["gcnn", "--device", "cuda", "--out", str(tmp_path / "none")])
    with pytest.raises(UsageError, match="no such device"):
        benchmark_gpu.main()
    assert asked == []
    assert not (tmp_path / "none").exists()
