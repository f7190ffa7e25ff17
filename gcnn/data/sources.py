"""Where the files of a corpus are: the layouts in which corpora are published, and one's own files."""

import glob
import logging
from itertools import chain
from pathlib import Path

from gcnn.config import DataConfig
from gcnn.data.shakespeare import shakespeare_folder
from gcnn.data.tables import COMPRESSED_SUFFIXES, JSON_SUFFIXES, PARQUET_SUFFIXES
from gcnn.errors import UsageError

log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}

Layout = dict[str, str]  # split -> file name or glob in the corpus's folder
TOKENS: Layout = {split: f"wiki.{split}.tokens" for split in SPLITS}
RAW: Layout = {split: f"wiki.{split}.raw" for split in SPLITS}
TXT: Layout = {split: f"{split}.txt" for split in SPLITS}
PACKED = [kind + packed for kind in (".txt", *JSON_SUFFIXES) for packed in COMPRESSED_SUFFIXES]
OTHER_KINDS: list[Layout] = [
    {split: split + kind for split in SPLITS} for kind in (*JSON_SUFFIXES, *PARQUET_SUFFIXES, *PACKED)
]
PARQUET: Layout = {split: f"{name}-*.parquet" for split, name in HUB_SPLITS.items()}
BILLION_WORD: Layout = {  # the literature's test set is the first held-out shard; the second one validates
    "train": "training-monolingual.tokenized.shuffled/news.en-*-of-00100",
    "valid": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050",
    "test": "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",
}


def find_files(config: DataConfig, option: str = "data.path") -> dict[str, list[Path]]:
    """The files of each split. Raises UsageError, naming the `option` that helps, where one has none."""
    if any(config.files.values()):
        if config.source != "local":
            raise UsageError(f"data.files is not read with data={config.name}; give data=local, or leave it out.")
        if config.path is not None:
            log.warning("data.path is not read: data.files names the files.")
        return expand_globs(config.files)
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
    """The files of the first layout that is whole. Raises UsageError, naming a missing file, where none is."""
    candidates = [
        {split: sorted(filter(Path.is_file, folder.glob(name))) for split, name in layout.items()} for layout in layouts
    ]
    for files in candidates:
        if all(files.values()):
            unread = [path for other in candidates if other is not files for path in chain(*other.values())]
            if unread:
                names = list_names(list(chain(*files.values()))), list_names(unread)
                log.warning("%s: %s has several kinds of files. Read: %s; not read: %s.", option, folder, *names)
            return files
    nearest = max(range(len(layouts)), key=lambda i: sum(map(bool, candidates[i].values())))
    missing = next(name for split, name in layouts[nearest].items() if not candidates[nearest][split])
    present = list_names(sorted(folder.iterdir()))
    remedy = layout_remedy(layouts[nearest], option)
    if (folder / missing).is_symlink() or (folder / missing).exists():
        raise UsageError(f"{option}: {folder / missing} is no file, or a link to none. Put the file itself there.")
    raise UsageError(f"{option}: no {missing} in {folder} (found: {present}). {remedy}")


def layout_remedy(layout: Layout, option: str = "data.path") -> str:
    template = layout["train"].replace("train", "{}", 1)
    alike = all(template.format(split) == name for split, name in layout.items())
    wanted = template.format("{train,valid,test}") if alike else ", ".join(layout.values())
    return f"Set {option} to a folder with {wanted}."


def expand_globs(patterns: dict[str, list[str]]) -> dict[str, list[Path]]:
    """The files of `data.files`, in order. Raises UsageError for a wrong split or a glob without a file."""
    if set(patterns) != set(SPLITS):
        raise UsageError(f"data.files has the splits {', '.join(patterns)}; give train, valid and test.")
    files: dict[str, list[Path]] = {}
    for split, globs in patterns.items():
        files[split] = []
        for pattern in globs or ["(nothing)"]:
            path = Path(pattern)
            paths = [path] if path.exists() else map(Path, sorted(glob.glob(pattern, recursive=True)))
            matches = list(filter(Path.is_file, paths))
            if not matches:
                raise UsageError(f"data.files.{split}: no file matches {pattern}. Give text files or globs of them.")
            files[split] += matches
    return files


def list_names(paths: list[Path]) -> str:
    shown = [path.name for path in paths[:5]]
    return ", ".join(shown + ["..."] * (len(paths) > 5)) or "nothing"
