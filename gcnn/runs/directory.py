"""The run directory: names of its files, finding one, and the lock that keeps others out."""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from gcnn.base.errors import UsageError
from gcnn.base.files import lock, user_path
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
MEMBER = "member.json"  # of a sweep's member: its overrides, and why it failed

# What is pushed to the Hub of a run, besides its card, and brought from there.
PUBLISHED = [CONFIG, "model.safetensors", RESULTS, f"{TOKENIZER}/*"]


def find_run(path: str) -> Path:
    """The run directory that a user means by a path.

    That is the folder itself if it has a config, otherwise the run up to four levels below it whose
    results.json is the newest; its path is then printed to stderr. `latest` stands for ./runs.
    `hf://user/name` is a run on the Hub, which is downloaded. A path that is not a folder is
    returned as it is: reading it fails with a message. An empty one is the current folder, below
    which nothing is looked for. Raises UsageError if a folder has neither a config nor a finished
    run below, for `latest` if there is no ./runs, and as `user_path` does. For a run on the Hub,
    raises what `download_run` does: UsageError or RunError.
    """
    if path.startswith(PREFIX):
        return download_run(path.removeprefix(PREFIX), PUBLISHED)
    folder = user_path("runs" if path == "latest" else path, "the run; give the path")
    if path == "latest" and not folder.is_dir():
        raise UsageError(
            "latest is the newest finished run below runs/, "
            f"and there is no folder runs in {Path.cwd()}. "
            "Call it where the run was trained, or give the run's folder."
        )
    if not path or os.path.lexists(folder / CONFIG) or not os.path.isdir(folder):
        return folder
    finished = []
    for depth in range(1, 5):  # runs/<group>/<experiment>/sweep/<member>
        for file in folder.glob("*/" * depth + RESULTS):
            finished.append(file.parent)
    if not finished:
        found = f"{folder} is not a run directory: it has no config.yaml, and no finished run below"
        raise UsageError(f"{found}. Give the folder of a run.")
    newest = max(finished, key=finished_at)
    print(f"run: {newest}", file=sys.stderr)
    return newest


def finished_at(run: Path) -> float:
    """When a finished run wrote its results, in seconds since 1970."""
    return (run / RESULTS).stat().st_mtime


def checkpoints_of(run_dir: Path) -> list[Path]:
    """The folders of a run's checkpoints, lowest step first; empty if there are none.

    They are named step_<n>; what has a longer name, as a copy of one, is left out.
    """
    found = []
    for path in (run_dir / CHECKPOINTS).glob("step_*"):
        if path.name.removeprefix("step_").isdecimal():
            found.append(path)
    return sorted(found)


def lock_or_owner(file: TextIO) -> dict[str, Any] | None:
    """Take the lock of a run directory without waiting; None if this process now holds it.

    Otherwise returns what the file says of the process that holds the lock: `process` (its id) and
    `host`. Until that process has called `write_owner`, it is an empty dictionary, or what is there
    of an earlier process that was killed: one that ends by itself has to empty the file.
    file: the lock file, opened to read and write; the lock is held until it is closed or this
    process ends. Where the file system has no locks, a warning is logged, nothing is held, and the
    result is None.
    """
    if lock(file):
        return None
    file.seek(0)
    try:
        owner = json.loads(file.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def write_owner(file: TextIO) -> None:
    """Replace a lock file's content with this process's id and host, as JSON without a newline.

    The keys are `process` and `host`. There are blanks around the id, so that a shell can `cut` it
    out. file: opened with "a+"; this process holds its lock.
    """
    file.truncate(0)
    owner = {"process": os.getpid(), "host": os.uname().nodename}
    file.write(json.dumps(owner, separators=(" , ", ": ")))
    file.flush()


def check_run_name(option: str, run_dir: Path) -> None:
    """Raise UsageError if the absolute path of a run is not UTF-8: safetensors cannot write there.

    option: the option or key that set the path, for the message.
    """
    try:
        str(run_dir.absolute()).encode()
    except UnicodeEncodeError:
        name = str(run_dir.absolute()).encode(errors="backslashreplace").decode()
        raise UsageError(
            f"{option}: the name of {name} is not UTF-8. Rename that folder or give another."
        ) from None
