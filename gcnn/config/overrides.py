"""key=value arguments, checked and quoted so that Hydra can parse them."""

import os

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Quote, QuotedString
from hydra.errors import HydraException

from gcnn.base.errors import UsageError
from gcnn.config.complaints import explain_unreadable
from gcnn.config.groups import GROUPS, choices

SWEPT_PATHS = ("data.path", "tokenizer.vocabulary", "tokenizer.model")  # in a sweep, several
PATHS = (*SWEPT_PATHS, "data.cache_dir", "run_dir", "init_from", "resume")
CHOICES = (str, QuotedString, Glob, dict)  # what Hydra's parser makes of the value of a group


def quoted(text: str) -> str:
    """A text in quotes that Hydra's parser reads as this text, whatever its characters."""
    return QuotedString(text, Quote.single).with_quotes()


def prepare_overrides(arguments: list[str], sweep: bool = False) -> list[str]:
    """The overrides of a command line as Hydra should get them, in order; paths as in `quote_path`.

    `experiment=null` means no experiment: it is left out, and every experiment=NAME before it.
    sweep: whether it is --multirun: a data or tokenizer path with commas is then several paths,
    unless it exists as it is.
    Raises UsageError as `check_override` does.
    """
    prepared = []
    for argument in arguments:
        if argument == "experiment=null":  # Hydra would refuse it
            prepared = [other for other in prepared if not other.startswith("experiment=")]
            continue
        check_override(argument)
        prepared.append(quote_path(argument, sweep))
    return prepared


def check_override(argument: str) -> None:
    """Raise UsageError for an override that Hydra would reject without saying what to type.

    It is not key=value (or ~key), its key is `hydra`, or what a group gets is not `is_choice`. The
    message has it in one line.
    """
    shown = " ".join(argument.split())
    group, equals, _ = argument.lstrip("+~").partition("=")
    if not group or not (equals or argument.startswith("~")):
        raise UsageError(explain_unreadable(shown))
    if not equals:
        return
    name = group.partition("@")[0]  # without a package
    is_group = name in GROUPS or name.startswith("hydra/")
    if is_group and not is_choice(argument):
        listed = ", ".join(choices(name)) or "those of Hydra"
        raise UsageError(f"{shown}: choose one of: {listed}.")
    if group == "hydra":
        keys = "hydra.KEY=VALUE and hydra/GROUP=NAME"
        raise UsageError(f"{shown}: hydra is not a group; its keys are {keys}.")


def is_choice(argument: str) -> bool:
    """Whether the value of an override of a group, group=VALUE, can be the name of a choice.

    The choice need not exist. Several names in a sweep can, as can a glob of names, and a
    dictionary, which sets keys of the group. Null, a bool, a number, a list, an empty text and what
    Hydra cannot parse cannot.
    """
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return all(isinstance(value, CHOICES) and value != "" for value in values)


def quote_path(argument: str, sweep: bool) -> str:
    """The override with its path in quotes and `~` expanded, if Hydra would misread it otherwise.

    Returned as it is: a key that is not one of PATHS, a value that Hydra reads as exactly this
    path, one that is quoted already (also its `~`), null, and a bool or whole number for `resume`.
    sweep: whether the command is a sweep. A value with commas of a key of SWEPT_PATHS is then
    several paths, unless it exists as one; they are returned as they are if Hydra can parse them,
    else each is quoted by itself.
    """
    key, _, path = argument.partition("=")
    name = key.lstrip("+")
    if name not in PATHS:
        return argument
    several = sweep and name in SWEPT_PATHS and not os.path.exists(os.path.expanduser(path))
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:  # it cannot be parsed without quotes
        paths = [one.strip() for one in path.split(",")] if several else [path]
        return f"{key}={','.join(quoted(os.path.expanduser(one)) for one in paths)}"
    if several and override.is_sweep_override():
        return argument
    value = override.value()
    if value is None or path[:1] in ("'", '"'):  # null, or quoted already
        return argument
    if name == "resume" and isinstance(value, bool | int):
        return argument
    path = os.path.expanduser(path)
    if value == path:
        return argument
    return f"{key}={quoted(path)}"
