"""The real command, from text to perplexity."""

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

import pytest
import safetensors.torch

from gcnn.config.stored import load_config

ROOT = Path(__file__).parents[2]
RESULTS = {
    "git_commit": None, "experiment": None, "command": None, "seed": None, "receptive_field": None,
    "flops_per_token": None,
    "hardware": {
        "cpu", "cores", "threads", "gpu", "gpu_count", "driver", "cudnn", "tf32", "memory_bytes",
        "platform",
    },
    "versions": {"python", "gcnn", "torch", "datasets", "sentencepiece", "hydra-core", "numpy"},
    "parameters": {"total", "embedding", "body", "softmax"},
    "data": {"name", "fingerprint", "tokenizer_fingerprint", "vocabulary_size"},
    "train": {
        "steps", "tokens", "seconds", "tokens_per_second", "peak_memory_bytes", "precision",
        "recurrent_kernel",
    },
}  # fmt: skip
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138, signal.SIGHUP: 129}
SPLIT = {
    "nll_nats",
    "tokens",
    "perplexity",
    "words",
    "word_perplexity",
    "bytes",
    "bits_per_byte",
    "unknown",
    "out_of_vocabulary",
    "known_perplexity",
    "unigram_perplexity",
    "text_fingerprint",
}


def test_run_directory_holds_all_and_the_table_says_it(call, tiny, tmp_path, corpus):
    done = call("train", *tiny, "trainer.max_steps=200", "optimizer.lr=0.02")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text())
    for key, parts in {**RESULTS, "validation": SPLIT, "test": SPLIT}.items():
        assert key in results
        assert parts is None or set(results[key]) == parts
    words = (corpus / "test.txt").read_text().split()
    assert results["test"]["tokens"] == results["test"]["words"] == len(words) + 30
    assert results["test"]["bytes"] == (corpus / "test.txt").stat().st_size
    assert results["test"]["perplexity"] < results["test"]["unigram_perplexity"]
    assert f"{results['test']['perplexity']:.2f}" in done.out
    assert done.out.splitlines()[-1] == f"run: {run}"
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "tokenizer",
        "model.safetensors",
        "checkpoints",
        "metrics.jsonl",
        "train.log",
    }


def test_run_can_be_repeated_from_its_config(call, tiny, tmp_path):
    call("train", *tiny)
    before = {path.name for path in tmp_path.iterdir()}
    again = call(
        "train", "--config-path", "run", "--config-name", "config", f"run_dir={tmp_path / 'again'}"
    )
    assert again.code == 0, again.err
    # Nothing of Hydra's own.
    assert {path.name for path in tmp_path.iterdir()} == before | {"again"}
    first, second = (
        safetensors.torch.load_file(tmp_path / name / "model.safetensors")
        for name in ("run", "again")
    )
    assert all(first[name].equal(second[name]) for name in first)


def test_default_run_dir_is_named_after_the_experiment(call, tiny, tmp_path):
    assert (
        call("train", *tiny[:-1], "experiment=wikitext2/gcnn_small", "trainer.max_epochs=1").code
        == 0
    )
    (run,) = (tmp_path / "runs" / "wikitext2" / "gcnn_small").iterdir()
    assert load_config(run).experiment == "wikitext2/gcnn_small"


def test_sentencepiece_and_lstm_and_wandb_offline(call, tiny, tmp_path):
    lstm = [argument for argument in tiny if not argument.startswith("model.blocks")]
    done = call(
        "train",
        *lstm,
        "model=lstm_small",
        "model.hidden_dim=16",
        "model.cutoffs=[10]",
        "tokenizer=sentencepiece",
        "tokenizer.vocabulary_size=300",
        "logger=wandb",
    )
    assert done.code == 0, done.err
    assert (
        call("train", f"run_dir={tmp_path / 'run'}", "resume=true", "trainer.max_steps=25").code
        == 0
    )
    parts = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    # offline-run-<second>-<id>, and a number where both begin within one second
    assert {path.name.split("-")[3] for path in parts} == {
        (tmp_path / "run" / "wandb_id").read_text()
    }
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["receptive_field"] is None
    assert results["test"]["tokens"] > results["test"]["words"]


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_signal_saves_and_resume_goes_on(call, spawn, tiny, tmp_path, number, code):
    arguments = [a for a in tiny if "max_steps" not in a] + [
        "trainer.max_steps=20000",
        "trainer.checkpoint_every=100000",
    ]
    process = spawn(*arguments)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.is_alive() and (not metrics.exists() or not metrics.read_text()):
        time.sleep(0.05)
    os.kill(process.pid, number)
    go_on = shlex.split(process.finish(code).splitlines()[-1].partition("; go on with: ")[2])
    assert go_on[1:] == [
        str(ROOT / "scripts" / "train.py"),
        f"run_dir={tmp_path / 'run'}",
        "resume=true",
    ]
    assert os.access(go_on[0], os.X_OK)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step_"))
    done = call("train", *go_on[2:], f"trainer.max_steps={step + 10}")
    assert done.code == 0, done.err
    assert (
        json.loads((tmp_path / "run" / "results.json").read_text())["train"]["steps"] == step + 10
    )


def timeless(run: Path) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]


def test_run_killed_five_times_ends_like_an_undisturbed_one(call, spawn, tiny, tmp_path):
    arguments = [a for a in tiny[:-1] if "max_steps" not in a] + [
        "trainer.max_steps=300",
        "trainer.checkpoint_every=20",
    ]
    assert call("train", *arguments, f"run_dir={tmp_path / 'whole'}").code == 0
    killed = 0
    for kill in range(5):
        process = spawn(*arguments, f"run_dir={tmp_path / 'killed'}", "resume=true")
        metrics = tmp_path / "killed" / "metrics.jsonl"
        goal = (kill + 1) * 9  # lines of metrics, of 90
        while process.is_alive() and (
            not metrics.exists() or metrics.read_text().count("\n") < goal
        ):
            time.sleep(0.02)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed == 5
    assert call("train", *arguments, f"run_dir={tmp_path / 'killed'}", "resume=true").code == 0
    first, second = (
        safetensors.torch.load_file(tmp_path / run / "model.safetensors")
        for run in ("whole", "killed")
    )
    assert all(first[name].equal(second[name]) for name in first)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "killed")


