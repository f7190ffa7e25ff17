import json

import pytest

from gcnn.base.errors import UsageError
from gcnn.reporting.comparison import load_comparison
from gcnn.reporting.latency import load_latency
from gcnn.reporting.results import load_run, results_table
from gcnn.reporting.runs import load_runs, models_table, runs_table
from gcnn.reporting.units import duration, magnitude, perplexity
from gcnn.runs.json_files import read_json_lines
from gcnn.runs.results import Metric


def row_of(table, title):
    line = next(line for line in table.splitlines() if line.startswith(title + " "))
    return [float(cell.replace(",", "")) for cell in line.removeprefix(title).split()]


def test_results_table_shows_the_numbers_of_results_json(results):
    table = results_table(results)
    for title, key in (
        ("perplexity", "perplexity"),
        ("of a unigram model", "unigram_perplexity"),
        ("per word", "word_perplexity"),
        ("bits per byte", "bits_per_byte"),
        ("tokens", "tokens"),
        ("words", "words"),
    ):
        expected = [results[split][key] for split in ("validation", "test")]
        assert row_of(table, title) == pytest.approx(expected, abs=0.005), title
    for text in (
        "quickstart",
        "7,654,321",
        "15.3 M FLOPs",
        "1,843,200 tokens",
        "33,278",
        "1 h 10 min",
    ):
        assert text in table


def test_results_table_columns_are_aligned(results):
    lines = results_table(results).split("\n\n")[1].splitlines()
    assert len({len(line) for line in lines}) == 1


def test_results_table_of_a_run_that_stopped_short():
    assert "–" in results_table({"experiment": "x", "test": None})


def test_load_run_reads_everything(make_run):
    run = load_run(make_run(samples=[{"prompt": "A", "text": "B"}]))
    assert run.config.experiment == run.results.experiment == "wikitext2/gcnn_small"
    assert [line.step for line in run.training] == list(range(50, 901, 50))
    assert [line.step for line in run.validation] == list(range(100, 901, 100))
    assert [(sample.prompt, sample.text) for sample in run.samples] == [("A", "B")]


def test_an_unfinished_run_has_no_results(make_run):
    run = load_run(make_run(results=None, metrics=None))
    assert not run.finished
    assert run.results.test.perplexity is None
    assert run.training == run.validation == run.samples == []


def test_a_line_that_is_still_being_written_is_left_out(make_run):
    folder = make_run()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    assert load_run(folder).training[-1].step == 900


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", "not JSON"),
        ("results.json", "[1, 2]"),
        ("results.json", "null"),
        ("results.json", '{"test": {"perplexity": "12"}}'),
        ("results.json", '{"test": 12}'),
        ("results.json", f'{{"parameters": {{"total": {10**400}}}}}'),
        ("results.json", f'{{"train": {{"seconds": {-(10**400)}}}}}'),
        ("results.json", "[" * 100_000),
        ("metrics.jsonl", '{"kind": "train", "step": 1}\n{"kind": \n'),
        ("metrics.jsonl", '{"kind": "train", "step": 1}\n{"kind": "train", "step": "2"}\n'),
        ("samples.json", '[{"prompt": 3}]'),
        ("config.yaml", "model: {kind: transformer}"),
    ],
)
def test_garbage_is_one_line_that_names_the_file(make_run, name, content):
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(UsageError) as error:
        load_run(folder)
    assert str(folder / name) in str(error.value)
    assert "\n" not in str(error.value)
    assert ("line 2" in str(error.value)) == (name == "metrics.jsonl")


def test_a_file_that_is_not_text_is_refused(make_run):
    folder = make_run()
    (folder / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        load_run(folder)


@pytest.mark.parametrize("read", [load_latency, load_comparison])
def test_a_path_that_is_too_long_is_refused(tmp_path, read):
    with pytest.raises(UsageError, match=r"x cannot be read \(File name too long\)"):
        read(tmp_path / ("x" * 300))


def test_metrics_that_cannot_be_read_are_refused(tmp_path):
    assert read_json_lines(tmp_path / "none" / "metrics.jsonl", Metric) == []
    with pytest.raises(UsageError, match="File name too long"):
        read_json_lines(tmp_path / ("x" * 300) / "metrics.jsonl", Metric)


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing"):
        load_run(tmp_path / "nothing")
    with pytest.raises(UsageError, match="nothing"):
        load_runs([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no run is given"):
        load_runs([])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"models": {"a": {"sentences": {"long": {}}}}}',
        '{"pairs": [{"ratios": {"0": {}}}]}',
        '{"models": {"a": {}}, "pairs": [{"gcnn": "a", "lstm": "b"}]}',
        '{"models": {"a": {}}, "pairs": [{"gcnn": "a"}]}',
    ],
)
def test_garbage_latency_is_refused(tmp_path, content):
    with pytest.raises(UsageError, match="no such file"):
        load_latency(tmp_path / "latency.json")
    (tmp_path / "latency.json").write_text(content)
    with pytest.raises(UsageError, match=r"latency\.json"):
        load_latency(tmp_path / "latency.json")


