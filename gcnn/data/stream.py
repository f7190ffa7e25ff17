"""Token streams: a text as flat int32 ids.

A corpus is prepared in this order: (1) every split is read once and found usable, (2) the tokenizer
is trained on the training split or found in the cache, (3) each split is encoded or found in the
cache, and memory-mapped. Other texts are encoded in memory.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcnn.base.errors import UsageError
from gcnn.base.files import sha256
from gcnn.config.schema import DataConfig, SentencePieceConfig, WordTokenizerConfig
from gcnn.data.cache import cached, key_of
from gcnn.data.corpus import Corpus, TextSummary, load_corpus, summarize
from gcnn.data.lines import count_word, split_lines, without_end_marks
from gcnn.data.sources import SPLITS, list_names
from gcnn.data.tables import is_text, read_lines
from gcnn.data.threads import in_threads
from gcnn.data.tokenizer_training import PIECES, train_tokenizer
from gcnn.data.tokenizers import UNK, Tokenizer, load_tokenizer

log = logging.getLogger(__name__)
DTYPE = np.dtype("<i4")


@dataclass
class TokenStream:
    """A text as ids, and the counts by which its perplexity is normalised."""

    tokens: np.ndarray  # int32, flat; each line ends with eos_id
    eos_id: int
    vocabulary_size: int
    words: int  # white-space words and one line end per line, as the literature counts
    bytes: int  # UTF-8: lines stripped, without the tokenizer's eos at their ends, a newline each
    lines: int
    fingerprint: str  # sha256 of the ids, little-endian int32
    unk_id: int | None = None  # None: there is no <unk>
    # Words that are written <unk> in the text itself, as in WikiText; 0 for SentencePiece.
    written_unknown: int = 0
    text_fingerprint: str = ""  # sha256 of the text (TextSummary), whatever the tokenizer

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.tokens)


class Counts(NamedTuple):
    """What is counted in lines while they are encoded."""

    words: int  # as in TokenStream
    bytes: int  # as in TokenStream
    inner_eos: int  # words inside a line that are written as tokenizer.eos; 0 for SentencePiece
    written_unknown: int  # as in TokenStream


@dataclass
class PreparedData:
    """An encoded corpus and its tokenizer."""

    tokenizer: Tokenizer
    streams: dict[str, TokenStream]  # train, valid, test; synthetic data has no test
    name: str  # of the corpus
    fingerprint: str  # sha256 of those of the tokenizer and all streams
    tokenizer_dir: Path | None = None  # the folder of its files; None: it was not saved


def prepare(
    data: DataConfig,
    config: WordTokenizerConfig | SentencePieceConfig,
    tokenizer_dir: Path | None = None,
) -> PreparedData:
    """The corpus of a config, encoded, with its tokenizer.

    config: the tokenizer to train on the training split.
    tokenizer_dir: the folder of a tokenizer to use instead, as a run's; `config` is then unused.
    The first call takes long: it may download the corpus, trains the tokenizer, encodes all splits,
    and writes them to the cache, from which later calls take them.
    Logs a warning if the text gives fewer pieces than the default vocabulary has, and as
    load_corpus, Corpus.summary and token_stream do. Raises UsageError for a corpus that is missing,
    empty, damaged or not UTF-8, and as load_corpus, check_column, train_tokenizer and
    load_tokenizer do; OSError if a file may not be read or the cache cannot be written.
    """
    # Every split must be usable before the long work begins.
    corpus = load_corpus(data)
    check_column(data, corpus)
    for split in SPLITS:
        corpus.summary(split)

    # The tokenizer.
    directory = tokenizer_dir or tokenizer_directory(corpus, config)
    tokenizer = load_tokenizer(directory)
    size = tokenizer.vocabulary_size
    trains_pieces = (
        isinstance(config, SentencePieceConfig) and config.model is None and tokenizer_dir is None
    )
    if trains_pieces and config.vocabulary_size is None and size < PIECES:
        message = "tokenizer.vocabulary_size is %s, not %s: the text gives no more."
        log.warning(message, f"{size:,}", f"{PIECES:,}")

    # The splits.
    streams = {split: cached_stream(corpus, split, tokenizer) for split in SPLITS}
    fingerprints = [tokenizer.fingerprint, *(stream.fingerprint for stream in streams.values())]
    fingerprint = hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()
    return PreparedData(tokenizer, streams, data.name, fingerprint, directory)


def check_column(data: DataConfig, corpus: Corpus) -> None:
    """Raise UsageError if data.column is not its default and all files are text by their names.

    A file of a kind that is not read is no text (`is_text`): its reader refuses it.
    """
    files = list(chain(*corpus.files.values()))
    if data.column != DataConfig.column and all(map(is_text, files)):
        raise UsageError(
            f"data.column would change nothing: text has no columns ({list_names(files)}). "
            "Leave it out."
        )


def tokenizer_directory(corpus: Corpus, config: WordTokenizerConfig | SentencePieceConfig) -> Path:
    """The folder in the cache with the tokenizer of a corpus, which is trained if it is not there.

    It has tokenizer.json and the vocabulary.txt or sentencepiece.model that `save` writes, and the
    cache's manifest.json. Trained on the training split. Logs and raises as Corpus.summary does,
    and raises as train_tokenizer and `cached` do.
    """
    # A user's own vocabulary or model counts by its content, not by its path.
    about = asdict(config)
    for name in ("vocabulary", "model"):
        if about.get(name) is not None and Path(about[name]).is_file():
            about[name] = sha256(Path(about[name]))
    directory = corpus.cache_dir / "tokenizers" / key_of(corpus.fingerprint("train"), about)

    def train(aside: Path) -> None:
        train_tokenizer(config, corpus.lines("train")).save(aside)

    cached(directory, train)
    return directory


def cached_stream(corpus: Corpus, split: str, tokenizer: Tokenizer) -> TokenStream:
    """The stream of a split, memory-mapped from the cache; encoded first if it is not there.

    split: "train", "valid" or "test". `tokens` is read-only. Logs a warning as token_stream and
    Corpus.summary do. Raises as Corpus.summary and `cached` do.
    """
    summary = corpus.summary(split)
    directory = corpus.cache_dir / "tokens" / key_of(summary.fingerprint, tokenizer.fingerprint)

    def build(aside: Path) -> None:
        """Write tokens.i32, the ids, and stream.json, the Counts of the split as a list."""
        total = np.zeros(len(Counts._fields), np.int64)
        with open(aside / "tokens.i32", "wb") as file:
            for tokens, counts in encode(corpus.lines(split), tokenizer):
                file.write(tokens)
                total += counts
        (aside / "stream.json").write_text(json.dumps(total.tolist()))

    manifest = cached(directory, build)
    tokens = np.asarray(np.memmap(directory / "tokens.i32", DTYPE, "r"))
    counts = Counts(*json.loads((directory / "stream.json").read_bytes()))
    what = f"the {split} split of {corpus.name}"
    return token_stream(tokens, tokenizer, counts, summary, manifest["tokens.i32"], what)


def encode(lines: Iterable[pa.Array], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, Counts]]:
    """Yield the ids (flat, int32) and the counts of each batch of lines, in the order of batches.

    lines: batches without nulls. They are encoded in threads, as results are taken.
    """

    def encoded(batch: pa.Array) -> tuple[np.ndarray, Counts]:
        batch = without_end_marks(batch, tokenizer.eos)
        tokens = tokenizer.encode_lines(batch).astype(DTYPE, copy=False)
        stripped = pc.utf8_trim_whitespace(batch)
        newlines = len(batch)
        size = newlines + (pc.sum(pc.binary_length(stripped)).as_py() or 0)
        if tokenizer.kind == "word":
            words = len(tokens)
            inner_eos = count_word(batch, tokenizer.eos)
            written_unknown = count_word(batch, tokenizer.types[tokenizer.unk_id])
        else:
            words = len(split_lines(batch, tokenizer.eos, UNK))
            inner_eos = 0
            written_unknown = 0
        return tokens, Counts(words, size, inner_eos, written_unknown)

    return in_threads(encoded, lines)


def encode_file(path: str | Path, tokenizer: Tokenizer, column: str = "text") -> TokenStream:
    """The token stream, in memory, of a file that read_rows reads: text, JSON lines or Parquet.

    column: the text's name in JSON and Parquet. Logs a warning for rows without a text, and as
    token_stream does. Raises UsageError if the file has no words, and all that read_rows raises.
    """
    return encode_text(read_lines(Path(path), column), tokenizer, str(path))


def encode_text(batches: Iterable[pa.Array], tokenizer: Tokenizer, what: str) -> TokenStream:
    """The token stream of a text, in memory.

    batches: large_string, a line per row; null rows are left out with a warning.
    what: names the text in messages. Logs a warning as token_stream does, too.
    Raises UsageError if the text has no words.
    """
    rows = list(batches)  # read twice below, which a pipe cannot be
    summary = summarize(rows, what)
    summary.warn_of_null_rows(what)
    pieces = []
    total = np.zeros(len(Counts._fields), np.int64)
    for piece, counts in encode((batch.drop_null() for batch in rows), tokenizer):
        pieces.append(piece)
        total += counts
    tokens = np.concatenate(pieces)
    fingerprint = hashlib.sha256(tokens).hexdigest()
    return token_stream(tokens, tokenizer, Counts(*total.tolist()), summary, fingerprint, what)


def token_stream(
    tokens: np.ndarray,
    tokenizer: Tokenizer,
    counts: Counts,
    text: TextSummary,
    fingerprint: str,
    what: str,
) -> TokenStream:
    """A TokenStream of its parts; logs a warning if lines have the word tokenizer.eos inside.

    tokens: int32, flat. counts: of all lines. text: the summary of the same lines. fingerprint: the
    ids' sha256 in hexadecimal. what: names the text in the warning.
    """
    if counts.inner_eos:
        message = "%s has %s within lines %s times: each is unknown."
        log.warning(message, what, tokenizer.eos, f"{counts.inner_eos:,}")
    return TokenStream(
        tokens=tokens,
        eos_id=tokenizer.eos_id,
        vocabulary_size=tokenizer.vocabulary_size,
        words=counts.words,
        bytes=counts.bytes,
        lines=text.lines,
        fingerprint=fingerprint,
        unk_id=tokenizer.unk_id,
        written_unknown=counts.written_unknown,
        text_fingerprint=text.fingerprint,
    )
