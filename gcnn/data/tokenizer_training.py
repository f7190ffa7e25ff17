"""Tokenizers out of a training split: a vocabulary of words, or a SentencePiece model, or the ranks for a given one."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sentencepiece

from gcnn.base.errors import UsageError, one_line
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.schema import SentencePieceConfig, WordTokenizerConfig
from gcnn.data.lines import Lines, split_lines, without_end_marks
from gcnn.data.tables import read_lines
from gcnn.data.threads import in_threads
from gcnn.data.tokenizers import EOS, UNK, SentencePieceTokenizer, WordTokenizer

PIECES = 8000  # of a text that gives so many
SAMPLE = 20_000_000  # characters that SentencePiece is trained on
LONGEST = 1 << 18  # characters of a line


def train_tokenizer(
    config: WordTokenizerConfig | SentencePieceConfig, lines: Iterable[Lines]
) -> WordTokenizer | SentencePieceTokenizer:
    """The tokenizer of a training split, given in batches of lines; memory grows with its types alone.

    Raises UsageError for a vocabulary size that the text cannot give, and for a file that is no vocabulary or model.
    """
    return (train_words if config.kind == "word" else train_sentencepiece)(config, lines)


def train_words(config: WordTokenizerConfig, lines: Iterable[Lines]) -> WordTokenizer:
    """Types, or the words of `config.vocabulary`, by falling frequency, ties in code-point order.

    `<unk>` has the counts of those left out.
    """
    if config.max_size is not None and config.max_size < 3:
        raise UsageError(
            f"tokenizer.max_size is {config.max_size}; give 3 or more (<unk>, <eos> and a word)."
        )
    words = None if config.vocabulary is None else read_vocabulary(Path(config.vocabulary))
    counts = Counter()
    for counted in in_threads(lambda batch: pc.value_counts(split_lines(batch, EOS, UNK)), lines):
        counts.update(dict(zip(*(column.to_pylist() for column in counted.flatten()), strict=True)))

    def falling(words: Iterable[str]) -> list[str]:
        return sorted(sorted(words), key=counts.__getitem__, reverse=True)

    if words is None:
        words = [word for word, count in counts.items() if count >= config.min_count]
    words = falling(word for word in words if word not in (EOS, UNK))
    if config.max_size is not None:
        words = words[: config.max_size - 2]
    counts[UNK] = counts.total() - counts[EOS] - sum(counts[word] for word in words)
    return WordTokenizer(falling([*words, EOS, UNK]))


def read_vocabulary(path: Path) -> list[str]:
    """The words of a file with a word a line. Raises UsageError without the file and for a line that is no new word."""
    if not path.exists():
        raise UsageError(
            f"tokenizer.vocabulary: no file {path}. Give one with a word a line; the vocabulary of a corpus is where "
            "gcnn data says, that of a run in its folder tokenizer/."
        )
    words = [line.strip() for lines in read_lines(path) for line in lines.drop_null().to_pylist()]
    seen = set()
    for number, word in enumerate(words, start=1):
        if len(word.split()) != 1 or word in seen:
            reason = f"`{word}` again" if word in seen else f"`{word}`, not one word"
            raise UsageError(
                f"tokenizer.vocabulary: {path}, line {number} is {reason}. Give a word a line, each once."
            )
        seen.add(word)
    return words


def train_sentencepiece(
    config: SentencePieceConfig, lines: Iterable[Lines]
) -> SentencePieceTokenizer:
    """A model of a sample of the lines, its ids ranked by their frequency in all of them."""
    lines = (without_end_marks(batch, EOS) for batch in lines)
    if config.model is not None:
        own = read_model(Path(config.model))
        batches = in_threads(
            lambda batch: np.bincount(own.encode_lines(batch), minlength=own.vocabulary_size), lines
        )
        return SentencePieceTokenizer(own.model, np.argsort(-sum(batches), kind="stable"))
    counts, sample, ends = Counter(), LineSample(), 0
    for batch in map(pa.Array.to_pylist, lines):
        counts.update(chain.from_iterable(map(str.split, batch)))
        sample.extend(batch)
        ends += len(batch)
    model = sentencepiece_model(config, sample.lines)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = processor.encode(
        list(counts)
    )  # of single words; they make up the text, no piece crosses white space
    weights = np.repeat(list(counts.values()), [len(ids) for ids in pieces])
    frequency = np.bincount(
        list(chain.from_iterable(pieces)), weights, minlength=processor.vocab_size()
    )
    frequency[processor.eos_id()] = ends
    return SentencePieceTokenizer(model, np.argsort(-frequency, kind="stable"))


def read_model(path: Path) -> SentencePieceTokenizer:
    """A SentencePiece model of one's own with the ids that it has."""
    if not path.is_file():
        raise UsageError(f"tokenizer.model: no file {path}. Give a sentencepiece.model.")
    check_no_pointer_at(path)
    model, processor = path.read_bytes(), sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise UsageError(
            f"tokenizer.model: {path} is no SentencePiece model ({one_line(error)})."
        ) from None
    for name, number in (
        ("unknown piece", processor.unk_id()),
        ("end of sentence", processor.eos_id()),
    ):
        if number < 0:
            raise UsageError(
                f"tokenizer.model: {path} has no {name}. Give a model that was trained with one."
            )
    return SentencePieceTokenizer(model, range(processor.vocab_size()))


