"""Score columns for corpora: every row once, as the scorer says, whatever the format, the processes and the crashes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcnn.errors import UsageError
from gcnn.evaluation import corpus_scoring
from gcnn.evaluation.corpus_scoring import score_files, share_of_this_process
from gcnn.evaluation.scoring import Scorer


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
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[third : 2 * third]))
    (folder / "c.txt").write_text("".join(f"{row['text']}\n" for row in rows[2 * third :]))
    return sorted(folder.iterdir())


def scores_in(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_row_keeps_its_columns_and_gets_the_scorers_scores(scorer, rows, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_scoring, "ROWS", 7)
    done = score_files(scorer, shards, tmp_path / "out")
    found, expected = scores_in(tmp_path / "out"), scorer.score([row["text"] for row in rows])
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert [row["id"] for row in found if "id" in row] == list(range(2 * (len(rows) // 3)))
    np.testing.assert_allclose([row["log_prob"] for row in found], [s.log_prob for s in expected], atol=1e-5)
    assert [(r["tokens"], r["unknown"]) for r in found] == [(s.tokens, s.unknown) for s in expected]
    assert (done.files, done.rows, done.tokens) == (3, len(rows), sum(s.tokens for s in expected))


def test_processes_share_the_files_and_an_interrupted_job_goes_on(scorer, shards, tmp_path):
    out = tmp_path / "out"
    assert score_files(scorer, shards, out, process=1, processes=2).files == 1  # b
    assert [path.name for path in out.iterdir()] == ["b.parquet"]
    before = (out / "b.parquet").stat().st_mtime_ns
    done = score_files(scorer, shards, out)
    assert (done.files, done.skipped) == (2, 1)
    assert (out / "b.parquet").stat().st_mtime_ns == before


def test_a_shard_that_breaks_off_leaves_nothing(scorer, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_scoring, "ROWS", 7)
    real, calls = scorer.score, []

    def breaking(texts):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(texts)

    monkeypatch.setattr(scorer, "score", breaking)
    with pytest.raises(KeyboardInterrupt):
        score_files(scorer, shards, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_share_is_that_of_torchrun_within_a_slurm_array(monkeypatch):
    assert share_of_this_process() == (0, 1)
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "SLURM_ARRAY_TASK_ID": 7, "SLURM_ARRAY_TASK_MIN": 5,
                        "SLURM_ARRAY_TASK_COUNT": 4}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    assert share_of_this_process() == (2 * 2 + 1, 8)


def test_two_processes_of_torchrun_score_all(made_runs, rows, shards, tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--",
               "gcnn.evaluation.score_command", "--run", made_runs["gcnn", "word"], "--threads", "1",
               "--input", *shards, "--output", tmp_path / "out"]  # fmt: skip
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row["text"] for row in scores_in(tmp_path / "out")] == [row["text"] for row in rows]


def bad(tmp_path, name, content):
    path = tmp_path / name
    pq.write_table(content, path) if isinstance(content, pa.Table) else path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.parquet", pa.table({"words": ["a"]}), "no column `text` .*words"),
    ("a.parquet", pa.table({"text": [1]}), "of type int64, not text"),
    ("a.parquet", pa.table({"text": ["a"], "tokens": [1]}), "has a column tokens already"),
    ("a.parquet", b"not parquet", "a.parquet"),
    ("a.jsonl", b'{"words": "a"}\n', "no column"),
    ("a.txt", b"\xff\xfe", "not UTF-8"),
])  # fmt: skip
def test_what_cannot_be_scored_is_named(scorer, tmp_path, name, content, message):
    with pytest.raises(UsageError, match=message):
        score_files(scorer, [bad(tmp_path, name, content)], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_names_that_meet_and_files_that_are_missing_are_refused(scorer, shards, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="two files would be written to"):
        score_files(scorer, [*shards, bad(tmp_path, "a.txt", b"a\n")], tmp_path / "out")
    with pytest.raises(UsageError, match="no file"):
        score_files(scorer, [tmp_path / "none.txt"], tmp_path / "out")
    with pytest.raises(UsageError, match="overwrite the input"):
        score_files(scorer, shards, shards[0].parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="overwrite the input"):  # however the folder is written
        score_files(scorer, shards, Path(shards[0].parent.name))


def test_empty_shards_and_null_texts(scorer, tmp_path):
    nothing = bad(tmp_path, "a.txt", b"")
    nulls = bad(tmp_path, "b.parquet", pa.table({"text": pa.array([None, "a"], pa.string())}))
    score_files(scorer, [nothing, nulls], tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "a.parquet").num_rows == 0
    assert [row["tokens"] for row in scores_in(tmp_path / "out")] == [1, 2]
