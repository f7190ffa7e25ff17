"""Files that are whole or absent: written aside, synced, renamed. And the folder of a run, found."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from gcnn.errors import UsageError

MEMBER = "member.json"  # in the folder of a sweep's member: its number, its overrides, and why it failed


def user_path(path: str, use: str) -> Path:
    """A path in which `~` stands for the user's home. Raises UsageError, naming its `use`, where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"this user has no home folder, which {path} needs for {use} to another folder.") from None


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or folder beside `path`, sync it, and put it in the place of `path`: an interruption
    leaves what was there before. A folder must not exist yet."""
    aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")  # process numbers recur from machine to machine
    try:
        write(aside)
        for part in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
            sync(part)
        os.replace(aside, path)
    except BaseException as error:
        remove(aside)
        if isinstance(error, OSError) and error.filename is None:  # a write to a full disk does not say which
            error.filename = str(path)
        raise
    sync(path.parent)


def refuse_links_out(folder: Path) -> None:
    """Raise UsageError where a link below a run directory leads out of it: reading would tell what it points to, and
    writing would change it. (wandb's own folder is never read.)"""
    for path in folder.rglob("*"):
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
        if leads_out and "wandb" not in path.relative_to(folder).parts:
            raise UsageError(f"{path} is a link that leads out of the run. Put the file itself there or remove it.")


def taken_by(lock: TextIO) -> str | None:
    """Take a run directory's lock, which the kernel drops with this process; who holds it, where another one does."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        return lock.read().strip() or "another process"
    return None


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_run(path: str) -> Path:
    """The run directory at a path, or the newest finished run below it, which is named; `latest`: below runs/."""
    folder = Path("runs" if path == "latest" else path)
    if not path or os.path.lexists(folder / "config.yaml") or not os.path.isdir(folder):
        return folder  # its reader says what is wrong with it
    levels = ("*/" * depth for depth in range(1, 5))  # runs/<group>/<experiment>/sweep/<member>
    finished = [file.parent for level in levels for file in folder.glob(f"{level}results.json")]
    if not finished:
        found = f"{folder} is not a run directory: it has no config.yaml, and no finished run below"
        raise UsageError(f"{found}. Give the folder of a run.")
    newest = max(finished, key=lambda run: (run / "results.json").stat().st_mtime)
    print(f"run: {newest}", file=sys.stderr)
    return newest
