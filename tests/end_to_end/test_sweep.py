"""Sweeps by the real command, under each of Hydra's launchers that is installed."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gcnn.config.compose import compose_config
from gcnn.config.stored import load_config, save_config
from gcnn.training.sweep import STOPPING, member_overrides
from tests.processes import Command

LAUNCHERS = {
    "basic": [],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
}


@pytest.fixture(autouse=True)
def handlers():
    """A sweep's handlers of signals do not outlive the test, whose process is the sweep's."""
    previous = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def test_a_member_is_told_by_its_own_settings_however_the_sweep_was_begun():
    task = ["seed=1", "++run_dir=a", "+model.gate=glu", "resume=true", "++resume=false"]
    hydra_config = OmegaConf.create({"overrides": {"task": task}})
    assert member_overrides(hydra_config) == ["+model.gate=glu", "seed=1"]


def results_of(sweep: Path, number: int) -> dict | None:
    path = sweep / str(number) / "results.json"
    return json.loads(path.read_text()) if path.exists() else None


def check_failed(row: dict, sweep: Path) -> None:
    assert results_of(sweep, row["member"]) is None
    assert (row["status"], row["exit_code"], row["validation_perplexity"]) == ("failed", 1, None)
    assert "loss nan" in row["error"]
    assert '"diverged": true' in (sweep / str(row["member"]) / "member.json").read_text()


def check_done(row: dict, sweep: Path) -> None:
    results = results_of(sweep, row["member"])
    assert row["status"] == "done"
    assert row["validation_perplexity"] == results["validation"]["perplexity"]
    assert row["test_perplexity"] == results["test"]["perplexity"]
    assert row["parameters"] == results["parameters"]["total"]
    assert row["tokens"] == results["train"]["tokens"]
    assert row["seconds"] == results["train"]["seconds"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_member_stops_nobody_and_the_table_says_all(call, tiny, tmp_path, launcher):
    """Members 0 and 2 are done, 1 diverges. (With submitit, which starts Pythons: 1 is done, 0
    diverges.)
    """
    if launcher != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = tmp_path / "run"
    rates, failed = (
        (["0.01", "1e+30", "0.02"], 1) if launcher == "basic" else (["1e+30", "0.02"], 0)
    )
    done = call(
        "train", "--multirun", *tiny, *LAUNCHERS[launcher], f"optimizer.lr={','.join(rates)}"
    )
    assert done.code == 1, done.err
    assert f"1 of {len(rates)} members failed: {failed}." in done.err.splitlines()[-1]
    if launcher != "submitit_local":  # whose members write to files
        assert done.err.count("error: member ") == 1
    else:
        assert sorted(re.findall("member ([012]): running", done.err)) == ["0", "1"]

    table = json.loads((sweep / "sweep.json").read_text())
    done_ones = [n for n in range(len(rates)) if n != failed]
    perplexities = {n: results_of(sweep, n)["validation"]["perplexity"] for n in done_ones}
    assert [row["member"] for row in table] == [*sorted(done_ones, key=perplexities.get), failed]
    for row in table:
        config = load_config(sweep / str(row["member"]))
        assert row["overrides"] == {"optimizer.lr": rates[row["member"]]}
        assert config.optimizer.lr == float(rates[row["member"]])
        check = check_failed if row["member"] == failed else check_done
        check(row, sweep)
    first = done.out[done.out.index("member  ") :].splitlines()[1].split()
    best = table[0]["member"]
    assert first[:4] == [str(best), rates[best], "done", f"{perplexities[best]:.2f}"]
    if launcher == "basic":
        assert call("report", sweep, "--out", tmp_path / "report").code == 0


def test_resume_finishes_a_sweep_and_leaves_what_is_done(call, tiny, tmp_path):
    sweep = tmp_path / "run"
    arguments = ["--multirun", *tiny, "seed=1,2,3"]
    assert call("train", *arguments).code == 0
    whole = results_of(sweep, 1)
    (sweep / "1" / "results.json").unlink()  # as if it had been killed before its end
    before = {
        path: path.stat().st_mtime_ns
        for n in "02"
        for path in (sweep / n).rglob("*")
        if path.is_file()
    }

    refused = call("train", *arguments)
    assert refused.code == 2
    assert "already holds a sweep; set resume=true" in refused.err
    assert refused.err.count("\n") == 1

    resumed = call("train", *arguments, "resume=true")
    assert resumed.code == 0, resumed.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert results_of(sweep, 1)["validation"] == whole["validation"]
    assert {row["status"] for row in json.loads((sweep / "sweep.json").read_text())} == {"done"}

    other = call("train", "--multirun", *tiny, "seed=4,2,3", "resume=true")
    assert other.code == 2
    assert f"{sweep / '0'} was begun with other overrides (seed=1, seed=4)" in other.err
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_member_does_not_go_on_at_the_learning_rate_of_another(call, tiny, tmp_path):
    """A run that goes on may change its learning rate; a member's is what the sweep compares."""
    arguments = ["--multirun", *tiny, "resume=true"]
    sweep = tmp_path / "run"
    assert call("train", *arguments, "optimizer.lr=0.01,0.02").code == 0
    (sweep / "0" / "results.json").unlink()  # as if it had been killed before its end
    other = call("train", *arguments, "optimizer.lr=0.03,0.02")
    assert other.code == 2
    assert (
        f"{sweep / '0'} was begun with other overrides (optimizer.lr=0.01, optimizer.lr=0.03)"
        in other.err
    )
    assert load_config(sweep / "0").optimizer.lr == 0.01


