"""Files that are whole or absent: written aside, synced, renamed. Locks, JSON, and paths as users type them."""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from gcnn.base.errors import UsageError

log = logging.getLogger(__name__)


def user_path(path: str, use: str) -> Path:
    """A path in which `~` stands for the user's home. Raises UsageError, naming its `use`, where there is none."""
    if os.environ.get("HOME") == "":  # is as unset; it would stand for the root folder
        del os.environ["HOME"]
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"this user has no home folder, which {path} needs for {use} to another folder."
        ) from None


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or folder beside `path`, sync it, and put it in the place of `path`: an interruption
    leaves what was there before. A folder must not exist yet."""
    aside = path.with_name(
        f".{path.name}.{os.urandom(4).hex()}.tmp"
    )  # process numbers recur from machine to machine
    try:
        write(aside)
        for part in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
            sync(part)
        os.replace(aside, path)
    except BaseException as error:
        remove(aside)
        if (
            isinstance(error, OSError) and error.filename is None
        ):  # a write to a full disk does not say which
            error.filename = str(path)
        raise
    sync(path.parent)


def refuse_links_out(folder: Path) -> None:
    """Raise UsageError where a link below a run directory leads out of it: reading would tell what it points to, and
    writing would change it. (wandb's own folder is never read.)"""
    for path in folder.rglob("*"):
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())
        if leads_out and "wandb" not in path.relative_to(folder).parts:
            raise UsageError(
                f"{path} is a link that leads out of the run. Put the file itself there or remove it."
            )


def lock(file: TextIO) -> bool:
    """Take the lock of an open file; the kernel drops it when the file is closed or this process ends. Returns False
    where another process holds it. On a file system without locks nothing is held, which a warning says once a folder,
    and the caller goes on as if it held the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # Lustre without -o flock, NFS without a lock daemon
        warn_of_no_locks(Path(file.name).parent, error.strerror)
    return True


@cache
def warn_of_no_locks(folder: Path, reason: str) -> None:
    log.warning(
        "%s: its file system has no locks (%s), so nothing keeps two processes from writing the same files there. "
        "Start one alone.", folder, reason,
    )  # fmt: skip


def sync(path: Path) -> None:
    """Have a file or folder written to its disk, as far as the file system can: some cannot sync a folder, or refuse
    to open it. Raises OSError where the disk says that it failed."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        unable = error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
        lost = error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT)
        if lost or not (unable or path.is_dir()):
            raise


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def to_json(value: Any, **layout: Any) -> str:
    """`value` as JSON that every reader takes: a number that is not finite, which JSON lacks, is null. `layout` goes to
    json.dumps."""
    return json.dumps(finite_or_null(value), allow_nan=False, **layout)


def finite_or_null(value: Any) -> Any:
    """A copy of dictionaries, lists and plain values with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite_or_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically. What is no Unicode, as a folder's name may be, is escaped and read back as it was."""
    content = (to_json(value, indent=2, ensure_ascii=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )
    write_atomically(path, lambda aside: aside.write_bytes(content))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(option: str, path: Path, folder: bool = False) -> None:
    """Raise UsageError for an output that cannot be written where it is asked for, before the work for it begins."""
    if path.is_dir() and not folder:
        raise UsageError(f"{option}: {path} is a folder; give the path of a file.")
    for part in [path, *path.parents] if folder else path.parents:
        if part.is_file():
            raise UsageError(f"{option}: {part} is a file; give a folder.")
