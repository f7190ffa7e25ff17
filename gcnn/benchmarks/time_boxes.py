"""Parts of a long measurement, each in a process of its own for a time of its own: none takes the
others down.
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
    """What a part has found so far: written the moment it is known, so that a part cut short keeps
    it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.content: dict[str, Any] = {}

    def add(self, **entries: Any) -> None:
        self.content |= entries
        write_json(self.path, self.content)


@dataclass(frozen=True)
class Part:
    name: str  # of its JSON file
    share: float  # of all the time
    measure: Callable[[Notes, float], None]  # with the seconds that it has


def run_parts(
    parts: list[Part], seconds: float, folder: Path, least: float = 0.0
) -> dict[str, str]:
    """Run parts one after the other; time that one leaves is shared out among those after it. Each
    has `least` seconds, whatever is left.

    Writes folder/NAME.json for each. Returns what became of each by name: "done", or why it failed.
    """
    deadline, outcomes = time.monotonic() + seconds, {}
    for at, part in enumerate(parts):
        left = max(1.0, deadline - time.monotonic())
        box = max(least, left * part.share / sum(later.share for later in parts[at:]))
        path = folder / f"{part.name}.json"
        path.unlink(missing_ok=True)
        start = time.monotonic()
        outcomes[part.name] = run_part(part, path, box)
        took = time.monotonic() - start
        print(f"{part.name:10} {took:5.0f} of {box:.0f} s: {outcomes[part.name]}", flush=True)
    return outcomes


def run_part(part: Part, path: Path, seconds: float) -> str:
    """Run one part in a process of its own: "done", or why it failed, which its JSON says as
    well.
    """
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
        reason = f"its {seconds:.0f} seconds ended before it did"
    else:
        # A process that was killed, for memory say, has said nothing.
        try:
            reason = reader.recv()
        except EOFError:
            reason = f"its process ended with exit code {process.exitcode}"
    if reason is not None:
        found = read_notes(path)
        write_json(path, {**found, "failed": reason})
    return reason or "done"


def measure_and_write(part: Part, path: Path, seconds: float, outcome: Any) -> None:
    """What the part's process does: measure, and send None, or why that failed."""
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
    """What a part wrote before it failed; empty where it wrote nothing."""
    return json.loads(path.read_text()) if path.exists() else {}
