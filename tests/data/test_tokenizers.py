"""Tokenizers against plain definitions, on any Unicode text."""

import errno
import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnn.base.errors import UsageError
from gcnn.config.schema import SentencePieceConfig, WordTokenizerConfig
from gcnn.data import tokenizer_training
from gcnn.data.tokenizer_training import train_tokenizer
from gcnn.data.tokenizers import SentencePieceTokenizer, WordTokenizer, load_tokenizer
from tests.unicode_text import TEXT, any_line, any_lines, unmarked

few_words = st.lists(
    st.sampled_from(["a", "b", "c", "<unk>", "<eos>", "é", " ", "\u2028", "\x85"]), max_size=12
)
SIZE = 300  # pieces, 256 of them bytes


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def pieces(request) -> SentencePieceTokenizer:
    return train_tokenizer(
        SentencePieceConfig(model_type=request.param, vocabulary_size=SIZE), [TEXT]
    )


def reference_ids(lines: list[str], types: list[str], eos: str, unk: str) -> list[int]:
    ids = []
    for line in lines:
        for word in unmarked(line).split():
            ids.append(types.index(word) if word in types and word != eos else types.index(unk))
        ids.append(types.index(eos))
    return ids


@given(st.lists(any_line | few_words.map(" ".join), max_size=8), st.lists(any_line, max_size=3))
def test_words_are_looked_up_one_by_one(lines, training):
    tokenizer = train_tokenizer(WordTokenizerConfig(), [training, lines[:4]])
    ids = tokenizer.encode_lines(lines)
    assert ids.dtype == np.int32
    assert ids.tolist() == reference_ids(lines, tokenizer.types, "<eos>", "<unk>")
    assert [
        i for line in lines for i in [*tokenizer.encode(line), tokenizer.eos_id]
    ] == ids.tolist()


@given(
    st.lists(few_words.map(" ".join), max_size=20), st.integers(1, 4), st.none() | st.integers(3, 7)
)
def test_word_types_are_the_frequent_ones(lines, min_count, max_size):
    tokenizer = train_tokenizer(
        WordTokenizerConfig(min_count=min_count, max_size=max_size), [lines[:7], lines[7:]]
    )
    counts = Counter(word for line in lines for word in unmarked(line).split())
    words = {word for word in counts if word not in ("<unk>", "<eos>")}
    frequent = {word for word in words if counts[word] >= min_count}
    kept = set(tokenizer.types) - {"<unk>", "<eos>"}
    assert kept <= frequent
    assert len(kept) == min(len(frequent), (max_size or 99) - 2)
    assert min((counts[w] for w in kept), default=0) >= max(
        (counts[w] for w in frequent - kept), default=0
    )
    assert len(tokenizer.types) == len(set(tokenizer.types)) == tokenizer.vocabulary_size
    frequency = np.bincount(tokenizer.encode_lines(lines), minlength=tokenizer.vocabulary_size)
    assert (np.diff(frequency) <= 0).all()


@given(st.lists(any_line, max_size=6))
def test_words_decode_to_themselves(lines):
    tokenizer = train_tokenizer(WordTokenizerConfig(), [lines])
    plain = [
        " ".join("<unk>" if word == "<eos>" else word for word in unmarked(line).split())
        for line in lines
    ]
    assert [tokenizer.decode(tokenizer.encode(line)) for line in lines] == plain
    assert tokenizer.decode(tokenizer.encode_lines(lines)) == "".join(f"{line}\n" for line in plain)


@given(any_lines, any_lines, st.integers(1, 2), st.none() | st.integers(3, 6))
def test_words_decode_to_the_line_with_unknown_ones_marked(training, lines, min_count, max_size):
    tokenizer = train_tokenizer(
        WordTokenizerConfig(min_count=min_count, max_size=max_size), [training]
    )
    words = set(tokenizer.types) - {"<eos>"}
    for line in lines:
        ids = tokenizer.encode(line)
        assert tokenizer.eos_id not in ids
        assert tokenizer.decode(ids) == " ".join(
            word if word in words else "<unk>" for word in unmarked(line).split()
        )


def test_no_word_makes_an_end_of_line():
    tokenizer = train_tokenizer(WordTokenizerConfig(), [["a <eos> b", "x<eos>y"]])
    assert tokenizer.encode("a <eos> b")[1] == tokenizer.unk_id
    assert tokenizer.decode(tokenizer.encode("x<eos>y")) == "x<eos>y"
    assert (tokenizer.encode_lines(["a <eos> b", "<eos>"]) == tokenizer.eos_id).sum() == 2


