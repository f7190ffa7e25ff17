"""Words at white space, or SentencePiece; both with ids sorted by frequency, for the adaptive softmax."""

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.compute as pc
import sentencepiece

from gcnn.config import SentencePieceConfig, WordTokenizerConfig
from gcnn.data.lines import Lines, as_strings, split_lines
from gcnn.data.threads import in_threads
from gcnn.errors import UsageError, one_line

EOS, UNK = "<eos>", "<unk>"
SAMPLE = 20_000_000  # characters that SentencePiece is trained on


class Tokenizer(Protocol):
    """Text to ids and back. Id 0 is the most frequent type of the training split."""

    kind: str
    vocabulary_size: int
    eos_id: int
    unk_id: int

    @property
    def fingerprint(self) -> str:
        """sha256 of the saved files."""

    def encode_lines(self, lines: Lines) -> np.ndarray:
        """The ids of all lines, flat, int32; each line ends with eos_id."""

    def encode(self, line: str) -> list[int]:
        """The ids of one line, without eos_id."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text; eos_id becomes an end of line."""

    def save(self, directory: str | Path) -> None:
        """Write the files that load_tokenizer reads."""


class WordTokenizer:
    """Splits at white space; a word outside `types` is `unk`, and so is a word that looks like `eos`."""

    kind = "word"

    def __init__(self, types: Sequence[str], eos: str = EOS, unk: str = UNK):
        self.types = list(types)
        self.eos, self.unk = eos, unk
        self.index = {word: i for i, word in enumerate(self.types)}
        self.vocabulary_size = len(self.types)
        self.eos_id, self.unk_id = self.index[eos], self.index[unk]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self._files())

    def encode_lines(self, lines: Lines) -> np.ndarray:
        words = split_lines(lines, self.eos, self.unk).dictionary_encode()
        types = words.dictionary.to_pylist()  # each looked up once
        ids = np.fromiter(map(self.index.get, types, repeat(self.unk_id)), np.int32, len(types))
        return ids[words.indices]

    def encode(self, line: str) -> list[int]:
        return self.encode_lines([line])[:-1].tolist()

    def decode(self, ids: Sequence[int]) -> str:
        words = ("\n" if i == self.eos_id else self.types[i] for i in ids)
        return " ".join(words).replace(" \n", "\n").replace("\n ", "\n")

    def save(self, directory: str | Path) -> None:
        write_files(directory, self._files())

    def _files(self) -> dict[str, bytes]:
        head = {"kind": self.kind, "eos": self.eos, "unk": self.unk}
        vocabulary = "".join(f"{word}\n" for word in self.types)
        return {"tokenizer.json": to_json(head), "vocabulary.txt": vocabulary.encode()}

    @classmethod
    def load(cls, directory: Path, head: dict) -> "WordTokenizer":
        types = (directory / "vocabulary.txt").read_bytes().decode().removesuffix("\n").split("\n")
        if len(set(types)) < len(types):
            raise ValueError("vocabulary.txt lists a type twice")
        return cls(types, head["eos"], head["unk"])


class SentencePieceTokenizer:
    """A SentencePiece model whose ids are its own, re-ranked: id r is the model's id `model_ids[r]`."""

    kind = "sentencepiece"

    def __init__(self, model: bytes, model_ids: Sequence[int]):
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(model)
        self.model_ids = np.array(model_ids, np.int32)
        self.ranks = np.argsort(self.model_ids).astype(np.int32)
        self.vocabulary_size = self.processor.vocab_size()
        if not np.array_equal(self.model_ids[self.ranks], np.arange(self.vocabulary_size)):
            raise ValueError("the ranks do not fit the model")
        self.eos_id = int(self.ranks[self.processor.eos_id()])
        self.unk_id = int(self.ranks[self.processor.unk_id()])

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self._files())

    def encode_lines(self, lines: Lines) -> np.ndarray:
        pieces = self.processor.encode([line.strip() for line in as_strings(lines)], add_eos=True)
        return self.ranks[np.fromiter(chain.from_iterable(pieces), np.int32)]

    def encode(self, line: str) -> list[int]:
        return self.encode_lines([line])[:-1].tolist()

    def decode(self, ids: Sequence[int]) -> str:
        ids = np.asarray(ids, np.int64)
        lines = np.split(ids, np.flatnonzero(ids == self.eos_id) + 1)
        return "\n".join(self.processor.decode(self.model_ids[line[line != self.eos_id]].tolist()) for line in lines)

    def save(self, directory: str | Path) -> None:
        write_files(directory, self._files())

    def _files(self) -> dict[str, bytes]:
        head = {"kind": self.kind, "model_ids": self.model_ids.tolist()}
        return {"tokenizer.json": to_json(head), "sentencepiece.model": self.model}

    @classmethod
    def load(cls, directory: Path, head: dict) -> "SentencePieceTokenizer":
        return cls((directory / "sentencepiece.model").read_bytes(), head["model_ids"])


