"""Find the files of a corpus: in the layouts in which corpora are published, or by data.files.

`find_files` has either way: `find_layout` looks in a folder for the first layout that is complete,
`expand_globs` finds the files that data.files names. Both check that shards are complete
(`shard_problem`) and that no file is read twice (`check_each_is_read_once`).
"""

import glob
import logging
import re
from collections.abc import Iterator
from itertools import chain, islice, product
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
OTHER_KINDS: list[Layout] = []  # train.jsonl, ..., train.parquet, ..., train.txt.gz, ...
for kind in (*JSON_SUFFIXES, *PARQUET_SUFFIXES):
    OTHER_KINDS.append({split: split + kind for split in SPLITS})
for kind, compression in product((".txt", *JSON_SUFFIXES), COMPRESSED_SUFFIXES):
    OTHER_KINDS.append({split: split + kind + compression for split in SPLITS})
PARQUET: Layout = {split: f"{name}-*.parquet" for split, name in HUB_SPLITS.items()}
# The literature tests on the first held-out shard; the second one is the validation split here.
BILLION_WORD: Layout = {
    "train": "training-monolingual.tokenized.shuffled/news.en-*-of-00100",
    "valid": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050",
    "test": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",
}
# Name, number, total and ending of a shard, as train-00000-of-00002.parquet.
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(.*)")
# Billion Word's first training shard does not exist: it became the held-out folder.
NEVER_PUBLISHED = "news.en-00000-of-00100"


class Found(NamedTuple):
    """A file of a split, and how it was found."""

    split: str
    entry: str  # the path or glob in data.files; empty: it is part of a layout
    path: Path


def find_files(config: DataConfig, option: str = "data.path") -> dict[str, list[Path]]:
    """The files of each split, in the order in which they are read.

    option: the option that sets the folder, for messages. Shakespeare is downloaded if it is not
    cached. Logs a warning if some of the files that it sees are not read.
    Raises UsageError if a split has no files or incomplete ones, or if a file would be read twice.
    """
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
    """The layouts in which a source is looked for, in order of preference."""
    if config.source == "billion_word":
        return [BILLION_WORD]
    if config.source == "local":
        return [TXT, TOKENS, *OTHER_KINDS]
    return [RAW if "raw" in (config.hub_config or "") else TOKENS, TXT, PARQUET]


def find_layout(folder: Path, layouts: list[Layout], option: str) -> dict[str, list[Path]]:
    """The files of each split in the first layout for which every split has a file.

    folder: an existing one. option: the option that sets it, for messages.
    Logs a warning if the folder has files of other layouts too.
    Raises UsageError if no layout is complete, naming a missing file of the closest one, if a shard
    is missing and if two splits have the same file.
    """
    # What the folder has of each layout: split -> files.
    candidates = []
    for layout in layouts:
        files = {}
        for split, name in layout.items():
            files[split] = sorted(path for path in folder.glob(name) if path.is_file())
        candidates.append(files)

    # The first that is complete.
    for layout, files in zip(layouts, candidates, strict=True):
        if all(files.values()):
            others = [other for other in candidates if other is not files]
            warn_of_unread_files(files, others, f"{option}: {folder}")
            check_layout(layout, files, folder, option)
            return files

    # None is: name a missing file of the layout of which most splits are there.
    splits_found = [sum(1 for paths in files.values() if paths) for files in candidates]
    closest = splits_found.index(max(splits_found))
    layout = layouts[closest]
    missing = next(layout[split] for split in layout if not candidates[closest][split])
    if (folder / missing).is_symlink() or (folder / missing).exists():
        raise UsageError(
            f"{option}: {folder / missing} is not a file, or is a link to nothing. "
            "Put the file itself there."
        )
    present = list_names(sorted(folder.iterdir()))
    remedy = layout_remedy(layout, option)
    raise UsageError(f"{option}: no {missing} in {folder} (found: {present}). {remedy}")


def warn_of_unread_files(
    files: dict[str, list[Path]], others: list[dict[str, list[Path]]], where: str
) -> None:
    """Log a warning if files of other layouts lie beside those that are read."""
    read = list(chain(*files.values()))
    unread = []
    for other in others:
        unread += chain(*other.values())
    if unread:
        names = list_names(read), list_names(unread)
        log.warning("%s has several kinds of files. Read: %s; not read: %s.", where, *names)


def check_layout(layout: Layout, files: dict[str, list[Path]], folder: Path, option: str) -> None:
    """Raise UsageError if two splits have the same file or shards of a split are missing."""
    found = []
    for split, paths in files.items():
        found += [Found(split, "", path) for path in paths]
    check_each_is_read_once(found)
    for split in SPLITS:
        problem = shard_problem(files[split]) if "*" in layout[split] else None
        if problem:
            raise UsageError(
                f"{option}: {folder} does not hold the whole {split} split: {problem}. Copy the "
                "published files there, or name those to read with data=local and data.files."
            )


