"""Tokenizers: white-space words, or SentencePiece, with ids in the order of frequency.

The most frequent type has id 0, as the adaptive softmax needs.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import sentencepiece

from gcnn.base.errors import UsageError, one_line
from gcnn.base.text_files import check_no_pointer_at
from gcnn.data.lines import Lines, split_lines, without_end_marks

EOS = "<eos>"
UNK = "<unk>"


class Tokenizer(ABC):
    """Text to ids and back. Id 0 is the most frequent type of the training split."""

    kind: str  # "word" or "sentencepiece"
    file: str  # name of the vocabulary or model file, saved beside tokenizer.json
    types: list[str]  # the word or piece of each id
    eos: str  # how the end of a line is written in `types`
    vocabulary_size: int
    eos_id: int
    unk_id: int

    @abstractmethod
    def encode_lines(self, lines: Lines) -> np.ndarray:
        """The ids of all lines in one flat int32 array; each line ends with one eos_id.

        lines: without nulls; white space at both ends is ignored. The word `eos` at the end of a
        line is taken for its end mark, not doubled.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, each from 0 to below vocabulary_size; eos_id becomes a newline."""

    @abstractmethod
    def _token_counts(self, line: str) -> list[int]:
        """How many tokens each white-space word of a stripped line has, without eos_id."""

    @abstractmethod
    def _parts(self) -> tuple[dict, bytes]:
        """The entries of tokenizer.json besides `kind`, and the content of `file`."""

    def encode(self, line: str) -> list[int]:
        """The ids of one line, without the eos_id that ends it."""
        return self.encode_lines([line])[:-1].tolist()

    def split_words(self, lines: Lines) -> tuple[list[str], np.ndarray]:
        """The white-space words of all lines, `eos` after each line, and each word's token count.

        lines: without nulls. Words are as the text has them, also unknown ones; `eos` at the end of
        a line is not doubled.
        The counts, (words,) int64, divide the ids of `encode_lines(lines)` among the words, in
        their order; their sum is the number of ids. A token of blanks counts for the next word, at
        the end of a line for its last one. A token with several words (around a tab or U+00A0)
        counts for the last of them. The others may then have 0 tokens; so may a word that a
        SentencePiece model drops.
        """
        words: list[str] = []
        counts: list[int] = []
        stripped = pc.utf8_trim_whitespace(without_end_marks(lines, self.eos))
        for line in stripped.to_pylist():
            words.extend(line.split())
            words.append(self.eos)
            counts.extend(self._token_counts(line))
            counts.append(1)
        return words, np.array(counts, np.int64)

    def _files(self) -> dict[str, bytes]:
        """The saved files: name -> content."""
        head, content = self._parts()
        head_json = json.dumps({"kind": self.kind, **head}, ensure_ascii=False)
        return {self.file: content, "tokenizer.json": f"{head_json}\n".encode()}

    @property
    def fingerprint(self) -> str:
        """sha256, hexadecimal, of the names and contents of the two files that `save` writes.

        Equal tokenizers have equal ones.
        """
        digest = hashlib.sha256()
        for name, content in sorted(self._files().items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json and `file` into a folder, which is made if it does not exist.

        load_tokenizer reads them. Existing files are overwritten, not atomically. Raises OSError if
        they cannot be written.
        """
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name, content in self._files().items():
            (Path(directory) / name).write_bytes(content)


