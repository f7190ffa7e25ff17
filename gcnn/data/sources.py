"""Where the files of a corpus are: the layouts in which corpora are published, and one's own files."""

import glob
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from gcnn.base.errors import UsageError
from gcnn.config.schema import DataConfig
from gcnn.data.shakespeare import shakespeare_folder
from gcnn.data.tables import COMPRESSED_SUFFIXES, JSON_SUFFIXES, PARQUET_SUFFIXES

log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}

Layout = dict[str, str]  # split -> file name or glob in the corpus's folder
TOKENS: Layout = {split: f"wiki.{split}.tokens" for split in SPLITS}
RAW: Layout = {split: f"wiki.{split}.raw" for split in SPLITS}
TXT: Layout = {split: f"{split}.txt" for split in SPLITS}
PACKED = [kind + packed for kind in (".txt", *JSON_SUFFIXES) for packed in COMPRESSED_SUFFIXES]
OTHER_KINDS: list[Layout] = [
    {split: split + kind for split in SPLITS}
    for kind in (*JSON_SUFFIXES, *PARQUET_SUFFIXES, *PACKED)
]
PARQUET: Layout = {split: f"{name}-*.parquet" for split, name in HUB_SPLITS.items()}
BILLION_WORD: Layout = {  # the literature's test set is the first held-out shard; the second one validates
    "train": "training-monolingual.tokenized.shuffled/news.en-*-of-00100",
    "valid": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050",
    "test": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",
}
SHARD = re.compile(
    r"(.+)-(\d+)-of-(\d+)(.*)"
)  # train-00000-of-00002.parquet: a name, a number, how many, an ending
NEVER_PUBLISHED = (
    "news.en-00000-of-00100"  # Billion Word's first shard, which its held-out folder has instead
)


class Found(NamedTuple):
    """A file of a split."""

    split: str
    entry: str  # the name or glob that it was found by
    path: Path


def find_files(config: DataConfig, option: str = "data.path") -> dict[str, list[Path]]:
    """The files of each split. Raises UsageError, naming the `option` that helps, where one has none."""
    if any(config.files.values()):
        if config.source != "local":
            raise UsageError(
                f"data.files is not read with data={config.name}; give data=local, or leave it out."
            )
        if config.path is not None:
            log.warning("data.path is not read: data.files names the files.")
        found = expand_globs(config.files)
        check_each_is_read_once(found)
        return files_of_splits(found)
    if config.source == "shakespeare":
        return find_layout(shakespeare_folder(config.path, config.cache_dir), [TXT], option)
    layouts = layouts_of(config)
    if config.path is None:
        raise UsageError(f"data={config.name} needs {option}. {layout_remedy(layouts[0], option)}")
    folder = Path(config.path)
    if not folder.is_dir():
        raise UsageError(f"{option}: {folder} is not a folder. {layout_remedy(layouts[0], option)}")
    if config.source == "wikitext" and config.hub_config and (folder / config.hub_config).is_dir():
        folder /= config.hub_config  # a snapshot of the Hub's repository
    return find_layout(folder, layouts, option)


def layouts_of(config: DataConfig) -> list[Layout]:
    """The layouts that a source may come in."""
    if config.source == "billion_word":
        return [BILLION_WORD]
    if config.source == "local":
        return [TXT, TOKENS, *OTHER_KINDS]
    return [RAW if "raw" in (config.hub_config or "") else TOKENS, TXT, PARQUET]


def find_layout(folder: Path, layouts: list[Layout], option: str) -> dict[str, list[Path]]:
    """The files of the first layout that is whole. Raises UsageError, naming a missing file, where none is, where one
    of several parts is missing and where two splits have the same file."""
    candidates = [
        {split: sorted(filter(Path.is_file, folder.glob(name))) for split, name in layout.items()}
        for layout in layouts
    ]
    for layout, files in zip(layouts, candidates, strict=True):
        if all(files.values()):
            unread = [
                path
                for other in candidates
                if other is not files
                for path in chain(*other.values())
            ]
            if unread:
                names = list_names(list(chain(*files.values()))), list_names(unread)
                log.warning(
                    "%s: %s has several kinds of files. Read: %s; not read: %s.",
                    option,
                    folder,
                    *names,
                )
            check_each_is_read_once(
                [Found(split, "", path) for split, paths in files.items() for path in paths]
            )
            for split in SPLITS:
                problem = shard_problem(files[split]) if "*" in layout[split] else None
                if problem:
                    raise UsageError(
                        f"{option}: {folder} does not hold the whole {split} split: {problem}. Copy the published "
                        "files there, or name those to read with data=local and data.files."
                    )
            return files
    nearest = max(range(len(layouts)), key=lambda i: sum(map(bool, candidates[i].values())))
    missing = next(
        name for split, name in layouts[nearest].items() if not candidates[nearest][split]
    )
    present = list_names(sorted(folder.iterdir()))
    remedy = layout_remedy(layouts[nearest], option)
    if (folder / missing).is_symlink() or (folder / missing).exists():
        raise UsageError(
            f"{option}: {folder / missing} is no file, or a link to none. Put the file itself there."
        )
    raise UsageError(f"{option}: no {missing} in {folder} (found: {present}). {remedy}")


