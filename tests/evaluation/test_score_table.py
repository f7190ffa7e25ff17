"""Scores as columns, in tables of any engine: the recipes of docs/SCORING.md, run as they are
printed.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gcnn
from gcnn.evaluation.corpus_scoring import score_files

SCORING = Path(__file__).parents[2] / "docs" / "SCORING.md"
NAMES = ["log_prob", "tokens", "unknown", "perplexity"]


def recipe(word: str, run: Path) -> str:
    """The one Python block of the docs that has a word, with a run in the place of its own."""
    blocks = re.findall(r"^```python\n(.*?)^```", SCORING.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if word in block]
    return found.replace('"RUN"', repr(str(run)))


@pytest.fixture
def run(made_runs):
    return made_runs["gcnn", "word"]


@pytest.fixture
def web(lines, tmp_path, monkeypatch):
    """A folder web/ of two Parquet files, in which the test stands; one row has no text."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "web"
    folder.mkdir()
    texts = [*lines, None]
    for i in range(2):
        ids = range(i, len(texts), 2)
        pq.write_table(pa.table({"id": list(ids), "text": texts[i::2]}), folder / f"{i}.parquet")
    return folder


def check_scores(rows: list[dict], one_scorer, lines) -> None:
    """Every row is there once, with the scores of `gcnn score` but for rounding."""
    rows = sorted(rows, key=lambda row: row["id"])
    assert [row["text"] for row in rows] == [*lines, None]
    assert [rows[-1][name] for name in NAMES] == [None] * 4
    expected = one_scorer.score(lines)
    for name in NAMES:
        np.testing.assert_allclose(
            [row[name] for row in rows[:-1]], [getattr(s, name) for s in expected], rtol=1e-5
        )


def test_the_recipe_for_datasets(run, web, one_scorer, lines, monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    exec(recipe("import datasets", run).replace(", num_proc=2", ""), {})
    check_scores(pq.read_table("scored.parquet").to_pylist(), one_scorer, lines)


def test_the_recipe_for_ray(run, web, one_scorer, lines):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        exec(recipe("import ray", run), {})
    finally:
        ray.shutdown()
    check_scores(pq.read_table("scored").to_pylist(), one_scorer, lines)


def test_the_function_for_spark(run, web, one_scorer, lines):
    names: dict = {}
    exec(recipe("mapInArrow", run), names)
    batches = pq.read_table(web).to_batches(max_chunksize=7)
    scored = pa.Table.from_batches(names["scores"](iter(batches)))
    check_scores(scored.to_pylist(), one_scorer, lines)


def test_the_scores_of_two_models_stand_in_one_file(made_runs, web, lines):
    wanted, other = (gcnn.load(made_runs[kind, "word"], "cpu") for kind in ("gcnn", "lstm"))
    files = sorted(web.iterdir())
    score_files(wanted, files, Path("wanted"), prefix="wanted_")
    score_files(other, sorted(Path("wanted").iterdir()), Path("scored"), prefix="any_")
    table = pq.read_table("scored").sort_by("id")
    assert table.column_names == [
        "id", "text", *(f"{prefix}_{name}" for prefix in ("wanted", "any") for name in NAMES)
    ]  # fmt: skip
    columns = []
    for model, prefix in ((wanted, "wanted_"), (other, "any_")):
        expected = [score.log_prob for score in model.score(lines)]
        columns.append(np.array(table[f"{prefix}log_prob"].to_pylist()[:-1]))
        np.testing.assert_allclose(columns[-1], expected, rtol=1e-5)
    keys = pq.read_schema("scored/0.parquet").metadata.keys()
    assert {b"gcnn:wanted_", b"gcnn:any_"} <= set(keys)
    assert score_files(wanted, files, Path("wanted"), prefix="wanted_").skipped == 2
    with pytest.raises(gcnn.UsageError, match="with the prefix new_"):
        score_files(wanted, files, Path("wanted"), prefix="new_")
    tokens = np.array(table["wanted_tokens"].to_pylist()[:-1])
    names: dict = {}
    gains = (columns[0] - columns[1]) / tokens
    least = float(np.median(gains))
    exec(recipe("import pyarrow.dataset", Path()).replace("> 0.5", f"> {least}"), names)
    better = np.flatnonzero(gains > least)
    assert 0 < len(better) < len(lines)
    assert sorted(names["selected"]["id"].to_pylist()) == better.tolist()


def test_the_command_takes_a_prefix_for_files_alone(run, web, call):
    command = ["score", "--run", run, "--prefix", "a_"]
    assert "--prefix is of the files" in call(*command, stdin=b"a\n").err
    assert call(*command, "--input", web / "0.parquet", "--output", "out").code == 0
    assert pq.read_schema("out/0.parquet").names[-4:] == [f"a_{name}" for name in NAMES]


@pytest.mark.parametrize(("table", "named"), [
    (pa.table({"words": ["a"]}), "no column `text` .*words.*column"),
    (pa.table({"text": [1]}), "int64, not text"),
    (pa.table([["a"], ["b"]], ["text", "text"]), "more than one column `text`.* with column"),
    (pa.table({"text": pa.array([b"\xff"]).view(pa.string())}), "table: `text` is not UTF-8"),
    (pa.table({"text": ["a"], "tokens": [1]}), "has a column tokens already.*prefix"),
    ({"text": ["a"]}, "dict was given instead of a table"),
])  # fmt: skip
def test_a_table_that_cannot_be_scored_is_refused(one_scorer, table, named):
    with pytest.raises(gcnn.UsageError, match=named):
        one_scorer.score_table(table)


def test_a_table_keeps_its_columns_chunks_and_metadata(one_scorer):
    text = pa.chunked_array([["a b", None], ["c"]]).dictionary_encode()
    table = pa.table({"text": text, "id": [1, 2, 3]}).replace_schema_metadata({"made": "here"})
    found = one_scorer.score_table(table, prefix="lm_")
    assert found.select(["text", "id"]).equals(table)
    assert found.schema.metadata == {b"made": b"here"}
    expected = one_scorer.score(["a b", "c"])
    assert found["lm_tokens"].to_pylist() == [expected[0].tokens, None, expected[1].tokens]
    assert one_scorer.score_table(table.slice(0, 0)).column_names == ["text", "id", *NAMES]
