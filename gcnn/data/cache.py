"""Folders that are made once and used again: whole and unchanged, or made anew."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from gcnn.base.files import remove, sha256, user_path, write_atomically, write_json

VERSION = 3  # part of every key: raise it when the same text would give other files
MANIFEST = "manifest.json"


def cache_root(cache_dir: str | None) -> Path:
    """The folder of the cache: the one given, $GCNN_CACHE, or ~/.cache/gcnn."""
    return user_path(
        cache_dir or os.environ.get("GCNN_CACHE") or "~/.cache/gcnn", "the cache; set GCNN_CACHE"
    )


def key_of(*parts: object) -> str:
    """A short name for what this version of the code makes from `parts`."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:32]


def cached(directory: Path, build: Callable[[Path], object]) -> dict[str, str]:
    """Have `build` fill `directory` unless it is there and intact; returns the sha256 of each of its files."""

    def write(aside: Path) -> None:
        aside.mkdir(parents=True)
        build(aside)
        write_json(aside / MANIFEST, {path.name: sha256(path) for path in sorted(aside.iterdir())})

    if not intact(directory):
        remove(directory)
        try:
            write_atomically(directory, write)
        except OSError:
            if not intact(directory):  # else another process was sooner
                raise
    return json.loads((directory / MANIFEST).read_bytes())


def intact(directory: Path) -> bool:
    """Whether a folder has a manifest, and every file the contents that it lists."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return all(sha256(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False
