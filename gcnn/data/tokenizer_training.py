"""Train a tokenizer on the training split, or rank the ids of a given one by frequency there.

`train_words` counts words. `train_sentencepiece` trains a model on a sample of the lines
(`LineSample`, `sentencepiece_model`) and then counts its pieces in all of them.
"""

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
from gcnn.data.tables import is_text, read_lines
from gcnn.data.threads import in_threads
from gcnn.data.tokenizers import EOS, UNK, SentencePieceTokenizer, WordTokenizer

PIECES = 8000  # default vocabulary size; fewer if the text does not give so many
SAMPLE = 20_000_000  # most characters that SentencePiece is trained on
LONGEST = 1 << 18  # most characters of a line that it is given


def train_tokenizer(
    config: WordTokenizerConfig | SentencePieceConfig, lines: Iterable[Lines]
) -> WordTokenizer | SentencePieceTokenizer:
    """A tokenizer for the training split, of the config's kind, with ids by falling frequency.

    lines: the whole split in batches without nulls, iterated over once. Memory grows with the
    distinct words, not with the text. A vocabulary or model that the config names is read instead
    of made. Raises UsageError as train_words and train_sentencepiece do: for a vocabulary size that
    the text cannot have, for a file that is missing or not a vocabulary or model, and if
    SentencePiece gets empty lines only; OSError if that file may not be read.
    """
    if config.kind == "word":
        return train_words(config, lines)
    return train_sentencepiece(config, lines)


def train_words(config: WordTokenizerConfig, lines: Iterable[Lines]) -> WordTokenizer:
    """A tokenizer of the words that the text has `config.min_count` times or more.

    lines: the text in batches without nulls, iterated over once.
    If `config.vocabulary` is given, the words are all those in that file, also those that the text
    lacks, and min_count is unused. <eos> and <unk> are always types.
    There are at most `config.max_size` types, <eos> and <unk> included; the rarest words are left
    out. None: no limit.
    Ids are by falling frequency in the text, ties in code-point order. `<unk>` counts for itself
    and for all words that are left out, `<eos>` once per line. Raises UsageError for a
    `config.max_size` below 3; also all that read_vocabulary raises.
    """
    if config.max_size is not None and config.max_size < 3:
        raise UsageError(
            f"tokenizer.max_size is {config.max_size}; give 3 or more (<unk>, <eos> and a word)."
        )
    given = None
    if config.vocabulary is not None:
        given = read_vocabulary(Path(config.vocabulary))  # before the text, which takes long

    # Count the words.
    def count_words(batch: Lines) -> pa.StructArray:
        return pc.value_counts(split_lines(batch, EOS, UNK))

    counts = Counter()
    for counted in in_threads(count_words, lines):
        values, numbers = counted.flatten()
        counts.update(dict(zip(values.to_pylist(), numbers.to_pylist(), strict=True)))

    def by_frequency(words: Iterable[str]) -> list[str]:
        in_code_point_order = sorted(words)  # the order in which words of equal frequency stay
        return sorted(in_code_point_order, key=counts.__getitem__, reverse=True)

    # Choose those that get an id of their own.
    candidates = given
    if given is None:
        candidates = [word for word, count in counts.items() if count >= config.min_count]
    words = by_frequency(word for word in candidates if word not in (EOS, UNK))
    if config.max_size is not None:
        words = words[: config.max_size - 2]

    # All others count for <unk>.
    counts[UNK] = counts.total() - counts[EOS] - sum(counts[word] for word in words)
    return WordTokenizer(by_frequency([*words, EOS, UNK]))


