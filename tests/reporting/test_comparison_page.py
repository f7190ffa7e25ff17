"""A comparison of two runs, read from JSON and shown on the page."""

import json

import pytest

from gcnn.base.errors import UsageError
from gcnn.reporting.comparison import conclusion, load_comparison, part_table
from gcnn.reporting.page import write_report
from tests.reporting.test_page import HOSTILE, Page, check_self_contained, column


def made_up_comparison():
    """B is better by 0.1 nats a token, and worse on a quarter of the tokens."""
    rare = {
        "part": "rare",
        "tokens": 250,
        "nats_per_token": [7.0, 7.4],
        "contribution": 0.1,
        "interval": [0.05, 0.15],
    }
    rest = {"part": "rest", "tokens": 750, "nats_per_token": [5.0, 4.7333], "contribution": -0.2}
    return {
        "command": "gcnn compare a b --json",
        "runs": [{"run": "runs/a", "experiment": "gcnn"}, {"run": "runs/b", "experiment": "lstm"}],
        "text": "test split of tiny",
        "scored": "as running text",
        "unit": "article",
        "tokens": 1000,
        "units": 60,
        "resamples": 10_000,
        "nats_per_token": [5.5, 5.4],
        "perplexity": [244.69, 221.41],
        "difference": -0.1,
        "difference_interval": [-0.15, -0.05],
        "ratio": 0.905,
        "ratio_interval": [0.861, 0.951],
        "parts": {"frequency": [rare, rest]},
    }


@pytest.fixture
def load(tmp_path):
    """The comparison that a file with some content holds."""

    def loaded(content):
        path = tmp_path / "comparison.json"
        path.write_text(json.dumps(content))
        return load_comparison(path)

    return loaded


def test_the_share_of_the_difference_is_shown_where_the_difference_is_clear(load):
    content = made_up_comparison()
    table = part_table(load(content), "frequency")
    rows = [table.header, *table.rows]
    assert column(rows, "share of tokens") == ["25.0 %", "75.0 %", "100.0 %"]
    assert column(rows, "B - A") == ["+0.400", "-0.267", "-0.100"]
    assert column(rows, "contribution") == ["+0.1000", "-0.2000", "-0.1000"]
    assert column(rows, "95 % interval") == ["+0.0500 to +0.1500", "–", "-0.1500 to -0.0500"]
    assert column(rows, "share of difference") == ["-100.0 %", "200.0 %", "100.0 %"]
    unclear = load(
        content | {"difference_interval": [-0.25, 0.05], "ratio_interval": [0.779, 1.051]}
    )
    table = part_table(unclear, "frequency")
    assert column([table.header, *table.rows], "share of difference") == ["–"] * 3


def test_a_way_that_is_not_known_is_its_own_title(load):
    way = "by {unit} {"
    comparison = load(made_up_comparison() | {"parts": {way: []}})
    assert part_table(comparison, way).header[0] == way


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "0.905 times A's, 95 % interval 0.861 to 0.951: B is better on this text. "
            "The interval covers the choice",
        ),
        ({"difference": 0.1, "difference_interval": [0.05, 0.15]}, "A is better on this text"),
        ({"difference_interval": [-0.2, 0.0]}, "this text does not tell which is better"),
        (
            {"difference_interval": None, "ratio_interval": None, "units": 1},
            "one article, which gives no interval.",
        ),
        ({"units": 5}, "of 5 articles it is too narrow."),
        ({}, "of articles (10,000 resamples), not that of seeds."),
        ({"ratio": None, "ratio_interval": [None, None]}, "B's perplexity is – times A's"),
    ],
)
def test_the_conclusion_says_what_the_interval_allows(load, changes, said):
    assert said in conclusion(load(made_up_comparison() | changes))


def test_the_page_has_a_section(make_run, tmp_path, call):
    content = made_up_comparison() | {"text": HOSTILE}
    content["runs"][0]["run"] = content["parts"]["frequency"][0]["part"] = HOSTILE
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    done = call("report", make_run(), "--comparison", "comparison.json", "--out", "out")
    assert done.code == 0, done.err
    text = (tmp_path / "out/report.html").read_text()
    page = Page(text)
    check_self_contained(text, page)
    assert page.text.count(HOSTILE) == 3
    assert "Comparison of two runs" in page.text
    assert conclusion(load_comparison(tmp_path / "comparison.json")) in page.text
    write_report([tmp_path / "run"], tmp_path / "without")
    assert "Comparison" not in (tmp_path / "without/report.html").read_text()


def drop(content, *path):
    *outer, last = path
    for key in outer:
        content = content[key]
    content.pop(last)


@pytest.mark.parametrize(
    "path",
    [
        ("runs",),
        ("runs", 1),
        ("tokens",),
        ("difference",),
        ("nats_per_token", 0),
        ("ratio_interval", 0),
        ("parts", "frequency", 0, "contribution"),
        ("parts", "frequency", 1, "nats_per_token"),
    ],
)
def test_a_comparison_with_something_missing_is_refused(load, path):
    content = made_up_comparison()
    drop(content, *path)
    with pytest.raises(UsageError, match="is no comparison of two runs"):
        load(content)
