"""What Hydra, OmegaConf and YAML complain of, as UsageError: one line with the key and a remedy."""

import contextlib
import dataclasses
import difflib
import os
import re
import shlex
from collections.abc import Iterator

import yaml
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gcnn.base.errors import UsageError, one_line
from gcnn.config.groups import GROUPS, choices, nearest
from gcnn.config.schema import SCHEMAS, TrainConfig


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Raise UsageError, one line with a remedy, for what Hydra, OmegaConf or YAML raise of a config.

    Also a decorator: @usage_errors().
    """
    try:
        yield
    except Exception as error:
        complaint = complaint_of(error)
        if complaint is None:
            raise
        raise UsageError(complaint) from None


def complaint_of(error: Exception) -> str | None:
    """What a config's error says, in one line; None where the error is of something else."""
    if isinstance(error, HydraException | OmegaConfBaseException) or "Invalid defaults list" in str(
        error
    ):
        return config_error(error)
    if isinstance(error, yaml.YAMLError):  # it names the file and the line
        return f"{one_line(error)}. Correct the file; a value in quotes is always a string."
    if isinstance(error, UnicodeDecodeError):  # which does not name the file
        before = error.object[: error.start].decode(errors="replace").split("\n")[-1]
        return f"a file is not UTF-8: byte 0x{error.object[error.start]:02x} after `{before}`. Store it as UTF-8."
    return None


def config_error(error: BaseException) -> str:
    """What Hydra or OmegaConf complain of, in one line with the key, the reason behind it and a remedy."""
    if isinstance(error, OverrideParseException):
        return explain_unreadable(error.override)
    cause = error.__cause__ or error.__context__ or error
    missing = getattr(error, "missing_cfg_file", None)
    if isinstance(error, MissingConfigException) and missing:
        group = (
            os.path.dirname(missing) if missing.startswith("hydra/") else missing.partition("/")[0]
        )
        name = missing[len(group) + 1 :]
        names = {option for option in error.options or () if not option.startswith("schema")} | set(
            choices(group)
        )
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
        return (
            f"{complaint} An experiment is key: value, and its first line is `# @package _global_`."
        )
    kind = getattr(cause, "object_type", None)
    if " not in '" in complaint and dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        closest = (
            nearest(str(cause.key), names)
            or of_another_kind(str(key))
            or nearest_key(str(cause.key))
        )
        return f"{complaint} Its keys: {', '.join(names)}.{closest}"
    return f"{complaint} All keys and their values: --help."


def of_another_kind(key: str) -> str:
    """Which kind of a group has a key that the chosen one lacks."""
    group, _, name = key.partition(".")
    kinds = [
        kind
        for kind, schema in SCHEMAS.get(group, {}).items()
        if name in schema.__dataclass_fields__
    ]
    return f" {key} goes with {group}s of the kind {' or '.join(kinds)}." if kinds else ""


def nearest_key(name: str) -> str:
    """The whole key of the setting whose last part is nearest: `optimizer.lr` of `lr`."""
    groups = dataclasses.fields(TrainConfig)
    keys = {group.name: group.name for group in groups}
    for group in groups:
        for schema in filter(
            dataclasses.is_dataclass, SCHEMAS.get(group.name, {"": group.type}).values()
        ):
            keys = {
                field.name: f"{group.name}.{field.name}" for field in dataclasses.fields(schema)
            } | keys
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