def read_vocabulary(path: Path) -> list[str]:
    """The words of a file with one word per line, stripped, in its order.

    The file is a text, which may be compressed, and no pipe. <eos> and <unk> may be among the
    words. An empty file gives []. Raises UsageError if there is no file, for a table or an archive,
    for a damaged file or one that is not UTF-8, and for a line that is empty, has several words or
    repeats one; OSError for a file that may not be read.
    """
    # No pipe: the cached tokenizer is keyed by the content of the file, which is read again.
    if not path.is_file():
        raise UsageError(
            f"tokenizer.vocabulary: no file {path}. Give one with a word a line; the vocabulary of "
            "a corpus is where gcnn data says, that of a run in its folder tokenizer/."
        )
    if not is_text(path):
        raise UsageError(
            f"tokenizer.vocabulary: {path} is not a text file. Give one with a word a line."
        )
    words: dict[str, None] = {}  # keeps the order and finds repetitions
    number = 0
    for lines in read_lines(path):
        for line in lines.to_pylist():
            number += 1
            word = line.strip()
            problem = ""
            if word in words:
                problem = " again"
            elif len(word.split()) != 1:
                problem = ", which is not one word"
            if problem:
                raise UsageError(
                    f"tokenizer.vocabulary: {path}, line {number} is `{word}`{problem}. "
                    "Give a word a line, each once."
                )
            words[word] = None
    return list(words)


def train_sentencepiece(
    config: SentencePieceConfig, lines: Iterable[Lines]
) -> SentencePieceTokenizer:
    """A SentencePiece tokenizer with ids by falling frequency of its pieces in all lines.

    The model is that in the file `config.model` if given, and the config's other values are then
    unused; otherwise one is trained on a sample of the lines.
    lines: batches without nulls, iterated over once; at least one, if the model is given. The word
    `<eos>` at the end of a line is not part of the text. Ties are in the order of the model's ids.
    Raises as read_model does if the model is given, otherwise as sentencepiece_model does.
    """
    lines = (without_end_marks(batch, EOS) for batch in lines)
    if config.model is not None:
        return rank_model(read_model(Path(config.model)), lines)

    # Count the words and take a sample of the lines, in one pass.
    counts = Counter()
    sample = LineSample()
    line_count = 0
    for batch in lines:
        texts = [text.strip() for text in batch.to_pylist()]
        for text in texts:
            counts.update(text.split(" "))  # the empty words between two blanks have no pieces
        sample.extend(texts)
        line_count += len(texts)

    # Train on the sample.
    model = sentencepiece_model(config, sample.lines)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    # Count the pieces by those of the words: no piece crosses a blank, but one may have another
    # white space, as U+00A0.
    pieces = processor.encode(list(counts))  # a list for each word
    weights = np.repeat(list(counts.values()), [len(ids) for ids in pieces])
    ids = list(chain.from_iterable(pieces))
    frequency = np.bincount(ids, weights, minlength=processor.vocab_size())
    frequency[processor.eos_id()] = line_count
    return SentencePieceTokenizer(model, np.argsort(-frequency, kind="stable"))


def rank_model(tokenizer: SentencePieceTokenizer, lines: Iterable[Lines]) -> SentencePieceTokenizer:
    """A tokenizer of the same model, with ids by falling frequency of its pieces in the lines.

    tokenizer: one with the model's own ids, as of read_model. lines: at least one batch. Ties are
    in the order of the model's own ids.
    """

    def count_ids(batch: Lines) -> np.ndarray:
        return np.bincount(tokenizer.encode_lines(batch), minlength=tokenizer.vocabulary_size)

    frequency = sum(in_threads(count_ids, lines))
    return SentencePieceTokenizer(tokenizer.model, np.argsort(-frequency, kind="stable"))


def read_model(path: Path) -> SentencePieceTokenizer:
    """The tokenizer of a user's sentencepiece.model, with the model's own ids.

    Raises UsageError if there is no regular file, if it is a pointer of Git LFS or no model, and if
    it has no piece for unknown text or for the end of a sentence; OSError if it may not be read.
    """
    if not path.is_file():
        raise UsageError(f"tokenizer.model: no file {path}. Give a sentencepiece.model.")
    check_no_pointer_at(path)
    model = path.read_bytes()
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise UsageError(
            f"tokenizer.model: {path} is not a SentencePiece model ({one_line(error)})."
        ) from None
    needed = {"unknown piece": processor.unk_id(), "end of sentence": processor.eos_id()}
    for name, piece_id in needed.items():
        if piece_id < 0:
            raise UsageError(
                f"tokenizer.model: {path} has no {name}. Give a model that was trained with one."
            )
    return SentencePieceTokenizer(model, range(processor.vocab_size()))


