"""Experiments and choices in a folder of one's own: --config-dir, in each command that composes a
config.
"""

import re
from pathlib import Path

import pytest

from gcnn.config.overrides import quoted
from gcnn.config.stored import load_config


@pytest.fixture
def mine(tiny, tmp_path) -> list[str]:
    """The arguments of `tiny`, but for what an experiment and an optimizer of one's own say; no
    run_dir.
    """
    folder = tmp_path / "it's mine"
    for name, text in {
        "experiment/own_run.yaml": (
            "defaults: [override /optimizer: own]\ntrainer: {max_steps: 10}\n"
        ),
        "optimizer/own.yaml": "defaults: [adamw]\noptimizer: {lr: 0.0123}\n",
    }.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(f"# @package _global_\n{text}")
    said = ("optimizer=", "trainer.max_steps=", "run_dir=")
    kept = [argument for argument in tiny if not argument.startswith(said)]
    return ["--config-dir", str(folder), "experiment=own_run", *kept]


def test_a_run_of_an_experiment_of_ones_own_goes_on(call, mine, tmp_path):
    assert call("train", *mine, "optimizer.lr=0.0005").code == 0
    (run,) = Path("runs/own_run").iterdir()
    (run / "results.json").unlink()  # as if it had been stopped
    done = call("train", *mine, "resume=true", "trainer.max_steps=15", "optimizer=own")
    assert done.code == 0, done.err
    assert list(Path("runs/own_run").iterdir()) == [run]
    assert f"going on with the unfinished run {run}" in done.err
    assert "optimizer=own differs in lr; the run keeps its own" in done.err
    done = call("train", *mine, f"run_dir={run}", "resume=true", "trainer.max_steps=20")
    assert done.code == 0, done.err
    assert load_config(run).optimizer.lr == 0.0005
    assert load_config(run).trainer.max_steps == 20
    done = call("train", *mine, f"run_dir={run}", "resume=true", "model.gate=gtu")
    assert (done.code, "model.gate" in done.err) == (2, True)


@pytest.mark.parametrize("option", ["--config-dir", "hydra.searchpath"])
def test_an_experiment_that_needs_the_model_of_the_command_line_is_trained(
    call, tmp_path, monkeypatch, option
):
    folder = tmp_path / "own"
    (folder / "experiment").mkdir(parents=True)
    text = "# @package _global_\nmodel: {num_heads: 4}\ntrainer: {max_steps: 10}\n"
    (folder / "experiment" / "heads.yaml").write_text(text)
    trained = []

    def train(config, notes, fit_cutoffs):
        trained.append((config.model.num_heads, list(notes)))
        return tmp_path, None

    monkeypatch.setattr("gcnn.training.run.train", train)
    where = [option, str(folder)]
    if option == "hydra.searchpath":
        where = [f"hydra.searchpath=[file://{folder}]"]
    own = ["experiment=heads", "model=transformer_small", "data=local", "data.path=text"]
    done = call("train", *where, *own)
    assert (done.code, trained) == (0, [(4, [])]), done.err


def test_its_text_is_prepared_and_help_lists_it(call, mine):
    done = call("prepare_data", *mine)
    assert done.code == 0, done.err
    assert re.search(r"^train +200 ", done.out, re.M)
    folder, *rest = mine[1:]
    folder_url = f"file://{folder}"
    found = call("prepare_data", f"hydra.searchpath=[{quoted(folder_url)}]", *rest)
    assert (found.code, found.out) == (0, done.out), found.err
    for command in ("prepare_data", "train"):
        done = call(command, "--help", *mine)
        assert done.code == 0, done.err
        assert re.search("^experiment=.*, own_run, .*quickstart", done.out, re.M)
    assert re.search("^optimizer=.*, own$", done.out, re.M)
    assert re.search(r"^  optimizer.lr +0.0123 ", done.out, re.M)


@pytest.mark.parametrize("command", ["prepare_data", "train"])
def test_a_folder_that_is_none_is_named(call, tiny, command):
    done = call(command, "--config-dir", "/no/such", *tiny, "resume=true")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "--config-dir/-cd: /no/such is not a folder" in done.err
