"""Files: atomic writes, locks, JSON, checksums, and paths as users type them."""

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from gcnn.base.errors import UsageError

log = logging.getLogger(__name__)


def user_path(path: str, use: str) -> Path:
    """A path with a leading `~` or `~name` expanded to the home folder of this user or of `name`.

    Any other path is returned as it is; a relative one stays relative. It need not exist.
    use: what the path is for and how to set another one, as "the cache; set GCNN_CACHE". The error
    message has it between "... which PATH needs for" and "to another folder".
    Side effect: an empty $HOME is removed from the environment.
    Raises UsageError if the user has no home folder, or there is no user `name`.
    """
    if os.environ.get("HOME") == "":  # `~` would become the root folder
        del os.environ["HOME"]
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = Path(path).parts[0].removeprefix("~")
        lack = f"there is no user {name}" if name else "this user has no home folder"
        raise UsageError(f"{lack}, which {path} needs for {use} to another folder.") from None


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file or folder so that, after a crash, `path` has either the old or the new content.

    write: called with a temporary path in the same folder, at which it creates the file or folder.
    The result, with all in it, is synced to disk and renamed to `path`. The parent folder must
    exist, unless `write` makes it. A file replaces a file or a link (the link's target stays); a
    folder replaces an empty folder.
    Raises OSError if anything else is at `path` or the disk fails, and whatever `write` raises. An
    OSError without a file name gets that of `path`. After an error, Ctrl-C or `run_command`'s
    signals the temporary file is removed; a killed process leaves it (.NAME.*.tmp).
    """
    # A random name: two machines that share the folder may have the same process ids.
    aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        write(aside)
        parts = [aside]
        if aside.is_dir():
            parts += aside.rglob("*")
        for part in parts:
            sync(part)
        os.replace(aside, path)
    except BaseException as error:
        remove(aside)
        # A failed write to a full disk does not name the file.
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    sync(path.parent)


def refuse_links_out(folder: Path) -> None:
    """Raise UsageError if a symbolic link at any depth below a run directory points outside of it.

    A run may come from a stranger: reading through such a link would disclose another file, and
    writing would change it. Links named `wandb` or in a folder of this name, which is never read,
    are allowed. Nothing is raised for a folder that does not exist.
    """
    for path in folder.rglob("*"):
        if not path.is_symlink() or "wandb" in path.relative_to(folder).parts:
            continue
        # realpath: before Python 3.13, Path.resolve raises RuntimeError for a loop of links.
        end = Path(os.path.realpath(path))
        if not end.is_relative_to(folder.resolve()):
            raise UsageError(
                f"{path} is a link that leads out of the run. "
                "Put the file itself there or remove it."
            )


def lock(file: TextIO) -> bool:
    """Take an exclusive lock (flock) on an open file; False if another one holds it, else True.

    Does not wait. The lock is held until the file is closed or this process ends. It belongs to the
    open file: if this process opens the path again and locks that, the result is False.
    On a file system without locks, returns True although nothing is held, and logs a warning once
    per folder.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # Lustre without -o flock, NFS without a lock daemon
        warn_of_no_locks(Path(file.name).parent, error.strerror)
    return True


@cache
def warn_of_no_locks(folder: Path, reason: str) -> None:
    """Log, once per folder and reason, that the folder's file system cannot lock files.

    reason: the system's message. Later calls with the same arguments do nothing (`@cache`).
    """
    log.warning(
        "%s: its file system has no locks (%s), so nothing keeps two processes from writing the "
        "same files there. Start one alone.",
        folder,
        reason,
    )


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of entries but not their content, to disk (fsync).

    Does nothing where the file system cannot do this: some refuse to open or sync a folder.
    Raises OSError if the disk reports a failure or is full, or if a file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise  # data may be lost
        unable = error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
        if not unable and not path.is_dir():
            raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; does nothing if there is none.

    Of a link to a file or to nothing, the link is removed; a link to a folder stays. Errors inside
    a folder are ignored, so parts of it may stay. Raises OSError if a file cannot be removed.
    """
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def to_json(value: Any, **layout: Any) -> str:
    """`value` as standard JSON; NaN and infinities, which JSON does not have, become null.

    layout: arguments for json.dumps, as `indent`. Raises TypeError for a type that it cannot write.
    """
    return json.dumps(finite_or_null(value), allow_nan=False, **layout)


def finite_or_null(value: Any) -> Any:
    """A copy of nested dictionaries and lists in which NaN and infinite floats are None.

    Tuples become lists. Keys, even NaN, and all other values are as they were, not copied.
    """
    if isinstance(value, dict):
        return {key: finite_or_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a text file in UTF-8, replacing an existing one atomically; the folder must exist.

    errors: what becomes of lone surrogates, as in str.encode. Raises UnicodeEncodeError for one if
    it is "strict", before anything is written, and as `write_atomically` does.
    """
    content = text.encode("utf-8", errors)
    write_atomically(path, lambda aside: aside.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write a value as an indented JSON file in UTF-8; NaN and infinities become null.

    An existing file is replaced, atomically; the parent folder must exist. Lone surrogates (a file
    name that is not UTF-8 has them) are written as \\u escapes, from which json.loads restores
    them. Raises OSError if the file cannot be written, TypeError for a type that JSON lacks, and
    ValueError if a dictionary has NaN or infinity as a key.
    """
    text = to_json(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text, errors="backslashreplace")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_special(path: Path) -> bool:
    """Whether a path is a device, a pipe or a socket, or a name for an open file (/dev/stdout)."""
    place = path.absolute().parent.resolve()
    if place == Path("/dev") or Path("/proc") in (place, *place.parents):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def check_output(option: str, path: Path, folder: bool = False) -> None:
    """Raise UsageError if there is a folder where a file is to be written, or a file for a folder.

    A file that exists must be a regular one: writing replaces it, a device, too (/dev/stdout).
    option: the option or key that set the path, for the message.
    folder: True for an output that is a folder, False for a file. One that exists is allowed.
    Parent folders need not exist, but none may be a file. Raises OSError if the folder, or the
    first parent that exists, may not be written or searched. Free space is not checked. Call it
    before the work whose result goes there; it leaves nothing behind.
    """
    if path.is_dir() and not folder:
        raise UsageError(f"{option}: {path} is a folder; give the path of a file.")
    if not folder and is_special(path):
        raise UsageError(f"{option}: {path} is no regular file; give the path of one.")
    folders = list(path.parents)
    if folder:
        folders.insert(0, path)
    nearest = next(part for part in folders if part.exists())
    if not nearest.is_dir():
        raise UsageError(f"{option}: {nearest} is a file; give a folder.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        error.filename = str(path)  # instead of the temporary file's
        raise
