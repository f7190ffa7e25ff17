"""Token streams: counts as in the literature, a cache that is checked, extra files."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnn.base.errors import UsageError
from gcnn.config.schema import DataConfig, SentencePieceConfig, WordTokenizerConfig
from gcnn.data import corpus, stream
from gcnn.data.stream import PreparedData, encode_file, prepare
from gcnn.data.threads import in_threads
from gcnn.data.tokenizer_training import train_tokenizer
from gcnn.data.tokenizers import Tokenizer, WordTokenizer
from tests.unicode_text import any_lines, unmarked

TEXT = {
    "train": "the cat sat\n\n on the  mat \n" * 30,
    "valid": "the dog\n",
    "test": "a cat\nsat, \u00e0 table",
}
WORDS = {"train": 30 * 9, "valid": 3, "test": 7}
TOKENIZERS = [WordTokenizerConfig(), SentencePieceConfig(vocabulary_size=280)]


@pytest.fixture
def data(tmp_path) -> DataConfig:
    folder = tmp_path / "text"
    folder.mkdir()
    for split, text in TEXT.items():
        (folder / f"{split}.txt").write_text(text)
    return DataConfig(
        name="small", source="local", path=str(folder), cache_dir=str(tmp_path / "cache")
    )


def same(a: PreparedData, b: PreparedData) -> bool:
    tokens = all(np.array_equal(a.streams[split].tokens, b.streams[split].tokens) for split in TEXT)
    return (
        tokens
        and a.fingerprint == b.fingerprint
        and a.tokenizer.fingerprint == b.tokenizer.fingerprint
    )


@pytest.mark.parametrize("number", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("where", ["reading", "work"])
def test_an_error_in_threads_comes_after_the_results_before_it(number, where):
    """Of batches 0, 1, 2, ... the first `number` are without fault."""

    def read():
        yield from range(number)
        if where == "reading":
            raise UsageError("damaged")
        yield from range(number, number + 9)

    def work(batch: int) -> int:
        if batch >= number:
            raise UsageError("damaged")
        return 10 * batch

    results = []

    def take_all():
        for result in in_threads(work, read()):
            results.append(result)

    with pytest.raises(UsageError, match="damaged"):
        take_all()
    assert results == [10 * i for i in range(number)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_streams_are_the_encoded_lines(data, tokenizer):
    prepared = prepare(data, tokenizer)
    for split, text in TEXT.items():
        found = prepared.streams[split]
        lines = text.removesuffix("\n").split("\n")
        ids = [
            i
            for line in lines
            for i in [*prepared.tokenizer.encode(line), prepared.tokenizer.eos_id]
        ]
        assert found.tokens.tolist() == ids
        assert found.tokens.dtype == np.int32
        assert len(found) == len(ids)
        assert (found.lines, found.words) == (len(lines), WORDS[split])
        assert found.bytes == sum(len(line.strip().encode()) + 1 for line in lines)
        assert found.fingerprint == hashlib.sha256(np.array(ids, "<i4")).hexdigest()
        assert found.vocabulary_size == prepared.tokenizer.vocabulary_size
        assert found.eos_id == prepared.tokenizer.eos_id


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_a_warm_cache_reads_no_text(data, tokenizer, monkeypatch):
    cold = prepare(data, tokenizer)
    monkeypatch.setattr(corpus, "read_lines", None)
    assert same(prepare(data, tokenizer), cold)


def cache_files(data: DataConfig) -> list[Path]:
    folders = ("tokens", "tokenizers", "texts")
    return sorted(
        path
        for name in folders
        for path in (Path(data.cache_dir) / name).rglob("*")
        if path.is_file()
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_made_anew(data, damage):
    cold = prepare(data, WordTokenizerConfig())
    expected = {split: found.tokens.tolist() for split, found in cold.streams.items()}
    files = [
        path for path in cache_files(data) if path.parent.name != "texts" or damage is not flip
    ]
    assert len(files) >= 12
    for path in files:
        damage(path)
        again = prepare(data, WordTokenizerConfig())
        assert {split: found.tokens.tolist() for split, found in again.streams.items()} == expected
        assert again.fingerprint == cold.fingerprint


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_what_an_interruption_leaves_is_not_used(data, monkeypatch, stop):
    encode = stream.encode

    def interrupted(*arguments):
        yield from encode(*arguments)
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(stream, "encode", interrupted)
        with pytest.raises(stop):
            prepare(data, WordTokenizerConfig())
    assert not list((Path(data.cache_dir) / "tokens").iterdir())
    prepared = prepare(data, WordTokenizerConfig())
    assert [len(found) for found in prepared.streams.values()] == list(WORDS.values())


def test_a_killed_process_leaves_nothing_that_is_used(data):
    code = f"""
