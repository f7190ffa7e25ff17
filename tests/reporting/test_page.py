import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from gcnn.reporting.document import Code, escape_markdown, fenced, to_html
from gcnn.reporting.latency import Latency
from gcnn.reporting.page import best_latency, write_report
from gcnn.reproduction.paper import PAPER
from gcnn.runs.json_files import checked
from tests.reporting.conftest import made_up_results

ROOT = Path(__file__).parents[2]
VOID = {"meta", "br", "hr"}
HOSTILE = (
    """<script>alert(1)</script> "><img src=x onerror='alert(1)'> a | b `c` ``` **d** """
    "</details> &amp;"
)


class Page(HTMLParser):
    """Checks that every tag is closed in order; keeps tags, attributes, text and tables."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.tags = set()
        self.attributes = []
        self.text = ""
        self.tables = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def report(runs, out, latency=None):
    if latency is not None:
        out.mkdir(exist_ok=True)
        (out / "latency.json").write_text(json.dumps(latency))
    html_path, md_path = write_report(
        runs, out, out / "latency.json" if latency is not None else None, PAPER
    )
    text = html_path.read_text()
    page = Page(text)
    check_self_contained(text, page)
    return page, md_path.read_text()


def check_self_contained(text, page):
    """Nothing runs and nothing is loaded: no element or attribute that could, no URL in a style."""
    assert not page.tags & {
        "script",
        "img",
        "image",
        "iframe",
        "link",
        "object",
        "embed",
        "form",
        "a",
        "base",
    }
    for name, content in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "formaction")
        assert not name.endswith("href") or content.startswith("#")
        assert not re.search(r"url\((?!#)", content or "")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    ids = [content for name, content in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def column(table, title):
    return [row[table[0].index(title)] for row in table[1:]]


def markdown_tables(text):
    return [
        [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        for block in text.split("\n\n")
        if block.startswith("|")
    ]


def test_one_run(make_run, tmp_path):
    page, markdown = report([make_run()], tmp_path / "out")
    results = json.loads((tmp_path / "run/results.json").read_text())
    table = page.tables[0]
    for title, expected in (
        ("Validation perplexity", results["validation"]["perplexity"]),
        ("Test perplexity", results["test"]["perplexity"]),
        ("Unigram, test", results["test"]["unigram_perplexity"]),
    ):
        assert float(column(table, title)[0]) == pytest.approx(expected, abs=0.005)
    models = page.tables[1]
    assert column(models, "Parameters") == ["7.654 M"]
    assert column(models, "FLOPs/token") == ["15.3 M"]
    assert column(models, "Receptive field") == ["19"]
    assert column(models, "Training time") == ["1 h 10 min"]
    assert "wikitext2/gcnn_small has a test perplexity of 121.43 on wikitext2" in page.text
    assert "Latency" not in page.text
    for text in (
        "4f2a9c81d0e7b3a5c6f1e2d3b4a5968778695a4b",
        "Some CPU",
        "torch 2.13.0",
        "9e107d9d372bb6826bd8",
    ):
        assert text in page.text
        assert text in markdown
    assert results["command"] in page.text
    assert (tmp_path / "run/config.yaml").read_text() in page.text


def test_markdown_holds_the_same_tables_and_its_figures(make_run, tmp_path, latency):
    page, markdown = report([make_run()], tmp_path / "out", latency)
    html_cells = [[[escape_markdown(c) for c in row] for row in table] for table in page.tables]
    cells = [[[c.strip() for c in row] for row in table] for table in markdown_tables(markdown)]
    assert [table[:1] + table[2:] for table in cells] == html_cells
    figures = re.findall(r"\]\((figures/[a-z-]+\.svg)\)", markdown)
    assert len(figures) == 6
    assert all((tmp_path / "out" / figure).read_text().startswith("<svg") for figure in figures)


def test_many_runs_finished_or_not(make_run, tmp_path):
    for i in range(10):
        make_run(f"runs/{i}", experiment=f"sweep/{i}", perplexity=120 + 3 * i)
    make_run("runs/unfinished", experiment="sweep/unfinished", results=None)
    make_run("runs/new", experiment="sweep/new", results=None, metrics=None)
    page, _ = report([tmp_path / "runs"], tmp_path / "out")
    labels = column(page.tables[0], "Run")
    assert labels[:10] == [f"sweep/{i}" for i in range(10)]
    assert set(labels[10:]) == {"sweep/new (unfinished)", "sweep/unfinished (unfinished)"}
    assert (
        "sweep/0 has the lowest test perplexity on wikitext2: 120.00; sweep/1 follows with 123.00"
        in page.text
    )
    last = float(
        column(page.tables[0], "Validation perplexity")[
            labels.index("sweep/unfinished (unfinished)")
        ]
    )
    assert last == pytest.approx(100 + 50_000 / 900, abs=0.005)


def test_texts_of_several_sizes_are_told_apart(make_run, tmp_path):
    for i, tokens in enumerate((2_000_000, None)):
        results = made_up_results(f"size/{i}", "wikipedia", 100.0 - i)
        results["data"]["fingerprint"] = f"{i}" * 64
        make_run(f"runs/{i}", f"size/{i}", "wikipedia", results=results, train_tokens=tokens)
    page, _ = report([tmp_path / "runs"], tmp_path / "out")
    assert "size/0 has a test perplexity of 100.00 on wikipedia, first 2 M tokens;" in page.text
    assert "size/1 has a test perplexity of 99.00 on wikipedia;" in page.text
    assert set(column(page.tables[1], "Data")) == {"wikipedia", "wikipedia, first 2 M tokens"}


def test_nothing_finished_and_no_metrics(make_run, tmp_path):
    page, _ = report([make_run(results=None, metrics=None)], tmp_path / "out")
    assert "none with a test perplexity yet" in page.text
    assert "svg" not in page.tags


def test_the_paper_stands_beside_its_models(make_run, tmp_path, paper_config):
    common = {"data": "wikitext103", "metrics": None}
    make_run("runs/a", experiment="a", **common, model=paper_config("gcnn_8"), perplexity=46.1)
    make_run("runs/b", experiment="b", **common, perplexity=80.0)
    make_run(
        "runs/c",
        experiment="c",
        **common,
        model=paper_config("gcnn_8"),
        perplexity=90.0,
        words=False,
    )
    page, _ = report([tmp_path / "runs"], tmp_path / "out")
    assert column(page.tables[0], "Paper, test") == ["44.9", "–", "–"]
    assert column(page.tables[1], "Model")[0] == "GCNN-8"
    assert "the paper reports 44.9 for GCNN-8, trained on 1 GPU." in page.text


def test_latency_beside_the_paper(make_run, tmp_path, latency):
    page, _ = report([make_run(metrics=None)], tmp_path / "out", latency)
    sentence = (
        "gcnn_8b answers a 20-word sentence 9.2 times sooner than lstm_2048 (4.50 against 41.6 ms)"
    )
    assert f"On CPU, 2 threads, {sentence}." in page.text
    ratios = next(table for table in page.tables if table[0][0] == "GCNN against LSTM")
    rows = {row[1]: row for row in ratios[1:]}
    assert rows["measured, with softmax"][2:] == ["9.25×"] * 5 + ["8.75×", "1.25×"]
    assert rows["expected, with softmax"][2:] == ["14.5×"] * 5 + ["11.5×", "1.50×"]
    assert rows["paper, GPU"][-2:] == ["20.1×", "1.01×"]
    speeds = next(
        table for table in page.tables if "Responsiveness" in table[0] and table[0][0] == "Model"
    )
    assert column(speeds, "Throughput") == ["3,456", "3,456"]
    assert column(speeds, "Paper: responsiveness, GPU") == ["45,878", "2,282"]
    times = next(
        table for table in page.tables if table[0][0] == "Model" and "20 words" in table[0]
    )
    assert column(times, "20 words")[0] == "4.50 (5.00, –)"


def test_a_slower_model_is_not_called_faster(make_run, tmp_path, latency):
    latency["pairs"][0]["ratios"] = {"20": {"measured": 0.5}}
    page, _ = report([make_run(metrics=None)], tmp_path / "out", latency)
    assert "gcnn_8b answers a 20-word sentence 2.0 times later than lstm_2048" in page.text


def test_the_sentence_is_about_a_length_that_was_measured_with_the_softmax(latency):
    [pair] = latency["pairs"]
    pair["ratios_without_softmax"] = pair["ratios"]
    pair["ratios"] = {"100": {"measured": 8.0}, "10": {"measured": 7.0}, "20": {"measured": None}}
    [sentence] = best_latency(checked(latency, Latency, "latency"))
    assert "gcnn_8b answers a 10-word sentence 7.0 times sooner than lstm_2048" in sentence
    pair["ratios"] = {}
    assert best_latency(checked(latency, Latency, "latency")) == []


@pytest.mark.parametrize(
    "latency", [{}, {"models": {"a": {}}, "pairs": [{}]}, {"models": {"a": None}, "pairs": [None]}]
)
def test_latency_with_next_to_nothing_in_it(make_run, tmp_path, latency):
    page, _ = report([make_run(metrics=None)], tmp_path / "out", latency)
    assert "Latency" in page.text


def test_data_is_text_and_never_markup(make_run, tmp_path, latency):
    text = HOSTILE
    folder = make_run(
        experiment=text, data=text, path=text, samples=[{"prompt": text, "text": f"{text} x"}]
    )
    results = json.loads((folder / "results.json").read_text())
    results["hardware"] |= {"cpu": text, "gpu": [text]}
    results |= {"git_commit": text, "command": text, "versions": {text: text}}
    (folder / "results.json").write_text(json.dumps(results))
    latency |= {
        "device": text,
        "date": text,
        "models": {text: latency["models"]["gcnn_8b"] | {"description": text}},
        "pairs": [latency["pairs"][0] | {"gcnn": text, "lstm": text}],
    }
    page, markdown = report([folder], tmp_path / "out", latency)
    assert page.text.count(text) >= 10
    assert yaml.safe_load((folder / "config.yaml").read_text())["experiment"] == text
    for table in markdown_tables(markdown):
        assert len({len(row) for row in table}) == 1
    outside_code = re.sub(r"^(`{3,})text\n.*?^\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    tags = set(re.findall(r"<[^>]*>", outside_code))
    assert tags == {"<details>", "</details>", "<summary>", "</summary>"}


def test_no_text_ends_a_markdown_code_block_early():
    text = "```\n````\nx"
    first, *middle, last = fenced(text).splitlines()
    assert first == last + "text"
    assert last not in middle
    assert "\n".join(middle) == text


def test_html_code_keeps_its_text():
    assert "a < b\n  & c" in Page(to_html("Title", [Code("a < b\n  & c")])).text


def test_the_same_runs_give_the_same_files(make_run, tmp_path, latency):
    run = make_run(samples=[{"prompt": "A", "text": "B"}])
    for name in ("first", "second"):
        report([run], tmp_path / name, latency)
    files = sorted(
        path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*")
    )
    assert len(files) == 9
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_command_ends_with_the_path_of_the_page(call, make_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no other program is needed
    make_run("runs/a")
    done = call("report", "runs")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"report: {tmp_path}/runs/report/report.html"
    assert (tmp_path / "runs/report/report.md").exists()


def test_the_command_says_in_one_line_what_is_missing(call, tmp_path):
    done = call("report", "nothing")
    assert done.code == 2
    assert done.err.startswith("error: nothing: no run directory")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_reporting_reads_files_and_never_models():
    allowed = {"base", "config", "reporting", "runs"}
    for path in (ROOT / "gcnn" / "reporting").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                package, _, room = name.partition(".")
                assert package not in ("torch", "scripts"), path
                assert package != "gcnn" or room.split(".")[0] in allowed, path
