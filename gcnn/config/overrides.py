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
    sweep: whether the command has --multirun; it decides what commas in a path mean (`quote_path`).
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

    These are one that is not key=value (or ~key), one with the key `hydra`, and one of a group
    whose value cannot name a choice (`is_choice`). The message is one line, whatever the override.
    """
    shown = " ".join(argument.split())
    group, equals, _ = argument.lstrip("+~").partition("=")
    if not group or not (equals or argument.startswith("~")):
        raise UsageError(explain_unreadable(shown))
    if not equals:
        return
    name = group.partition("@")[0]  # without a package
    is_group = name in GROUPS or name.startswith("hydra/")
    if is_group and ".yaml" in argument:  # also one of several names in a sweep
        raise UsageError(f"{shown}: a choice has its file's name without .yaml; leave that out.")
    if is_group and not is_choice(argument):
        listed = ", ".join(choices(name)) or "those of Hydra"
        raise UsageError(f"{shown}: choose one of: {listed}.")
    if group == "hydra":
        keys = "hydra.KEY=VALUE and hydra/GROUP=NAME"
        raise UsageError(f"{shown}: hydra is not a group; its keys are {keys}.")


def is_choice(argument: str) -> bool:
    """Whether Hydra can take the value of an override of a group, group=VALUE.

    It can be a name (of a choice that need not exist), several names in a sweep, a glob of names,
    or a dictionary, which sets keys of the group. It cannot be null, a bool, a number, a list, an
    empty text or something that Hydra cannot parse.
    argument: the whole override, also with a prefix + or ~.
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

    Returned as it is: an override of a key that is not one of PATHS, and a value that Hydra reads
    as exactly this path, that is null or in quotes already, or that is a bool or whole number for
    `resume`. A `~` in quotes is not expanded.
    sweep: whether the command is a sweep. A value with commas of a key of SWEPT_PATHS is then
    several paths, unless it exists as one. They are returned as they are, `~` too, if Hydra can
    parse them; otherwise each is expanded and quoted by itself.
    """
    key, _, value = argument.partition("=")
    name = key.lstrip("+")
    if name not in PATHS:
        return argument
    path = os.path.expanduser(value)
    may_be_several = sweep and name in SWEPT_PATHS and not os.path.exists(path)
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:  # it cannot be parsed without quotes
        paths = [path]
        if may_be_several:
            paths = [os.path.expanduser(part.strip()) for part in value.split(",")]
        return f"{key}={','.join(map(quoted, paths))}"
    read = override.value()  # what Hydra makes of it
    is_several = may_be_several and override.is_sweep_override()
    is_quoted = value[:1] in ("'", '"')
    is_switch = name == "resume" and isinstance(read, bool | int)
    if is_several or is_quoted or is_switch or read is None or read == path:
        return argument
    return f"{key}={quoted(path)}"
