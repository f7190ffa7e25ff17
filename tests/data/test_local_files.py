"""A user's own files: of every kind and name, and cached by their content alone."""

import errno
import gzip
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcnn.base.errors import UsageError
from gcnn.config.compose import compose_config
from gcnn.config.schema import DataConfig, SentencePieceConfig, WordTokenizerConfig
from gcnn.config.stored import load_config, save_config
from gcnn.data import stream, tables
from gcnn.data.corpus import Corpus, load_corpus
from gcnn.data.sources import SPLITS
from gcnn.data.stream import prepare


@pytest.fixture
def corpus_of(tmp_path):
    def load(**options) -> Corpus:
        return load_corpus(
            DataConfig(name="local", source="local", cache_dir=str(tmp_path / ".c"), **options)
        )

    return load


def write_text(folder: Path) -> Path:
    folder.mkdir()
    for split in SPLITS:
        (folder / f"{split}.txt").write_text("a b\n")
    return folder


def every_split(paths: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(SPLITS, paths)


def content(corpus: Corpus) -> dict[str, list[str]]:
    return {
        split: [line for lines in corpus.lines(split) for line in lines.to_pylist()]
        for split in SPLITS
    }


def test_documents_are_not_the_lines_in_them(corpus_of, tmp_path):
    """Rows with newlines inside have another fingerprint than their lines, and the same bytes."""
    lines = ["a b", "c", "", "d e"]
    rows = {
        "lines": lines,
        "documents": ["a b\nc", "\nd e"],
        "other": ["a b\nc\n", " ", "d e"],
        "cr": ["a b\r\nc", "d e"],
    }
    rows["one"] = ["a b\nc\n\nd e"]
    found = {}
    for name, texts in rows.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        corpus = corpus_of(files=every_split([str(path)]))
        found[name] = corpus.fingerprint("train")
        assert corpus.summary("train").bytes == sum(len(text.strip()) + 1 for text in texts)
        assert corpus.summary("train").lines == len(texts)
    assert len(set(found.values())) == len(rows)
    assert found["lines"] == hashlib.sha256(b"a b\nc\n\nd e\n").hexdigest()


def test_each_file_is_read_by_its_own_kind(corpus_of, tmp_path):
    (tmp_path / "a.txt").write_text("plain text\n")
    (tmp_path / "b.NDJSON").write_text('{"content": "json lines"}\n')
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"packed"))
    pq.write_table(pa.table({"content": ["parquet"], "text": [1]}), tmp_path / "d.parquet")
    paths = [str(path) for path in sorted(tmp_path.iterdir()) if path.is_file()]
    corpus = corpus_of(files=every_split(paths), column="content")
    assert content(corpus)["train"] == ["plain text", "json lines", "packed", "parquet"]
    with pytest.raises(
        UsageError, match=r"b.NDJSON has no column `text` \(found: content\).*data.column"
    ):
        content(corpus_of(files=every_split(paths)))


@pytest.mark.parametrize("name", ["[old].txt", "what?.txt", "12::30.txt"])
def test_the_name_of_a_file_that_exists_is_no_pattern(corpus_of, tmp_path, name):
    for other in ("o.txt", "what1.txt", name):
        (tmp_path / other).write_text(f"{other}\n")
    corpus = corpus_of(files=every_split([str(tmp_path / name)]))
    assert content(corpus)["train"] == [name]


def test_another_text_of_the_same_size_and_time(corpus_of, tmp_path):
    path = write_text(tmp_path / "text") / "test.txt"
    path.write_text("a b\nc d\n")
    os.utime(path, (0, 0))
    before = corpus_of(path=str(path.parent)).fingerprint("test")
    path.write_text("c d\na b\n")
    os.utime(path, (0, 0))
    assert corpus_of(path=str(path.parent)).fingerprint("test") != before


def test_a_user_without_a_home_is_told(tmp_path, monkeypatch):
    folder = write_text(tmp_path / "text")
    config = DataConfig(name="local", source="local", path=str(folder))
    # As where neither HOME nor a user's entry is.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("GCNN_CACHE", raising=False)
    with pytest.raises(UsageError, match=r"no home folder.*set GCNN_CACHE"):
        load_corpus(config)
    monkeypatch.setenv("GCNN_CACHE", str(tmp_path / "cache"))
    assert content(load_corpus(config)) == {split: ["a b"] for split in SPLITS}


def test_the_option_that_helps_is_named(tmp_path):
    config = DataConfig(
        name="local", source="local", path=str(tmp_path / "none"), cache_dir=str(tmp_path)
    )
    with pytest.raises(UsageError, match=r"^--data-path: .* Set --data-path to a folder with"):
        load_corpus(config, "--data-path")