def test_what_is_wrong_for_all_members(call, tiny, tmp_path):
    unknown = call("train", "--multirun", *tiny, "seed=1,2", "nonsense=1")
    assert unknown.code == 2
    assert unknown.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model.gate=glu,rleu"],
            "member 1 (model.gate=rleu): model.gate is 'rleu'; choose one of: ",
        ),
        (
            ["seed=1,2", "model.dropout=0.1,1.5"],
            "member 1 (seed=1 model.dropout=1.5): model.dropout is 1.5; give a number",
        ),
        (["model=gcnn_small,gcnn_smal"], "member 1 (model=gcnn_smal): there is no model=gcnn_smal"),
        (
            [
                "hydra/sweeper=optuna",
                "seed=1",
                "model.gate=choice(glu,rleu)",
                "model.dropout=interval(0,0.5)",
            ],
            "error: a member (model.gate=rleu model.dropout=0.0): model.gate is 'rleu'",
        ),
        (
            [
                "hydra/sweeper=optuna",
                "model.gate=choice(glu,relu)",
                "model.dropout=interval(0,1.5)",
            ],
            "model.dropout is 1.5",
        ),
    ],
)
def test_all_configs_are_checked_before_the_first_member_trains(
    call, tiny, tmp_path, arguments, message
):
    swept = {argument.partition("=")[0] for argument in arguments}
    refused = call(
        "train", "--multirun", *(a for a in tiny if a.partition("=")[0] not in swept), *arguments
    )
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_all_refused_is_usage_and_the_mended_command_needs_no_resume(call, tiny, tmp_path):
    too_large = call("train", "--multirun", *tiny, "seed=1,2,3", "trainer.batch_size=100000")
    assert too_large.code == 2
    assert "3 of 3 members failed: 0, 1, 2." in too_large.err.splitlines()[-1]
    mended = call("train", "--multirun", *tiny, "seed=1,2")
    assert mended.code == 0, mended.err
    assert [row["member"] for row in json.loads((tmp_path / "run" / "sweep.json").read_text())] in (
        [0, 1],
        [1, 0],
    )


ENDLESS = ("trainer.max_epochs=null", "trainer.checkpoint_every=1000000")


def stop(process: Command, running: list[Path]) -> str:
    """End a sweep by a signal when these members have made a step; what it said."""
    begun = [member / "metrics.jsonl" for member in running]
    while process.is_alive() and not all(p.exists() and p.stat().st_size for p in begun):
        time.sleep(0.05)
    process.terminate()
    said = process.finish(143)
    for member in running:
        assert len(list(member.glob("checkpoints/step_*"))) == 1
    return said


