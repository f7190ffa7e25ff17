"""What is trained next, what is kept, and what goes on elsewhere."""

import dataclasses
import json
import re
import shutil

import pytest

from gcnn.base.errors import UsageError
from gcnn.commands import reproduce
from gcnn.reproduction import plans
from gcnn.reproduction.kept_runs import KeptRun, keep_runs, read_kept, read_runs
from gcnn.reproduction.plans import Part, parts_of
from gcnn.reproduction.progress import adopt, chosen_rate, count_missing, known_runs, next_runs
from gcnn.reproduction.records import make_record
from tests.reproduction.made_up import add

BASE = ("experiment=cpu/base",)
RATE = 0.12345678  # all its digits are trained
PART = Part("cpu", "fig3", "gtu", (*BASE, "model.gate=gtu"), (0.01, 0.03, 0.1), (1, 2, 3))


def ended(rate, seed, valid=None, error=None):
    """A run of PART that is finished, unless it has failed or has no validation perplexity yet."""
    config = dataclasses.asdict(PART.recipe(rate, seed))
    perplexity = {"perplexity": valid}
    results = {"train": {"tokens": 1000}, "validation": perplexity, "test": perplexity}
    files = {} if valid is None else {"results.json": results}
    return KeptRun(group="gtu", config=config, error=error, validation=[], files=files)


def test_first_the_rates_then_the_seeds_at_the_best():
    assert next_runs(PART, []) == [(0.01, 1), (0.03, 1), (0.1, 1)]
    runs = [ended(0.01, 1, 210.0), ended(0.03, 1, 200.0)]
    assert next_runs(PART, [*runs, ended(0.1, 1)]) == [(0.1, 1)]  # begun, not ended
    assert chosen_rate(PART, [*runs, ended(0.1, 1)]) is None
    assert next_runs(PART, [*runs, ended(0.1, 1, 220.0)]) == [(0.03, 2), (0.03, 3)]
    # A run that diverged has ended.
    runs.append(ended(0.1, 1, error="step 7: loss nan, gradient norm nan; not updated."))
    assert next_runs(PART, runs) == [(0.03, 2), (0.03, 3)]
    runs.append(ended(0.03, 2, 190.0))
    assert next_runs(PART, runs) == [(0.03, 3)]
    # The rate was chosen at the one seed that all rates have.
    assert next_runs(PART, [*runs, ended(0.03, 3, 230.0)]) == []


def test_what_has_not_begun_is_missing():
    assert count_missing(PART, []) == 3 + 2
    runs = [ended(0.01, 1, 210.0), ended(0.03, 1, 200.0), ended(0.1, 1)]
    assert count_missing(PART, runs) == 2
    assert count_missing(PART, [*runs[:2], ended(0.1, 1, 220.0), ended(0.03, 2)]) == 1


def test_kept_runs_come_back_and_those_of_others_stay(tmp_path):
    path = tmp_path / "runs" / "fig3.jsonl"
    keep_runs([ended(0.03, 1, 200.0), ended(0.01, 1)], path)
    keep_runs([ended(0.03, 2, 201.0), ended(0.03, 1, 199.0)], path)
    assert [(run.place, run.results.test.perplexity) for run in read_kept(path)] == [
        (("gtu", 0.03, 1), 199.0), (("gtu", 0.03, 2), 201.0),
    ]  # fmt: skip
    path.write_text(path.read_text().removesuffix("\n"))
    with pytest.raises(UsageError, match="no newline at its end"):
        read_kept(path)
    path.write_text('{"group": "gtu", "config": {}}\n')
    with pytest.raises(UsageError, match="line 1 is no kept run"):
        read_kept(path)