def test_a_dictionary_with_other_special_types():
    types = ["<s>", "<pad>", "</s>", "<unk>", "the", "cat"]
    tokenizer = WordTokenizer(types, eos="</s>", unk="<unk>")
    assert (tokenizer.eos_id, tokenizer.unk_id) == (2, 3)
    assert tokenizer.encode_lines(["the cat", "a </s> cat"]).tolist() == [4, 5, 2, 3, 3, 5, 2]


def test_a_vocabulary_without_room():
    with pytest.raises(UsageError, match="max_size is 2"):
        train_tokenizer(WordTokenizerConfig(max_size=2), [["a"]])


@given(
    line=any_line.filter(lambda line: "\u2581" not in line)
)  # U+2581 is SentencePiece's own space
@settings(max_examples=200)
def test_pieces_decode_to_any_text(pieces, line):
    assert pieces.decode(pieces.encode(line)) == unmarked(line)
    assert not {pieces.eos_id, pieces.unk_id} & set(pieces.encode(line))


@given(lines=any_lines.filter(lambda lines: "\u2581" not in "".join(lines)))
def test_lines_of_pieces_keep_apart(pieces, lines):
    ids = pieces.encode_lines(lines)
    assert ids.tolist() == [i for line in lines for i in [*pieces.encode(line), pieces.eos_id]]
    assert pieces.decode(ids) == "".join(f"{unmarked(line)}\n" for line in lines)


def test_pieces_of_lines(pieces):
    ids = pieces.encode_lines([*TEXT, "<eos> <unk> <0x41>", " spaced\tout  \r"])
    assert ids.dtype == np.int32
    assert (ids == pieces.eos_id).sum() == len(TEXT) + 2
    assert pieces.unk_id not in ids
    assert pieces.decode(ids) == "".join(
        f"{line.strip()}\n" for line in [*TEXT, "<eos> <unk> <0x41>", "spaced\tout"]
    )


@pytest.mark.parametrize("white_space", ["", "\u00a0", "\u3000", "\t", 9 * " "])
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_pieces_are_sorted_by_frequency(model_type, white_space):
    config = SentencePieceConfig(model_type=model_type, vocabulary_size=SIZE)
    lines = [f"{line} 10{white_space}000 francs {white_space}" for line in TEXT]
    tokenizer = train_tokenizer(config, [lines])
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    model_ids = np.concatenate([processor.encode(line.strip(), add_eos=True) for line in lines])
    frequency = np.bincount(model_ids, minlength=SIZE)
    assert tokenizer.model_ids.tolist() == np.argsort(-frequency, kind="stable").tolist()


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_training_is_deterministic_and_silent(model_type, capfd):
    config = SentencePieceConfig(model_type=model_type, vocabulary_size=SIZE)
    first, second = (
        train_tokenizer(config, batches) for batches in ([TEXT], [TEXT[:37], TEXT[37:]])
    )
    assert first.fingerprint == second.fingerprint
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [1, 100, 100_000])
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_the_size_that_an_error_names_works(model_type, size):
    config = SentencePieceConfig(model_type=model_type, vocabulary_size=size)
    with pytest.raises(
        UsageError, match=r"tokenizer.vocabulary_size is 10*, [^(]* give at (least|most) \d+\.$"
    ) as error:
        train_tokenizer(config, [TEXT])
    config.vocabulary_size = int(str(error.value).split()[-1][:-1])
    assert train_tokenizer(config, [TEXT]).vocabulary_size == config.vocabulary_size


def test_a_default_size_that_is_too_small_is_not_called_the_users(monkeypatch):
    monkeypatch.setattr(tokenizer_training, "PIECES", 100)
    named = r"^tokenizer.vocabulary_size is 100 by default, fewer than .* give at least \d+\.$"
    with pytest.raises(UsageError, match=named):
        train_tokenizer(SentencePieceConfig(), [TEXT])


@pytest.mark.parametrize("batches", [[], [[]], [["", " \t"], ["<eos>"]]])
@pytest.mark.parametrize("size", [None, 300])
def test_no_pieces_are_made_of_empty_lines(batches, size):
    config = SentencePieceConfig(vocabulary_size=size)
    with pytest.raises(UsageError, match=r"^tokenizer: .* all empty\. Give a .* with words\.$"):
        train_tokenizer(config, batches)