def test_a_signal_saves_what_runs_and_ends_the_sweep(spawn, tiny, tmp_path):
    sweep = tmp_path / "run"
    stop(
        spawn("--multirun", *tiny, *ENDLESS, "seed=1,2,3", "trainer.max_steps=1000000"),
        [sweep / "0"],
    )
    assert not (sweep / "1" / "results.json").exists()
    assert {row["status"] for row in json.loads((sweep / "sweep.json").read_text())} == {
        "unfinished"
    }


def test_joblib_trains_two_members_at_a_time(spawn, tiny, tmp_path):
    """0, 2 and 4 diverge, which stops nobody; 1 is done; a signal saves 3 and 5 and ends the
    sweep.
    """
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = tmp_path / "run"
    process = spawn(
        "--multirun", *tiny, *ENDLESS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
        "optimizer.lr=1e+30,0.02", "trainer.max_steps=20,1000000,1000001",
    )  # fmt: skip
    said = stop(process, [sweep / "3", sweep / "5"])
    assert said.count("error: member ") == 3
    rows = json.loads((sweep / "sweep.json").read_text())
    assert rows[0]["member"] == 1  # the only one with a perplexity
    assert sorted(row["member"] for row in rows) == [0, 1, 2, 3, 4, 5]
    for row in rows:
        config = load_config(sweep / str(row["member"]))
        assert float(row["overrides"]["optimizer.lr"]) == config.optimizer.lr
        assert int(row["overrides"]["trainer.max_steps"]) == config.trainer.max_steps
        if row["member"] in (0, 2, 4):
            check_failed(row, sweep)
        elif row["member"] == 1:
            check_done(row, sweep)
        else:
            assert row["status"] == "unfinished"


def test_members_of_a_stored_config_and_of_two_experiments_share_a_folder(
    call, tiny, run_dir, tmp_path
):
    stored = ["--config-path", run_dir, "--config-name", "config"]
    inside = call("train", *stored, "--multirun", f"run_dir={run_dir}", "seed=1,2")
    assert inside.code == 2
    assert "holds a run; give another run_dir" in inside.err
    assert call("train", *stored, "--multirun", f"run_dir={tmp_path / 'new'}", "seed=1,2").code == 0
    assert [load_config(tmp_path / "new" / n).seed for n in "01"] == [1, 2]
    done = call(
        "train", "--multirun", *tiny[:-1], "experiment=wikitext2/gcnn_small,wikitext103/gcnn_8"
    )
    assert done.code == 0, done.err
    members = tmp_path / "runs" / "custom" / "sweep"
    assert [load_config(members / n).experiment for n in "01"] == [
        "wikitext2/gcnn_small",
        "wikitext103/gcnn_8",
    ]


def test_a_stored_config_of_an_older_version_may_be_swept(call, tiny, tmp_path, monkeypatch):
    """It has a key that was dropped since, and one that has no effect any more."""
    save_config(compose_config(*tiny), tmp_path / "config.yaml")
    config = OmegaConf.load(tmp_path / "config.yaml")
    config.trainer.shard = False
    config.logger.project = "mine"
    OmegaConf.save(config, tmp_path / "config.yaml")
    begun = []
    monkeypatch.setattr(
        "gcnn.training.run.train", lambda config, *_: (begun.append(config.seed), None)
    )
    stored = ["--config-path", tmp_path, "--config-name", "config", f"run_dir={tmp_path / 'sweep'}"]
    done = call("train", *stored, "--multirun", "seed=4,5")
    assert begun == [4, 5], done.err


