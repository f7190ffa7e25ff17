"""Resuming: from an older checkpoint, with other settings, past a bound; checks before step 1."""

import functools
import json
import signal

import pytest
import safetensors.torch
import torch
from hydra.types import RunMode
from omegaconf import OmegaConf

from gcnn.base.errors import RunError, UsageError
from gcnn.config.schema import AdamWConfig, NesterovConfig
from gcnn.config.stored import save_config
from gcnn.data.stream import prepare
from gcnn.models.weights import WEIGHTS
from gcnn.training import run
from gcnn.training.new_run import begin_with_model_of_source
from gcnn.training.optimizers import build_optimizer
from gcnn.training.restore import restore
from gcnn.training.resume import resumed_config
from gcnn.training.signals import SIGNALS, without_ignored_hangup


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_turning_back_leaves_nothing_of_what_came_after(config, make_trainer):
    """From step 5 on with another learning rate: as a run that never saw the steps after 5."""
    options = {"validate_every": 5, "keep_checkpoints": 9, "log_every": 1}
    config.optimizer = AdamWConfig(lr=0.01)
    for name, steps in (("run", 20), ("never", 5)):
        make_trainer(config, name, max_steps=steps, **options).run()
    best_at_20 = safetensors.torch.load_file(make_trainer(config).run_dir / WEIGHTS)
    config.optimizer = AdamWConfig(lr=1e-6)  # so that no later step is better than those set aside
    for name in ("run", "never"):
        trainer = make_trainer(config, name, max_steps=15, **options)
        restore(trainer, trainer.checkpoints.path(5))
        trainer.run()
    run = trainer.run_dir.with_name("run")
    never = trainer.run_dir
    found = safetensors.torch.load_file(run / WEIGHTS)
    assert equal(found, safetensors.torch.load_file(never / WEIGHTS))
    assert not equal(found, best_at_20)
    names = [f"step_{step:09}" for step in (5, 10, 15)]
    assert sorted(path.name for path in (run / "checkpoints").glob("step_*")) == names
    assert sorted(path.name for path in (run / "checkpoints" / "abandoned_1").iterdir()) == [
        f"step_{step:09}" for step in (10, 15, 20)
    ]
    resumed = make_trainer(config, "run", max_steps=15, **options)
    restore(resumed, None)
    assert resumed.progress.step == 15
    assert equal(resumed.model.state_dict(), trainer.model.state_dict())


@pytest.mark.parametrize(("before", "after"), [
    (AdamWConfig(lr=0.01), AdamWConfig(lr=0.02, betas=[0.5, 0.6], weight_decay=0.3)),
    (NesterovConfig(lr=0.5, momentum=0.9), NesterovConfig(lr=0.1, momentum=0.3, weight_decay=0.2)),
], ids=["adamw", "nesterov"])  # fmt: skip
def test_settings_of_the_optimizer_that_are_changed_on_resume_take_effect(
    config, make_trainer, before, after
):
    config.optimizer = before
    make_trainer(config, max_steps=5).run()
    config.optimizer = after
    trainer = make_trainer(config, max_steps=6)
    restore(trainer, None)
    trainer.run()
    fresh = build_optimizer(after, trainer.model)
    for found, expected in zip(trainer.optimizer.param_groups, fresh.param_groups, strict=True):
        assert {k: v for k, v in found.items() if k != "params"} == {
            k: v for k, v in expected.items() if k != "params"
        }


@pytest.mark.parametrize("key", ["foo", "trainer.foo", "+model.foo"])
def test_a_key_that_no_config_has_is_named_on_resume(config, tmp_path, key):
    save_config(config, tmp_path / "config.yaml")
    with pytest.raises(UsageError, match=r"Key 'foo' not in .* Its keys: "):
        resumed_config(tmp_path, [f"{key}=1"])


def test_a_home_folder_in_the_init_from_of_a_config_file_is_found(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    save_config(config, tmp_path / "run" / "config.yaml")
    composed = OmegaConf.create({"init_from": "~/run", "model": {}, "tokenizer": {}})
    hydra_config = OmegaConf.create({"mode": RunMode.RUN, "overrides": {"task": []}})
    begin_with_model_of_source(composed, hydra_config)
    assert composed.model == OmegaConf.structured(config.model)


def test_a_bound_below_the_step_reached_is_said_and_ends_the_run(config, make_trainer, caplog):
    make_trainer(config, max_steps=8).run()
    trainer = make_trainer(config, max_steps=5)
    restore(trainer, None)
    with caplog.at_level("INFO", logger="gcnn"):
        trainer.run()
    assert trainer.progress.step == 8
    assert "Step 8 is at a bound of this run, or past it" in caplog.text
    lines = map(json.loads, (trainer.run_dir / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [8]  # once


def test_a_compiler_that_fails_is_one_line_before_the_first_step(config, make_trainer, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    trainer = make_trainer(config, compile=True)
    with pytest.raises(RunError, match=r"no C\+\+ compiler.*Set trainer.compile=false"):
        trainer.run()
    assert not (trainer.run_dir / "metrics.jsonl").exists()
    assert trainer.progress.step == 0


def test_a_run_that_came_and_went_while_the_data_was_read_is_kept(config, tmp_path, monkeypatch):
    config.run_dir = str(tmp_path / "run")
    config.trainer.max_steps = 5

    def prepare_while_another_trains(*of_data):
        monkeypatch.setattr(run, "prepare", prepare)
        run.train(config)
        return prepare(*of_data)

    monkeypatch.setattr(run, "prepare", prepare_while_another_trains)
    with pytest.raises(UsageError, match="already holds a run"):
        run.train(config)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [5, 5]  # training and validation
    assert (tmp_path / "run" / "results.json").exists()


def test_a_hangup_that_nohup_ignores_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in without_ignored_hangup(SIGNALS)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert signal.SIGHUP in without_ignored_hangup(SIGNALS)