DAMAGE = [
    (("config", "optimizer"), None, "line 1 is no kept run"),
    (("config", "optimizer"), 3, "line 1 is no kept run"),
    (("config", "optimizer", "lr"), "fast", "line 1 is no kept run"),
    (("config", "seed"), "${oc.env:HOME}", "line 1 is no kept run"),
    (("config", "experiment"), "${oc.env:HOME}", "line 1 is no kept run"),
    (("config", "experiment"), "${", "line 1 is no kept run"),
    (("config", "model"), None, "not a config of this project"),
    (("files", "results.json"), [], "results.json is not an object"),
    (("files", "results.json", "command"), "gcnn 'x", "results.json of a run of fig3: the command"),
    (("files", "wikitext103.json"), {}, "wikitext103.json lacks its perplexity"),
    (("config", "trainer"), "x", "not a config of this project"),
    (("validation", 0), None, "validation: entry 1: kind is not a text"),
    (("diverged",), "no", "line 1: diverged is not true or false"),
    (("diverged",), 1, "line 1: diverged is not true or false"),
    (("validation", 0, "step"), None, "validation: entry 1: step is not a number"),
]


@pytest.mark.parametrize(("place", "content", "named"), DAMAGE)
def test_a_damaged_line_of_kept_runs_is_a_usage_error(place, content, named, tmp_path):
    add(tmp_path / "sweep", test=200.0)
    path = tmp_path / "fig3.jsonl"
    keep_runs(read_runs(tmp_path / "sweep", "glu"), path)
    line = json.loads(path.read_text())
    *parents, last = place
    damaged = line
    for key in parents:
        damaged = damaged[key]
    damaged[last] = content
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=named):
        make_record("fig3", "cpu", read_kept(path))


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("perplexity", [None, 0.0])
def test_a_run_without_a_finite_perplexity_has_diverged(split, perplexity, tmp_path):
    add(tmp_path, test=200.0)
    run = read_runs(tmp_path)[0]
    assert run.status == "done"
    getattr(run.results, split).perplexity = perplexity
    assert run.status == "diverged"


@pytest.mark.parametrize(("error", "diverged", "status"), [
    ("in any words", True, "diverged"),
    ("a folder named: loss nan", False, "unfinished"),
    # Of older versions, which have the message alone
    ("step 7: loss 2.5, gradient norm inf; not updated.", None, "diverged"),
    ("validation was not finite, not once: there is no best model", None, "diverged"),
    ("No space left on device.", None, "unfinished"),
])  # fmt: skip
def test_a_run_that_says_that_it_diverged_has_ended(error, diverged, status, tmp_path):
    add(tmp_path / "sweep", error=error, diverged=diverged)
    (run,) = read_runs(tmp_path / "sweep", "glu")
    assert run.status == status
    keep_runs([run], tmp_path / "kept.jsonl")
    assert read_kept(tmp_path / "kept.jsonl") == ([run] if status == "diverged" else [])


def test_another_machine_goes_on_from_what_is_kept(call, tmp_path):
    here = tmp_path / "here"
    out = tmp_path / "out"
    folder = here / "cpu" / "fig3" / "gtu"
    for seed in (1, 2):
        add(
            folder,
            "model.gate=gtu",
            f"data.path={tmp_path}/data",
            lr=0.01,
            seed=seed,
            test=200.0 + seed,
        )
    add(
        folder,
        "model.gate=gtu",
        lr=0.1,
        error="step 7: loss nan, gradient norm nan; not updated. See /home/me/runs.",
    )
    add(folder, "model.gate=gtu", lr=0.03)  # unfinished
    command = ["reproduce", "--figure", "fig3", "--draw-only", "--out", out, "--runs"]
    assert call(*command, here).code in (0, None)
    kept = out / "cpu" / "runs" / "fig3.jsonl"
    before = json.loads((out / "cpu" / "fig3.json").read_text())
    assert [group["unfinished"] for group in before["groups"]] == [[], [1], []]
    assert len(kept.read_text().splitlines()) == 3
    assert "/home/me" not in kept.read_text()
    assert str(tmp_path) not in kept.read_text()

    there = tmp_path / "there"
    # This one counts, here and in what is kept.
    add(there / "cpu" / "fig3" / "gtu", "model.gate=gtu", lr=0.01, test=7.0)
    assert call(*command, there, "data.path=/srv/data").code in (0, None)
    record = json.loads((out / "cpu" / "fig3.json").read_text())
    assert [group["lr"] for group in record["groups"]] == [0.01, 0.1]
    assert record["groups"][0]["test_perplexity"] == {"1": 7, "2": 202}
    assert record["groups"][1] == before["groups"][2]
    assert len(kept.read_text().splitlines()) == 3
    with pytest.raises(
        UsageError, match=r"fig3.jsonl: gtu at .* trained with trainer.max_epochs 1; its plan has 2"
    ):
        known_runs(parts_of("cpu", "fig3")[2], there, kept, ["trainer.max_epochs=2"])


