"""Token streams: a text as flat int32 ids, encoded once and memory-mapped from then on."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gcnn.config import DataConfig, SentencePieceConfig, WordTokenizerConfig
from gcnn.data.cache import cached, key_of
from gcnn.data.corpus import Corpus, TextSummary, load_corpus, summarize
from gcnn.data.lines import split_lines
from gcnn.data.sources import SPLITS
from gcnn.data.tables import read_lines
from gcnn.data.threads import in_threads
from gcnn.data.tokenizers import EOS, UNK, Tokenizer, load_tokenizer, train_tokenizer

DTYPE = np.dtype("<i4")


@dataclass
class TokenStream:
    """A text as ids, and what its perplexity may be normalised by."""

    tokens: np.ndarray  # int32, flat; each line ends with eos_id
    eos_id: int
    vocabulary_size: int
    words: int  # white-space words and one end of line a line, as the literature counts
    bytes: int  # UTF-8, of the stripped lines and one newline each
    lines: int
    fingerprint: str  # sha256 of the ids, little-endian int32
    unk_id: int | None = None  # None: every token is known

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass
class PreparedData:
    """A corpus, encoded."""

    tokenizer: Tokenizer
    streams: dict[str, TokenStream]  # train, valid, test
    name: str
    fingerprint: str  # of the tokenizer and all streams


def prepare(data: DataConfig, tokenizer: WordTokenizerConfig | SentencePieceConfig) -> PreparedData:
    """Train the tokenizer and encode every split, or find both in the cache.

    Raises UsageError for a corpus that is missing, empty or not UTF-8 and for a vocabulary size past the text.
    """
    corpus = load_corpus(data)
    for split in SPLITS:
        corpus.summary(split)  # every split is found fit before work begins
    trained = cached_tokenizer(corpus, tokenizer)
    streams = {split: cached_stream(corpus, split, trained) for split in SPLITS}
    fingerprints = [trained.fingerprint, *(stream.fingerprint for stream in streams.values())]
    return PreparedData(trained, streams, data.name, hashlib.sha256(" ".join(fingerprints).encode()).hexdigest())


def cached_tokenizer(corpus: Corpus, config: WordTokenizerConfig | SentencePieceConfig) -> Tokenizer:
    directory = corpus.cache_dir / "tokenizers" / key_of(corpus.fingerprint("train"), asdict(config))
    cached(directory, lambda aside: train_tokenizer(config, corpus.lines("train")).save(aside))
    return load_tokenizer(directory)


def cached_stream(corpus: Corpus, split: str, tokenizer: Tokenizer) -> TokenStream:
    summary = corpus.summary(split)
    directory = corpus.cache_dir / "tokens" / key_of(summary.fingerprint, tokenizer.fingerprint)

    def build(aside: Path) -> None:
        words = 0
        with open(aside / "tokens.i32", "wb") as file:
            for tokens, count in encode(corpus.lines(split), tokenizer):
                tokens.tofile(file)
                words += count
        (aside / "stream.json").write_text(json.dumps({"words": words}))

    manifest = cached(directory, build)
    tokens = np.asarray(np.memmap(directory / "tokens.i32", DTYPE, "r"))
    words = json.loads((directory / "stream.json").read_bytes())["words"]
    return token_stream(tokens, tokenizer, words, summary, manifest["tokens.i32"])


def encode(lines: Iterable[pa.Array], tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    """The ids of each batch of lines, and its words and ends of line."""

    def encoded(batch: pa.Array) -> tuple[np.ndarray, int]:
        tokens = tokenizer.encode_lines(batch).astype(DTYPE, copy=False)
        return tokens, len(tokens) if tokenizer.kind == "word" else len(split_lines(batch, EOS, UNK))

    return in_threads(encoded, lines)


def encode_file(path: str | Path, tokenizer: Tokenizer, column: str = "text") -> TokenStream:
    """Any text, JSON lines or Parquet, or a pipe of text, encoded in memory.

    Raises UsageError where it is missing, damaged, empty or not UTF-8.
    """
    lines = list(read_lines(Path(path), column))  # a pipe can be read once
    summary = summarize(lines, str(path))
    batches, words = zip(*encode(lines, tokenizer), strict=True)
    tokens = np.concatenate(batches)
    return token_stream(tokens, tokenizer, sum(words), summary, hashlib.sha256(tokens).hexdigest())


def token_stream(
    tokens: np.ndarray, tokenizer: Tokenizer, words: int, summary: TextSummary, fingerprint: str
) -> TokenStream:
    return TokenStream(
        tokens=tokens,
        eos_id=tokenizer.eos_id,
        vocabulary_size=tokenizer.vocabulary_size,
        words=words,
        bytes=summary.bytes,
        lines=summary.lines,
        fingerprint=fingerprint,
        unk_id=tokenizer.unk_id,
    )