class FullDisk:
    """A file where there is no room for it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_of_the_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "open", lambda *_: FullDisk(), raising=False)
    config = DataConfig(
        name="local",
        source="local",
        path=str(write_text(tmp_path / "text")),
        cache_dir=str(tmp_path),
    )
    with pytest.raises(OSError, match="No space left on device") as error:
        prepare(config, WordTokenizerConfig())
    assert f"{tmp_path}/tokens/" in str(error.value)
    assert not list((tmp_path / "tokens").iterdir())


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 9, 12, 13, 100])
def test_the_first_tokens_of_the_training_split(corpus_of, tmp_path, monkeypatch, tokens):
    lines = ["a b", "", "c d e", "f", "g"]  # 3, 1, 4, 2 and 2 tokens
    folder = write_text(tmp_path / "text")
    for split in SPLITS:
        (folder / f"{split}.txt").write_text("\n".join([*lines, ""]))
    monkeypatch.setattr(tables, "CHUNK", 7)
    whole = corpus_of(path=str(folder)).fingerprint("train")
    part = corpus_of(path=str(folder), train_tokens=tokens)
    needed = next(
        (n for n in range(1, 6) if sum(len(line.split()) + 1 for line in lines[:n]) >= tokens), 5
    )
    assert content(part) == {"train": lines[:needed], "valid": lines, "test": lines}
    assert part.summary("train").lines == needed
    assert (part.fingerprint("train") == whole) == (needed == 5)


def test_rows_without_a_text_are_left_out_with_a_warning_each_time(tmp_path, caplog):
    words = [None, "a b", None, "", "c", None]
    texts = [text for text in words if text is not None]
    rows = tmp_path / "rows"
    rows.mkdir()
    for split in SPLITS:
        pq.write_table(pa.table({"text": pa.array(words, pa.string())}), rows / f"{split}.parquet")
    plain = write_text(tmp_path / "plain")
    for split in SPLITS:
        (plain / f"{split}.txt").write_text("".join(f"{text}\n" for text in texts))
    for tokenizer in (WordTokenizerConfig(), SentencePieceConfig(vocabulary_size=262)):
        prepared = [
            prepare(
                DataConfig(
                    name="local", source="local", path=str(path), cache_dir=str(tmp_path / ".c")
                ),
                tokenizer,
            )
            for path in (rows, plain)
        ]
        assert prepared[0].fingerprint == prepared[1].fingerprint
        assert prepared[0].streams["test"].lines == len(texts)
        found = stream.encode_file(rows / "test.parquet", prepared[0].tokenizer)
        assert found.tokens.tolist() == prepared[1].streams["test"].tokens.tolist()
        said = [record.getMessage() for record in caplog.records]
        left_out = "3 of 6 rows have no text (null) and are left out."
        assert said == [
            *(f"the {split} split of local: {left_out}" for split in SPLITS),
            f"{rows / 'test.parquet'}: {left_out}",
        ]
        caplog.clear()


def test_rows_without_a_text_are_not_among_the_first_tokens(corpus_of, tmp_path):
    rows = [{"text": None}, {"text": "a b"}, {}, {"text": "c"}, {"text": "d"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    corpus = corpus_of(files=every_split([str(path)]), train_tokens=5)
    assert content(corpus)["train"] == ["a b", "c"]
    assert corpus.summary("train").null_rows == 2
    assert corpus.summary("test").null_rows == 2


def test_a_path_that_is_not_read_is_named(corpus_of, tmp_path, caplog):
    folder = write_text(tmp_path / "text")
    corpus = corpus_of(
        path="/nowhere", files={split: [str(folder / f"{split}.txt")] for split in SPLITS}
    )
    assert content(corpus) == {split: ["a b"] for split in SPLITS}
    assert "data.path is not read: data.files names the files." in caplog.text


def test_a_link_to_nothing_is_no_file(corpus_of, tmp_path):
    folder = write_text(tmp_path / "text")
    (folder / "valid.txt").unlink()
    (folder / "valid.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"valid\.txt is not a file, or is a link to nothing"):
        corpus_of(path=str(folder))


def test_a_stored_config_finds_its_text_from_any_folder_and_names_no_cache(tmp_path, monkeypatch):
    here = tmp_path / "[1] here"
    write_text(here)
    monkeypatch.chdir(here)
    files = "data.files={train:['tr*.txt'],valid:[valid.txt],test:[test.txt]}"
    for where in ("data.path=.", files):
        config = compose_config(
            "data=local", "tokenizer=word", "model.cutoffs=[]", where, "data.cache_dir=/its/author"
        )
        assert config.data.cache_dir == "/its/author"
        save_config(config, tmp_path / "config.yaml")
        assert "author" not in (tmp_path / "config.yaml").read_text()
        (tmp_path / "else").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "else")
        monkeypatch.setenv("GCNN_CACHE", str(tmp_path / "mine"))
        corpus = load_corpus(load_config(tmp_path).data)
        assert content(corpus) == {split: ["a b"] for split in SPLITS}
        assert corpus.cache_dir == tmp_path / "mine"
        monkeypatch.chdir(here)
    stored = (
        (tmp_path / "config.yaml").read_text().replace("cache_dir: null", "cache_dir: /its/author")
    )
    (tmp_path / "config.yaml").write_text(stored)  # as runs were stored once
    assert load_config(tmp_path).data.cache_dir is None
