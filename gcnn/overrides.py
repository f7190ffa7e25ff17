"""key=value arguments: quoted for Hydra where their letters need it, explained where they do not fit, and listed."""

import dataclasses
import difflib
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING
from omegaconf.errors import MissingMandatoryValue

from gcnn.config import CONFIGS, SCHEMAS, TrainConfig, compose_config
from gcnn.errors import UsageError

GROUPS = ("experiment", "data", *SCHEMAS, "logger")
SWEPT_PATHS = ("data.path", "tokenizer.vocabulary", "tokenizer.model")
PATHS = (*SWEPT_PATHS, "data.cache_dir", "run_dir", "init_from", "resume")


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """The names that may follow `group=`, those of a folder of the user's own among them."""
    names = set()
    for configs in filter(None, (CONFIGS, config_dir)):
        files = (configs / group).rglob("*.yaml")
        names |= {str(path.relative_to(configs / group).with_suffix("")) for path in files}
    return sorted(names)


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
        nameless = equals and any(re.fullmatch(r"null|true|false|\d*", part) for part in name.split(","))
        if nameless and (group in GROUPS or group.startswith("hydra/")):
            raise UsageError(f"{argument}: choose one of: {', '.join(choices(group)) or 'those of Hydra'}.")
        if equals and group == "hydra":
            raise UsageError(f"{argument}: hydra is no choice; its keys are hydra.KEY=VALUE and hydra/GROUP=NAME.")
    return [quote_path(argument, sweep) for argument in arguments]


def quote_path(argument: str, sweep: bool) -> str:
    """A key=value whose value is a path, in quotes unless Hydra reads it as it stands (or, in a sweep, as several)."""
    key, _, path = argument.partition("=")
    name = key.lstrip("+")
    if name not in PATHS:
        return argument
    try:
        override = OverridesParser.create().parse_override(argument)
        swept = sweep and override.is_sweep_override() and name in SWEPT_PATHS and not os.path.exists(path)
        value = None if swept else override.value()
        if value is None or path[:1] in ("'", '"') or (name == "resume" and isinstance(value, bool | int)):
            return argument
    except HydraException:
        value = None
    path = os.path.expanduser(path)
    return argument if value == path else f"{key}={quoted(path)}"


def config_error(error: BaseException) -> str:
    """What Hydra or OmegaConf complain of, in one line with the key, the reason behind it and a remedy."""
    if isinstance(error, OverrideParseException):
        return explain_unreadable(error.override)
    cause = error.__cause__ or error.__context__ or error
    missing = getattr(error, "missing_cfg_file", None)
    if isinstance(error, MissingConfigException) and missing:
        group = os.path.dirname(missing) if missing.startswith("hydra/") else missing.partition("/")[0]
        name = missing[len(group) + 1 :]
        names = {option for option in error.options or () if not option.startswith("schema")} | set(choices(group))
        if not name or (group not in GROUPS and not group.startswith("hydra/")):  # of --config-name
            return f"there is no config {missing} in the folder of --config-path; a run has --config-name config."
        return f"there is no {group}={name}; choose one of: {', '.join(sorted(names))}.{nearest(name, names)}"
    key = getattr(cause, "full_key", None) or getattr(error, "override", None)
    if isinstance(cause, MissingMandatoryValue):
        key = str(error).splitlines()[0].rpartition(": ")[2]
        return f"{key} has no value; give {key}=VALUE."
    reasons = dict.fromkeys(
        str(e).splitlines()[0].partition(": Value '$VALUE'")[0].rstrip(".:") for e in (error, cause)
    )
    where = f" (key: {key})" if key and key not in " ".join(reasons) else ""
    complaint = " ".join(": ".join(reasons).split()) + where + "."
    if complaint.startswith("Ambiguous"):
        return f"{complaint} Several values are a sweep (make sweep, or --multirun); a list stands in [brackets]."
    if re.match("In 'experiment/.* Cannot convert '(Dict|List)Config' to string", complaint):
        return f"{complaint} An experiment is key: value, and its first line is `# @package _global_`."
    kind = getattr(cause, "object_type", None)
    if " not in '" in complaint and dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        closest = nearest(str(cause.key), names) or of_another_kind(str(key)) or nearest_key(str(cause.key))
        return f"{complaint} Its keys: {', '.join(names)}.{closest}"
    return f"{complaint} All keys and their values: --help."


