"""Corpora as splits of lines, loaded through `datasets`: the Hub's WikiText, or text and Parquet files."""

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from tqdm import tqdm

from gcnn.config import DataConfig
from gcnn.data.cache import cache_root, key_of
from gcnn.data.lines import TEXT, join_lines
from gcnn.data.sources import HUB_SPLITS, find_files, layouts_of, names, remedy
from gcnn.data.threads import in_threads
from gcnn.errors import UsageError, one_line
from gcnn.files import write_json

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset

HUB_REPOSITORY = "Salesforce/wikitext"
BATCH, BATCH_BYTES = 1000, 1 << 23  # lines, and what they take, that are in memory together
PACKED = (".bz2", ".gz", ".lz4", ".rar", ".xz", ".zip", ".zst")
PACKED_BEGINNINGS = (
    b"PK\3\4", b"PK\5\6", b"PK\7\x08", b"BZh", b"\x1f\x8b", b"\xfd7zXZ\0", b"\4\"M\x18", b"\x28\xb5\x2f\xfd", b"Rar!",
)  # fmt: skip


@dataclass
class TextSummary:
    """What identifies and measures a text: its lines, stripped at both ends, each with a newline."""

    fingerprint: str  # sha256 of those bytes
    bytes: int
    lines: int


class Corpus:
    """The splits of a corpus. Nothing is read before it is asked for, and memory holds few lines at once."""

    def __init__(self, name: str, files: dict[str, list[Path]], cache_dir: Path):
        self.name = name
        self.files = files
        self.cache_dir = cache_dir
        self.tables: dict[str, Dataset] = {}

    def lines(self, split: str) -> Iterator[pa.Array]:
        """The lines of a split in batches. Raises UsageError for a file that is not UTF-8."""
        if not any(path.stat().st_size for path in self.files[split]):
            return  # `datasets` makes no table of nothing
        if split not in self.tables:
            folder = self.cache_dir / "datasets" / self._key(split)
            self.tables[split] = load_files(self.files[split], cache_dir=str(folder))
        table = self.tables[split]
        with tqdm(desc=split, total=len(table), unit=" lines", disable=None, delay=2, leave=False) as bar:
            for lines in batches(table):
                yield lines
                bar.update(len(lines))

    def fingerprint(self, split: str) -> str:
        """sha256 of the content of a split, the same for all file formats."""
        return self.summary(split).fingerprint

    def summary(self, split: str) -> TextSummary:
        """What identifies and measures a split; remembered as long as its files do not change.

        Raises UsageError for a split without words.
        """
        memo = self.cache_dir / "texts" / f"{self._key(split)}.json"
        try:
            return TextSummary(**json.loads(memo.read_bytes()))
        except (OSError, ValueError, TypeError):
            pass
        summary = summarize(self.lines(split), f"the {split} split of {self.name} ({names(self.files[split])})")
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_json(memo, asdict(summary))
        return summary

    def _key(self, split: str) -> str:
        """Changes whenever a file of the split does."""
        stats = [(str(path.absolute()), path.stat()) for path in self.files[split]]
        return key_of([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])


class HubCorpus(Corpus):
    """WikiText out of the Hub's repository."""

    def __init__(self, config: DataConfig, cache_dir: Path):
        hub = load_from_hub(config, str(cache_dir / "datasets"))
        tables = {split: hub[name] for split, name in HUB_SPLITS.items()}
        files = {split: [Path(f["filename"]) for f in table.cache_files] for split, table in tables.items()}
        super().__init__(config.name, files, cache_dir)
        self.tables = tables


def load_corpus(config: DataConfig) -> Corpus:
    """The corpus that a config names. Raises UsageError, naming the remedy, where its files are missing."""
    cache_dir = cache_root(config.cache_dir)
    if config.source == "wikitext" and config.path is None:
        return HubCorpus(config, cache_dir)
    return Corpus(config.name, find_files(config), cache_dir)


