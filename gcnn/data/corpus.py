"""Corpora as splits of lines: one's own files, or the Hub's WikiText through `datasets`."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from gcnn.base.errors import UsageError, one_line
from gcnn.base.files import sha256, write_json
from gcnn.config.schema import DataConfig
from gcnn.data.cache import cache_root, key_of
from gcnn.data.lines import TEXT, first_tokens, join_lines
from gcnn.data.sources import HUB_SPLITS, find_files, layout_remedy, layouts_of, list_names
from gcnn.data.tables import CHUNK, no_column, read_lines, suffix
from gcnn.data.threads import in_threads

if TYPE_CHECKING:
    from datasets import DatasetDict

log = logging.getLogger(__name__)
HUB_REPOSITORY = "Salesforce/wikitext"


@dataclass
class TextSummary:
    """What identifies and measures a text: its lines, stripped at both ends, each with a newline."""

    fingerprint: str  # sha256 of those bytes; a newline within a line counts as "\r\n", which no line ends with
    bytes: int
    lines: int
    null_rows: int  # rows without a text, which are no lines

    def warn_of_null_rows(self, what: str) -> None:
        if self.null_rows:
            rows = f"{self.null_rows:,} of {self.null_rows + self.lines:,} rows"
            log.warning("%s: %s have no text (null) and are left out.", what, rows)


class Corpus:
    """The splits of a corpus. Nothing is read before it is asked for, and memory holds few lines at once."""

    def __init__(self, config: DataConfig, files: dict[str, list[Path]], cache_dir: Path):
        self.name = config.name
        self.column = config.column
        self.first = {"train": config.train_tokens}
        self.files = files
        self.cache_dir = cache_dir
        self.summaries: dict[str, TextSummary] = {}

    def lines(self, split: str) -> Iterator[pa.Array]:
        """The lines of a split in batches. Raises UsageError for a file that is damaged, not UTF-8 or without text."""
        return (rows.drop_null() for rows in self.rows(split))

    def rows(self, split: str) -> Iterator[pa.Array]:
        """The lines of a split in batches, and null for each row without a text. Raises as `lines` does."""
        total = self.summaries[split].lines if split in self.summaries else None
        with tqdm(
            desc=split, total=total, unit=" lines", disable=None, delay=2, leave=False
        ) as bar:
            batches, most = self.batches(split), self.first.get(split)
            for rows in batches if most is None else first_tokens(batches, most):
                yield rows
                bar.update(len(rows))

    def batches(self, split: str) -> Iterator[pa.Array]:
        return chain.from_iterable(
            read_lines(path, self.column, "data.column") for path in self.files[split]
        )

    def fingerprint(self, split: str) -> str:
        """sha256 of the content of a split, the same for all file formats."""
        return self.summary(split).fingerprint

    def summary(self, split: str) -> TextSummary:
        """What identifies and measures a split, remembered. Raises UsageError for a split without words."""
        if split in self.summaries:
            return self.summaries[split]
        files = self.files[split]
        contents = list(zip(map(suffix, files), in_threads(sha256, files), strict=True))
        key = key_of(self.column, self.first.get(split), contents)
        memo = self.cache_dir / "texts" / f"{key}.json"
        try:
            summary = TextSummary(**json.loads(memo.read_bytes()))
        except (OSError, ValueError, TypeError):
            summary = summarize(
                self.rows(split), f"the {split} split of {self.name} ({list_names(files)})"
            )
            memo.parent.mkdir(parents=True, exist_ok=True)
            write_json(memo, asdict(summary))
        self.summaries[split] = summary
        summary.warn_of_null_rows(f"the {split} split of {self.name}")
        return summary


class HubCorpus(Corpus):
    """WikiText out of the Hub's repository."""

    def __init__(self, config: DataConfig, cache_dir: Path):
        hub = load_from_hub(config, str(cache_dir / "datasets"))
        self.tables = {split: hub[name] for split, name in HUB_SPLITS.items()}
        files = {
            split: [Path(f["filename"]) for f in table.cache_files]
            for split, table in self.tables.items()
        }
        super().__init__(config, files, cache_dir)

    def batches(self, split: str) -> Iterator[pa.Array]:
        table = self.tables[split]
        if self.column not in table.column_names:
            raise no_column(HUB_REPOSITORY, self.column, table.column_names, "data.column")
        table = table.select_columns(self.column).with_format("arrow")
        rows = 1 + CHUNK // (1 + table.data.nbytes // max(1, len(table)))
        for batch in table.iter(batch_size=rows):
            yield batch[self.column].cast(TEXT).combine_chunks()


def load_corpus(config: DataConfig, option: str = "data.path") -> Corpus:
    """The corpus that a config names. Raises UsageError, naming the `option` that helps, where files are missing."""
    cache_dir = cache_root(config.cache_dir)
    if config.source == "wikitext" and config.path is None:
        return HubCorpus(config, cache_dir)
    return Corpus(config, find_files(config, option), cache_dir)


def summarize(rows: Iterable[pa.Array], what: str) -> TextSummary:
    """Measure a text, given its rows. Raises UsageError, naming `what`, where it has no words."""

    def joined(rows: pa.Array) -> tuple[pa.Buffer, int, int, int]:
        batch = pc.utf8_trim_whitespace(rows.drop_null())
        inner = pc.sum(pc.count_substring(batch, "\n")).as_py() or 0
        if inner:  # documents, which must not have the fingerprint of their lines
            batch = pc.replace_substring(batch, "\n", "\r\n")
        return join_lines(batch, "\n")[0].as_buffer(), len(batch), inner, rows.null_count

    digest = hashlib.sha256()
    size = count = null_rows = 0
    for content, number, added, nulls in in_threads(joined, rows):
        digest.update(content)
        size += len(content) - added
        count += number
        null_rows += nulls
    if size == count:
        raise UsageError(f"data: {what} has no words. Give a file with some text.")
    return TextSummary(digest.hexdigest(), size, count, null_rows)


def load_from_hub(config: DataConfig, cache_dir: str) -> "DatasetDict":
    """WikiText's tables: out of the cache, or else downloaded. Raises UsageError where neither works."""
    import datasets  # here: it takes a second, which other corpora save
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()  # this project has its own, and its own messages
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    load = partial(datasets.load_dataset, HUB_REPOSITORY, config.hub_config, cache_dir=cache_dir)
    setting, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        return load()  # as an earlier run left them, without a request
    except (OSError, ValueError):
        pass
    finally:
        datasets.config.HF_HUB_OFFLINE = setting
    try:
        HfApi().dataset_info(
            HUB_REPOSITORY, timeout=10
        )  # fails soon where load_dataset would retry for long
        return load()
    except Exception as error:  # whatever the Hub's client raises, the way out is the same
        raise UsageError(
            f"data={config.name}: cannot get {config.hub_config} of {HUB_REPOSITORY} from the Hub "
            f"({one_line(error)}). {layout_remedy(layouts_of(config)[0])[:-1]}, or with the Parquet files of the Hub."
        ) from None