def members(overrides, folder):
    """A sweep that trains nothing: members with the rates and seeds that it was asked for."""
    settings = dict(override.split("=", 1) for override in overrides)
    for rate in settings["optimizer.lr"].split(","):
        for seed in settings["seed"].split(","):
            name, gate = f"lr_{rate}_seed_{seed}", f"model.gate={settings['model.gate']}"
            add(
                folder,
                gate,
                name=name,
                lr=float(rate),
                seed=int(seed),
                test=5.0,
                valid=[100 * float(rate)],
            )


@pytest.fixture
def small_plan(tmp_path, monkeypatch):
    """Figure 3 at scale small: two gates, two rates (RATE is the better one), two seeds."""
    monkeypatch.setattr(plans, "PLANS", tmp_path / "plans")
    (tmp_path / "plans" / "small").mkdir(parents=True)
    groups = "{glu: {settings: [model.gate=glu]}, gtu: {settings: [model.gate=gtu]}}"
    plan = f"base: [experiment=cpu/base]\nrates: [1.0, {RATE}]\nseeds: [1, 2]\ngroups: {groups}"
    (tmp_path / "plans" / "small" / "fig3.yaml").write_text(plan)
    plans.load_plan.cache_clear()


def test_the_command_trains_what_is_missing(call, tmp_path, monkeypatch, small_plan):
    asked = []

    def run_sweep(overrides, folder):
        own = [override for override in overrides if override.startswith(("optimizer.lr", "seed"))]
        asked.append((str(folder.relative_to(tmp_path / "runs")), *own))
        assert "data.path=/data" in overrides
        if folder.name != "gtu":  # which fails
            members(overrides, folder)

    monkeypatch.setattr(reproduce, "run_sweep", run_sweep)
    command = ["reproduce", "--scale", "small", "--runs", tmp_path / "runs", "data.path=/data"]
    done = call(*command)
    rates, best = f"optimizer.lr=1,{RATE}", f"optimizer.lr={RATE}"
    failing = ("small/fig3/gtu", rates, "seed=1")
    assert asked == [
        ("small/fig3/glu", rates, "seed=1"),
        ("small/fig3/glu", best, "seed=2"),
        failing,
    ]
    assert (done.code, "fig3: 3 runs not begun" in done.err) == (1, True)
    asked.clear()
    assert call(*command).code == 1
    assert asked == [failing]
    asked.clear()
    assert call(*command, "--draw-only").code in (0, None)
    assert not asked
    # A group alone: the others are drawn with it
    done = call(*command, "--figure", "fig3", "--group", "gtu")
    assert (done.code, asked) == (1, [failing])
    assert "GLU" in done.out
    done = call(*command, "--figure", "fig3", "--group", "glu")
    assert (done.code in (0, None), "3 runs not begun" in done.err) == (True, True)
    asked.clear()
    for options, message in (
        (["--figure", "fig3", "--group", "swish"], "fig3 has no group 'swish'; .*: glu, gtu"),
        (["--group", "gtu"], "--group names a group of one figure; give one --figure"),
        (["--figure", "fig3", "--group", "gtu", "--draw-only"], "--group says what is trained"),
    ):
        done = call(*command, *options)
        assert (done.code, asked) == (2, [])
        assert re.search(message, done.err)


