"""JSON files from disk as dataclasses, the type of every entry checked once: after it, code reads attributes."""

import json
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from gcnn.base.errors import UsageError, one_line

Number, Text = float | None, str | None  # entries that may be absent or null
TITLES = {float: "a number", str: "a text", dict: "an object", list: "a list"}
hints_of = cache(get_type_hints)


def checked(content: Any, kind: Any, where: str) -> Any:
    """JSON's `content` as a `kind`: a dataclass, dict[str, kind], list[kind], Number, Text, or Any for what it is.

    Null is an empty object or list. An absent entry is its field's default, or else as null; entries without a field
    are left out. Raises UsageError, saying `where`, for an entry of another type.
    """
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    plain = dict if is_dataclass(kind) else get_origin(kind) or kind
    if plain is Any or (content is None and plain in (float, str)):
        return content
    content = plain() if content is None else content
    if isinstance(content, bool) or not isinstance(
        content, (int, float) if plain is float else plain
    ):
        raise UsageError(
            f"{where} is not {TITLES[plain]}. Make the file again by running the command that wrote it."
        )
    if is_dataclass(kind):
        present = [f.name for f in fields(kind) if f.name in content or f.default is MISSING]
        entries = {name: (content.get(name), hints_of(kind)[name]) for name in present}
        return kind(
            **{name: checked(*entry, f"{where}: {name}") for name, entry in entries.items()}
        )
    if plain is dict:
        return {
            key: checked(entry, get_args(kind)[1], f"{where}: {key}")
            for key, entry in content.items()
        }
    if plain is list:
        return [
            checked(entry, get_args(kind)[0], f"{where}: entry {i}")
            for i, entry in enumerate(content, start=1)
        ]
    return content


def parse_json(text: str, kind: Any, where: str) -> Any:
    """The JSON of `text` as a `kind`. Raises UsageError where it is none or not of that kind."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where} is not JSON ({one_line(error)}). Make the file again or remove it."
        ) from None
    if content is None:
        raise UsageError(f"{where} is empty (null). Make the file again or remove it.")
    return checked(content, kind, where)


def read_text(path: Path) -> str:
    """The text of a file. Raises UsageError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is not a UTF-8 text file. Make the file again or remove it."
        ) from None
    except OSError as error:  # a folder in its place, say
        raise UsageError(
            f"{path} cannot be read ({error.strerror}). Make the file again or remove it."
        ) from None


def read_json(path: Path, kind: Any) -> Any:
    """The JSON file at `path` as a `kind`, None where there is no file. Raises UsageError for another file."""
    return parse_json(read_text(path), kind, str(path)) if path.exists() else None


def read_json_lines(path: Path, kind: Any) -> list[Any]:
    """The lines of a JSON Lines file, each as a `kind`; none where there is no file. Raises UsageError as `read_json`.

    A last line without its newline is still being written: left out.
    """
    lines = read_text(path).split("\n")[:-1] if path.exists() else []
    return [
        parse_json(line, kind, f"{path}: line {number}")
        for number, line in enumerate(lines, start=1)
    ]
