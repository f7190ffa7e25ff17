import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from gcnn.reporting.figures import (
    COLOURS,
    MAX_POINTS,
    OTHERS,
    coloured_groups,
    label_bottom,
    latency_figures,
    learning_curves,
    log_scale,
    points_of,
    smooth,
)
from gcnn.reporting.latency import Latency
from gcnn.reporting.ranking import compare_on_validation
from gcnn.reporting.results import load_run
from gcnn.reporting.seeds import SeedGroup
from gcnn.reporting.svg import inline
from gcnn.runs.json_files import all_absent, checked
from gcnn.runs.results import Metric, Results
from tests.reporting.conftest import made_up_results


@pytest.mark.parametrize("length", [0, 1, 29, 60, 1000, 20_000])
def test_smoothing_keeps_a_straight_line(length):
    """A running mean leaves a straight line where it is; and what is drawn is short."""
    x = np.arange(length) * 50.0
    smooth_x, smooth_y = smooth(x, 7 - 0.001 * x)
    np.testing.assert_allclose(smooth_y, 7 - 0.001 * smooth_x, atol=1e-9)
    assert min(length, 25) <= len(smooth_x) <= MAX_POINTS


def test_smoothing_averages_noise_away():
    y = np.random.default_rng(0).normal(5, 1, 3000)
    assert smooth(np.arange(3000.0), y)[1].std() < 0.2 * y.std()


def test_points_that_cannot_be_drawn_are_left_out():
    lines = [
        {"tokens": 1, "loss": 2.0},
        {"tokens": 2},
        {"tokens": 3, "loss": float("nan")},
        {"tokens": None, "loss": 1.0},
    ]
    lines = [{"kind": "train", "step": 1} | line for line in lines]
    x, y = points_of(checked(lines, list[Metric], "lines"), "tokens", "loss")
    assert (x.tolist(), y.tolist()) == ([1.0], [2.0])


def test_figures_are_svg_with_ids_of_their_own(make_run, latency):
    figures = learning_curves([load_run(make_run())]) + latency_figures(
        checked(latency, Latency, "latency")
    )
    assert len({figure.name for figure in figures}) == 6
    ids = [
        element.get("id")
        for figure in figures
        for element in ElementTree.fromstring(figure.svg).iter()
        if element.get("id")
    ]
    assert len(ids) == len(set(ids))


def test_a_run_has_one_colour_in_all_figures(make_run, latency):
    """The latency benchmark may have met the runs in another order than the page's."""
    names = list(latency["models"])[:2]
    latency["models"] = {name: latency["models"][name] for name in names}
    measured = checked(latency, Latency, "latency")

    def bands(labels):
        fills = re.findall(r"fill: (#\w{6})", latency_figures(measured, labels)[0].svg)
        return list(dict.fromkeys(fill for fill in fills if fill in COLOURS[:2]))

    assert bands(names) == list(COLOURS[:2])
    assert bands(names[::-1]) == list(COLOURS[1::-1])


def test_panels_without_points_are_left_out(make_run, latency):
    metrics = [
        {"kind": "train", "step": 1, "loss": 3.0},
        {"kind": "validation", "step": 1, "perplexity": 20.0},
    ]
    names = [figure.name for figure in learning_curves([load_run(make_run(metrics=metrics))])]
    assert names == ["training-loss", "perplexity-steps"]
    assert learning_curves([load_run(make_run("empty", metrics=None))]) == []
    for model in latency["models"].values():
        del model["sentences_without_softmax"]
    assert [figure.name for figure in latency_figures(checked(latency, Latency, ""))] == ["latency"]
    assert latency_figures(all_absent(Latency)) == []


@pytest.mark.parametrize(("longest", "unit"), [(1.0, "seconds"), (150, "minutes"), (9000, "hours")])
def test_training_time_has_plain_numbers(make_run, longest, unit):
    """Not thousandths as "500m", which reads as minutes or metres."""
    metrics = []
    for step in (10, 20, 30):
        at = {"kind": "validation", "step": step, "seconds": longest * step / 30}
        metrics.append({**at, "perplexity": 200.0 - step})
    figures = learning_curves([load_run(make_run(metrics=metrics))])
    [figure] = [figure for figure in figures if figure.name == "perplexity-time"]
    texts = [element.text or "" for element in ElementTree.fromstring(figure.svg).iter()]
    assert f"training time, {unit}" in texts
    assert not [text for text in texts if re.fullmatch(r"[0-9.]+m", text)]