def test_the_sample_is_spread_over_the_text(monkeypatch):
    monkeypatch.setattr(tokenizer_training, "SAMPLE", 1000)
    sample = tokenizer_training.LineSample()
    for start in range(0, 10_000, 70):
        sample.extend([f"{i:05}" for i in range(start, min(start + 70, 10_000))])
    numbers = [int(line) for line in sample.lines]
    assert 500 <= sum(map(len, sample.lines)) <= 1000
    assert len(set(np.diff(numbers))) == 1
    assert numbers[0] == 0
    assert sample.seen == 10_000


def test_saved_tokenizers_come_back(pieces, tmp_path):
    for tokenizer in (
        pieces,
        train_tokenizer(WordTokenizerConfig(), [TEXT]),
        WordTokenizer(["a", "E", "U"], "E", "U"),
    ):
        directory = tmp_path / tokenizer.fingerprint
        tokenizer.save(directory)
        loaded = load_tokenizer(directory)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert (loaded.eos_id, loaded.unk_id) == (tokenizer.eos_id, tokenizer.unk_id)
        assert (
            loaded.encode_lines([*TEXT, "new words"]).tolist()
            == tokenizer.encode_lines([*TEXT, "new words"]).tolist()
        )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", json.dumps({"kind": "other"})),
        ("tokenizer.json", json.dumps({"kind": "word", "eos": "<end>", "unk": "<unk>"})),
        ("tokenizer.json", json.dumps({"kind": "sentencepiece", "model_ids": [0]})),
        ("vocabulary.txt", None),
        ("vocabulary.txt", "a\na\n<unk>\n<eos>\n"),
        ("vocabulary.txt", b"\xff\n<unk>\n<eos>\n"),
        ("vocabulary.txt", ""),
    ],
)
def test_damaged_tokenizers_are_refused(tmp_path, name, content):
    WordTokenizer(["a", "<unk>", "<eos>"]).save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=str(tmp_path)) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def denied(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    WordTokenizer(["a", "<unk>", "<eos>"]).save(tmp_path)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(UsageError, match="Permission denied"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda model: b"", lambda model: model[: len(model) // 2], lambda model: b"junk"]
)
def test_damaged_models_are_refused(pieces, tmp_path, damage, capfd):
    pieces.save(tmp_path)
    (tmp_path / "sentencepiece.model").write_bytes(damage(pieces.model))
    with pytest.raises(UsageError, match="damaged"):
        load_tokenizer(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "entry", [-1, 1, SIZE, 1 << 31, 1 << 70, float("inf"), float("nan"), None, "a", [0], {}]
)
def test_damaged_ids_of_a_model_are_refused(pieces, tmp_path, entry):
    """One entry of model_ids is another than it was, 0; the other ids are not damaged."""
    pieces.save(tmp_path)
    model_ids = [entry, *range(1, SIZE)]
    head = {"kind": "sentencepiece", "model_ids": model_ids}
    (tmp_path / "tokenizer.json").write_text(json.dumps(head))
    with pytest.raises(UsageError, match=r"is damaged \(.*\)\. Copy the run's folder"):
        load_tokenizer(tmp_path)


def test_a_model_without_an_end_of_line_is_refused(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 9),
        model_writer=model,
        vocab_size=30,
        eos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "sentencepiece.model").write_bytes(model.getvalue())
    size = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"kind": "sentencepiece", "model_ids": list(range(size))})
    )
    with pytest.raises(UsageError, match="damaged"):
        load_tokenizer(tmp_path)


def test_a_text_of_one_line_is_sampled_in_parts(monkeypatch):
    monkeypatch.setattr(tokenizer_training, "LONGEST", 50)
    text = " ".join(TEXT[:5])
    sample = tokenizer_training.LineSample()
    sample.extend([text, "x" * 120, ""])
    assert max(map(len, sample.lines)) <= 50
    assert " ".join(sample.lines[:-4]).split() == text.split()  # no word is broken
    assert sample.lines[-4:] == ["x" * 50, "x" * 50, "x" * 20, ""]
    one = train_tokenizer(SentencePieceConfig(vocabulary_size=SIZE), [[" ".join(TEXT)]])
    assert one.vocabulary_size == SIZE