def test_two_runs_do_not_share_a_directory(call, spawn, tiny, tmp_path):
    process = spawn(*tiny, "trainer.max_steps=20000")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.is_alive() and not metrics.exists():
        time.sleep(0.05)
    second = call("train", *tiny, "resume=true")
    assert second.code == 2
    assert f"in use by process {process.pid}" in second.err
    process.kill()
    process.join()
    # The lock of a dead process holds nobody up.
    assert call("train", *tiny, "resume=true").code == 0


def test_a_run_goes_on_by_its_own_config_and_each_change_is_named(call, tiny, tmp_path):
    """Nothing is repeated but where it is: the default's data, model and learning rate are other
    ones.
    """
    own = ["optimizer.lr=0.0005", "model.dropout=0.3", "seed=7", "trainer.max_steps=10"]
    assert call("train", *tiny, *own).code == 0
    before = load_config(tmp_path / "run")
    done = call(
        "train",
        "experiment=quickstart",
        f"run_dir={tmp_path / 'run'}",
        "resume=true",
        "trainer.max_steps=20",
        "model=gcnn_small",
        "optimizer.weight_decay=0.2",
    )
    assert done.code == 0, done.err
    changed = [
        line for line in done.err.splitlines() if line.startswith("resume: ") and "->" in line
    ]
    assert changed == [
        "resume: optimizer.weight_decay 0.01 -> 0.2",
        "resume: trainer.max_steps 10 -> 20",
    ]
    assert "not quickstart; its own config counts" in done.err
    before.trainer.max_steps, before.optimizer.weight_decay = 20, 0.2
    assert load_config(tmp_path / "run") == before
    assert set(changed) <= {
        line.partition("INFO ")[2] for line in (tmp_path / "run/train.log").read_text().splitlines()
    }


@pytest.mark.parametrize(
    "change",
    [
        "seed=2",
        "trainer.batch_size=2",
        "trainer.block_size=8",
        "model.gate=gtu",
        "data.sentences=true",
        "tokenizer.min_count=2",
        "model=lstm_small",
        "optimizer=nesterov",
        "data=wikitext2",
        "tokenizer=sentencepiece",
        "DATA",
    ],
)
def test_what_would_make_another_run_is_refused_and_changes_nothing(
    call, run_dir, corpus, tmp_path, snapshot, change
):
    if change == "DATA":
        shutil.copytree(corpus, tmp_path / "other", ignore=shutil.ignore_patterns("cache"))
        text = (tmp_path / "other" / "valid.txt").read_text()
        (tmp_path / "other" / "valid.txt").write_text(text + "w1 w2\n")
        change = f"data.path={tmp_path / 'other'}"
    before = snapshot()
    done = call("train", f"run_dir={run_dir}", "resume=true", "trainer.max_steps=30", change)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    remedy = "of another data. The text is not the one that it was trained on: restore that"
    assert "cannot become" in done.err or remedy in done.err
    assert snapshot() == before


def test_a_folder_that_holds_a_model_without_checkpoints_is_not_trained_anew(
    call, tiny, run_dir, snapshot
):
    for name in ("metrics.jsonl", "results.json", "train.log"):
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "checkpoints")
    for step in ("imported", "no config"):
        before = snapshot()
        done = call("train", *tiny, "resume=true")
        assert done.code == 2, (step, done.err)
        assert re.search("holds (a model|model.safetensors)", done.err)
        assert snapshot() == before
        (run_dir / "config.yaml").unlink(missing_ok=True)


def test_the_newest_unfinished_run_goes_on_by_time(call, tiny, tmp_path, run_dir):
    runs = tmp_path / "runs" / "custom"
    for hours, name in enumerate(("zeta", "beta", "alpha")):
        shutil.copytree(run_dir, runs / name)
        (runs / name / "results.json").unlink()
        os.utime(runs / name / "config.yaml", (hours, hours))
    shutil.copytree(run_dir, runs / "done")  # later, but finished
    os.utime(runs / "done" / "config.yaml", (9, 9))
    done = call("train", "resume=true", "trainer.max_steps=25")
    assert done.code == 0, done.err
    assert f"going on with the unfinished run {Path('runs/custom/alpha')}" in done.err
    assert done.out.splitlines()[-1] == f"run: {runs / 'alpha'}"


@pytest.mark.parametrize("there", ["nothing", "finished"])
def test_resume_without_an_unfinished_run_is_an_error_and_begins_none(
    call, tmp_path, trained, snapshot, there
):
    """Another run's table and exit code 0 would look as if the one meant had ended well."""
    run = Path("runs", "custom", "done")
    if there == "finished":
        shutil.copytree(trained, tmp_path / run)
    before = snapshot()
    done = call("train", "resume=true", "trainer.max_steps=25")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    named = f"run_dir={run} resume=true" if there == "finished" else f"no run in {run.parent}"
    assert named in done.err
    assert snapshot() == before


def test_training_outlives_the_reader_of_its_messages(tiny, tmp_path):
    """As it is typed: in a Python of its own."""
    command = [sys.executable, ROOT / "scripts" / "train.py", *tiny, "trainer.max_steps=60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["train"]["steps"] == 60
    assert "step 60: validation" in (tmp_path / "run" / "train.log").read_text()
