"""Score columns for corpora: every row once, in all formats, by any processes, after crashes."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcnn.base.errors import UsageError
from gcnn.data import tables
from gcnn.evaluation.corpus_scoring import claimed, score_files, targets_of
from gcnn.evaluation.scoring import Scorer
from gcnn.models.weights import WEIGHTS, read_metadata, read_weights, save_weights
from tests.processes import Command, environments_of_ranks


@pytest.fixture
def scorer(made_runs):
    return Scorer.from_run(made_runs["gcnn", "word"], "cpu")


@pytest.fixture
def rows(corpus):
    lines = (corpus / "test.txt").read_text().splitlines()
    return [{"id": i, "text": text} for i, text in enumerate(lines)]


@pytest.fixture
def shards(rows, tmp_path):
    """The same rows, split over a file of each format."""
    folder = tmp_path / "shards"
    folder.mkdir()
    third = len(rows) // 3
    pq.write_table(pa.Table.from_pylist(rows[:third]), folder / "a.parquet")
    (folder / "b.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[third : 2 * third])
    )
    (folder / "c.txt").write_text("".join(f"{row['text']}\n" for row in rows[2 * third :]))
    return sorted(folder.iterdir())


def scores_in(folder):
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def test_every_row_keeps_its_columns_and_gets_the_scorers_scores(
    scorer, rows, shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(tables, "CHUNK", 500)
    done = score_files(scorer, shards, tmp_path / "out")
    found = scores_in(tmp_path / "out")
    expected = scorer.score([row["text"] for row in rows])
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    third = len(rows) // 3
    assert [row["id"] for row in found if "id" in row] == list(range(third))
    assert [json.loads(row["json"]) for row in found if "json" in row] == rows[third : 2 * third]
    np.testing.assert_allclose(
        [row["log_prob"] for row in found], [s.log_prob for s in expected], atol=1e-5
    )
    assert [(r["tokens"], r["unknown"]) for r in found] == [(s.tokens, s.unknown) for s in expected]
    assert (done.files, done.rows, done.tokens) == (3, len(rows), sum(s.tokens for s in expected))


def test_processes_share_the_files_and_an_interrupted_job_goes_on(scorer, shards, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with claimed(out / "a.parquet"), claimed(out / "c.parquet"):  # as other processes hold them
        done = score_files(scorer, shards, out)
    assert (done.files, done.skipped, done.elsewhere) == (1, 0, 2)
    assert [path.name for path in out.iterdir()] == ["b.parquet"]
    before = (out / "b.parquet").stat().st_mtime_ns
    done = score_files(scorer, shards, out)
    assert (done.files, done.skipped, done.elsewhere) == (2, 1, 0)
    assert (out / "b.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize("array", ["1,3", "0-4:2", "7", "none"])
def test_the_tasks_of_any_slurm_array_score_all_files(scorer, shards, tmp_path, monkeypatch, array):
    tasks = {"1,3": (1, 3), "0-4:2": (0, 2, 4), "7": (7,), "none": ("not a number",)}[array]
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(len(tasks)))
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", str(tasks[0]))
    done = []
    for task in tasks:
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        done.append(score_files(scorer, shards, tmp_path / "out"))
    assert sum(each.files for each in done) == len(shards)
    assert len(scores_in(tmp_path / "out")) == 60


def test_a_file_system_without_locks_scores_all_the_same(scorer, shards, tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert score_files(scorer, shards, tmp_path / "out").files == len(shards)
    assert score_files(scorer, shards, tmp_path / "out").skipped == len(shards)


def test_scores_say_what_they_were_made_from(scorer, made_runs, shards, tmp_path):
    score_files(scorer, shards, tmp_path / "out")
    said = json.loads(pq.read_schema(tmp_path / "out" / "c.parquet").metadata[b"gcnn"])
    run = made_runs["gcnn", "word"]
    sha = subprocess.run(
        ["sha256sum", tmp_path / "shards" / "c.txt"], capture_output=True, text=True
    ).stdout.split()[0]
    assert said == {
        "model": read_metadata(run / WEIGHTS)["sha256"], "tokenizer": scorer.tokenizer.fingerprint,
        "precision": "float32", "run": str(run), "column": "text", "input": sha, "name": "c.txt",
    }  # fmt: skip


def another_model(run, shards, column):
    weights = read_weights(run / WEIGHTS)
    weights["softmax.head.weight"] *= 0.5
    save_weights(weights, run / WEIGHTS, read_metadata(run / WEIGHTS)["tokenizer"])
    return Scorer.from_run(run, "cpu")


def another_precision(run, shards, column):
    return Scorer.from_run(run, "cpu", "bf16")


def another_text(run, shards, column):
    before = shards[-1].stat()
    text = shards[-1].read_bytes()
    shards[-1].write_bytes(text[::-1].lstrip() + b"\n" * (len(text) - len(text.rstrip())))
    assert shards[-1].stat().st_size == before.st_size


@pytest.mark.parametrize(("change", "column", "named"), [
    (another_model, "text", "another model: .*by .*run"),
    (another_precision, "text", "another precision: float32, not bf16"),
    (another_text, "text", "c.parquet holds scores of another input"),
    (lambda *_: None, "words", "another column: text, not words"),
])  # fmt: skip
def test_scores_of_something_else_are_refused_before_any_scoring(
    gcnn_dir, shards, tmp_path, change, column, named
):
    first = Scorer.from_run(gcnn_dir, "cpu")
    score_files(first, shards, tmp_path / "out")
    kept = (tmp_path / "out" / "c.parquet").read_bytes()
    (tmp_path / "out" / "a.parquet").unlink()
    second = change(gcnn_dir, shards, column) or first
    with pytest.raises(UsageError, match=named):
        score_files(second, shards, tmp_path / "out", column)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.parquet", "c.parquet"]
    assert (tmp_path / "out" / "c.parquet").read_bytes() == kept


@pytest.mark.parametrize("content", [pa.table({"text": ["a"], "log_prob": [-1.0]}), b"not Parquet"])
def test_a_file_of_unknown_scores_is_refused(scorer, shards, tmp_path, content):
    (tmp_path / "out").mkdir()
    bad(tmp_path / "out", "b.parquet", content)
    with pytest.raises(UsageError, match=r"b\.parquet does not say what scores it holds"):
        score_files(scorer, shards, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.parquet"]


def test_a_copied_or_renamed_run_goes_on(scorer, gcnn_dir, shards, tmp_path):
    score_files(scorer, shards, tmp_path / "out")
    copied = Scorer.from_run(shutil.move(gcnn_dir, tmp_path / "elsewhere"), "cpu")
    assert score_files(copied, shards, tmp_path / "out").skipped == len(shards)


def test_a_damaged_file_keeps_nobody_else_from_being_scored(scorer, shards, tmp_path):
    (tmp_path / "shards" / "b.jsonl").write_text('{"text": "a"}\n{"text": "b')
    with pytest.raises(UsageError, match=r"b\.jsonl, line 2"):
        score_files(scorer, shards, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.parquet", "c.parquet"]


def test_a_shard_that_breaks_off_leaves_nothing(scorer, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 500)
    real, calls = scorer.stream, []

    def breaking(texts):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(texts)

    monkeypatch.setattr(scorer, "stream", breaking)
    with pytest.raises(KeyboardInterrupt):
        score_files(scorer, shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_processes_of_torchrun_score_all(made_runs, rows, shards, tmp_path):
    arguments = ["--run", made_runs["gcnn", "word"], "--threads", "1",
                 "--input", *shards, "--output", tmp_path / "out"]  # fmt: skip
    ranks = [
        Command(tmp_path, "score", *arguments, **environment)
        for environment in environments_of_ranks(2)
    ]
    for rank in ranks:
        rank.finish()
    assert [row["text"] for row in scores_in(tmp_path / "out")] == [row["text"] for row in rows]


def bad(tmp_path, name, content):
    path = tmp_path / name
    pq.write_table(content, path) if isinstance(content, pa.Table) else path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.parquet", pa.table({"words": ["a"]}), "no column `text` .*words.*--column"),
    ("a.parquet", pa.table({"text": [1]}), "int64, not text.*--column"),
    ("a.parquet", pa.table({"text": ["a"], "tokens": [1]}), "has a column tokens already"),
    ("a.parquet", b"not parquet", "a.parquet"),
    ("a.jsonl", b'{"words": "a"}\n', "no column"),
    ("a.txt", b"a\xff\xfe", "not UTF-8"),
])  # fmt: skip
def test_what_cannot_be_scored_is_named(scorer, tmp_path, name, content, message):
    with pytest.raises(UsageError, match=message):
        score_files(scorer, [bad(tmp_path, name, content)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_meet_and_files_that_are_missing_are_refused(
    scorer, shards, tmp_path, monkeypatch
):
    with pytest.raises(UsageError, match="two files would be written to"):
        score_files(scorer, [*shards, bad(tmp_path, "a.txt", b"a\n")], tmp_path / "out")
    with pytest.raises(UsageError, match="out is a file; give a folder"):
        score_files(scorer, shards, bad(tmp_path, "out", b""))
    (tmp_path / "out").unlink()
    with pytest.raises(UsageError, match="no file"):
        score_files(scorer, [tmp_path / "none.txt"], tmp_path / "out")
    with pytest.raises(UsageError, match="overwrite the input"):
        score_files(scorer, shards, shards[0].parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="overwrite the input"):  # however the folder is written
        score_files(scorer, shards, Path(shards[0].parent.name))


def test_empty_shards_and_null_texts(scorer, tmp_path):
    nulls = pa.table({"id": [1, 2], "text": pa.array([None, "a"], pa.string())})
    files = [
        bad(tmp_path, "a.txt", b""),
        bad(tmp_path, "b.jsonl", b""),
        bad(tmp_path, "c.parquet", nulls.slice(0, 0)),
        bad(tmp_path, "d.parquet", nulls),
    ]
    score_files(scorer, files, tmp_path / "out")
    columns = {"a": ["text"], "b": ["text", "json"], "c": ["id", "text"]}
    for name, expected in columns.items():
        empty = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert empty.num_rows == 0
        assert empty.column_names == [*expected, "log_prob", "tokens", "unknown", "perplexity"]
    assert [row["tokens"] for row in scores_in(tmp_path / "out")] == [None, 2]


def test_a_row_without_a_text_has_no_score_and_moves_none(scorer, tmp_path):
    words = [None, "the cat .", None, None, "", "a dog .", None]
    score_files(
        scorer,
        [
            bad(tmp_path, "a.parquet", pa.table({"text": pa.array(words, pa.string())})),
            bad(
                tmp_path, "b.jsonl", "".join(f"{json.dumps({'text': t})}\n" for t in words).encode()
            ),
            bad(tmp_path, "c.jsonl", b'{"text": "a dog ."}\n{"id": 1}\n'),
            bad(tmp_path, "d.parquet", pa.table({"text": pa.nulls(2, pa.string())})),
        ],
        tmp_path / "out",
    )
    names = ("log_prob", "tokens", "unknown", "perplexity")
    of_texts = iter(
        scorer.score([text for text in [*words, *words, "a dog ."] if text is not None])
    )
    expected = [
        None if text is None else next(of_texts)
        for text in [*words, *words, "a dog .", None, None, None]
    ]
    for row, score in zip(scores_in(tmp_path / "out"), expected, strict=True):
        assert tuple(row[name] for name in names) == (score or (None,) * 4)


@pytest.mark.parametrize(("names", "targets"), [
    (
        ["news.en-00001-of-00003", "news.en-00002-of-00003"],
        ["news.en-00001-of-00003", "news.en-00002-of-00003"],
    ),
    (
        ["corpus.aa", "corpus.ab", "corpus.1", "x.en", "x.de"],
        ["corpus.aa", "corpus.ab", "corpus.1", "x.en", "x.de"],
    ),
    (["a.txt", "b.v2.TXT", "c.jsonl", "d.json.gz", "e.gz"], ["a", "b.v2", "c", "d.json", "e"]),
    (["a.b", "no_dot", ".hidden"], ["a.b", "no_dot", ".hidden"]),
])  # fmt: skip
def test_scores_have_the_name_of_their_file_without_its_kind(tmp_path, names, targets):
    files = [bad(tmp_path, name, b"a\n") for name in names]
    found = targets_of(files, tmp_path / "out")
    assert found == {
        path: tmp_path / "out" / f"{target}.parquet"
        for path, target in zip(files, targets, strict=True)
    }


def test_names_that_are_no_utf8_are_scored(scorer, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    table = bad(folder, os.fsdecode(b"\xe9.txt"), b"a b\n")
    with pa.OSFile(os.fsencode(folder / "t.parquet"), "wb") as sink:
        pq.write_table(pa.table({"text": ["c"]}), sink)
    files = [table, folder / "t.parquet"]
    assert score_files(scorer, files, folder / "out").files == 2
    assert score_files(scorer, files, folder / "out").skipped == 2