def train_tokenizer(
    config: WordTokenizerConfig | SentencePieceConfig, lines: Iterable[Lines]
) -> WordTokenizer | SentencePieceTokenizer:
    """The tokenizer of a training split, given in batches of lines; memory grows with its types alone.

    Raises UsageError for a vocabulary size that the text cannot give.
    """
    return (train_words if config.kind == "word" else train_sentencepiece)(config, lines)


def train_words(config: WordTokenizerConfig, lines: Iterable[Lines]) -> WordTokenizer:
    counts = Counter()
    for found in in_threads(lambda batch: pc.value_counts(split_lines(batch, EOS, UNK)), lines):
        counts.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
    return WordTokenizer(frequent_types(counts, config.min_count, config.max_size))


def frequent_types(counts: Counter, min_count: int, max_size: int | None) -> list[str]:
    """Types by falling frequency, ties in code-point order; `<unk>` has the counts of those left out."""
    if max_size is not None and max_size < 3:
        raise UsageError(f"tokenizer.max_size is {max_size}; give 3 or more (<unk>, <eos> and a word).")

    def falling(words: Iterable[str]) -> list[str]:
        return sorted(sorted(words), key=counts.__getitem__, reverse=True)

    words = falling(word for word, n in counts.items() if n >= min_count and word not in (EOS, UNK))
    words = words if max_size is None else words[: max_size - 2]
    counts[UNK] = counts.total() - counts[EOS] - sum(counts[word] for word in words)
    return falling([*words, EOS, UNK])


def train_sentencepiece(config: SentencePieceConfig, lines: Iterable[Lines]) -> SentencePieceTokenizer:
    """A model of a sample of the lines, its ids ranked by their frequency in all of them."""
    counts, sample = Counter(), LineSample()
    for batch in map(as_strings, lines):
        counts.update(chain.from_iterable(map(str.split, batch)))
        sample.extend(batch)
    model = sentencepiece_model(config, sample.lines)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = processor.encode(list(counts))  # of single words; they make up the text, no piece crosses white space
    weights = np.repeat(list(counts.values()), [len(ids) for ids in pieces])
    frequency = np.bincount(list(chain.from_iterable(pieces)), weights, minlength=processor.vocab_size())
    frequency[processor.eos_id()] = sample.seen
    return SentencePieceTokenizer(model, np.argsort(-frequency, kind="stable"))


class LineSample:
    """Lines evenly spread over a text, SAMPLE characters at most: what SentencePiece holds in memory."""

    def __init__(self):
        self.lines: list[str] = []
        self.step, self.seen, self.size = 1, 0, 0

    def extend(self, batch: Sequence[str]) -> None:
        taken = [line.strip() for line in batch[-self.seen % self.step :: self.step]]
        self.lines += taken
        self.seen += len(batch)
        self.size += sum(map(len, taken))
        while self.size > SAMPLE and len(self.lines) > 1:
            self.lines = self.lines[::2]
            self.step *= 2
            self.size = sum(map(len, self.lines))


def sentencepiece_model(config: SentencePieceConfig, lines: Sequence[str]) -> bytes:
    """A SentencePiece model. Bytes stand in for rare characters, so that any text decodes to itself."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=config.model_type,
            vocab_size=config.vocabulary_size,
            byte_fallback=True,
            character_coverage=0.9999,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 20,
            num_threads=2,  # a constant: sums of floats, and so the pieces, depend on it
            unk_id=0,
            unk_piece=UNK,
            eos_id=1,
            eos_piece=EOS,
            bos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(vocabulary_size_message(config.vocabulary_size, one_line(error))) from None
    return model.getvalue()


def vocabulary_size_message(size: int, reason: str) -> str:
    """SentencePiece's complaint about a vocabulary size, in the config's terms."""
    message = f"tokenizer.vocabulary_size is {size}"
    if most := re.search(r"value <= (\d+)", reason):
        return f"{message}, more than the training split has pieces for; give at most {most[1]}."
    if least := re.search(r"required_chars\. \d+ vs (\d+)", reason):
        return f"{message}, fewer than the training split's characters; give at least {least[1]}."
    return f"{message}, and SentencePiece fails ({reason}). Give another size or more text."


def load_tokenizer(directory: str | Path) -> WordTokenizer | SentencePieceTokenizer:
    """The tokenizer saved in a folder. Raises UsageError where files are missing or damaged."""
    directory = Path(directory)
    try:
        head = json.loads((directory / "tokenizer.json").read_bytes())
        kinds = {kind.kind: kind for kind in (WordTokenizer, SentencePieceTokenizer)}
        return kinds[head["kind"]].load(directory, head)
    except FileNotFoundError as error:
        raise UsageError(
            f"no tokenizer in {directory}: {error.filename} is missing. Give the folder of a run."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"the tokenizer in {directory} is damaged ({reason}). Copy the run's folder again.") from None


def to_json(value: dict) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def fingerprint_of(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def write_files(directory: str | Path, files: dict[str, bytes]) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (Path(directory) / name).write_bytes(content)