def load_files(files: list[Path], column: str = "text", **options) -> "Dataset | IterableDataset":
    """Text files (a row a line, its text in the column `text`), Parquet or JSON lines as one table, with `column`.

    Raises UsageError for text that is not UTF-8 and for a table without such a column.
    """
    import datasets  # here: it takes a second, which a start with a warm cache saves

    quiet()
    kind = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}.get(files[0].suffix, "text")
    if kind == "text":
        for path in files:
            check_plain(path)
        options["features"] = datasets.Features({"text": datasets.Value("string")})
    paths = [glob.escape(str(path.absolute())) for path in files]
    try:
        table = datasets.load_dataset(kind, data_files={"train": paths}, split="train", **options)
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
        if isinstance(error.__cause__, OSError):  # a full disk, say
            raise error.__cause__ from None
        check_utf8(files if kind == "text" else [])
        raise UsageError(f"data: {names(files)} cannot be read ({one_line(error.__cause__ or error)}).") from None
    if table.column_names and column not in table.column_names:  # a stream of JSON knows them only as it is read
        raise UsageError(
            f"data: {names(files)} has no column `{column}` (found: {', '.join(table.column_names)}). "
            "Name another or add it."
        )
    return table


def check_plain(path: Path) -> None:
    """Raise UsageError for a file that `datasets` would take for a compressed one, by its name or its first bytes."""
    with open(path, "rb") as file:
        packed = file.read(6).startswith(PACKED_BEGINNINGS) and path.suffix != ".txt"
    if packed or path.suffix in PACKED:
        raise UsageError(f"{path} looks like a compressed file. Unpack it, or let the name of a text end in .txt.")


def check_utf8(files: list[Path]) -> None:
    """Raise UsageError for the first byte that is not UTF-8."""
    for path in files:
        offset = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    where = f"byte 0x{line[error.start]:02x} at offset {offset + error.start}, line {number}"
                    raise UsageError(f"{path} is not UTF-8: {where}. Convert it, as with iconv.") from None
                offset += len(line)


def batches(table: "Dataset | IterableDataset") -> Iterator[pa.Array]:
    """The rows of a table, about BATCH_BYTES of them at once where its size is known: most words of few recur.

    A row without text is an empty line.
    """
    size = getattr(table, "data", None)
    lines = BATCH if size is None else 1 + BATCH_BYTES // (1 + size.nbytes // max(1, len(table)))
    for rows in table.with_format("arrow").iter(batch_size=lines):
        yield rows["text"].cast(TEXT).combine_chunks().fill_null("")


def read_lines(path: Path) -> Iterator[pa.Array]:
    """The lines of one text file in batches, read once and not cached. Raises UsageError as Corpus does."""
    if not path.is_file():
        raise UsageError(f"no text file {path}. Give the path of a text file.")
    try:
        yield from batches(load_files([path], streaming=True))
    except UnicodeDecodeError:
        check_utf8([path])
        raise


def summarize(lines: Iterable[pa.Array], what: str) -> TextSummary:
    """Measure a text. Raises UsageError, naming `what`, where it has no words."""
    digest = hashlib.sha256()
    size = count = 0
    for content, number in in_threads(lambda batch: (join_lines(batch, "\n")[0].as_buffer(), len(batch)), lines):
        digest.update(content)
        size += len(content)
        count += number
    if size == count:
        raise UsageError(f"data: {what} has no words. Give a file with some text.")
    return TextSummary(digest.hexdigest(), size, count)


def load_from_hub(config: DataConfig, cache_dir: str) -> "DatasetDict":
    """WikiText's tables: out of the cache, or else downloaded. Raises UsageError where neither works."""
    import datasets
    from huggingface_hub import HfApi

    quiet()
    try:
        return load_offline(config.hub_config, cache_dir)
    except (OSError, ValueError):
        pass
    try:
        HfApi().dataset_info(HUB_REPOSITORY, timeout=10)  # fails soon where load_dataset would retry for long
        return datasets.load_dataset(HUB_REPOSITORY, config.hub_config, cache_dir=cache_dir)
    except Exception as error:  # whatever the Hub's client raises, the way out is the same
        raise UsageError(
            f"data={config.name}: cannot get {config.hub_config} of {HUB_REPOSITORY} from the Hub "
            f"({one_line(error)}). {remedy(layouts_of(config)[0])[:-1]}, or with the Parquet files of the Hub."
        ) from None


def load_offline(hub_config: str | None, cache_dir: str) -> "DatasetDict":
    """WikiText's tables as an earlier run left them in the cache, without a request."""
    import datasets

    setting = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(HUB_REPOSITORY, hub_config, cache_dir=cache_dir)
    finally:
        datasets.config.HF_HUB_OFFLINE = setting


def quiet() -> None:
    """Keep the bars and messages of `datasets` to itself: this project has its own."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
