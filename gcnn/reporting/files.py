"""JSON files from disk, with the types of their entries checked."""

import json
from pathlib import Path
from typing import Any

from gcnn.errors import UsageError, one_line

NUMBER = (int, float)
ANY = "*"  # in a schema: any other key


def value(tree: dict | None, path: str) -> Any:
    """The entry at a dotted path, None where any part of the way is absent."""
    for key in path.split("."):
        tree = (tree or {}).get(key)
    return tree


def check(content: Any, schema: Any, where: str) -> None:
    """Raise UsageError for an entry of another type than its schema says; any entry may be absent or null."""
    kind = type(schema) if isinstance(schema, dict | list) else schema
    if content is None:
        return
    if not isinstance(content, kind) or isinstance(content, bool):
        names = {NUMBER: "a number", str: "a text", dict: "an object", list: "a list"}
        raise UsageError(f"{where} is not {names[kind]}. Make the file again by running the command that wrote it.")
    if kind is dict:
        for key, entry in content.items():
            if key in schema or ANY in schema:
                check(entry, schema.get(key, schema.get(ANY)), f"{where}: {key}")
    elif kind is list:
        for i, entry in enumerate(content):
            check(entry, schema[0], f"{where}: entry {i + 1}")


def parse(text: str, schema: Any, where: str) -> Any:
    """The JSON of `text`, checked. Raises UsageError where it is none or not of the schema's types."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({one_line(error)}). Make the file again or remove it.") from None
    if content is None:
        raise UsageError(f"{where} is empty (null). Make the file again or remove it.")
    check(content, schema, where)
    return content


def read(path: Path) -> str:
    """The text of a file. Raises UsageError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a UTF-8 text file. Make the file again or remove it.") from None
    except OSError as error:  # a folder in its place, say
        raise UsageError(f"{path} cannot be read ({error.strerror}). Make the file again or remove it.") from None


def read_json(path: Path, schema: Any) -> Any:
    return parse(read(path), schema, str(path)) if path.exists() else None
