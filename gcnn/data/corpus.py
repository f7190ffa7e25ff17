"""A corpus: the lines of its splits, from files or from the Hub's WikiText by `datasets`.

`load_corpus` finds the files without reading them; `Corpus.lines` reads a split in batches;
`Corpus.summary` reads it once for its fingerprint and counts, which it stores in the cache.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from gcnn.base.errors import UsageError, one_line
from gcnn.base.files import sha256, write_json
from gcnn.config.schema import DataConfig
from gcnn.data.cache import cache_root, key_of
from gcnn.data.lines import first_lines, join_lines
from gcnn.data.sources import HUB_SPLITS, find_files, layout_remedy, layouts_of, list_names
from gcnn.data.tables import CHUNK, check_text_column, read_lines, suffix, text_column
from gcnn.data.threads import in_threads

if TYPE_CHECKING:
    from datasets import DatasetDict

log = logging.getLogger(__name__)
HUB_REPOSITORY = "Salesforce/wikitext"


@dataclass
class TextSummary:
    """The fingerprint and the counts of a text, taken of its stripped lines with a newline each.

    A newline inside a line (a row of JSON or Parquet may have some) is hashed as "\\r\\n". So a
    document in one row has another fingerprint than its lines in a row each.
    """

    fingerprint: str  # sha256 of the UTF-8 bytes, 64 hexadecimal digits
    bytes: int  # UTF-8, the newlines included, without the "\r" of the fingerprint
    lines: int
    null_rows: int  # rows whose text is null, which are not counted as lines

    def warn_of_null_rows(self, what: str) -> None:
        """Log a warning if the text has null rows; `what` names the text in it."""
        if self.null_rows:
            rows = f"{self.null_rows:,} of {self.null_rows + self.lines:,} rows"
            log.warning("%s: %s have no text (null) and are left out.", what, rows)


class Corpus:
    """The splits of a corpus, "train", "valid" and "test", as batches of lines read from files.

    Files are read while lines are iterated over, a few MiB at a time, and anew at every call.
    """

    def __init__(self, config: DataConfig, files: dict[str, list[Path]], cache_dir: Path):
        """files: split -> its files, in the order of reading. cache_dir: the root of the cache.

        Reads and writes nothing. Of the config only name, column and train_tokens are used.
        """
        self.name = config.name
        self.column = config.column
        self.token_limits = {"train": config.train_tokens}  # None, or no entry: no limit
        self.files = files
        self.cache_dir = cache_dir
        self.summaries: dict[str, TextSummary] = {}

    def lines(self, split: str) -> Iterator[pa.Array]:
        """The lines of a split as batches of large_string, without null rows, not stripped.

        The training split ends with the line that reaches data.train_tokens. Rows of JSON and
        Parquet may have newlines inside; batches may be empty. Shows a progress bar on a terminal
        after two seconds. While iterating, raises UsageError for a file that read_rows refuses
        (missing, damaged, not UTF-8, of a kind that is not read, or without the text's column), and
        OSError for one that may not be read.
        """
        return (rows.drop_null() for rows in self.rows(split))

    def rows(self, split: str) -> Iterator[pa.Array]:
        """The lines of a split as `lines` has them, but with null for each row without a text.

        Limits the training split, shows the progress bar and raises as `lines` does.
        """
        total = None
        if split in self.summaries:
            total = self.summaries[split].lines
        batches = self.all_rows(split)
        token_limit = self.token_limits.get(split)
        if token_limit is not None:
            batches = first_lines(batches, token_limit)
        with tqdm(
            desc=split, total=total, unit=" lines", disable=None, delay=2, leave=False
        ) as bar:
            for rows in batches:
                yield rows
                bar.update(len(rows))

    def all_rows(self, split: str) -> Iterator[pa.Array]:
        """All rows of a split's files in batches, without the limit of data.train_tokens.

        large_string, null for a row without a text. Raises as `lines` does.
        """
        for path in self.files[split]:
            yield from read_lines(path, self.column, "data.column")

    def fingerprint(self, split: str) -> str:
        """sha256 of the text of a split, whatever the files' format (see TextSummary).

        Reads, writes, logs and raises as `summary` does.
        """
        return self.summary(split).fingerprint

    def summary(self, split: str) -> TextSummary:
        """The fingerprint and the counts of a split; computed once, then stored in the cache.

        They are of the rows that `lines` reads: of the training split up to data.train_tokens.
        The first call hashes the files and logs a warning if rows have no text. If the cache has
        no entry for these files, it also reads the text and writes texts/*.json there. Later calls
        return the same object. Raises UsageError for a split without words, and for a file that
        `lines` refuses; OSError for a file that is missing or may not be read, and if the entry
        cannot be written.
        """
        if split in self.summaries:
            return self.summaries[split]

        # The cache is keyed by the content of the files, and their kinds, not by their paths.
        files = self.files[split]
        kinds = [suffix(path) for path in files]
        contents = list(zip(kinds, in_threads(sha256, files), strict=True))
        key = key_of(self.column, self.token_limits.get(split), contents)
        stored = self.cache_dir / "texts" / f"{key}.json"
        try:
            summary = TextSummary(**json.loads(stored.read_bytes()))
        except (OSError, ValueError, TypeError):  # absent, or of another version
            what = f"the {split} split of {self.name} ({list_names(files)})"
            summary = summarize(self.rows(split), what)
            stored.parent.mkdir(parents=True, exist_ok=True)
            write_json(stored, asdict(summary))
        self.summaries[split] = summary
        summary.warn_of_null_rows(f"the {split} split of {self.name}")
        return summary


class HubCorpus(Corpus):
    """WikiText from the Hub's repository, in the files that `datasets` caches."""

    def __init__(self, config: DataConfig, cache_dir: Path, option: str):
        """Download the variant config.hub_config into cache_dir/datasets if it is not there.

        cache_dir: the root of the cache. Of the config, path and files are not used. option: the
        option that would set a folder instead, for the message. Silences `datasets` for the
        process. Raises UsageError if the download fails.
        """
        hub = load_from_hub(config, str(cache_dir / "datasets"), option)
        self.tables = {}
        files = {}
        for split, name in HUB_SPLITS.items():
            self.tables[split] = hub[name]
            files[split] = [Path(file["filename"]) for file in hub[name].cache_files]
        super().__init__(config, files, cache_dir)

    def all_rows(self, split: str) -> Iterator[pa.Array]:
        """All rows of a split in batches of large_string, each of about CHUNK bytes.

        Without the limit of data.train_tokens; null for a row without a text.
        While iterating, raises UsageError if the tables do not have the text's column, or if it is
        not text or not UTF-8.
        """
        table = self.tables[split]
        check_text_column(table.data.schema, self.column, HUB_REPOSITORY, "data.column")
        table = table.select_columns(self.column).with_format("arrow")
        bytes_per_row = table.data.nbytes // max(1, len(table))
        for batch in table.iter(batch_size=1 + CHUNK // (1 + bytes_per_row)):
            yield text_column(batch, self.column, HUB_REPOSITORY).combine_chunks()


def load_corpus(config: DataConfig, option: str = "data.path") -> Corpus:
    """The corpus that a config names; its text is not read yet.

    option: the option that sets the folder, for messages.
    WikiText without a path is a HubCorpus. It is downloaded if it is not cached; UsageError is
    raised if that fails. For all other corpora, logs and raises as find_files does, which may
    download Shakespeare. Also raises UsageError if data.files is set for another source than
    "local", and as cache_root does.
    """
    if config.source != "local" and any(config.files.values()):
        raise UsageError(
            f"data.files is not read with data={config.name}; give data=local, or leave it out."
        )
    cache_dir = cache_root(config.cache_dir)
    if config.source == "wikitext" and config.path is None:
        return HubCorpus(config, cache_dir, option)
    return Corpus(config, find_files(config, option), cache_dir)


def summarize(rows: Iterable[pa.Array], what: str) -> TextSummary:
    """The fingerprint and the counts of a text.

    rows: batches of large_string, a line each, null for a row without a text; iterated over once.
    what: names the text in the error. Raises UsageError if the text has no words.
    """

    def prepared(rows: pa.Array) -> tuple[pa.Buffer, int, int, int]:
        """The bytes to hash of a batch, and its numbers of lines, newlines in them, and nulls."""
        lines = pc.utf8_trim_whitespace(rows.drop_null())
        newlines = pc.sum(pc.count_substring(lines, "\n")).as_py() or 0
        if newlines:  # see TextSummary
            lines = pc.replace_substring(lines, "\n", "\r\n")
        return join_lines(lines, "\n")[0].as_buffer(), len(lines), newlines, rows.null_count

    digest = hashlib.sha256()
    size = line_count = null_rows = 0
    for content, lines, newlines, nulls in in_threads(prepared, rows):
        digest.update(content)
        size += len(content) - newlines  # without the "\r" that was added to each
        line_count += lines
        null_rows += nulls
    if size == line_count:  # nothing but the newlines
        raise UsageError(f"{what} has no words. Give some text.")
    return TextSummary(digest.hexdigest(), size, line_count, null_rows)


def load_from_hub(config: DataConfig, cache_dir: str, option: str) -> "DatasetDict":
    """WikiText's splits as `datasets` tables, keyed as the Hub names them (HUB_SPLITS).

    They come from cache_dir, the folder in which `datasets` caches, or else are downloaded there.
    config.hub_config is the variant, as wikitext-103-v1. option: the option that would set a folder
    instead, for the message.
    Side effect: turns off the progress bars and messages of `datasets`, for the process.
    Raises UsageError if they are not cached and cannot be downloaded.
    """
    import datasets  # here: importing it takes a second, which other corpora save
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    load = partial(datasets.load_dataset, HUB_REPOSITORY, config.hub_config, cache_dir=cache_dir)

    # From the cache of an earlier run, without a request.
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        return load()
    except (OSError, ValueError):
        pass
    finally:
        datasets.config.HF_HUB_OFFLINE = offline

    # From the Hub. The first request fails soon where load_dataset would retry for long.
    try:
        HfApi().dataset_info(HUB_REPOSITORY, timeout=10)
        return load()
    except Exception as error:  # the Hub's client raises many kinds, all with the same remedy
        remedy = layout_remedy(layouts_of(config)[0], option).removesuffix(".")
        raise UsageError(
            f"data={config.name}: cannot get {config.hub_config} of {HUB_REPOSITORY} from the Hub "
            f"({one_line(error)}). {remedy}, or with the Parquet files of the Hub."
        ) from None