def nearest(name: str, names: list[str] | set[str]) -> str:
    matches = difflib.get_close_matches(name, names, n=1)
    return f" The nearest is {matches[0]}." if matches else ""


def of_another_kind(key: str) -> str:
    """Which kind of a group has a key that the chosen one lacks."""
    group, _, name = key.partition(".")
    kinds = [kind for kind, schema in SCHEMAS.get(group, {}).items() if name in schema.__dataclass_fields__]
    return f" {key} goes with {group}s of the kind {' or '.join(kinds)}." if kinds else ""


def nearest_key(name: str) -> str:
    """The whole key of the setting whose last part is nearest: `optimizer.lr` of `lr`."""
    groups = dataclasses.fields(TrainConfig)
    keys = {group.name: group.name for group in groups}
    for group in groups:
        for schema in filter(dataclasses.is_dataclass, SCHEMAS.get(group.name, {"": group.type}).values()):
            keys = {field.name: f"{group.name}.{field.name}" for field in dataclasses.fields(schema)} | keys
    matches = difflib.get_close_matches(name, keys, n=1)
    return f" The nearest is {keys[matches[0]]}." if matches else ""


def explain_unreadable(override: str) -> str:
    """What to type for an override that Hydra's grammar does not take."""
    key, equals, value = override.partition("=")
    if override.startswith("-"):
        name = key.lstrip("-").replace("-", "_").rpartition(".")[2]
        return f"there is no option {key}; a setting is typed as key=value, without dashes.{nearest_key(name)}"
    if not equals or not key:
        group = next((group for group in GROUPS if override in choices(group)), None)
        example = f"{group}={override}" if group else "trainer.max_steps=100"
        return f"{override!r} is no key=value; type it as {example}."
    if key.rstrip() != key:
        return f"{override!r} has blanks around its =; type it as {key.strip()}={value.strip()}."
    if value[:1] in ("[", "{"):
        shown = shlex.quote(f'{key}=["a, b.txt"]')
        return f"{override}: Hydra cannot read this value; put quotes around each text in it, for the shell as {shown}."
    shown = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
    return f"{override}: Hydra cannot read this value; as a text it needs quotes, for the shell {shown}."


def help_lines(
    overrides: list[str],
    groups: tuple[str, ...] = (*GROUPS, "trainer"),
    config_dir: Path | None = None,
) -> Iterator[str]:
    """The groups with their choices, then every key, with its value under these overrides and its meaning."""
    config = compose_config(*overrides, config_dir=config_dir)
    for group in filter(GROUPS.__contains__, groups):
        yield f"{group + '=':12}{', '.join(choices(group, config_dir))}"
    for group in groups:
        chosen = config if group == "experiment" else getattr(config, group)
        others = [schema for schema in SCHEMAS.get(group, {}).values() if not isinstance(chosen, schema)]
        for owner in (chosen, *others):
            yield f"\n{group}" + (f", of the kind {owner.kind}" if group in SCHEMAS else "")
            for field in dataclasses.fields(owner):
                if field.name in (*GROUPS[1:], "trainer") and group == "experiment":
                    continue
                value = getattr(owner, field.name, "(by choice)")
                key = field.name if group == "experiment" else f"{group}.{field.name}"
                shown = "(by choice)" if value == MISSING else json.dumps(value, default=dataclasses.asdict).strip('"')
                yield f"  {key:30} {shown:14} {field.metadata.get('meaning', '')}".rstrip()
