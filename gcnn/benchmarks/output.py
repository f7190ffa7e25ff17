"""The JSON that every benchmark command writes."""

from pathlib import Path
from typing import Any

from gcnn.base.files import write_json


def write_benchmark(path: Path | None, made_with: dict[str, Any], results: dict[str, Any]) -> None:
    """Write a benchmark's JSON: the entries of `made_with`, then those of `results`.

    made_with: what `provenance.made_with()` returned before the measuring, so that the commit is
    the one that was measured. If both have a key, the value in `results` is written.
    The folder is made and the file replaced atomically. A path of None writes nothing. Raises
    OSError if the file cannot be written.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made_with | results)