def test_runs_that_were_tried_and_did_not_begin_are_not_finished(
    call, tmp_path, monkeypatch, small_plan
):
    """Of figure 3 no run begins; of a search one member is refused, and later another one ends."""
    (tmp_path / "plans" / "small" / "search.yaml").write_text("sweeps: [own/search]")
    search = tmp_path / "runs" / "own" / "search"

    def run_sweep(overrides, folder):
        if folder == search:
            (folder / "0").mkdir(parents=True, exist_ok=True)
            (folder / "0" / "member.json").write_text('{"error": "no such data"}')

    monkeypatch.setattr(reproduce, "run_sweep", run_sweep)
    command = ["reproduce", "--scale", "small", "--runs", tmp_path / "runs"]
    unfinished = (
        "error: runs of fig3, search are not finished; the same command tries them again.\n"
    )
    done = call(*command)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(unfinished)
    add(search, test=5.0)
    done = call(*command)
    assert done.code == 1
    assert done.err.endswith(f"search: 1 run not begun\n{unfinished}")
    record = json.loads((tmp_path / "runs" / "figures" / "small" / "search.json").read_text())
    assert (record["missing"], len(record["groups"])) == (1, 1)
    done = call(*command, "--draw-only")
    assert (done.code, "search: 1 run not begun" in done.err) == (0, True)


def test_a_sweep_that_is_stopped_ends_the_command_with_its_code(
    call, tmp_path, monkeypatch, small_plan
):
    def run_sweep(overrides, folder):
        members(overrides, folder)
        raise reproduce.SweepStopped(130)

    monkeypatch.setattr(reproduce, "run_sweep", run_sweep)
    assert call("reproduce", "--scale", "small", "--runs", tmp_path, "data.path=/data").code == 130
    # What it had done is kept.
    assert len(read_kept(tmp_path / "figures" / "small" / "runs" / "fig3.jsonl")) == 2


def test_a_run_of_any_command_is_kept_by_its_recipe(call, tmp_path):
    add(tmp_path / "a", "model.gate=gtu", lr=0.03, test=5.0)
    add(tmp_path / "a", "model.gate=gtu", lr=0.03, seed=2, test=6.0)
    command = [
        "reproduce",
        "--figure",
        "fig3",
        "--runs",
        tmp_path / "none",
        "--add",
        tmp_path / "a",
    ]
    done = call(*command)
    assert (done.code, "--add keeps runs in the folder of --out" in done.err) == (2, True)
    done = call(*command, "--out", tmp_path / "out")
    assert done.code in (0, None), done.err
    assert "kept as fig3/gtu, learning rate 0.03, seed 2" in done.err
    assert [run.place for run in read_kept(tmp_path / "out" / "cpu" / "runs" / "fig3.jsonl")] == [
        ("gtu", 0.03, 1), ("gtu", 0.03, 2),
    ]  # fmt: skip
    parts = parts_of("cpu", "fig3")
    add(tmp_path / "b", "model.gate=gtu", "trainer.max_epochs=2", lr=0.03, test=5.0)
    with pytest.raises(
        UsageError, match=r"the nearest is gtu, but for trainer\.max_epochs 2, planned 1"
    ):
        adopt(tmp_path / "b" / "0", parts)
    add(tmp_path / "b", "model.gate=gtu", lr=0.02, test=5.0)
    planned = r"\(rates: 0\.003, 0\.01, 0\.03, 0\.1;"
    with pytest.raises(UsageError, match=rf"rate 0\.02, seed 1, is not in the plan {planned}"):
        adopt(tmp_path / "b" / "1", parts)
    add(tmp_path / "b", "model.gate=gtu", lr=0.03)
    with pytest.raises(UsageError, match="is not finished"):
        adopt(tmp_path / "b" / "2", parts)
    with pytest.raises(UsageError, match="fits no figure: those asked for have sweeps"):
        adopt(tmp_path / "a" / "0", parts_of("cpu", "search"))
    add(tmp_path / "b", "model.gate=gtu", f"init_from={tmp_path / 'a' / '0'}", lr=0.03, test=5.0)
    with pytest.raises(UsageError, match=r"3 began with the weights of .*/a/0\."):
        adopt(tmp_path / "b" / "3", parts)


