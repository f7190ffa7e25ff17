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
    entry: str  # the path or glob in data.files that found it; empty: found by a layout
    path: Path


def find_files(config: DataConfig, option: str = "data.path") -> dict[str, list[Path]]:
    """The files of each split (train, valid, test), in the order in which they are read.

    They are those of data.files if it names any; load_corpus has refused it for other sources than
    "local". Otherwise they are those of the first complete layout in the folder data.path, for
    WikiText in its subfolder data.hub_config if there is one. Shakespeare's are in the cache; if
    missing, they are made there from the package in data.path or a download. WikiText is not
    downloaded.
    option: the option that sets the folder, for messages.
    Logs a warning if data.files makes data.path unused, if the folder has files of other layouts,
    and as expand_globs and check_each_is_read_once do. These two, find_layout and
    shakespeare_folder raise UsageError, and so does a data.path that is not set or no folder
    (except for Shakespeare). Raises OSError if a folder may not be read, or the cache of
    Shakespeare cannot be written.
    """
    if any(config.files.values()):
        if config.path is not None:
            log.warning("data.path is not read: data.files names the files.")
        found = expand_globs(config.files)
        check_each_is_read_once(found)
        return files_of_splits(found)
    if config.source == "shakespeare":
        folder = shakespeare_folder(config.path, config.cache_dir, option)
        return find_layout(folder, [TXT], option)
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
    """The layouts in which a source's files are looked for, in order of preference.

    Not for Shakespeare, whose folder shakespeare_folder makes.
    """
    if config.source == "billion_word":
        return [BILLION_WORD]
    if config.source == "local":
        return [TXT, TOKENS, *OTHER_KINDS]
    # WikiText
    return [RAW if "raw" in (config.hub_config or "") else TOKENS, TXT, PARQUET]