def test_a_search_minimises_the_validation_perplexity(call, tiny, tmp_path):
    """Half of what is searched fails; the best value is that of the best member, and a repeated
    search goes on.
    """
    search = [
        "--multirun", *(a for a in tiny if "batch_size" not in a), "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.sampler.seed=3", "optimizer.lr=tag(log,interval(0.001,0.1))",
        "trainer.batch_size=choice(4,100000)",
    ]  # fmt: skip
    done = call("train", *search)
    rows = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert {row["status"] for row in rows} == {"done", "failed"}
    assert (done.code, len(rows)) == (1, 4), done.err
    values = [
        results["validation"]["perplexity"]
        for n in range(4)
        if (results := results_of(tmp_path / "run", n))
    ]
    found = (tmp_path / "run" / "optimization_results.yaml").read_text()
    assert float(found.split("best_value:")[1]) == min(values)
    assert call("train", *search, "resume=true").code == 1
    assert (tmp_path / "run" / "optimization_results.yaml").read_text() == found


def search_in_a_database(tiny, storage, n_trials):
    return [
        "--multirun",
        *tiny,
        "hydra/sweeper=optuna",
        f"hydra.sweeper.storage={storage}",
        f"hydra.sweeper.n_trials={n_trials}",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.sampler.seed=3",
        "optimizer.lr=tag(log,interval(0.001,0.1))",
    ]


def test_a_search_goes_on_from_its_database(call, tiny, tmp_path):
    """With the trials that are missing: the one under way at its checkpoint, then new values."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    if not sqlalchemy.__version__.startswith("1."):
        pytest.skip("Optuna 2 needs SQLAlchemy 1.4")
    import optuna

    storage = f"sqlite:///{tmp_path}/search.db"
    sweep = tmp_path / "run"
    assert call("train", *search_in_a_database(tiny, storage, 2)).code == 0
    # A third trial, that was stopped: it is under way in the database, and its member has no
    # results.
    study = optuna.load_study(study_name=str(sweep), storage=storage)
    trial = study.ask({"optimizer.lr": optuna.distributions.LogUniformDistribution(0.001, 0.1)})
    shutil.copytree(sweep / "1", sweep / "2")
    (sweep / "2" / "results.json").unlink()
    for name in ("config.yaml", "member.json"):
        text = (sweep / "2" / name).read_text()
        before = load_config(sweep / "1").optimizer.lr
        text = text.replace(str(before), str(trial.params["optimizer.lr"]))
        (sweep / "2" / name).write_text(text)

    done = call("train", *search_in_a_database(tiny, storage, 4), "resume=true")
    assert done.code == 0, done.err
    assert "Resumed at step 20" in (sweep / "2" / "train.log").read_text()
    rows = json.loads((sweep / "sweep.json").read_text())
    assert sorted(row["member"] for row in rows) == [0, 1, 2, 3]
    assert {row["status"] for row in rows} == {"done"}
    rates = {load_config(sweep / str(n)).optimizer.lr for n in range(4)}
    assert len(rates) == 4
    assert trial.params["optimizer.lr"] in rates
    best = (sweep / "optimization_results.yaml").read_text().split("best_value:")[1]
    assert float(best) == min(row["validation_perplexity"] for row in rows)
    # Nothing is left to do.
    done = call("train", *search_in_a_database(tiny, storage, 4), "resume=true")
    assert done.code == 0, done.err
    assert len(list(sweep.glob("*/member.json"))) == 4


def test_a_database_that_does_not_open_is_one_line(call, tiny):
    search = search_in_a_database(tiny, "sqlite:////no/such/folder/search.db", 2)
    done = call("train", *search, "resume=true")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "hydra.sweeper.storage: sqlite:////no/such/folder/search.db does not open" in done.err


def test_a_search_over_tokenizers_says_that_they_do_not_compare(call, tiny, tmp_path):
    words = [
        "--multirun",
        *(a for a in tiny if "cutoffs" not in a),
        "model.cutoffs=[]",
        "hydra/sweeper=optuna",
        "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.n_jobs=1",
        "tokenizer.min_count=choice(1,40)",
        "trainer.max_steps=2",
    ]
    done = call("train", *words)
    assert done.code == 0, done.err
    assert done.err.count("perplexities per token compare only with the same tokenizer") == 1
    assert "The search goes by the nats of each word all the same" in done.err
    assert "Not ranked: perplexities per token compare only with the same tokenizer" in done.out
    assert {row["rank"] for row in json.loads((tmp_path / "run" / "sweep.json").read_text())} == {
        None
    }