def test_every_run_is_in_the_legend_as_it_is_called(make_run):
    names = ["_hidden", "$x^2$", "a & b < c", "plain", "bell \x07"]
    runs = [load_run(make_run(str(i), experiment=name)) for i, name in enumerate(names)]
    for figure in learning_curves(runs):
        texts = [
            element.text for element in ElementTree.fromstring(figure.svg).iter() if element.text
        ]
        assert {"_hidden", "$x^2$", "a & b < c", "plain", "bell ?"} <= set(texts)


@pytest.mark.parametrize(
    "values", [[95.0, 700.0], [121.0, 160.0], [1.7, 3.1], [5.0, 90_000.0], [100.0, 500.0]]
)
def test_a_log_axis_has_a_number_at_its_bottom(values):
    axes = Figure().subplots()
    axes.plot([1, 2], values)
    log_scale(axes, np.array(values))
    label_bottom(axes, min(values))
    bottom, top = axes.get_ylim()
    assert bottom <= min(values) < max(values) <= top
    assert bottom > min(values) / 1.4  # no empty space
    assert axes.get_yticks()[0] == bottom
    assert len(axes.get_yticks()) >= 3


def test_of_many_runs_the_best_ten_are_named_and_the_others_grey(make_run):
    """Best on validation, which is read from the results; the runs come in another order."""
    runs = [
        load_run(make_run(str(i), experiment=f"run-{i}", perplexity=100 + (7 * i) % 13))
        for i in range(13)
    ]
    ranked = sorted(runs, key=lambda run: run.results.validation.perplexity)
    for figure in learning_curves(runs):
        texts = {
            element.text for element in ElementTree.fromstring(figure.svg).iter() if element.text
        }
        assert {run.label for run in ranked[:10]} | {"3 others"} <= texts
        assert not texts & {run.label for run in ranked[10:]}
        assert not [text for text in texts if text.startswith("_")]  # matplotlib's own labels
        assert "in grey 3 others" in figure.caption
        assert figure.svg.count(OTHERS["color"]) >= 3


def test_the_best_ten_are_found_among_runs_on_one_text(make_run):
    """Two users' texts are both called `local`: one that is hard to predict has its own best."""
    run = load_run(make_run(data="local"))
    groups = []
    for i in range(12):
        content = made_up_results("x", "local", 900.0 if i == 11 else 100.0 + i)
        content["data"]["tokenizer_fingerprint"] = "words"
        content["validation"]["text_fingerprint"] = "hard" if i == 11 else "easy"
        results = checked(content, Results, "results")
        groups.append(SeedGroup(str(i), [replace(run, results=results)]))
    assert [group.label for group in coloured_groups(groups)] == [*"012345678", "11"]


@pytest.mark.parametrize(("path", "compare"), [("/mine", True), ("/yours", False)])
def test_runs_of_which_one_is_unfinished_compare_by_their_configs(make_run, path, compare):
    finished = load_run(make_run("finished", data="local", path="/mine"))
    unfinished = load_run(make_run("unfinished", data="local", path=path, results=None))
    assert compare_on_validation(finished, unfinished) == compare


def test_an_inlined_picture_refers_to_its_own_ids_alone():
    figure = Figure()
    axes = figure.subplots()
    axes.bar([1, 2], [3, 4], hatch="//")
    axes.plot([1, 2], [3, 4], marker="o")
    file = io.StringIO()
    figure.savefig(file, format="svg")
    page = inline(file.getvalue(), "one", "A title")
    ids = set(re.findall(r' id="([^"]+)"', page))
    references = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert all(name.startswith("one-") for name in ids)
    assert any(name.startswith("one-h") for name in references)  # the hatch
    assert references <= ids