def find_layout(folder: Path, layouts: list[Layout], option: str) -> dict[str, list[Path]]:
    """split -> its files, sorted, in the first layout for which every split has a file.

    folder: an existing one. option: the option that sets it, for messages.
    Logs a warning if the folder has files of other layouts too.
    Raises UsageError if no layout is complete; if the first complete one lacks a shard or has
    shards of two versions; and if two of its files are links to the same one. Raises OSError if the
    folder may not be read.
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

    raise no_layout(folder, layouts, candidates, option)


def no_layout(
    folder: Path, layouts: list[Layout], candidates: list[dict[str, list[Path]]], option: str
) -> UsageError:
    """The error, to be raised, for a folder in which no layout is complete.

    It names a missing file of the layout of which most splits are there. candidates: what the
    folder has of each layout, as split -> files. option: the option that sets the folder.
    """
    splits_found = []
    for files in candidates:
        splits_found.append(sum(1 for paths in files.values() if paths))
    closest = splits_found.index(max(splits_found))
    layout = layouts[closest]
    files = candidates[closest]
    missing = next(name for split, name in layout.items() if not files[split])
    if (folder / missing).is_symlink() or (folder / missing).exists():
        return UsageError(
            f"{option}: {folder / missing} is not a file, or is a link to nothing. "
            "Put the file itself there."
        )
    present = list_names(sorted(folder.iterdir()))
    remedy = layout_remedy(layout, option)
    return UsageError(f"{option}: no {missing} in {folder} (found: {present}). {remedy}")


def warn_of_unread_files(
    files: dict[str, list[Path]], others: list[dict[str, list[Path]]], where: str
) -> None:
    """Log a warning if there are files of other layouts, which are not read.

    files: those that are read, by split. others: the same of each other layout, empty lists where
    it has none. where: names the folder in the warning.
    """
    read = list(chain(*files.values()))
    unread = []
    for other in others:
        unread += chain(*other.values())
    if unread:
        names = list_names(read), list_names(unread)
        log.warning("%s has several kinds of files. Read: %s; not read: %s.", where, *names)


def check_layout(layout: Layout, files: dict[str, list[Path]], folder: Path, option: str) -> None:
    """Raise UsageError if a file would be read twice, or shards are missing or of two versions.

    files: those of the layout in `folder`, by split, for all three splits. option: the option that
    sets the folder, for the message. Only splits that the layout finds by a glob can have shards.
    """
    found = []
    for split, paths in files.items():
        found += [Found(split, "", path) for path in paths]
    check_each_is_read_once(found)
    for split in SPLITS:
        if "*" not in layout[split]:
            continue
        if problem := shard_problem(files[split]):
            raise UsageError(
                f"{option}: {folder} does not hold the whole {split} split: {problem}. Copy the "
                "published files there, or name those to read with data=local and data.files."
            )


def layout_remedy(layout: Layout, option: str) -> str:
    """A sentence for messages: "Set OPTION to a folder with {train,valid,test}.txt."

    The names are those of the layout, listed one by one if they differ in more than the split.
    """
    template = layout["train"].replace("train", "{}", 1)
    wanted = template.format("{train,valid,test}")
    if any(template.format(split) != name for split, name in layout.items()):
        wanted = ", ".join(layout.values())
    return f"Set {option} to a folder with {wanted}."


def expand_globs(patterns: dict[str, list[str]]) -> list[Found]:
    """The files that data.files names: by split and entry in their order, those of a glob sorted.

    patterns: split -> paths or globs, relative to the current folder; `**` is any depth. A path
    that exists is not read as a glob. The same file may be found twice.
    Logs a warning if a split lacks shards (warn_of_missing_shards). Raises UsageError if the splits
    are not train, valid and test, or one has no entry; and UsageError and OSError as
    matching_files does.
    """
    if set(patterns) != set(SPLITS):
        raise UsageError(
            f"data.files has the splits {', '.join(patterns)}; give train, valid and test."
        )
    found = []
    for split, globs in patterns.items():
        of_split = []
        for pattern in globs or ["(nothing)"]:  # matches no file, which is then the error
            of_split += [Found(split, pattern, path) for path in matching_files(split, pattern)]
        warn_of_missing_shards(split, of_split)
        found += of_split
    return found


def matching_files(split: str, pattern: str) -> list[Path]:
    """The files that an entry of data.files names, sorted; at least one.

    pattern: a path or a glob, as in expand_globs. split: for messages. Other things than files that
    a glob matches, as folders, are left out. Raises UsageError if there is no file, or a link to
    nothing; OSError if a folder that the path names may not be searched. A folder that only a
    wildcard matches, and that may not be searched, counts as empty.
    """
    paths = [pattern]
    if not Path(pattern).exists():
        paths = sorted(glob.glob(pattern, recursive=True))
    for path in paths:
        if Path(path).is_symlink() and not Path(path).exists():
            raise UsageError(
                f"data.files.{split}: {path} is a link to nothing. Put the file itself there, or "
                "remove the link."
            )
    files = [Path(path) for path in paths if Path(path).is_file()]
    if not files:
        raise UsageError(
            f"data.files.{split}: no file matches {pattern}. Give text files or globs of them."
        )
    return files


def warn_of_missing_shards(split: str, found: list[Found]) -> None:
    """Log a warning if shards of a split are missing or of two versions, and a glob found any file.

    found: all files of the split. Without a glob among their entries nothing is checked: a user who
    names every file may leave some out; a glob is meant to find all.
    """
    if all(file.path == Path(file.entry) for file in found):  # no globs
        return
    if problem := shard_problem([file.path for file in found]):
        log.warning("data.files.%s does not hold the whole: %s.", split, problem)


def files_of_splits(found: list[Found]) -> dict[str, list[Path]]:
    """split -> its paths, in the order of `found`; an empty list for a split without files."""
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in found:
        files[file.split].append(file.path)
    return files


def check_each_is_read_once(found: list[Found]) -> None:
    """Raise UsageError for a file that is in two splits, or twice in one, also by way of links.

    found: existing files of all splits. If data.files itself lists a path (not a glob) again,
    spelled the same, in one split or in two, this is intended: only a warning is logged.
    """
    first: dict[tuple[int, int], Found] = {}  # device and inode -> where the file came first
    for file in found:
        stat = file.path.stat()
        other = first.setdefault((stat.st_dev, stat.st_ino), file)
        if other is file:
            continue
        message = repetition(file, other)
        listed_twice = file.entry == other.entry and file.path == Path(file.entry)  # not a glob
        if listed_twice:
            log.warning("data.files: %s.", message)
            continue
        found_by = f" (found by {other.entry} and {file.entry})" if file.entry else ""
        raise UsageError(f"data: {message}{found_by}. Give each split files of its own, each once.")


def repetition(file: Found, other: Found) -> str:
    """A clause for messages that says where a file is and that it was found before, as `other`."""
    if other.split == file.split:
        clause = f"{file.path} is twice in the {file.split} split"
    else:
        clause = f"{file.path} is in the {file.split} split and also in the {other.split} split"
    if other.path != file.path:
        clause += f", as {other.path}"
    return clause


def shard_problem(paths: list[Path]) -> str | None:
    """What is wrong with the shards of a split, as a clause for a message; None: nothing.

    paths: its files. Those named as train-00000-of-00002.parquet are shards, numbered from 0 or
    from 1; others are ignored. Shards of the same folder, name and ending are a set. A problem is a
    set with missing shards (see missing_names) or with different totals. Only the first is
    returned.
    """
    # (folder, name, ending) -> total, as written -> numbers that are there.
    sets: dict[tuple[Path, str, str], dict[str, set[int]]] = {}
    for path in paths:
        if match := SHARD.fullmatch(path.name):
            name, number, total, ending = match.groups()
            totals = sets.setdefault((path.parent, name, ending), {})
            totals.setdefault(total, set()).add(int(number))

    for (_, name, ending), totals in sets.items():  # at least one total each
        if len(totals) > 1:
            listed = " and of ".join(sorted(totals))
            return f"{name}-*{ending} are parts of {listed}, of two versions"
        [(total, numbers)] = totals.items()
        # Three are shown; a fourth says whether there are more. There may be billions.
        missing = list(islice(missing_names(name, numbers, total, ending), 4))
        if missing:
            listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            return f"{len(numbers)} of {int(total)} parts are there, missing are {listed}"
    return None


def missing_names(name: str, numbers: set[int], total: str, ending: str) -> Iterator[str]:
    """The names of the missing shards of a set, in order, as they would be written.

    numbers: of those that are there. total: with leading zeros, as in the names. Counting starts
    at 1 if the shard with the number `total` is there, otherwise at 0. A shard of Billion Word that
    was never published is not missing.
    """
    start = 1 if int(total) in numbers else 0
    for number in range(start, start + int(total)):
        missing = f"{name}-{number:0{len(total)}}-of-{total}{ending}"
        if number not in numbers and missing != NEVER_PUBLISHED:
            yield missing


def list_names(paths: list[Path]) -> str:
    """The names of the first five files, with "..." if there are more; "nothing" for none."""
    if not paths:
        return "nothing"
    names = [path.name for path in paths[:5]]
    if len(paths) > 5:
        names.append("...")
    return ", ".join(names)
