"""The JSON that every benchmark command writes."""

from pathlib import Path
from typing import Any

from gcnn.base.files import write_json


def write_benchmark(path: Path | None, made_with: dict[str, Any], results: dict[str, Any]) -> None:
    """Write a benchmark's JSON: how it was made, then its results, whose keys win.

    `made_with` is `provenance.made_with()`, called before the measuring, so that the commit is the
    one that was measured. Makes the folder; a path of None writes nothing.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made_with | results)
