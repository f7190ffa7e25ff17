"""A run's folder: how it is found, who holds it, and what may not lie in it."""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from gcnn.base.errors import UsageError
from gcnn.base.files import lock
from gcnn.runs.hub import PREFIX, download_run

# The files of a run directory. (Its weights: gcnn/models/weights.py.)
CONFIG = "config.yaml"
TOKENIZER = "tokenizer"  # a folder
CHECKPOINTS = "checkpoints"  # a folder
METRICS = "metrics.jsonl"
RESULTS = "results.json"
SAMPLES = "samples.json"
LOG = "train.log"
LOCK = ".lock"
MEMBER = (
    "member.json"  # in the folder of a sweep's member: its number, its overrides, and why it failed
)

# What is pushed to the Hub of a run, besides its card, and brought from there.
PUBLISHED = [CONFIG, "model.safetensors", RESULTS, f"{TOKENIZER}/*"]


def find_run(path: str) -> Path:
    """The run directory at a path, or the newest finished run below it, which is named; `latest`: below runs/.

    `hf://user/name` is a run on the Hub, which is downloaded. Raises as download_run does.
    """
    if path.startswith(PREFIX):
        return download_run(path.removeprefix(PREFIX), PUBLISHED)
    folder = Path("runs" if path == "latest" else path)
    if path == "latest" and not folder.is_dir():
        raise UsageError(
            f"latest is the newest finished run below runs/, and there is no folder runs in {Path.cwd()}. "
            "Call it where the run was trained, or give the run's folder."
        )
    if not path or os.path.lexists(folder / CONFIG) or not os.path.isdir(folder):
        return folder  # its reader says what is wrong with it
    levels = ("*/" * depth for depth in range(1, 5))  # runs/<group>/<experiment>/sweep/<member>
    finished = [file.parent for level in levels for file in folder.glob(f"{level}results.json")]
    if not finished:
        found = f"{folder} is not a run directory: it has no config.yaml, and no finished run below"
        raise UsageError(f"{found}. Give the folder of a run.")
    newest = max(finished, key=lambda run: (run / RESULTS).stat().st_mtime)
    print(f"run: {newest}", file=sys.stderr)
    return newest


def lock_or_owner(file: TextIO) -> dict[str, Any] | None:
    """Take the lock of a run directory. Returns None, or what `write_owner` wrote of the process that holds it: empty
    where that has not written yet."""
    if lock(file):
        return None
    file.seek(0)
    try:
        owner = json.loads(file.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def write_owner(lock: TextIO) -> None:
    """Say in a lock that is held which process holds it: JSON, blanks around the number for `cut`."""
    lock.truncate(0)
    owner = {"process": os.getpid(), "host": os.uname().nodename}
    lock.write(json.dumps(owner, separators=(" , ", ": ")))
    lock.flush()


def check_run_name(option: str, run_dir: Path) -> None:
    """Raise UsageError for a run's folder whose path is not UTF-8: safetensors writes weights to no such path."""
    try:
        str(run_dir.absolute()).encode()
    except UnicodeEncodeError:
        name = str(run_dir).encode(errors="backslashreplace").decode()
        raise UsageError(
            f"{option}: the name of {name} is not UTF-8. Rename that folder or give another."
        ) from None
