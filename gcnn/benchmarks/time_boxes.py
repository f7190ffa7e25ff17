"""Parts of a long measurement, each in its own process with its own time limit.

A part that fails, hangs or is killed does not stop the others.
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn.base.errors import one_line
from gcnn.base.files import write_json
from gcnn.base.provenance import made_with

FORKS = multiprocessing.get_context("fork")  # what was imported is there; no GPU was asked for yet
GRACE = 5.0  # seconds that a process has between being asked to end and being killed


class Notes:
    """What a part has found so far, written to a JSON file with each addition.

    A part that is killed has then lost nothing.
    """

    def __init__(self, path: Path):
        self.path = path
        self.content: dict[str, Any] = {}

    def add(self, **entries: Any) -> None:
        """Add entries, or replace those of the same names, and write the whole file atomically."""
        self.content |= entries
        write_json(self.path, self.content)


@dataclass(frozen=True)
class Part:
    """A part of a measurement.

    measure: called in the part's own process with the notes to fill and the seconds that it has.
    """

    name: str  # of its JSON file
    share: float  # of the time, relative to the shares of the other parts
    measure: Callable[[Notes, float], None]


def run_parts(
    parts: list[Part], seconds: float, folder: Path, least: float = 0.0
) -> dict[str, str]:
    """Run parts one after the other, each in its own forked process (`run_part`).

    This process must not have asked torch for a GPU before.
    seconds: for all parts together, divided by their shares. Time that a part does not use goes to
    those after it. All together may take a little longer, since ending a part takes up to GRACE.
    least: seconds that each part has in any case, even if all then take longer than `seconds`.
    Writes NAME.json of each part into `folder`, which must exist, in place of an older one, and
    prints a line for each. Returns by name "done", or why the part failed. Names must differ.
    """
    deadline = time.monotonic() + seconds
    outcomes = {}
    for number, part in enumerate(parts):
        left = max(1.0, deadline - time.monotonic())
        shares_left = sum(later.share for later in parts[number:])
        limit = max(least, left * part.share / shares_left)
        path = folder / f"{part.name}.json"
        start = time.monotonic()
        outcomes[part.name] = run_part(part, path, limit)
        took = time.monotonic() - start
        print(f"{part.name:10} {took:5.1f} of {limit:.1f} s: {outcomes[part.name]}", flush=True)
    return outcomes


def run_part(part: Part, path: Path, seconds: float) -> str:
    """Run one part in a forked process; returns "done", or why it failed.

    After `seconds` the process is terminated, and killed GRACE seconds later. The part's JSON is
    `path`, in place of an older file, with the entries of `measure_and_write` and of the part. If
    the part failed, the reason is added as `failed`. This process must not have asked torch for a
    GPU before: CUDA may not work in a fork of one that has.
    """
    path.unlink(missing_ok=True)
    reader, writer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=measure_and_write, args=(part, path, seconds, writer))
    process.start()
    writer.close()
    process.join(seconds)
    if process.is_alive():
        process.terminate()
        process.join(GRACE)
        process.kill()
        process.join()
        reason = f"its {seconds:.1f} seconds ended before it did"
    else:
        # A process that was killed, for memory say, has said nothing.
        try:
            reason = reader.recv()
        except EOFError:
            reason = f"its process ended with exit code {process.exitcode}"
    reader.close()
    if reason is not None:
        found = read_notes(path)
        write_json(path, {**found, "failed": reason})
    return reason or "done"


def measure_and_write(part: Part, path: Path, seconds: float, outcome: Any) -> None:
    """What a part's process does: note its provenance, measure, and send the outcome.

    path: of the part's JSON, which begins with `part` (its name), `seconds_given` and the entries
    of `made_with`. outcome: the end of a pipe to send to: None if the part went well, else the
    error as text. An Exception of the part does not leave this function.
    """
    try:
        notes = Notes(path)
        notes.add(part=part.name, seconds_given=seconds, **made_with())
        part.measure(notes, seconds)
        notes.add()
    except Exception as error:  # whatever fails, the next part goes on
        outcome.send(f"{type(error).__name__}: {one_line(error)}"[:500])
    else:
        outcome.send(None)


def read_notes(path: Path) -> dict[str, Any]:
    """The entries that a part wrote before it failed; empty if it wrote no file."""
    return json.loads(path.read_text()) if path.exists() else {}
