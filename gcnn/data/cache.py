"""A cache of folders: built once, and built again if a file in one is missing or changed."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from gcnn.base.files import remove, sha256, user_path, write_atomically, write_json

VERSION = 4  # part of every key; raise it when the code makes other files of the same text
MANIFEST = "manifest.json"


def cache_root(cache_dir: str | None) -> Path:
    """The folder of the cache: `cache_dir` if given, else $GCNN_CACHE, else ~/.cache/gcnn.

    None and "" count as not given. A leading `~` is expanded, and UsageError raised, as by
    user_path. The folder is not created.
    """
    return user_path(
        cache_dir or os.environ.get("GCNN_CACHE") or "~/.cache/gcnn", "the cache; set GCNN_CACHE"
    )


def key_of(*parts: object) -> str:
    """A folder or file name of 32 hexadecimal digits: a hash of `parts` and of VERSION.

    parts: all that the cached content depends on, as values that json.dumps takes (else TypeError).
    """
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:32]


def cached(directory: Path, build: Callable[[Path], object]) -> dict[str, str]:
    """Build a folder of the cache unless it is intact; returns name -> sha256 of its files.

    build: called with a new, empty folder, into which it writes files, without subfolders. Then
    manifest.json (not among the names returned) is added and the folder renamed to `directory`, so
    that an interrupted build leaves nothing there. Parent folders are made.
    Every call hashes all files. A folder with a changed or missing file is removed and built anew.
    If another process has built it in the meantime, that folder is used.
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
    """Whether a folder has a manifest, and every file that it lists with the listed sha256.

    Reads these files. Other files in the folder do not matter. False if the folder is missing or
    not readable.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return all(sha256(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False