def layout_remedy(layout: Layout, option: str = "data.path") -> str:
    template = layout["train"].replace("train", "{}", 1)
    alike = all(template.format(split) == name for split, name in layout.items())
    wanted = template.format("{train,valid,test}") if alike else ", ".join(layout.values())
    return f"Set {option} to a folder with {wanted}."


def expand_globs(patterns: dict[str, list[str]]) -> list[Found]:
    """The files of `data.files`, in order. Raises UsageError for a wrong split or a glob without a file, and warns of
    globs that find some of the parts of a whole."""
    if set(patterns) != set(SPLITS):
        raise UsageError(
            f"data.files has the splits {', '.join(patterns)}; give train, valid and test."
        )
    found = []
    for split, globs in patterns.items():
        for pattern in globs or ["(nothing)"]:
            path = Path(pattern)
            paths = (
                [path] if path.exists() else map(Path, sorted(glob.glob(pattern, recursive=True)))
            )
            matches = list(filter(Path.is_file, paths))
            if not matches:
                raise UsageError(
                    f"data.files.{split}: no file matches {pattern}. Give text files or globs of them."
                )
            found += [Found(split, pattern, match) for match in matches]
        parts = [file for file in found if file.split == split]
        by_globs = any(file.path != Path(file.entry) for file in parts)
        problem = shard_problem([file.path for file in parts]) if by_globs else None
        if problem:
            log.warning("data.files.%s does not hold the whole: %s.", split, problem)
    return found


def files_of_splits(found: list[Found]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in found:
        files[file.split].append(file.path)
    return files


def check_each_is_read_once(found: list[Found]) -> None:
    """Raise UsageError for a file that two splits have, or one split twice, whatever its names: links to it are it.

    A file that is written out twice, with the same words, is meant: a warning names it.
    """
    first: dict[tuple[int, int], Found] = {}
    for file in found:
        stat = file.path.stat()
        other = first.setdefault((stat.st_dev, stat.st_ino), file)
        if other is file:
            continue
        if other.split == file.split:
            message = f"{file.path} is twice in the {file.split} split"
        else:
            message = (
                f"{file.path} is in the {file.split} split and also in the {other.split} split"
            )
        if other.path != file.path:
            message += f", as {other.path}"
        written_out = file.path == Path(file.entry)
        if written_out and other.entry == file.entry:
            log.warning("data.files: %s.", message)
            continue
        found_by = f" (found by {other.entry} and {file.entry})" if file.entry else ""
        raise UsageError(f"data: {message}{found_by}. Give each split files of its own, each once.")


def shard_problem(paths: list[Path]) -> str | None:
    """What is wrong with files that are called parts of a whole, as train-00000-of-00002.parquet is; None where all
    parts are there. Numbers start at 0 or at 1."""
    wholes: dict[tuple[Path, str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for path in paths:
        if match := SHARD.fullmatch(path.name):
            name, number, total, ending = match.groups()
            wholes[path.parent, name, ending][total].add(int(number))
    for (_, name, ending), parts in wholes.items():
        if len(parts) > 1:
            return (
                f"{name}-*{ending} are parts of {' and of '.join(sorted(parts))}, of two versions"
            )
        for total, numbers in parts.items():
            missing = list(islice(missing_names(name, numbers, total, ending), 4))
            if missing:
                more = ", ..." if len(missing) > 3 else ""
                return f"{len(numbers)} of {int(total)} parts are there, missing are {', '.join(missing[:3])}{more}"
    return None


def missing_names(name: str, numbers: set[int], total: str, ending: str) -> Iterator[str]:
    """The names of the parts that are not there."""
    start = 1 if int(total) in numbers else 0
    for number in range(start, start + int(total)):
        missing = f"{name}-{number:0{len(total)}}-of-{total}{ending}"
        if number not in numbers and missing != NEVER_PUBLISHED:
            yield missing


def list_names(paths: list[Path]) -> str:
    shown = [path.name for path in paths[:5]]
    return ", ".join(shown + ["..."] * (len(paths) > 5)) or "nothing"
