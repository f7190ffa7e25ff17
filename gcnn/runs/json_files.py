"""JSON files read as dataclasses, with the type of every entry checked on reading.

A "kind" is the type that JSON is read as: a dataclass, dict[str, kind], list[kind], float or str,
Number, Text or Flag where it may be null, or Any, which is not checked.
"""

import json
import sys
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from gcnn.base.errors import UsageError, one_line

Number = float | None  # an entry that may be absent or null
Text = str | None
Flag = bool | None
TITLES = {
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
hints_of = cache(get_type_hints)


def checked(content: Any, kind: Any, where: str) -> Any:
    """A value of parsed JSON as a `kind` (explained above), with all types in it checked.

    Null becomes an empty list or dictionary, or a dataclass as if all its entries were absent; for
    a Number, Text, Flag or Any it is None; for a float or str it is an error. An entry that is
    absent has its field's default, or is read as null if there is none. Entries for which a
    dataclass has no field are left out.
    where: the file and the place in it, for messages.
    Raises UsageError for an entry of another type (true and false are not numbers), and for an
    integer that is too large for a float.
    """
    if isinstance(kind, UnionType):  # Number, Text or Flag
        if content is None:
            return None
        kind = get_args(kind)[0]  # the type besides None
    json_type = get_origin(kind) or kind  # dict of dict[str, float]
    if is_dataclass(kind):
        json_type = dict
    if json_type is Any:
        return content
    if content is None and json_type in (dict, list):
        content = json_type()

    remedy = "Make the file again by running the command that wrote it."
    allowed = (int, float) if json_type is float else json_type
    is_wrong_bool = isinstance(content, bool) and json_type is not bool  # Python's bools are ints
    if is_wrong_bool or not isinstance(content, allowed):
        raise UsageError(f"{where} is not {TITLES[json_type]}. {remedy}")
    if isinstance(content, int) and abs(content) > sys.float_info.max:
        raise UsageError(f"{where} is too large a number. {remedy}")
    if is_dataclass(kind):
        return checked_dataclass(content, kind, where)
    if json_type is dict:
        return checked_dict(content, get_args(kind)[1], where)
    if json_type is list:
        return checked_list(content, get_args(kind)[0], where)
    return content


def checked_dataclass(content: dict[str, Any], kind: type, where: str) -> Any:
    """A JSON object as a dataclass, its entries `checked`; see there for those that are absent."""
    entries = {}
    for field in fields(kind):
        if field.name in content or field.default is MISSING:
            entry = content.get(field.name)
            entry_kind = hints_of(kind)[field.name]
            entries[field.name] = checked(entry, entry_kind, f"{where}: {field.name}")
    return kind(**entries)


def checked_dict(content: dict[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """A JSON object with each of its entries `checked` as a `kind`."""
    return {key: checked(entry, kind, f"{where}: {key}") for key, entry in content.items()}


def checked_list(content: list[Any], kind: Any, where: str) -> list[Any]:
    """A JSON list with each of its entries `checked` as a `kind`."""
    return [
        checked(entry, kind, f"{where}: entry {number}")
        for number, entry in enumerate(content, start=1)
    ]


def all_absent(kind: type) -> Any:
    """A dataclass as read from JSON in which all of its entries are absent."""
    return checked({}, kind, kind.__name__)


def parse_json(text: str, kind: Any, where: str) -> Any:
    """JSON text as a `kind`, checked.

    Raises UsageError, naming `where`, if it is not JSON, is null, or is not of that kind.
    """
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
    """The content of a text file. Raises UsageError if it is absent, unreadable or not UTF-8."""
    text = read_text_if_any(path)
    if text is None:
        raise UsageError(f"{path}: no such file. Make it again.")
    return text


def read_text_if_any(path: Path) -> str | None:
    """The content of a text file; None if there is none.

    Raises UsageError if it is not UTF-8 or cannot be read, as where its name is too long or its
    folder may not be searched.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is not a UTF-8 text file. Make the file again or remove it."
        ) from None
    except OSError as error:  # for instance, it is a folder
        raise UsageError(
            f"{path} cannot be read ({error.strerror}). "
            "Check the path and its permissions, or make the file again."
        ) from None


def read_json(path: Path, kind: Any) -> Any:
    """A JSON file as a `kind`; None if there is no file.

    Raises UsageError if it cannot be read, is not JSON, is null, or is not of that kind.
    """
    text = read_text_if_any(path)
    return None if text is None else parse_json(text, kind, str(path))


def read_json_lines(path: Path, kind: Any) -> list[Any]:
    """The lines of a JSON Lines file, each as a `kind`; empty if there is no file.

    A last line without its newline is left out, as a process may still be writing it.
    Raises UsageError if the file cannot be read, or for the first line, an empty one too, that is
    not JSON of that kind.
    """
    text = read_text_if_any(path) or ""
    lines = text.split("\n")[:-1]
    entries = []
    for number, line in enumerate(lines, start=1):
        entries.append(parse_json(line, kind, f"{path}: line {number}"))
    return entries
