"""A cache of folders: built once, and built again if a file in one is missing or changed."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from gcnn.base.files import remove, sha256, user_path, write_atomically, write_json

VERSION = 3  # part of every key; raise it when the code makes other files of the same text
MANIFEST = "manifest.json"


def cache_root(cache_dir: str | None) -> Path:
    """The folder of the cache: `cache_dir` if given, else $GCNN_CACHE, else ~/.cache/gcnn.

    It may not exist yet. Raises UsageError if `~` is used and the user has no home folder.
    """
    return user_path(
        cache_dir or os.environ.get("GCNN_CACHE") or "~/.cache/gcnn", "the cache; set GCNN_CACHE"
    )


def key_of(*parts: object) -> str:
    """A folder or file name, 32 hexadecimal digits, for what this code makes from `parts`.

    parts: all that the content depends on, as values that JSON has; equal parts give equal names.
    """
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:32]


def cached(directory: Path, build: Callable[[Path], object]) -> dict[str, str]:
    """Fill a folder of the cache unless it is there and intact; returns file name -> sha256.

    build: called with a new, empty folder, into which it writes files, without subfolders. The
    folder is then renamed to `directory`, so that an interrupted build leaves nothing there. If
    another process was faster, its folder is used.
    Raises OSError if the folder cannot be written, and whatever `build` raises.
    """

    def write(aside: Path) -> None:
        aside.mkdir(parents=True)
        build(aside)
        write_json(aside / MANIFEST, {path.name: sha256(path) for path in sorted(aside.iterdir())})

    if not intact(directory):
        remove(directory)
        try:
            write_atomically(directory, write)
        except OSError:
            if not intact(directory):  # otherwise another process was faster
                raise
    return json.loads((directory / MANIFEST).read_bytes())


def intact(directory: Path) -> bool:
    """Whether a folder has a manifest and the sha256 of every file listed in it is right."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return all(sha256(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False
