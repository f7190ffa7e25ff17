"""A user's own vocabulary or SentencePiece model, ranked by the training split."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import given, settings

from gcnn.base.errors import UsageError
from gcnn.config.compose import compose_config
from gcnn.config.schema import DataConfig, SentencePieceConfig, WordTokenizerConfig
from gcnn.config.stored import load_config, save_config
from gcnn.data.sources import SPLITS
from gcnn.data.stream import encode_text, prepare
from gcnn.data.tokenizer_training import train_tokenizer
from gcnn.data.tokenizers import SentencePieceTokenizer
from tests.unicode_text import TEXT, any_lines


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_vocabulary_of_ones_own(tmp_path, end):
    path = tmp_path / "words"
    path.write_bytes(
        (end or "\n").join(["zebra", "the", "<unk>", "to", "mind", "aardvark"]).encode()
        + end.encode()
    )
    tokenizer = train_tokenizer(WordTokenizerConfig(vocabulary=str(path)), [TEXT])
    assert sorted(tokenizer.types) == ["<eos>", "<unk>", "aardvark", "mind", "the", "to", "zebra"]
    frequency = np.bincount(tokenizer.encode_lines(TEXT), minlength=7)
    assert (np.diff(frequency) <= 0).all()
    assert tokenizer.types[-2:] == ["aardvark", "zebra"]  # never seen
    tokenizer.save(tmp_path / "saved")  # and what it made of them serves as a vocabulary again
    again = WordTokenizerConfig(vocabulary=str(tmp_path / "saved" / "vocabulary.txt"))
    assert train_tokenizer(again, [TEXT]).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "tokenizer.vocabulary: no file .* a word a line; .* gcnn data says"),
        ("a\n\nb\n", "line 2 is ``, which is not one word"),
        ("a\nb c\n", "line 2 is `b c`, which is not one word"),
        ("a\nb\na\n", "line 3 is `a` again"),
    ],
)
def test_what_is_no_vocabulary(tmp_path, content, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        train_tokenizer(WordTokenizerConfig(vocabulary=str(path)), [TEXT])
    assert str(path) in str(error.value)


def test_a_table_is_no_vocabulary(tmp_path):
    path = tmp_path / "words.jsonl"
    path.write_text('{"text": "to"}\n')
    with pytest.raises(UsageError, match=r"words\.jsonl is not a text file\. Give one"):
        train_tokenizer(WordTokenizerConfig(vocabulary=str(path)), [TEXT])


def test_a_vocabulary_leaves_no_choice_of_words():
    overrides = [
        "data=local",
        "tokenizer=word",
        "tokenizer.vocabulary=words.txt",
        "tokenizer.max_size=9",
    ]
    with pytest.raises(
        UsageError,
        match=r"max_size would .* tokenizer.vocabulary lists the types. .* set it to null",
    ):
        compose_config("experiment=wikitext2/gcnn_small", *overrides)


@pytest.mark.parametrize("eos", [2, -1])
def test_a_model_of_ones_own(tmp_path, eos):
    """One as SentencePiece trains it by default, with </s> for the end; and one that has no end."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=45, eos_id=eos, minloglevel=2
    )
    path = tmp_path / "m.model"
    path.write_bytes(model.getvalue())
    config = SentencePieceConfig(model=str(path))
    if eos < 0:
        with pytest.raises(UsageError, match=r"m.model has no end of sentence"):
            train_tokenizer(config, [TEXT])
        return
    tokenizer = train_tokenizer(config, [TEXT[:7], TEXT[7:]])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert tokenizer.vocabulary_size == theirs.vocab_size() == 45
    assert tokenizer.model == model.getvalue()
    ids = tokenizer.encode_lines(TEXT)
    assert tokenizer.model_ids[ids].tolist() == [
        i for line in TEXT for i in [*theirs.encode(line), theirs.eos_id()]
    ]
    assert (np.diff(np.bincount(ids, minlength=45)) <= 0).all()
    assert (
        tokenizer.encode_lines(["to be </s>"]).tolist()
        == tokenizer.encode_lines(["to be"]).tolist()
    )

    # The end mark of other tokenizers is text to this one: a word, as in its split_words
    lines = ["to be <eos>", "to be </s>"]
    words, _ = tokenizer.split_words(lines)
    assert (
        encode_text([pa.array(lines, pa.large_string())], tokenizer, "x").words == len(words) == 7
    )