def test_two_runs_of_one_seed_are_no_two_seeds(tmp_path):
    for _ in range(2):
        add(tmp_path, "model.gate=gtu", test=5.0)
    with pytest.raises(UsageError, match="two runs have the same seed"):
        make_record("fig3", "cpu", read_runs(tmp_path))


def test_the_command_says_what_is_wrong_and_draws(call, tmp_path):
    done = call("reproduce", "--figure", "fig3", "seed=5")
    assert (done.code, done.err) == (
        2, "error: seed is not to be set here: the figure's plan says it.\n"
    )  # fmt: skip
    done = call("reproduce", "fig3")
    assert (done.code, done.err) == (2, "error: fig3: type it as --figure fig3.\n")
    done = call("reproduce", "data.path")
    assert (done.code, done.err.count("\n")) == (2, 1)  # before a sweep is begun
    done = call("reproduce", "--figure", "fig3", "--draw-only", "--runs", tmp_path / "nothing")
    assert (done.code, done.err.count("\n")) == (2, 1)
    folder = tmp_path / "runs" / "cpu" / "fig3" / "gtu"
    for seed, test in ((1, 1.0), (2, 2.0), (3, 3.0)):
        add(folder, "model.gate=gtu", lr=0.01, seed=seed, test=test)
    done = call("reproduce", "--figure", "fig3", "--draw-only", "--runs", tmp_path / "runs")
    assert done.code in (0, None), done.err
    assert re.search(r"fig3: \d+ runs not begun", done.err)
    assert (tmp_path / "runs" / "figures" / "cpu" / "fig3.svg").read_text().startswith("<svg")
    record = json.loads((tmp_path / "runs" / "figures" / "cpu" / "fig3.json").read_text())
    assert record["groups"][0]["mean"] == pytest.approx(2)
    shutil.rmtree(folder / "0")  # without --out, what somebody removes does not come back
    call("reproduce", "--figure", "fig3", "--draw-only", "--runs", tmp_path / "runs")
    record = json.loads((tmp_path / "runs" / "figures" / "cpu" / "fig3.json").read_text())
    assert record["groups"][0]["mean"] == pytest.approx(2.5)


def test_a_run_of_another_recipe_in_the_folder_is_no_run_of_the_plan(tmp_path):
    [part] = [part for part in parts_of("cpu", "fig3") if part.group == "gtu"]
    folder = tmp_path / part.folder
    add(folder, "model.gate=gtu", lr=0.03, test=5.0)
    assert len(known_runs(part, tmp_path, None, [])) == 1
    add(folder, "model.gate=gtu", name="copy", lr=0.03, test=6.0)
    with pytest.raises(UsageError, match=r"two runs have learning rate 0\.03 and seed 1"):
        known_runs(part, tmp_path, None, [])
    shutil.rmtree(folder / "copy")
    add(folder, "model.gate=gtu", "trainer.max_epochs=2", name="other", lr=0.1, test=5.0)
    with pytest.raises(UsageError, match=r"trained with trainer\.max_epochs 2; its plan has 1 now"):
        known_runs(part, tmp_path, None, [])


def test_kept_runs_of_a_group_that_the_plan_does_not_have_are_refused(call, tmp_path):
    run = ended(0.03, 1, 200.0)
    run.group = "swish"
    keep_runs([run], tmp_path / "cpu" / "runs" / "fig3.jsonl")
    done = call("reproduce", "--figure", "fig3", "--draw-only", "--out", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "runs of swish, which is no group of the plan" in done.err