import os
from gcnn.config.schema import DataConfig, WordTokenizerConfig
from gcnn.data import stream
def killed(*arguments):
    yield from encode(*arguments)
    os._exit(9)
encode, stream.encode = stream.encode, killed
config = DataConfig(name="small", source="local", path={data.path!r}, cache_dir={data.cache_dir!r})
stream.prepare(config, WordTokenizerConfig())
"""
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}).returncode == 9
    prepared = prepare(data, WordTokenizerConfig())
    assert [len(found) for found in prepared.streams.values()] == list(WORDS.values())


def test_a_killed_preparation_goes_on_where_it_was(data, monkeypatch):
    """Killed while the test split is encoded: the other splits are not encoded again."""
    code = f"""
import os
from gcnn.config.schema import DataConfig, WordTokenizerConfig
from gcnn.data import stream
def killed(lines, tokenizer):
    for n, batch in enumerate(encode(lines, tokenizer)):
        if batch[1].words == 4:  # its last line, which has no end: a batch of its own
            os._exit(9)
        yield batch
encode, stream.encode = stream.encode, killed
config = DataConfig(name="small", source="local", path={data.path!r}, cache_dir={data.cache_dir!r})
stream.prepare(config, WordTokenizerConfig())
"""
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}).returncode == 9
    read, lines = [], corpus.Corpus.lines
    monkeypatch.setattr(
        corpus.Corpus, "lines", lambda self, split: read.append(split) or lines(self, split)
    )
    resumed = prepare(data, WordTokenizerConfig())
    assert read == ["test"]
    data.cache_dir += "-fresh"
    assert same(prepare(data, WordTokenizerConfig()), resumed)


@pytest.mark.parametrize("words", [4 * 7, 4 * 7 + 1, 10_000])
def test_few_words_and_many_are_encoded_alike(words):
    """For many words and for few; among them an unknown one and one that looks like <eos>."""
    tokenizer = WordTokenizer(["the", "<eos>", "<unk>", "a", "b", "\u00e0", "c"])
    text = (["the", "b", "\u00e0", "new", "<eos>", "c"] * words)[: words - 2]
    lines = [" ".join(text[:6]), " ".join(text[6:])]
    ids = {"the": 0, "b": 4, "\u00e0": 5, "c": 6}
    expected = [
        *(ids.get(word, 2) for word in text[:6]),
        1,
        *(ids.get(word, 2) for word in text[6:]),
        1,
    ]
    assert tokenizer.encode_lines(lines).tolist() == expected
    assert tokenizer.encode_lines(lines).dtype == np.int32


def test_other_text_or_tokenizers_give_other_streams(data):
    first = prepare(data, WordTokenizerConfig())
    assert prepare(data, WordTokenizerConfig(min_count=31)).fingerprint != first.fingerprint
    (Path(data.path) / "train.txt").write_text(TEXT["train"] + "a new line\n")
    second = prepare(data, WordTokenizerConfig())
    assert second.tokenizer.vocabulary_size == first.tokenizer.vocabulary_size + 3
    (Path(data.path) / "train.txt").write_text(TEXT["train"])
    assert same(prepare(data, WordTokenizerConfig()), first)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_any_file_with_a_tokenizer(data, tokenizer):
    prepared = prepare(data, tokenizer)
    found = encode_file(Path(data.path) / "test.txt", prepared.tokenizer)
    expected = prepared.streams["test"]
    assert found.tokens.tolist() == expected.tokens.tolist()
    for name in ("eos_id", "vocabulary_size", "words", "bytes", "lines", "fingerprint"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file .*extra.txt"),
        (b"", "extra.txt has no words"),
        (b"\n\n", "extra.txt has no words"),
        (b"a\nb\xe9\n", "extra.txt is not UTF-8: byte 0xe9 at offset 3, line 2"),
    ],
)
def test_files_that_cannot_be_encoded(data, content, message):
    path = Path(data.path) / "extra.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        encode_file(path, prepare(data, WordTokenizerConfig()).tokenizer)


@pytest.fixture(scope="module", params=TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def tokenizer(request) -> Tokenizer:
    return train_tokenizer(request.param, [TEXT["train"].split("\n") + ["a \u00e9 b <unk>"] * 3])


def reference_ids(line: str, tokenizer: Tokenizer) -> list[int]:
    if tokenizer.kind == "sentencepiece":
        return [
            tokenizer.model_ids.tolist().index(i) for i in tokenizer.processor.encode(line.strip())
        ]
    known = {word: i for i, word in enumerate(tokenizer.types) if word != "<eos>"}
    return [known.get(word, known["<unk>"]) for word in line.split()]


@settings(max_examples=25, deadline=None)
@given(
    lines=any_lines,
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r", ""]), min_size=8, max_size=8),
)
def test_any_text_is_encoded_as_its_lines_are(tokenizer, tmp_path_factory, lines, ends):
    text = "".join(line + end for line, end in zip(lines, ends, strict=False))
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode())
    # Nothing else ends a line; a byte order mark is no text.
    expected = re.split("\r?\n", text.removeprefix("\ufeff"))
    expected = expected if expected[-1] else expected[:-1]
    if not any(map(str.split, expected)):
        with pytest.raises(UsageError, match=r"any.txt has no words"):
            encode_file(path, tokenizer)
        return
    expected = list(map(unmarked, expected))
    ids = [i for line in expected for i in [*reference_ids(line, tokenizer), tokenizer.eos_id]]
    found = encode_file(path, tokenizer)
    assert found.tokens.tolist() == ids
    assert found.lines == len(expected) == ids.count(found.eos_id)
    assert found.words == sum(len(line.split()) + 1 for line in expected)
    assert found.bytes == sum(len(line.strip().encode()) + 1 for line in expected)
    assert found.fingerprint == hashlib.sha256(np.array(ids, "<i4")).hexdigest()


def test_nothing_is_encoded_where_a_split_is_unfit(data):
    (Path(data.path) / "test.txt").write_bytes(b"\xff\n")
    with pytest.raises(UsageError, match=r"test.txt is not UTF-8"):
        prepare(data, WordTokenizerConfig())
    assert not (Path(data.cache_dir) / "tokens").exists()
    assert not (Path(data.cache_dir) / "tokenizers").exists()


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_eos_written_at_the_ends_of_lines_is_those_ends(data, tokenizer, caplog):
    plain = prepare(data, tokenizer)
    for split, text in TEXT.items():
        (Path(data.path) / f"{split}.txt").write_text(text.replace("\n", " <eos>\n"))
    marked = prepare(data, tokenizer)
    assert same(plain, marked)
    for split in TEXT:
        for name in ("words", "bytes", "lines"):
            assert getattr(marked.streams[split], name) == getattr(plain.streams[split], name)
    assert not caplog.records


def test_eos_within_lines_is_unknown_and_said_each_time(data, caplog):
    path = Path(data.path) / "test.txt"
    path.write_text("<eos> a <eos> cat\nsat <eos> <eos>\n")
    for _ in range(2):  # also out of the cache
        caplog.clear()
        prepared = prepare(data, WordTokenizerConfig())
        (record,) = caplog.records
        assert re.fullmatch(
            r"the test split of small has <eos> within lines 2 times: .*", record.getMessage()
        )
    unknown, eos = prepared.tokenizer.unk_id, prepared.tokenizer.eos_id
    tokens = prepared.streams["test"].tokens.tolist()
    # `a` is unknown too.
    assert [i for i in tokens if i in (unknown, eos)] == [
        unknown,
        unknown,
        unknown,
        eos,
        eos,
    ]
    caplog.clear()
    assert (
        encode_file(path, prepared.tokenizer).tokens.tolist()
        == prepared.streams["test"].tokens.tolist()
    )
    assert "test.txt has <eos> within lines 2 times" in caplog.text


@pytest.mark.skipif(
    "GCNN_SHARED" not in os.environ,
    reason="GCNN_SHARED, the folder of the published data, is not set",
)
def test_the_published_counts_of_wikitext_2(tmp_path):
    path = Path(os.environ["GCNN_SHARED"]) / "data" / "wikitext-2"
    data = DataConfig(name="wikitext2", source="wikitext", path=str(path), cache_dir=str(tmp_path))
    prepared = prepare(data, WordTokenizerConfig())
    assert prepared.tokenizer.vocabulary_size == 33_278
    assert [len(found) for found in prepared.streams.values()] == [2_088_628, 217_646, 245_569]
    assert [found.words for found in prepared.streams.values()] == [2_088_628, 217_646, 245_569]
