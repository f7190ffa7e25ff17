"""Several processes of torchrun train as one does with the same global batch."""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
    "data=local", "tokenizer=word", "device=cpu", "threads=1", "optimizer=adamw", "schedule=constant", "seed=3",
    "model.embedding_dim=8", "model.blocks=[{convs:[[3,16]],repeat:2}]", "model.cutoffs=[10,30]", "model.dropout=0",
    "trainer.block_size=8", "trainer.validate_every=10", "trainer.checkpoint_every=10", "trainer.log_every=1",
    "trainer.carry_state=true", "trainer.max_steps=30",
)  # fmt: skip
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--")


@pytest.fixture
def start(corpus):
    """Start the command in one process, or in two under torchrun."""
    started = []

    def run(run_dir: Path, processes: int, *arguments: str) -> subprocess.Popen:
        launcher = LAUNCH if processes == 2 else ()
        paths = f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}", f"run_dir={run_dir}"
        command = [sys.executable, *launcher, str(ROOT / "scripts" / "train.py"), *ARGUMENTS, *paths, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen, code: int = 0) -> str:
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return err


def records(run: Path, kind: str, key: str) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines if line["kind"] == kind]


def rank_1(process: subprocess.Popen, run: Path) -> int:
    """The process of rank 1, once both have made a step and so listen to signals."""
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes() for pid in children}
    (found,) = (pid for pid, environment in environments.items() if b"\0RANK=1\0" in environment)
    return found


def check_same_curve(first: Path, second: Path) -> None:
    assert len(records(first, "train", "loss")) == 30
    for kind, key in (("train", "step"), ("train", "tokens"), ("train", "loss"), ("train", "grad_norm"),
                      ("validation", "nll_nats")):  # fmt: skip
        np.testing.assert_allclose(records(second, kind, key), records(first, kind, key), rtol=1e-5, atol=1e-5)
    a, b = (safetensors.torch.load_file(run / "model.safetensors") for run in (first, second))
    for name, tensor in a.items():
        np.testing.assert_allclose(b[name], tensor, atol=1e-3, err_msg=name)


def test_two_processes_train_as_one_with_the_same_global_batch(start, tmp_path):
    whole, shared = (
        start(tmp_path / name, processes, "trainer.batch_size=4", f"trainer.micro_batch_size={micro}")
        for name, processes, micro in (("one", 1, 3), ("two", 2, 1))
    )
    finish(whole)
    finish(shared)
    check_same_curve(tmp_path / "one", tmp_path / "two")
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("one", "two")]
    assert [found["processes"] for found in results] == [1, 2]
    for found, process in zip(results, (whole, shared), strict=True):  # to be typed again
        assert found["command"] == shlex.join(["python", *map(str, process.args[1:])])
    assert results[0]["train"]["tokens"] == results[1]["train"]["tokens"]
    assert results[0]["test"]["perplexity"] == pytest.approx(results[1]["test"]["perplexity"], rel=1e-3)


def test_a_run_goes_on_with_another_number_of_processes(start, tmp_path):
    finish(start(tmp_path / "whole", 1, "trainer.batch_size=4"))
    for steps, processes in ((10, 2), (30, 1)):
        sizes = "trainer.batch_size=4", f"trainer.max_steps={steps}"
        finish(start(tmp_path / "parts", processes, *sizes, "resume=true"))
    check_same_curve(tmp_path / "whole", tmp_path / "parts")


def test_another_global_batch_is_refused_on_resume(start, tmp_path):
    finish(start(tmp_path / "run", 1, "trainer.batch_size=4"))
    err = finish(start(tmp_path / "run", 1, "trainer.batch_size=2", "trainer.max_steps=40", "resume=true"), 2)
    assert re.search("trainer.batch_size of .* is 4 and cannot become 2", err.splitlines()[-1])


def test_a_signal_to_one_process_saves_and_stops_all(start, tmp_path):
    run = tmp_path / "run"
    options = "trainer.batch_size=4", "trainer.shard=true"
    process = start(run, 2, *options, "trainer.max_steps=100000", "trainer.checkpoint_every=100000",
                    "trainer.validate_every=100000")  # fmt: skip
    os.kill(rank_1(process, run), signal.SIGUSR1)
    err = finish(process, 1)  # torchrun's own code for processes that end with another than 0
    assert "SIGUSR1: saved at step" in err
    assert err.count(f"exitcode  : {128 + signal.SIGUSR1}") == 2
    (saved,) = (run / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step_"))
    finish(start(run, 2, *options, f"trainer.max_steps={step + 5}", "resume=true"))
    assert records(run, "train", "step") == list(range(1, step + 6))


def test_checkpoints_by_the_clock_come_at_the_same_step_on_all(start, tmp_path):
    """Saving is collective: processes that each asked their own clock would wait for one another for ever."""
    often = "trainer.checkpoint_minutes=0.003", "trainer.max_steps=300", "trainer.keep_checkpoints=1000"
    finish(start(tmp_path / "run", 2, "trainer.batch_size=4", "trainer.checkpoint_every=100000", *often))
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) > 1


def test_an_error_of_one_process_is_a_line_of_each(start, tmp_path):
    """Rank 0 finds the directory in use; rank 1 only loses rank 0."""
    run = tmp_path / "run"
    run.mkdir()
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        err = finish(start(run, 2, "trainer.batch_size=4"), 1)
    assert "in use by" in err
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert 1 <= len(said) <= 2  # torchrun may end rank 1 before it notices
    assert "gcnn/training" not in err  # a place in a traceback of ours; torchrun prints one of its own


def test_a_killed_process_is_a_line_of_the_other(start, tmp_path):
    run = tmp_path / "run"
    process = start(run, 2, "trainer.batch_size=4", "trainer.max_steps=100000", "trainer.validate_every=100000")
    os.kill(rank_1(process, run), signal.SIGKILL)
    err = finish(process, 1)
    assert "gcnn/training" not in err


def test_the_launcher_adds_nothing_to_an_error_and_ends_with_its_code():
    command = [sys.executable, "-m", "gcnn.training.launch", "--standalone", "--nproc-per-node=2", "--"]
    script = str(ROOT / "scripts" / "train.py")
    done = subprocess.run([*command, script, "trainer.precision=fp8"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: trainer.precision is 'fp8'; choose one of: float32, bf16.\n"
