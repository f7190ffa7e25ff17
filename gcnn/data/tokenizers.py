"""Words at white space, or SentencePiece; both with ids sorted by frequency, for the adaptive softmax."""

import hashlib
import json
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Protocol

import numpy as np
import sentencepiece

from gcnn.data.lines import Lines, as_strings, split_lines, without_end_marks
from gcnn.errors import UsageError, one_line

EOS, UNK = "<eos>", "<unk>"


class Tokenizer(Protocol):
    """Text to ids and back. Id 0 is the most frequent type of the training split."""

    kind: str
    file: str  # of the vocabulary or model, among those saved
    types: list[str]  # how each is written
    eos: str  # how the end of a line is written
    vocabulary_size: int
    eos_id: int
    unk_id: int

    @property
    def fingerprint(self) -> str:
        """sha256 of the saved files."""

    def encode_lines(self, lines: Lines) -> np.ndarray:
        """The ids of all lines, flat, int32; each line ends with eos_id, whether `eos` is written there or not."""

    def encode(self, line: str) -> list[int]:
        """The ids of one line, without eos_id."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text; eos_id becomes an end of line."""

    def save(self, directory: str | Path) -> None:
        """Write the files that load_tokenizer reads."""


class WordTokenizer:
    """Splits at white space; a word outside `types` is `unk`, and so is `eos` before the end of a line."""

    kind, file = "word", "vocabulary.txt"

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
        return {"tokenizer.json": to_json(head), self.file: vocabulary.encode()}

    @classmethod
    def load(cls, directory: Path, head: dict) -> "WordTokenizer":
        types = (directory / cls.file).read_bytes().decode().removesuffix("\n").split("\n")
        if len(set(types)) < len(types):
            raise ValueError("vocabulary.txt lists a type twice")
        return cls(types, head["eos"], head["unk"])


class SentencePieceTokenizer:
    """A SentencePiece model whose ids are its own, re-ranked: id r is the model's id `model_ids[r]`."""

    kind, file = "sentencepiece", "sentencepiece.model"

    def __init__(self, model: bytes, model_ids: Sequence[int]):
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(model)
        self.model_ids = np.array(model_ids, np.int32)
        self.ranks = np.argsort(self.model_ids).astype(np.int32)
        self.vocabulary_size = self.processor.vocab_size()
        if not np.array_equal(self.model_ids[self.ranks], np.arange(self.vocabulary_size)):
            raise ValueError("the ranks do not fit the model")
        self.types = self.processor.id_to_piece(self.model_ids.tolist())
        self.eos_id = int(self.ranks[self.processor.eos_id()])
        self.unk_id = int(self.ranks[self.processor.unk_id()])
        self.eos = self.processor.id_to_piece(self.processor.eos_id())

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self._files())

    def encode_lines(self, lines: Lines) -> np.ndarray:
        lines = as_strings(without_end_marks(lines, self.eos))
        pieces = self.processor.encode([line.strip() for line in lines], add_eos=True)
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
        return {"tokenizer.json": to_json(head), self.file: self.model}

    @classmethod
    def load(cls, directory: Path, head: dict) -> "SentencePieceTokenizer":
        return cls((directory / cls.file).read_bytes(), head["model_ids"])


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
