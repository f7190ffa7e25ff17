"""Ranges of plain values, and checks that raise UsageError for what is out of them."""

import argparse
import copy
import dataclasses
import math
import os
import reprlib
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

from gcnn.base.errors import UsageError

LARGEST = 2**31 - 1  # of sizes and counts: ids are int32
THREADS = 1024  # torch starts as many as it is told


def positive(text: str, most: int = LARGEST) -> int:
    """A command's argument that must be a whole number above 0, for argparse."""
    number = int(text)
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to {most:,}")
    return number


class Range(NamedTuple):
    """The values that a field may have."""

    allows: Callable[[Any], bool]
    remedy: str  # what to give instead of another


def between(least: int, most: int) -> Range:
    return Range(lambda value: least <= value <= most, f"give a number from {least} to {most:,}")


COUNT, UNSIGNED = between(1, LARGEST), between(0, LARGEST)
POSITIVE = Range(lambda value: 0 < value < math.inf, "give a number above 0")
FRACTION = Range(lambda value: 0 <= value < 1, "give a number from 0 to below 1")
BETAS = Range(
    lambda pair: len(pair) == 2 and all(map(FRACTION.allows, pair)),
    "give two numbers from 0 to below 1",
)
CUTOFFS = Range(
    lambda value: [0, *value] == sorted({0, *value}), "give positive numbers in increasing order"
)
SEED = Range(lambda value: 0 <= value < 2**63, "give a number from 0 to 2^63 - 1")
PATH = Range(
    lambda path: path != "", "give a path or leave it out"
)  # a shell's $VARIABLE may be empty
RESUME = Range(
    lambda value: isinstance(value, bool) or (isinstance(value, str) and value != ""),
    "give false, true or the path of a checkpoint",
)


def setting(default: Any, meaning: str, allowed: Range | None = None) -> Any:
    """A field of a config's dataclass, with its meaning for --help; None is always allowed where it is a default."""
    metadata = {"meaning": meaning, "range": allowed}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*names: str) -> Range:
    return Range(names.__contains__, f"choose one of: {', '.join(names)}")


def choice(default: str, *names: str) -> Any:
    """A field that has one of some names."""
    return setting(default, " | ".join(names), one_of(*names))


def default_of(field: dataclasses.Field) -> Any:
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def check_value(name: str, value: Any, allowed: Range) -> None:
    """Raise UsageError for a value that is out of its range."""
    if not allowed.allows(value):
        raise UsageError(f"{name} is {value!r}; {allowed.remedy}.")


def check_ranges(config: Any, group: str = "") -> None:
    """Raise UsageError for a value of a config's dataclass, or of those within it, that is out of its field's range."""
    for field in dataclasses.fields(config):
        name, value, allowed = (
            group + field.name,
            getattr(config, field.name),
            field.metadata.get("range"),
        )
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{name}.")
        elif allowed and value is not None:
            check_value(name, value, allowed)


def check_count(name: str, value: int, most: int = LARGEST) -> None:
    """Raise UsageError for a size or number of things that is not positive, or past what any machine can do."""
    check_whole(name, value)
    check_value(name, value, between(1, most))


def check_seed(name: str, value: int) -> None:
    check_whole(name, value)
    check_value(name, value, SEED)


def check_whole(name: str, value: Any) -> None:
    if not isinstance(value, Integral):
        raise UsageError(f"{name} is {reprlib.repr(value)}; give a whole number.")


def check_text(what: str, text: Any) -> None:
    """Raise UsageError for what is no string, and for a string that UTF-8 cannot write: one with half
    of a surrogate pair, as a broken emoji leaves it."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is no string but of type {type(text).__name__}. Give a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"at character {error.start + 1}"
        raise UsageError(f"{what} is not UTF-8 ({where}). Convert it, as with iconv.") from None


def check_memory(what: str, needed: int, remedy: str) -> None:
    """Raise UsageError for more bytes than the machine has: the kernel may grant them and kill the process later."""
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        needed, present = needed // 2**30, present // 2**30
        raise UsageError(
            f"{what} takes {needed:,} GiB of memory or more; the machine has {present:,}; {remedy}."
        )
