"""Several processes, started by torchrun, train as one does with the same global batch."""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from tests.processes import Command, environments_of_ranks

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
    "data=local", "tokenizer=word", "device=cpu", "threads=1", "optimizer=adamw",
    "schedule=constant", "seed=3", "model.embedding_dim=8",
    "model.blocks=[{convs:[[3,16]],repeat:2}]", "model.cutoffs=[10,30]", "model.dropout=0",
    "trainer.block_size=8", "trainer.validate_every=10", "trainer.checkpoint_every=10",
    "trainer.log_every=1",
    "trainer.carry_state=true", "trainer.max_steps=30",
)  # fmt: skip
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--")


def settings(corpus: Path, run_dir: Path, *arguments: str) -> tuple[str, ...]:
    paths = f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}", f"run_dir={run_dir}"
    return *ARGUMENTS, *paths, "trainer.batch_size=4", *arguments


@pytest.fixture
def start(corpus, tmp_path):
    """Start the command in one process, or in two that are told what torchrun tells its own."""
    started = []

    def run(run_dir: Path, processes: int, *arguments: str) -> list[Command]:
        environments = environments_of_ranks(2) if processes == 2 else [{}]
        arguments = settings(corpus, run_dir, *arguments)
        ranks = [
            Command(tmp_path, "train", *arguments, **environment) for environment in environments
        ]
        started.extend(ranks)
        return ranks

    yield run
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Command:
    """The run of one process, which is the last of its arguments."""
    folder = tmp_path_factory.mktemp("whole")
    process = Command(
        folder, "train", *settings(corpus, folder / "run", "trainer.micro_batch_size=3")
    )
    process.finish()
    return process


def finish(processes: list[Command]) -> None:
    for process in processes:
        process.finish()


def records(run: Path, kind: str, key: str) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines if line["kind"] == kind]


def wait_for_a_step(process: subprocess.Popen | Command, run: Path) -> None:
    """Both have made one then, and so listen to signals."""
    metrics = run / "metrics.jsonl"
    ended = process.poll if isinstance(process, subprocess.Popen) else lambda: process.exitcode
    while ended() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)


def rank_1(torchrun: int) -> int:
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes() for pid in children}
    (found,) = (pid for pid, environment in environments.items() if b"\0RANK=1\0" in environment)
    return found


def check_same_curve(first: Path, second: Path) -> None:
    assert len(records(first, "train", "loss")) == 30
    compared = [("train", key) for key in ("step", "tokens", "loss", "grad_norm")]
    for kind, key in [*compared, ("validation", "loss")]:
        np.testing.assert_allclose(
            records(second, kind, key), records(first, kind, key), rtol=1e-5, atol=1e-5
        )
    a, b = (safetensors.torch.load_file(run / "model.safetensors") for run in (first, second))
    for name, tensor in a.items():
        np.testing.assert_allclose(b[name], tensor, atol=1e-3, err_msg=name)


def test_two_processes_train_as_one_with_the_same_global_batch(start, whole, tmp_path):
    ranks = start(tmp_path / "two", 2, "trainer.micro_batch_size=1")
    finish(ranks)
    one = whole.said.parent / "run"
    check_same_curve(one, tmp_path / "two")
    results = [json.loads((run / "results.json").read_text()) for run in (one, tmp_path / "two")]
    assert [found["processes"] for found in results] == [1, 2]
    for found, process, launch in zip(results, (whole, ranks[0]), ((), LAUNCH), strict=True):
        # As one types it to train so again.
        assert found["command"] == shlex.join(
            ["python", *launch, process.script, *process.arguments]
        )
    assert results[0]["train"]["tokens"] == results[1]["train"]["tokens"]
    assert results[0]["test"]["perplexity"] == pytest.approx(
        results[1]["test"]["perplexity"], rel=1e-3
    )


def test_a_run_goes_on_with_another_number_of_processes(start, whole, tmp_path):
    for steps, processes in ((10, 2), (30, 1)):
        finish(start(tmp_path / "parts", processes, f"trainer.max_steps={steps}", "resume=true"))
    check_same_curve(whole.said.parent / "run", tmp_path / "parts")


def test_another_global_batch_is_refused_on_resume(start, whole, tmp_path):
    shutil.copytree(whole.said.parent / "run", tmp_path / "run")
    (process,) = start(
        tmp_path / "run", 1, "trainer.batch_size=2", "trainer.max_steps=40", "resume=true"
    )
    err = process.finish(2)
    assert re.search("trainer.batch_size of .* is 4 and cannot become 2", err.splitlines()[-1])


def test_a_signal_to_one_process_saves_and_stops_all(start, corpus, tmp_path):
    run = tmp_path / "run"
    long = ("max_steps", "checkpoint_every", "validate_every")
    arguments = settings(corpus, run, *(f"trainer.{key}=100000" for key in long))
    command = [sys.executable, *LAUNCH, str(ROOT / "scripts" / "train.py"), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as torchrun:
        wait_for_a_step(torchrun, run)
        os.kill(rank_1(torchrun.pid), signal.SIGUSR1)
        _, err = torchrun.communicate(timeout=120)
    # Torchrun's own code for processes that end with another than 0.
    assert torchrun.returncode == 1, err
    assert "SIGUSR1: saved at step" in err
    assert err.count(f"exitcode  : {128 + signal.SIGUSR1}") == 2
    (saved,) = (run / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step_"))
    finish(start(run, 2, f"trainer.max_steps={step + 5}", "resume=true"))
    assert records(run, "train", "step") == list(range(1, step + 6))


def test_checkpoints_by_the_clock_come_at_the_same_step_on_all(start, tmp_path):
    """Saving is collective: processes that each asked their own clock would wait for ever."""
    often = (
        "trainer.checkpoint_minutes=0.001",
        "trainer.max_steps=100",
        "trainer.keep_checkpoints=1000",
    )
    finish(start(tmp_path / "run", 2, "trainer.checkpoint_every=100000", *often))
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) > 1


def test_an_error_of_one_process_is_a_line_of_each(start, tmp_path):
    """Rank 0 finds the directory in use; rank 1 only loses rank 0."""
    run = tmp_path / "run"
    run.mkdir()
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ranks = start(run, 2)
        said = [process.finish(code) for process, code in zip(ranks, (2, 1), strict=True)]
    error = re.compile("^error: .*(in use by|another process of this run has ended)", re.M)
    found = [error.findall(text) for text in said]
    assert found == [["in use by"], ["another process of this run has ended"]]
    assert "gcnn/training" not in "".join(said)  # a place in a traceback of ours


def test_a_killed_process_is_a_line_of_the_other(start, tmp_path):
    run = tmp_path / "run"
    ranks = start(run, 2, "trainer.max_steps=100000", "trainer.validate_every=100000")
    wait_for_a_step(ranks[0], run)
    ranks[1].kill()
    err = ranks[0].finish(1)
    assert err.splitlines()[-1].startswith("error: another process of this run has ended")
    assert "gcnn/training" not in err


def test_the_launcher_adds_nothing_to_an_error_and_ends_with_its_code():
    command = [
        sys.executable,
        "-m",
        "gcnn.training.launch",
        "--standalone",
        "--nproc-per-node=2",
        "--",
    ]
    script = str(ROOT / "scripts" / "train.py")
    done = subprocess.run([*command, script, "=3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: '=3' is not key=value; type it as trainer.max_steps=100.\n"