class WordTokenizer(Tokenizer):
    """Splits at white space. A word outside `types`, or `eos` inside a line, becomes `unk`."""

    kind = "word"
    file = "vocabulary.txt"

    def __init__(self, types: Sequence[str], eos: str = EOS, unk: str = UNK):
        """types: every word by id, each once. Raises KeyError if `eos` or `unk` is not one."""
        self.types = list(types)
        self.eos = eos
        self.unk = unk
        self.index = {word: i for i, word in enumerate(self.types)}
        self.vocabulary_size = len(self.types)
        self.eos_id = self.index[eos]
        self.unk_id = self.index[unk]

    def encode_lines(self, lines: Lines) -> np.ndarray:
        """The ids of all lines, as Tokenizer.encode_lines says; unk_id for a word not in `types`.

        `eos` within a line is unk_id, too.
        """
        words = split_lines(lines, self.eos, self.unk).dictionary_encode()
        # Each distinct word is looked up once.
        distinct = words.dictionary.to_pylist()
        ids = [self.index.get(word, self.unk_id) for word in distinct]
        return np.array(ids, np.int32)[words.indices]

    def decode(self, ids: Sequence[int]) -> str:
        """The words of some ids with single blanks between; each eos_id becomes a newline."""
        words = ("\n" if i == self.eos_id else self.types[i] for i in ids)
        return " ".join(words).replace(" \n", "\n").replace("\n ", "\n")

    def _token_counts(self, line: str) -> list[int]:
        return [1] * len(line.split())

    def _parts(self) -> tuple[dict, bytes]:
        vocabulary = "".join(f"{word}\n" for word in self.types)
        return {"eos": self.eos, "unk": self.unk}, vocabulary.encode()

    @classmethod
    def load(cls, head: dict, content: bytes) -> "WordTokenizer":
        """The tokenizer that was saved: the entries of its tokenizer.json, the content of `file`.

        Raises ValueError for a type that comes twice or text that is not UTF-8, and KeyError if
        `head` lacks `eos` or `unk`, or if one of them is not a type.
        """
        types = content.decode().removesuffix("\n").split("\n")
        if len(set(types)) < len(types):
            raise ValueError("vocabulary.txt lists a type twice")
        return cls(types, head["eos"], head["unk"])


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model, with ids in another order than the model's own.

    `eos` and `unk_id` are the model's pieces for the end of a sentence and for unknown text.
    """

    kind = "sentencepiece"
    file = "sentencepiece.model"

    def __init__(self, model: bytes, model_ids: Sequence[int]):
        """Load a model and reorder its ids.

        model: serialised; it must have pieces for unknown text and for the end of a sentence.
        model_ids[i]: the model's own id of the piece that has the id i here. Raises ValueError if
        they are not a permutation of all its ids (OverflowError for one beyond int32), and
        RuntimeError (SentencePiece's) if it is not a model.
        """
        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(model)
        self.model_ids = np.array(model_ids, np.int32)
        self.ranks = np.argsort(self.model_ids).astype(np.int32)  # the inverse: id of a model's id
        self.vocabulary_size = self.processor.vocab_size()
        if not np.array_equal(self.model_ids[self.ranks], np.arange(self.vocabulary_size)):
            raise ValueError("model_ids is not an order of the model's ids")
        self.types = self.processor.id_to_piece(self.model_ids.tolist())
        self.eos_id = int(self.ranks[self.processor.eos_id()])
        self.unk_id = int(self.ranks[self.processor.unk_id()])
        self.eos = self.processor.id_to_piece(self.processor.eos_id())

    def encode_lines(self, lines: Lines) -> np.ndarray:
        """The ids of all lines, as Tokenizer.encode_lines says."""
        lines = pc.utf8_trim_whitespace(without_end_marks(lines, self.eos)).to_pylist()
        encoded = self.processor.encode(lines, add_eos=True)  # a list for each line
        model_ids = np.fromiter(chain.from_iterable(encoded), np.int32)
        return self.ranks[model_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; each eos_id becomes a newline, and unk_id the model's " ⁇ ".

        Raises IndexError for an id of vocabulary_size or more.
        """
        ids = np.asarray(ids, np.int64)
        after_ends = np.flatnonzero(ids == self.eos_id) + 1
        lines = []
        for line in np.split(ids, after_ends):
            model_ids = self.model_ids[line[line != self.eos_id]]
            lines.append(self.processor.decode(model_ids.tolist()))
        return "\n".join(lines)

    def _token_counts(self, line: str) -> list[int]:
        """How many pieces each white-space word of a stripped line has, without eos_id.

        A piece counts for the word that has its last character other than white space. A piece of
        white space alone counts for the next word, or at the end of the line for the last one: a
        model that writes blanks as suffixes has such a piece there.
        """
        word_ends = [word.end() for word in re.finditer(r"\S+", line)]
        counts = [0] * len(word_ends)
        offsets = self.processor.encode(line, return_type="offset_mapping")["offsets"]
        for start, stop in offsets:
            # Where the piece's text ends, or its first blank if it has no text.
            end = start + max(1, len(line[start:stop].rstrip()))
            word = bisect_left(word_ends, end)  # the first that ends there or later
            counts[min(word, len(counts) - 1)] += 1
        return counts

    def _parts(self) -> tuple[dict, bytes]:
        return {"model_ids": self.model_ids.tolist()}, self.model

    @classmethod
    def load(cls, head: dict, content: bytes) -> "SentencePieceTokenizer":
        """The tokenizer that was saved: the entries of its tokenizer.json, the content of `file`.

        Raises KeyError if `head` has no model_ids, and as the constructor does.
        """
        return cls(content, head["model_ids"])


def load_tokenizer(directory: str | Path) -> WordTokenizer | SentencePieceTokenizer:
    """The tokenizer that `save` wrote into a folder, of the kind that its tokenizer.json says.

    Raises UsageError if its files are missing, damaged, unreadable or pointers of Git LFS.
    """
    directory = Path(directory)
    try:
        for file in ("tokenizer.json", WordTokenizer.file, SentencePieceTokenizer.file):
            check_no_pointer_at(directory / file)
        head = json.loads((directory / "tokenizer.json").read_bytes())
        tokenizers = {"word": WordTokenizer, "sentencepiece": SentencePieceTokenizer}
        tokenizer = tokenizers[head["kind"]]
        return tokenizer.load(head, (directory / tokenizer.file).read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            f"no tokenizer in {directory}: {error.filename} is missing. Give the folder of a run."
        ) from None
    except (OSError, ValueError, LookupError, OverflowError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(
            f"the tokenizer in {directory} is damaged ({reason}). Copy the run's folder again."
        ) from None
