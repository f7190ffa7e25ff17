"""Loggers besides metrics.jsonl, by what other programs read of them."""

import dataclasses
import json
import os
import sys
import types

import pytest

from gcnn.base.errors import UsageError
from gcnn.training import metrics
from gcnn.training.metrics import check_logger
from gcnn.training.restore import restore


def scalars(folder):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the package tensorboard is not installed",
    )
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_has_the_lines_of_metrics_under_the_names_of_wandb(config, make_trainer):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    config.logger.kind = "tensorboard"
    make_trainer(config, max_steps=10).run()
    trainer = make_trainer(config, max_steps=20)
    restore(trainer, trainer.checkpoints.path(5))  # what was told of steps 6 to 10 is told anew
    trainer.run()
    told = {"steps": 20, "tokens": 3}
    results = dict.fromkeys(
        ("parameters", "receptive_field", "flops_per_token", "data", "validation"), 1
    )
    trainer.metrics.log_results(
        {**results, "train": told, "test": {"perplexity": 7.5, "name": "words"}}
    )
    found = scalars(trainer.run_dir / "tensorboard")
    assert found["results/test.perplexity"] == {20: 7.5}
    assert "results/test.name" not in found
    lines = [
        json.loads(line) for line in (trainer.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    expected = {}
    for line in lines:
        for key, value in line.items():
            if key != "kind":
                name = f"{line['kind']}/{key}"
                expected.setdefault(name, {})[line["step"]] = pytest.approx(value, rel=1e-6)
    assert {
        name: values for name, values in found.items() if not name.startswith("results/")
    } == expected
    assert list(expected["train/loss"]) == [5, 10, 15, 20]


@pytest.mark.parametrize("damaged", [
    '{"kind": "train", "step": null}\n', '{"kind": "train", "step": "x"}\n',
    '{"kind": "train", "step": true}\n', '{"kind": "train"}\n', '{"kind": 3, "step": 3}\n',
    "null\n", "3\n", "\n", "[" * 100_000 + "\n", '{"kind": "train", "step": 3}',
], ids=lambda line: line[:40])  # fmt: skip
def test_a_damaged_line_of_metrics_is_gone_when_the_run_goes_on(config, tmp_path, damaged):
    written = ['{"kind": "train", "step": 3}\n', '{"kind": "validation", "step": 5}\n', damaged]
    (tmp_path / "metrics.jsonl").write_text("".join(written))
    metrics.Metrics(config, tmp_path, step=3).close()
    assert (tmp_path / "metrics.jsonl").read_text() == written[0]


@pytest.mark.parametrize("kind", ["wandb", "tensorboard"])
def test_a_logger_that_is_not_installed_is_named_with_its_remedy(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=rf"logger={kind} needs .* pip install 'gcnn\[{kind}\]', or logger=none"
    ):
        check_logger(kind)
    check_logger("none")
    monkeypatch.undo()
    (tmp_path / "no_package").mkdir()  # as wandb and tensorboard have folders of runs
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UsageError):
        check_logger("no_package")


@pytest.fixture
def told(monkeypatch):
    """What wandb.init is told; nothing of W&B's is in the environment."""
    said = {}
    fake = types.SimpleNamespace(init=lambda **given: said.update(given), Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return said


VARIABLES = {
    "WANDB_MODE": "mode", "WANDB_PROJECT": "project", "WANDB_NAME": "name", "WANDB_DIR": "dir",
    "WANDB_SILENT": "settings", "WANDB_RESUME": "resume",
}  # fmt: skip


@pytest.mark.parametrize("variable", VARIABLES)
def test_wandb_reads_its_own_variables(config, tmp_path, told, monkeypatch, variable):
    """An argument that is None is what wandb.init takes from the environment."""
    metrics.start_wandb(config, tmp_path)
    before = dict(told)
    assert before["mode"] == "offline"
    assert all(before[key] is not None for key in VARIABLES.values())
    monkeypatch.setenv(variable, "said")
    metrics.start_wandb(config, tmp_path)
    assert {key for key in before if told[key] != before[key]} == {VARIABLES[variable]}
    assert told[VARIABLES[variable]] is None
    monkeypatch.setenv(variable, "")  # a variable that is set and empty says nothing
    metrics.start_wandb(config, tmp_path)
    assert told == before


def test_what_the_config_says_counts_and_a_line_says_so(
    config, tmp_path, told, monkeypatch, caplog
):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    logger = dataclasses.replace(config.logger, mode="online", project="ours")
    metrics.start_wandb(dataclasses.replace(config, logger=logger), tmp_path)
    assert (told["mode"], told["project"]) == ("online", "ours")
    assert "logger.mode=online counts, not WANDB_MODE=disabled." in caplog.text
    assert "logger.project=ours counts, not WANDB_PROJECT=theirs." in caplog.text


def test_a_run_keeps_the_id_that_it_began_with(config, tmp_path, told, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    metrics.start_wandb(config, tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    metrics.start_wandb(config, tmp_path)
    assert told["id"] == "given"
