"""Token streams: a text as flat int32 ids, encoded once and memory-mapped from then on."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

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
from gcnn.data.tables import JSON_SUFFIXES, PARQUET_SUFFIXES, read_lines, suffix
from gcnn.data.threads import in_threads
from gcnn.data.tokenizer_training import PIECES, train_tokenizer
from gcnn.data.tokenizers import EOS, UNK, Tokenizer, load_tokenizer

log = logging.getLogger(__name__)
DTYPE = np.dtype("<i4")


@dataclass
class TokenStream:
    """A text as ids, and what its perplexity may be normalised by."""

    tokens: np.ndarray  # int32, flat; each line ends with eos_id
    eos_id: int
    vocabulary_size: int
    words: int  # white-space words and one end of line a line, as the literature counts
    bytes: int  # UTF-8, of the stripped lines, without an <eos> written at their ends, and one newline each
    lines: int
    fingerprint: str  # sha256 of the ids, little-endian int32
    unk_id: int | None = None  # None: every token is known
    written_unknown: int = (
        0  # tokens that are <unk> in the text itself, as in WikiText: no word is lost by them
    )
    text_fingerprint: str = ""  # sha256 of the text, whatever the tokenizer

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass
class PreparedData:
    """A corpus, encoded."""

    tokenizer: Tokenizer
    streams: dict[str, TokenStream]  # train, valid, test
    name: str
    fingerprint: str  # of the tokenizer and all streams
    tokenizer_dir: Path | None = None  # where its files are


def prepare(
    data: DataConfig,
    config: WordTokenizerConfig | SentencePieceConfig,
    tokenizer_dir: Path | None = None,
) -> PreparedData:
    """Train the tokenizer, unless the folder of one is given, and encode every split, or find both in the cache.

    Raises UsageError for a corpus that is missing, empty or not UTF-8 and for a vocabulary size past the text.
    """
    corpus = load_corpus(data)
    check_column(data, corpus)
    for split in SPLITS:
        corpus.summary(split)  # every split is found fit before work begins
    directory = tokenizer_dir or tokenizer_directory(corpus, config)
    tokenizer = load_tokenizer(directory)
    size = tokenizer.vocabulary_size
    pieces = (
        isinstance(config, SentencePieceConfig) and config.model is None and tokenizer_dir is None
    )
    if pieces and config.vocabulary_size is None and size < PIECES:
        log.warning(
            "tokenizer.vocabulary_size is %s, not %s: the text gives no more.",
            f"{size:,}",
            f"{PIECES:,}",
        )
    streams = {split: cached_stream(corpus, split, tokenizer) for split in SPLITS}
    fingerprints = [tokenizer.fingerprint, *(stream.fingerprint for stream in streams.values())]
    fingerprint = hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()
    return PreparedData(tokenizer, streams, data.name, fingerprint, directory)


def check_column(data: DataConfig, corpus: Corpus) -> None:
    """Raise UsageError for a column that is asked of text, which has none."""
    files = [path for paths in corpus.files.values() for path in paths]
    kinds = {suffix(path) for path in files}
    if data.column != DataConfig.column and not kinds & {
        *JSON_SUFFIXES,
        *PARQUET_SUFFIXES,
        ".arrow",
    }:
        raise UsageError(
            f"data.column would change nothing: {list_names(files)} are text, without columns. Leave it out."
        )


def tokenizer_directory(corpus: Corpus, config: WordTokenizerConfig | SentencePieceConfig) -> Path:
    """The folder of the trained tokenizer's files, in the cache."""
    about = asdict(config)
    for name in (
        "vocabulary",
        "model",
    ):  # files of one's own: what they hold counts, not where they are
        if about.get(name) is not None and Path(about[name]).is_file():
            about[name] = sha256(Path(about[name]))
    directory = corpus.cache_dir / "tokenizers" / key_of(corpus.fingerprint("train"), about)
    cached(directory, lambda aside: train_tokenizer(config, corpus.lines("train")).save(aside))
    return directory