def layout_remedy(layout: Layout, option: str = "data.path") -> str:
    """A sentence that says which files the folder must have: train.txt, valid.txt and test.txt."""
    template = layout["train"].replace("train", "{}", 1)
    alike = all(template.format(split) == name for split, name in layout.items())
    wanted = template.format("{train,valid,test}") if alike else ", ".join(layout.values())
    return f"Set {option} to a folder with {wanted}."


def expand_globs(patterns: dict[str, list[str]]) -> list[Found]:
    """The files that data.files names: by split and entry in their order, those of a glob sorted.

    patterns: split -> paths or globs; a path that exists is not read as a glob.
    Logs a warning if globs find only some of the shards of a corpus.
    Raises UsageError if the splits are not train, valid and test, if one has no entry, or if an
    entry matches no file or a link to nothing.
    """
    if set(patterns) != set(SPLITS):
        raise UsageError(
            f"data.files has the splits {', '.join(patterns)}; give train, valid and test."
        )
    found = []
    for split, globs in patterns.items():
        for pattern in globs or ["(nothing)"]:
            paths = [pattern]
            if not Path(pattern).exists():
                paths = sorted(glob.glob(pattern, recursive=True))
            matches = [Path(path) for path in paths if Path(path).is_file()]
            gone = [path for path in paths if Path(path).is_symlink() and not Path(path).exists()]
            if gone:
                raise UsageError(
                    f"data.files.{split}: {gone[0]} is a link to nothing. Put the file itself "
                    "there, or remove the link."
                )
            if not matches:
                raise UsageError(
                    f"data.files.{split}: no file matches {pattern}. "
                    "Give text files or globs of them."
                )
            found += [Found(split, pattern, match) for match in matches]

        # A user who names every file may leave some out; a glob is meant to find all.
        parts = [file for file in found if file.split == split]
        by_globs = any(file.path != Path(file.entry) for file in parts)
        problem = shard_problem([file.path for file in parts]) if by_globs else None
        if problem:
            log.warning("data.files.%s does not hold the whole: %s.", split, problem)
    return found


def files_of_splits(found: list[Found]) -> dict[str, list[Path]]:
    """The paths of each split, in the same order."""
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in found:
        files[file.split].append(file.path)
    return files


def check_each_is_read_once(found: list[Found]) -> None:
    """Raise UsageError for a file that is in two splits, or twice in one, also by way of links.

    If the user wrote the same path twice in data.files, this is intended: only a warning is logged.
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
        is_path = file.path == Path(file.entry)  # not a glob
        if is_path and other.entry == file.entry:
            log.warning("data.files: %s.", message)
            continue
        found_by = f" (found by {other.entry} and {file.entry})" if file.entry else ""
        raise UsageError(f"data: {message}{found_by}. Give each split files of its own, each once.")


def shard_problem(paths: list[Path]) -> str | None:
    """Which shards of a set, named as train-00000-of-00002.parquet, are missing; None if none is.

    The answer is a clause for a message; it may also be that the shards belong to two sets with
    different totals. Files of other names are ignored. Numbers start at 0 or at 1.
    """
    # (folder, name, ending) -> total, as written -> numbers that are there.
    sets: dict[tuple[Path, str, str], dict[str, set[int]]] = {}
    for path in paths:
        if match := SHARD.fullmatch(path.name):
            name, number, total, ending = match.groups()
            totals = sets.setdefault((path.parent, name, ending), {})
            totals.setdefault(total, set()).add(int(number))

    for (_, name, ending), totals in sets.items():
        if len(totals) > 1:
            listed = " and of ".join(sorted(totals))
            return f"{name}-*{ending} are parts of {listed}, of two versions"
        [(total, numbers)] = totals.items()
        missing = list(islice(missing_names(name, numbers, total, ending), 4))
        if missing:
            listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            return f"{len(numbers)} of {int(total)} parts are there, missing are {listed}"
    return None


def missing_names(name: str, numbers: set[int], total: str, ending: str) -> Iterator[str]:
    """The names of the shards that are missing; `total` has leading zeros, as in the names."""
    start = 1 if int(total) in numbers else 0
    for number in range(start, start + int(total)):
        missing = f"{name}-{number:0{len(total)}}-of-{total}{ending}"
        if number not in numbers and missing != NEVER_PUBLISHED:
            yield missing


def list_names(paths: list[Path]) -> str:
    """The names of the first five files, for a message; "nothing" if there is none."""
    shown = [path.name for path in paths[:5]]
    return ", ".join(shown + ["..."] * (len(paths) > 5)) or "nothing"