class LineSample:
    """Every `step`-th line of a text, evenly spread over it, of at most SAMPLE characters together.

    SentencePiece is trained on `lines` and holds them in memory. They are stripped; those of more
    than LONGEST characters, which SentencePiece would skip, are cut into parts that count as lines.
    """

    def __init__(self):
        self.lines: list[str] = []
        self.step = 1  # doubled, and every other line dropped, whenever there are too many
        self.seen = 0  # lines of the text so far
        self.size = 0  # characters of the sample

    def extend(self, batch: Sequence[str]) -> None:
        """Add every `step`-th of the next lines of the text to `lines`, stripped and cut if long.

        If these then have more than SAMPLE characters, every other one is dropped and `step` is
        doubled, until they do not.
        """
        parts = []
        for line in batch:
            parts += split_long_line(line.strip(), LONGEST)
        # The first part whose number in the text is a multiple of `step`.
        first = -self.seen % self.step
        sampled = parts[first :: self.step]
        self.lines += sampled
        self.seen += len(parts)
        self.size += sum(map(len, sampled))
        while self.size > SAMPLE and len(self.lines) > 1:
            self.lines = self.lines[::2]
            self.step *= 2
            self.size = sum(map(len, self.lines))


def split_long_line(line: str, size: int) -> Iterator[str]:
    """The parts of a line, of at most `size` characters each; a shorter line is its only part.

    Each is cut behind its last blank, or after `size` characters if it has none. All but the last
    are stripped. Parts may be empty.
    """
    while len(line) > size:
        blank = line.rfind(" ", 1, size)
        cut = size if blank == -1 else blank + 1
        yield line[:cut].strip()
        line = line[cut:]
    yield line


def sentencepiece_model(config: SentencePieceConfig, lines: Sequence[str]) -> bytes:
    """A serialised SentencePiece model of config.model_type, trained on the lines.

    It has config.vocabulary_size pieces; if that is None, PIECES or as many as the text gives.
    lines: of at most LONGEST characters each; longer ones may be skipped.
    Raises UsageError for a size that the text cannot have, and if all lines are empty; also for a
    size of None if the text has more distinct characters than PIECES has room for.
    """
    if not any(lines):
        raise UsageError(
            "tokenizer: the lines to train it on are all empty. Give a training split with words."
        )
    size = config.vocabulary_size or PIECES
    try:
        # One piece is too few for <unk> and <eos>; of two SentencePiece says how many it takes.
        return train_pieces(config.model_type, max(2, size), lines)
    except RuntimeError as error:
        reason = one_line(error)
    most = re.search(r"value <= (\d+)", reason)
    if most and config.vocabulary_size is None:
        return train_pieces(config.model_type, int(most[1]), lines)
    setting = size if config.vocabulary_size else f"{size} by default"
    raise UsageError(vocabulary_size_message(setting, reason))


def train_pieces(model_type: str, size: int, lines: Sequence[str]) -> bytes:
    """A serialised SentencePiece model of `size` pieces; the same lines give the same model.

    model_type: "bpe" or "unigram". lines: no longer than LONGEST characters, since SentencePiece
    leaves out long ones (`LineSample` keeps to it). Its own ids are 0 for <unk> and 1 for <eos>.
    Rare characters are encoded as bytes, so that any text can be decoded from its ids.
    Raises RuntimeError with SentencePiece's message for a size that the text cannot have, and if
    all lines are empty.
    """
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
        num_threads=2,  # fixed, since sums of floats, and so the pieces, depend on it
        unk_id=0,
        unk_piece=UNK,
        eos_id=1,
        eos_piece=EOS,
        bos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def vocabulary_size_message(setting: int | str, reason: str) -> str:
    """The message for a vocabulary size that SentencePiece refuses.

    setting: the size, as the message is to name it. reason: SentencePiece's own message, in one
    line. If it says which size works, so does this; otherwise it is quoted.
    """
    message = f"tokenizer.vocabulary_size is {setting}"
    if most := re.search(r"value <= (\d+)", reason):
        return f"{message}, more than the training split has pieces for; give at most {most[1]}."
    if least := re.search(r"required_chars\. \d+ vs (\d+)", reason):
        return f"{message}, fewer than the training split's characters; give at least {least[1]}."
    return f"{message}, and SentencePiece fails ({reason}). Give another size or more text."
