"""Allowed ranges of values, config fields that carry them, and checks that raise UsageError."""

import argparse
import contextlib
import copy
import dataclasses
import math
import os
import reprlib
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

from gcnn.base.errors import UsageError

LARGEST = 2**31 - 1  # the largest size or count: ids are int32
THREADS = 1024  # the most CPU threads; torch would start any number


def positive_int(text: str, most: int = LARGEST) -> int:
    """Parse a whole number from 1 to `most`, both included: a `type` for argparse.

    Raises ArgumentTypeError, whose message argparse prints, for any other text.
    """
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to {most:,}")
    return number


def positive_number(text: str) -> float:
    """Parse a positive, finite number: a `type` for argparse.

    Raises ArgumentTypeError, whose message argparse prints, for any other text.
    """
    with contextlib.suppress(ValueError):
        number = float(text)
        if POSITIVE.allows(number):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


class Range(NamedTuple):
    """The values that a setting may have."""

    allows: Callable[[Any], bool]
    remedy: str  # says what to give instead of a value that is not allowed


def between(least: int, most: int) -> Range:
    """The numbers from `least` to `most`, both included."""
    return Range(lambda value: least <= value <= most, f"give a number from {least} to {most:,}")


def are_fractions(pair: list[float]) -> bool:
    """Whether these are two numbers from 0 to below 1."""
    return len(pair) == 2 and all(FRACTION.allows(number) for number in pair)


def are_increasing(cutoffs: list[int]) -> bool:
    """Whether all are above 0 and each is above the one before; True for an empty list."""
    from_zero = [0, *cutoffs]
    return from_zero == sorted(set(from_zero))


def is_resume(value: Any) -> bool:
    """Whether `resume` can have this value: a bool or a checkpoint's path."""
    return isinstance(value, bool) or (isinstance(value, str) and value != "")


COUNT = between(1, LARGEST)
UNSIGNED = between(0, LARGEST)
POSITIVE = Range(lambda value: 0 < value < math.inf, "give a number above 0")
FRACTION = Range(lambda value: 0 <= value < 1, "give a number from 0 to below 1")
BETAS = Range(are_fractions, "give two numbers from 0 to below 1")
CUTOFFS = Range(are_increasing, "give positive numbers in increasing order")
SEED = Range(lambda value: 0 <= value < 2**63, "give a number from 0 to 2^63 - 1")
# An empty path comes of a shell's $VARIABLE that is not set.
PATH = Range(lambda path: path != "", "give a path or leave it out")
RESUME = Range(is_resume, "give false, true or the path of a checkpoint")


def setting(default: Any, meaning: str, allowed: Range | None = None) -> Any:
    """A dataclass field of a config, with its meaning for --help and its allowed range.

    They are in the field's `metadata`, as "meaning" and "range".
    default: each instance gets its own copy of a list or dictionary; omegaconf.MISSING: a config
    file must set it.
    allowed: the range, which is not checked here but by `check_ranges`; None: any value.
    """
    metadata = {"meaning": meaning, "range": allowed}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*names: str) -> Range:
    """The range of a setting that must be one of some names."""
    return Range(names.__contains__, f"choose one of: {', '.join(names)}")


def choice(default: str, *names: str) -> Any:
    """A config field whose value is one of some names; --help lists them as its meaning."""
    return setting(default, " | ".join(names), one_of(*names))


def default_of(field: dataclasses.Field) -> Any:
    """The default of a dataclass field, made anew if the field has a factory.

    dataclasses.MISSING if it has none; OmegaConf's "???" if a config file must set it.
    """
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def check_value(name: str, value: Any, allowed: Range) -> None:
    """Raise UsageError, naming the setting, for a value that is not allowed."""
    if not allowed.allows(value):
        raise UsageError(f"{name} is {value!r}; {allowed.remedy}.")


def check_ranges(config: Any, group: str = "") -> None:
    """Raise UsageError for the first value of a config that is out of its field's range.

    config: a dataclass instance, whose values have the types of their fields (OmegaConf checks
    that). Fields to which `setting` gave no range may have any value, and None is always allowed.
    Dataclasses that are values of fields are checked too, but not those in lists.
    group: the prefix of the keys in messages, as "trainer.".
    """
    for field in dataclasses.fields(config):
        name = group + field.name
        value = getattr(config, field.name)
        allowed = field.metadata.get("range")
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{name}.")
        elif allowed and value is not None:
            check_value(name, value, allowed)


def check_count(name: str, value: int, most: int = LARGEST) -> None:
    """Raise UsageError unless `value` is a whole number from 1 to `most`."""
    check_whole(name, value)
    check_value(name, value, between(1, most))


def check_seed(name: str, value: int) -> None:
    """Raise UsageError unless `value` is a whole number from 0 to 2^63 - 1."""
    check_whole(name, value)
    check_value(name, value, SEED)


def check_whole(name: str, value: Any) -> None:
    """Raise UsageError for a value that is not of an integer type; numpy's and bool are."""
    if not isinstance(value, Integral):
        raise UsageError(f"{name} is {reprlib.repr(value)}; give a whole number.")


def check_text(what: str, text: Any) -> None:
    """Raise UsageError unless `text` is a string that UTF-8 can encode.

    A string with a lone surrogate, which a broken emoji leaves, cannot be encoded.
    what: names the text in the message.
    """
    if not isinstance(text, str):
        raise UsageError(
            f"{what} is not a string but of type {type(text).__name__}. Give a string."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"at character {error.start + 1}"
        raise UsageError(f"{what} is not UTF-8 ({where}). Convert it, as with iconv.") from None


def check_memory(what: str, needed: int, remedy: str) -> None:
    """Raise UsageError if `needed` bytes are more than the machine's main memory, free or not.

    Without this check the kernel may grant the memory and kill the process when it is used.
    what, remedy: what takes the memory and what to change, for the message.
    """
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        gib = 2**30
        raise UsageError(
            f"{what} takes {needed // gib:,} GiB of memory or more; "
            f"the machine has {present // gib:,}; {remedy}."
        )