class LineSample:
    """Lines evenly spread over a text, SAMPLE characters at most: what SentencePiece holds in memory.

    Of lines past LONGEST characters, which it would pass over, each part counts as one.
    """

    def __init__(self):
        self.lines: list[str] = []
        self.step, self.seen, self.size = 1, 0, 0

    def extend(self, batch: Sequence[str]) -> None:
        batch = [part for line in batch for part in split_long_line(line.strip(), LONGEST)]
        sampled = batch[-self.seen % self.step :: self.step]
        self.lines += sampled
        self.seen += len(batch)
        self.size += sum(map(len, sampled))
        while self.size > SAMPLE and len(self.lines) > 1:
            self.lines = self.lines[::2]
            self.step *= 2
            self.size = sum(map(len, self.lines))


def split_long_line(line: str, size: int) -> Iterator[str]:
    """A line in parts of at most `size` characters, cut at blanks where it has them."""
    while len(line) > size:
        cut = line.rfind(" ", 1, size) + 1 or size
        yield line[:cut].strip()
        line = line[cut:]
    yield line


def sentencepiece_model(config: SentencePieceConfig, lines: Sequence[str]) -> bytes:
    """A SentencePiece model, of as many pieces as the text gives where the config does not say.

    Raises UsageError for a size that the text cannot give."""
    size = config.vocabulary_size or PIECES
    try:
        return train_pieces(config.model_type, size, lines)
    except RuntimeError as error:
        reason = one_line(error)
    most = re.search(r"value <= (\d+)", reason)
    if most and config.vocabulary_size is None:
        return train_pieces(config.model_type, int(most[1]), lines)
    raise UsageError(vocabulary_size_message(size, reason))


def train_pieces(model_type: str, size: int, lines: Sequence[str]) -> bytes:
    """A SentencePiece model. Bytes stand in for rare characters, so that any text decodes to itself.
    Raises RuntimeError, in SentencePiece's words, for a size that the text cannot give."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=model_type,
        vocab_size=size,
        byte_fallback=True,
        character_coverage=0.9999,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        max_sentence_length=4 * LONGEST,  # bytes
        num_threads=2,  # a constant: sums of floats, and so the pieces, depend on it
        unk_id=0,
        unk_piece=UNK,
        eos_id=1,
        eos_piece=EOS,
        bos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def vocabulary_size_message(size: int, reason: str) -> str:
    """SentencePiece's complaint about a vocabulary size, in the config's terms."""
    message = f"tokenizer.vocabulary_size is {size}"
    if most := re.search(r"value <= (\d+)", reason):
        return f"{message}, more than the training split has pieces for; give at most {most[1]}."
    if least := re.search(r"required_chars\. \d+ vs (\d+)", reason):
        return f"{message}, fewer than the training split's characters; give at least {least[1]}."
    return f"{message}, and SentencePiece fails ({reason}). Give another size or more text."