def test_runs_below_a_folder_are_found_once(make_run, tmp_path):
    folder = make_run("runs/a/1")
    make_run("runs/b/1")
    logger = folder / "wandb" / "files"
    logger.mkdir(parents=True)
    (logger / "config.yaml").write_text("what a logger keeps: is no run")
    runs, _ = load_runs([tmp_path / "runs", folder])
    assert [run.path for run in runs] == [tmp_path / "runs/a/1", tmp_path / "runs/b/1"]


def test_labels_tell_runs_apart(make_run, tmp_path):
    for name in ("a/morning", "a/evening", "b/evening"):
        make_run(f"runs/{name}", experiment="same")
    make_run("runs/c/noon", experiment="other")
    labels = [run.label for run in load_runs([tmp_path / "runs"])[0]]
    assert len(set(labels)) == 4
    assert {"other", "same morning"} < set(labels)


def test_members_of_a_sweep_are_named_by_what_varies(make_run, tmp_path):
    for sweep, experiment in (("a", "gates"), ("b", "rates")):
        for number, rate in enumerate(("0.1", "0.2")):
            folder = make_run(f"runs/{sweep}/{number}", experiment=experiment)
            overrides = [f"experiment={experiment}", "data.path=/home/me", f"+optimizer.lr={rate}"]
            (folder / "member.json").write_text(json.dumps({"overrides": overrides}))
    labels = {run.label for run in load_runs([tmp_path / "runs" / "a"])[0]}
    assert labels == {"lr=0.1", "lr=0.2"}
    labels = {run.label for run in load_runs([tmp_path / "runs"])[0]}
    assert labels == {"gates lr=0.1", "gates lr=0.2", "rates lr=0.1", "rates lr=0.2"}


def test_what_is_the_same_in_many_runs_is_said_once(make_run):
    runs = [
        load_run(make_run(str(i), experiment=f"run-{i}", perplexity=100 + i)) for i in range(11)
    ]
    assert "Unigram, test" in runs_table(runs[:10]).header
    assert {"Data", "Parameters"} <= set(models_table(runs[:10]).header)
    table = runs_table(runs)
    assert "Unigram, test" not in table.header
    assert "Unigram, test: 640.25" in table.caption
    assert [row[0] for row in table.rows] == [f"run-{i}" for i in range(11)]
    models = models_table(runs)
    assert not {"Data", "Parameters"} & set(models.header)
    assert "Data: wikitext2; " in models.caption


def test_runs_are_ranked_by_test_perplexity_within_their_data(make_run, tmp_path):
    for name, data, figure in (("a", "x", 90), ("b", "y", 50), ("c", "x", 80), ("d", "y", 60)):
        make_run(f"runs/{name}", experiment=name, data=data, perplexity=figure)
    make_run("runs/e", experiment="e", data="x", results=None)
    assert [run.label for run in load_runs([tmp_path / "runs"])[0]] == ["c", "a", "e", "b", "d"]


def test_word_perplexity_has_a_column_only_where_tokens_are_not_words(make_run):
    words = load_run(make_run("words"))
    pieces = load_run(make_run("pieces", words=False))
    assert "Test, per word" not in runs_table([words]).header
    table = runs_table([words, pieces])
    column = [row[table.header.index("Test, per word")] for row in table.rows]
    assert [float(cell) for cell in column] == pytest.approx(
        [pieces.results.test.word_perplexity] * 2, abs=0.005
    )


def test_results_may_miss_keys(make_run):
    table = runs_table([load_run(make_run(results={"test": {"perplexity": 12.5}}))])
    assert dict(zip(table.header, table.rows[0], strict=True))["Test perplexity"] == "12.50"
    assert "–" in table.rows[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (magnitude(None), "–"),
        (magnitude(9999), "9,999"),
        (magnitude(999_999), "1 M"),
        (magnitude(7_654_321), "7.654 M"),
        (magnitude(1.2e15), "1.2 P"),
        (magnitude(3e18), "3 E"),
        (magnitude(float("inf")), "inf"),
        (duration(42), "42.0 s"),
        (duration(3599.6), "1 h 00 min"),
        (duration(312), "5 min 12 s"),
        (duration(float("nan")), "–"),
        (perplexity(121.434), "121.43"),
        (perplexity(12_345.6), "12,346"),
        (perplexity(1.8554e166), "1.86e+166"),
        (perplexity(float("inf")), "inf"),
    ],
)
def test_numbers_as_people_read_them(text, expected):
    assert text == expected


def test_latency_json_may_miss_almost_everything(tmp_path):
    (tmp_path / "latency.json").write_text(json.dumps({"models": {"a": None}, "pairs": [None]}))
    latency = load_latency(tmp_path / "latency.json")
    assert list(latency.models) == ["a"]
    assert latency.models["a"].throughput.tokens_per_second is None
    assert latency.pairs[0].gcnn is None
