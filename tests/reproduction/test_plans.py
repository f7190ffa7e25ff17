"""The files of configs/reproduce, each figure's groups, rates and seeds; and the committed runs,
which are theirs.
"""

import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.config.groups import CONFIGS, choices
from gcnn.models.language_model import build_model
from gcnn.reproduction import plans
from gcnn.reproduction.grouping import group_of
from gcnn.reproduction.kept_runs import read_kept
from gcnn.reproduction.plans import composed_once, figures_of, load_plan, part_of, parts_of
from gcnn.reproduction.progress import count_missing, known_runs
from gcnn.reproduction.records import FIGURES, Record, make_record
from gcnn.runs.json_files import read_json
from tests.conftest import ROOT

REPRODUCTION = ROOT / "docs" / "results" / "reproduction"
# Its runs were not kept.
RECORDS = [path for path in sorted(REPRODUCTION.glob("*/*.json")) if path.stem != "search"]
FILES = sorted((CONFIGS / "reproduce").glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_group_composes_and_is_one_of_the_figures(path):
    scale, figure = path.parent.name, path.stem
    assert figure in FIGURES
    parts = parts_of(scale, figure)
    assert bool(parts) != bool(load_plan(scale, figure).sweeps)
    places = [group_of(figure, part.recipe(rate, 1))[:2] for part in parts for rate in part.rates]
    assert len(places) == len(set(places))
    for part in parts:
        config = part.recipe(part.rates[-1], 7)
        assert (config.optimizer.lr, config.seed) == (part.rates[-1], 7)
        assert list(part.rates) in (sorted(part.rates), sorted(part.rates, reverse=True))
        assert part.seeds[0] == 1
    for experiment in load_plan(scale, figure).sweeps:
        assert experiment in choices("experiment")


@pytest.mark.parametrize("scale", ["paper", "cpu"])
@pytest.mark.parametrize("figure", ["fig3", "fig5"])
def test_gates_that_are_compared_have_as_many_parameters(scale, figure):
    bodies = []
    for part in parts_of(scale, figure):
        with torch.device("meta"):
            model = build_model(composed_once(*part.settings).model, 800_000)
        bodies.append(model.parameter_counts()["body"])
    assert len(bodies) > 2
    assert max(bodies) < 1.02 * min(bodies)


def test_a_figure_has_its_groups_rates_and_seeds():
    by_group = {part.group: part for part in parts_of("cpu", "fig4")}
    assert by_group["words_1"].rates == (0.01, 0.03, 0.1)
    assert by_group["words_1"].seeds == (1,)
    assert by_group["words_7"].seeds == (1, 2, 3)
    assert by_group["words_7"].settings[0] == "experiment=cpu/base"
    assert by_group["words_7"].recipe(0.03, 2).model.blocks[0].convs == [[2, 181]]
    gcnn, *_ = parts_of("paper", "table3")
    assert gcnn.rates == (1.0,)  # its experiment's own


def test_a_shared_group_belongs_to_one_figure():
    shared = part_of("cpu", "fig3", "glu")
    assert parts_of("cpu", "fig3")[0] == part_of("cpu", "fig5", "glu") == shared
    assert str(shared.folder) == "cpu/fig3/glu"


def test_what_does_not_exist_is_a_usage_error():
    ours = {name for name, (place, _) in FIGURES.items() if "not in the paper" in place}
    assert set(figures_of("paper")) >= set(figures_of("cpu")) - ours
    assert figures_of("cpu", ["fig3", "table3"]) == ["table3", "fig3"]
    with pytest.raises(UsageError, match="no figure 'fig9'"):
        figures_of("cpu", ["fig3", "fig9"])
    scales = "cpu, paper, sentences, wikipedia"
    with pytest.raises(UsageError, match=f"no scale 'moon'; choose one of: {scales}"):
        figures_of("moon")
    with pytest.raises(UsageError, match="no group 'glue'; it has: glu, relu"):
        part_of("cpu", "fig3", "glue")


@pytest.mark.parametrize(("content", "message"), [
    ("groups: {glu: {rate: [1]}}", r"fig5\.yaml: .*rate"),
    ("groups: [a: b: c", r"fig5\.yaml: "),
    ("groups: {caf\xe9: {}}", r"fig5\.yaml: .*utf-8"),
    ("{seeds: [], groups: {glu: {}}}", r"fig5\.yaml: seeds is empty"),
    ("groups: {glu: {same_as: fig3}}", r"same_as of glu is 'fig3'; give a group of another"),
    ("groups: {glu: {same_as: fig3/glu}}", r"same_as of glu is 'fig3/glu'; .* has no same_as"),
])  # fmt: skip
def test_a_plan_that_says_nothing_trainable_is_a_usage_error(
    content, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(plans, "PLANS", tmp_path)
    load_plan.cache_clear()
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "fig5.yaml").write_text(content, encoding="latin-1")
    (tmp_path / "made_up" / "fig3.yaml").write_text("groups: {glu: {same_as: fig5/glu}}")
    with pytest.raises(UsageError, match=message):
        part_of("made_up", "fig5", "glu")


def test_experiments_are_what_a_person_trains():
    """No part of a figure is among them, but what the parts begin with."""
    names = {name.rpartition("/")[2] for name in choices("experiment")}
    assert not {name for name in names if name.split("_")[0] in FIGURES.keys() - {"search"}}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_committed_figures_are_those_of_the_committed_runs(path, tmp_path):
    """Whose recipes are those of the plans, too."""
    scale, figure = path.parent.name, path.stem
    runs = []
    missing = 0
    parts = parts_of(scale, figure)
    for part in parts:
        known = known_runs(part, tmp_path, path.parent / "runs" / f"{part.figure}.jsonl", [])
        missing += count_missing(part, known)
        runs += known
    settings = [setting for part in parts for setting in part.settings]
    assert make_record(figure, scale, runs, settings, missing) == read_json(path, Record)


def test_every_committed_run_belongs_to_a_group():
    for path in sorted(REPRODUCTION.glob("*/runs/*.jsonl")):
        groups = {
            part.group
            for part in parts_of(path.parents[1].name, path.stem)
            if part.figure == path.stem
        }
        assert {run.group for run in read_kept(path)} <= groups