def cached_stream(corpus: Corpus, split: str, tokenizer: Tokenizer) -> TokenStream:
    summary = corpus.summary(split)
    directory = corpus.cache_dir / "tokens" / key_of(summary.fingerprint, tokenizer.fingerprint)

    def build(aside: Path) -> None:
        counts = np.zeros(4, np.int64)
        with open(aside / "tokens.i32", "wb") as file:
            for tokens, *batch_counts in encode(corpus.lines(split), tokenizer):
                file.write(tokens)
                counts += batch_counts
        (aside / "stream.json").write_text(json.dumps(counts.tolist()))

    manifest = cached(directory, build)
    tokens = np.asarray(np.memmap(directory / "tokens.i32", DTYPE, "r"))
    counts = json.loads((directory / "stream.json").read_bytes())
    what = f"the {split} split of {corpus.name}"
    return token_stream(tokens, tokenizer, counts, summary, manifest["tokens.i32"], what)


def encode(
    lines: Iterable[pa.Array], tokenizer: Tokenizer
) -> Iterator[tuple[np.ndarray, int, int, int, int]]:
    """The ids of each batch of lines, its words and ends of line, its bytes, and, where tokens are words, how often it
    has `eos` within lines for a word that is none, and how often <unk> for a word."""

    def encoded(batch: pa.Array) -> tuple[np.ndarray, int, int, int, int]:
        batch = without_end_marks(batch, tokenizer.eos)
        tokens = tokenizer.encode_lines(batch).astype(DTYPE, copy=False)
        by_word = tokenizer.kind == "word"
        words = len(tokens) if by_word else len(split_lines(batch, EOS, UNK))
        size = len(batch) + (pc.sum(pc.binary_length(pc.utf8_trim_whitespace(batch))).as_py() or 0)
        marks = count_word(batch, tokenizer.eos) if by_word else 0
        unknown = count_word(batch, tokenizer.types[tokenizer.unk_id]) if by_word else 0
        return tokens, words, size, marks, unknown

    return in_threads(encoded, lines)


def encode_file(path: str | Path, tokenizer: Tokenizer, column: str = "text") -> TokenStream:
    """Any text, JSON lines or Parquet, or a pipe of text, encoded in memory.

    Raises UsageError where it is missing, damaged, empty or not UTF-8.
    """
    return encode_text(read_lines(Path(path), column), tokenizer, str(path))


def encode_text(batches: Iterable[pa.Array], tokenizer: Tokenizer, what: str) -> TokenStream:
    """Rows, some at a time, encoded in memory; those without a text are left out, with a warning. Raises UsageError,
    naming `what`, where they have no words."""
    rows = list(batches)  # a pipe can be read once
    summary = summarize(rows, what)
    summary.warn_of_null_rows(what)
    encoded, *counts = zip(*encode((batch.drop_null() for batch in rows), tokenizer), strict=True)
    tokens = np.concatenate(encoded)
    fingerprint = hashlib.sha256(tokens).hexdigest()
    return token_stream(tokens, tokenizer, list(map(sum, counts)), summary, fingerprint, what)


def token_stream(
    tokens: np.ndarray,
    tokenizer: Tokenizer,
    counts: list[int],
    text: TextSummary,
    fingerprint: str,
    what: str,
) -> TokenStream:
    """A stream, and a warning of words in it that are the end of a line by their looks alone. `counts` are the sums of
    what `encode` gives besides the ids."""
    words, size, marks, unknown = counts
    if marks:
        log.warning(
            "%s has %s within lines %s times: each is unknown.", what, tokenizer.eos, f"{marks:,}"
        )
    return TokenStream(
        tokens=tokens,
        eos_id=tokenizer.eos_id,
        vocabulary_size=tokenizer.vocabulary_size,
        words=words,
        bytes=size,
        lines=text.lines,
        fingerprint=fingerprint,
        unk_id=tokenizer.unk_id,
        written_unknown=unknown,
        text_fingerprint=text.fingerprint,
    )
