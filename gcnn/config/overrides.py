"""key=value arguments, quoted for Hydra where their letters need it."""

import os
import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from gcnn.base.errors import UsageError
from gcnn.config.complaints import explain_unreadable
from gcnn.config.groups import GROUPS, choices

SWEPT_PATHS = ("data.path", "tokenizer.vocabulary", "tokenizer.model")
PATHS = (*SWEPT_PATHS, "data.cache_dir", "run_dir", "init_from", "resume")


def quoted(text: str) -> str:
    """A text as Hydra reads it whatever letters it has."""
    return QuotedString(text, Quote.single).with_quotes()


def prepare(arguments: list[str], sweep: bool = False) -> list[str]:
    """The arguments as Hydra is to read them: paths quoted, and without `experiment=null`, which is no experiment.
    Raises UsageError for what is no key=value, and for a group that is given no name."""
    arguments = [argument for argument in arguments if argument != "experiment=null"]
    for argument in arguments:
        group, equals, name = argument.lstrip("+").partition("=")
        if not group or not (equals or argument.startswith("~")):
            raise UsageError(explain_unreadable(argument))
        nameless = equals and any(
            re.fullmatch(r"null|true|false|\d*", part) for part in name.split(",")
        )
        if nameless and (group in GROUPS or group.startswith("hydra/")):
            raise UsageError(
                f"{argument}: choose one of: {', '.join(choices(group)) or 'those of Hydra'}."
            )
        if equals and group == "hydra":
            raise UsageError(
                f"{argument}: hydra is no choice; its keys are hydra.KEY=VALUE and hydra/GROUP=NAME."
            )
    return [quote_path(argument, sweep) for argument in arguments]


def quote_path(argument: str, sweep: bool) -> str:
    """A key=value whose value is a path, in quotes unless Hydra reads it as it stands (or, in a sweep, as several)."""
    key, _, path = argument.partition("=")
    name = key.lstrip("+")
    if name not in PATHS:
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
        swept = (
            sweep
            and override.is_sweep_override()
            and name in SWEPT_PATHS
            and not os.path.exists(path)
        )
        value = None if swept else override.value()
        if (
            value is None
            or path[:1] in ("'", '"')
            or (name == "resume" and isinstance(value, bool | int))
        ):
            return argument
    except HydraException:
        value = None
    path = os.path.expanduser(path)
    return argument if value == path else f"{key}={quoted(path)}"