@pytest.fixture(scope="module")
def with_suffixes() -> SentencePieceTokenizer:
    """A model whose pieces end with the blank after a word, also after the last of a line."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat", "a cat"] * 50),
        model_writer=model,
        model_type="bpe",
        vocab_size=20,
        treat_whitespace_as_suffix=True,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return SentencePieceTokenizer(model.getvalue(), range(processor.vocab_size()))


def test_a_blank_after_the_last_word_is_of_that_word(with_suffixes):
    words, counts = with_suffixes.split_words(["the cat", "cat \u2122", "\u2026"])
    assert words == ["the", "cat", "</s>", "cat", "\u2122", "</s>", "\u2026", "</s>"]
    assert counts.tolist() == [1, 1, 1, 1, 2, 1, 2, 1]


@settings(max_examples=30)
@given(lines=any_lines)
def test_any_text_is_its_words_and_their_tokens_with_suffixes_too(with_suffixes, lines):
    words, counts = with_suffixes.split_words(lines)
    assert counts.sum() == len(with_suffixes.encode_lines(lines))
    assert len(counts) == len(words)


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_what_is_no_model(tmp_path, content, capfd):
    path = tmp_path / "m.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"tokenizer.model: .*m\.model"):
        train_tokenizer(SentencePieceConfig(model=str(path)), [TEXT])
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_is_known_by_what_it_holds(tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.txt").write_text("\n".join(TEXT))
    data = DataConfig(
        name="local", source="local", path=str(tmp_path), cache_dir=str(tmp_path / "cache")
    )
    path = tmp_path / "words.txt"
    path.write_text("be\nthe\n")
    config = WordTokenizerConfig(vocabulary=str(path))
    first = prepare(data, config)
    path.write_text("or\nthe\n")
    assert set(prepare(data, config).tokenizer.types) == {"or", "the", "<unk>", "<eos>"}
    moved = tmp_path / "moved.txt"
    moved.write_text("be\nthe\n")
    assert (
        prepare(data, WordTokenizerConfig(vocabulary=str(moved))).fingerprint == first.fingerprint
    )


def test_a_run_has_its_own_copy_of_a_vocabulary_that_is_gone(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("the\nbe\n")
    config = compose_config(
        "data=local", "tokenizer=word", f"tokenizer.vocabulary={words}", "model.cutoffs=[]"
    )
    save_config(config, tmp_path / "config.yaml")
    tokenizer = train_tokenizer(config.tokenizer, [TEXT])
    tokenizer.save(tmp_path / "tokenizer")
    assert load_config(tmp_path).tokenizer == config.tokenizer
    words.unlink()
    assert (
        train_tokenizer(load_config(tmp_path).tokenizer, [TEXT]).fingerprint
        == tokenizer.fingerprint
    )


def test_prepared_data_is_told_by_its_content_wherever_the_cache_is(call, tmp_path):
    """And the message names the vocabulary, which other texts may be given."""
    for split in SPLITS:
        (tmp_path / f"{split}.txt").write_text("a b a\n" * 9)
    caches = tmp_path / "one", tmp_path / "two"
    one, two = (
        call(
            "prepare_data",
            "data=local",
            f"data.path={tmp_path}",
            "tokenizer=word",
            f"data.cache_dir={cache}",
        )
        for cache in caches
    )
    assert (one.code, one.out) == (0, two.out)
    path = Path(one.err.strip().removeprefix("vocabulary: "))
    assert (path.name, caches[0] in path.parents) == ("vocabulary.txt", True)


def test_a_vocabulary_out_of_a_pipe_is_refused_for_it_could_not_be_told_from_another(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"tokenizer\.vocabulary: no file .*pipe"):
        train_tokenizer(WordTokenizerConfig(vocabulary=str(tmp_path / "pipe")), [TEXT])
