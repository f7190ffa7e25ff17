"""Errors of Hydra, OmegaConf and YAML as UsageError: one line that names the key and a remedy.

`usage_errors` catches them; `complaint_of` tells config errors from others; `config_error` words
those of Hydra and OmegaConf, by `missing_config`, `remedy_for` and `explain_unreadable`.
"""

import contextlib
import dataclasses
import difflib
import os
import re
import shlex
import traceback
from collections.abc import Iterable, Iterator

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gcnn.base.errors import UsageError, nearest, one_line
from gcnn.config.groups import GROUPS, choices
from gcnn.config.schema import SCHEMAS, TrainConfig


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """In the body of a `with`, raise UsageError instead of each error that `complaint_of` explains.

    Those are errors in a config. The UsageError has the message of `complaint_of`, in one line. All
    other errors pass through, UsageErrors among them. Also a decorator: @usage_errors().
    """
    try:
        yield
    except Exception as error:
        complaint = complaint_of(error)
        if complaint is None:
            raise
        raise UsageError(" ".join(complaint.split())) from None


def complaint_of(error: Exception) -> str | None:
    """The message for an error in a config, with a remedy; None for errors of other kinds.

    The kinds are the errors of Hydra, OmegaConf and YAML, UnicodeDecodeError, and two that
    OmegaConf lets through: ValueError for a list's entry that is no number (blocks.x), and
    OverflowError for a whole number that is too large for a float.
    The message may have line ends, from an override or a file.
    """
    if isinstance(error, HydraException | OmegaConfBaseException):
        return config_error(error)
    if "Invalid defaults list" in str(error):  # Hydra raises a ValueError for it
        return config_error(error)
    if isinstance(error, yaml.YAMLError):  # its message names the file and the line
        return f"{one_line(error)}. Correct the file; a value in quotes is always a string."
    in_omegaconf = was_raised_in_omegaconf(error)
    if in_omegaconf and isinstance(error, OverflowError):
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'a number'} is too large for a float. Give a smaller number."
    if in_omegaconf and isinstance(error, ValueError) and "invalid literal for int()" in str(error):
        entry = first_line(error).rpartition(": ")[2]
        return (
            f"{entry} is no entry of a list: they are numbered, from 0. Give the number, as in "
            "KEY.0=VALUE, or the whole list, KEY=[VALUE,VALUE]."
        )
    if isinstance(error, UnicodeDecodeError):  # its message does not name the file
        before = error.object[: error.start].decode(errors="replace").split("\n")[-1]
        byte = f"byte 0x{error.object[error.start]:02x}"
        return f"a file is not UTF-8: {byte} after `{before}`. Store it as UTF-8."
    return None


def was_raised_in_omegaconf(error: Exception) -> bool:
    """Whether the code that raised an error is OmegaConf's."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1:]
    return any("omegaconf" in frame.filename for frame in raised_in)


def config_error(error: BaseException) -> str:
    """The message for an error of Hydra or OmegaConf: key, reason and remedy.

    It may have line ends, from an override.
    """
    if isinstance(error, OverrideParseException):
        return explain_unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return missing_config(error.missing_cfg_file, error.options or ())
    cause = error.__cause__ or error.__context__ or error
    key = key_of(error, cause)
    if isinstance(cause, MissingMandatoryValue):
        # Hydra's key of an entry of a list is blocks.0, where OmegaConf has blocks[0].
        missing = re.sub(r"\[(\d+)\]", r".\1", key or first_line(error))
        return f"{missing} has no value; give {missing}=VALUE."

    reasons = reasons_of(error, cause)
    where = f" (key: {key})" if key and key not in " ".join(reasons) else ""
    complaint = f"{': '.join(reasons)}{where}."
    return f"{complaint} {remedy_for(complaint, cause, key)}"


def reasons_of(error: BaseException, cause: BaseException) -> list[str]:
    """The first line of an error's message, then that of its cause's if it says something else.

    Final full stops and colons are removed. OmegaConf leaves some templates with '$VALUE' for the
    value: one at the end of a line is cut off, and a cause's line with one elsewhere is left out.
    cause: the error itself if there is none.
    """
    reasons = []
    for raised in (error, cause):
        line = first_line(raised).partition(": Value '$VALUE'")[0]
        reasons.append(line.rstrip(".:"))
    reason, reason_of_cause = reasons
    if reason_of_cause == reason or "'$VALUE" in reason_of_cause:
        return [reason]
    return reasons


def key_of(error: BaseException, cause: BaseException) -> str | None:
    """The key that an error of Hydra or OmegaConf is about, or the override; None: neither."""
    key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
    return key or getattr(error, "override", None)


def remedy_for(complaint: str, cause: BaseException, key: str | None) -> str:
    """A sentence or two on what to do about an error of Hydra or OmegaConf.

    complaint: what the message says before this. cause: the error that led to it, or itself;
    OmegaConf's have the key and the type that lacks it. key: as `key_of` returns it.
    """
    if complaint.startswith("Ambiguous"):
        sweep = "Several values are a sweep (make sweep, or --multirun)"
        return f"{sweep}; a list stands in [brackets]."
    # An experiment without its first line: Hydra puts its keys below `experiment`, which is a text.
    if re.match("In 'experiment/.* Cannot convert '(Dict|List)Config' to string", complaint):
        first = "its first line is `# @package _global_`, with no byte order mark (BOM) before it"
        return f"An experiment is key: value, and {first}."
    schema = getattr(cause, "object_type", None)
    if " not in '" in complaint and dataclasses.is_dataclass(schema):
        return unknown_key(str(key), str(cause.key), schema)
    return "All keys and their values: --help."


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class if the message is blank."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def missing_config(path: str, options: Iterable[str]) -> str:
    """The message for a config file that Hydra did not find; it lists the choices of its group.

    path: as Hydra names the file, without its ending, as "model/gcnn_13". One that is in none of
    the groups is taken for the file of --config-name.
    options: the names in its group that Hydra found; those of this project's schemas are not
    listed.
    """
    group = path.partition("/")[0]
    if path.startswith("hydra/"):
        group = os.path.dirname(path)
    name = path[len(group) + 1 :]
    is_group = group in GROUPS or group.startswith("hydra/")
    if not name or not is_group:  # the file of --config-name
        folder = "the folder of --config-path"
        return f"there is no config {path} in {folder}; a run has --config-name config."
    names = set(choices(group))
    names |= {option for option in options if not option.startswith("schema")}
    listed = ", ".join(sorted(names))
    return f"there is no {group}={name}; choose one of: {listed}.{nearest(name, names)}"


def unknown_key(key: str, name: str, schema: type) -> str:
    """The remedy for a key that a schema lacks: the schema's keys, and the one that may be meant.

    key: the full key, as "model.hidden_dim". name: its last part. schema: a dataclass.
    """
    names = [field.name for field in dataclasses.fields(schema)]
    meant = nearest(name, names) or kinds_with_key(key) or nearest_key(name)
    return f"Its keys: {', '.join(names)}.{meant}"


def kinds_with_key(key: str) -> str:
    """A sentence, with a blank before it, that names the kinds of a group which have a key.

    key: the full key, as "model.hidden_dim". Empty if no kind has it, or if the group has no kinds.
    """
    group, _, name = key.partition(".")
    kinds = []
    for kind, schema in SCHEMAS.get(group, {}).items():
        if name in schema.__dataclass_fields__:
            kinds.append(kind)
    if not kinds:
        return ""
    return f" {key} goes with {group}s of the kind {' or '.join(kinds)}."


def nearest_key(name: str) -> str:
    """A sentence, with a blank before it, with the full key whose last part is most like `name`.

    As `optimizer.lr` for `lr`. Empty if none is alike. Of several keys with this last part, the one
    outside of all groups is named (a group is a key, too), else that of the first group in
    TrainConfig.
    """
    members = dataclasses.fields(TrainConfig)  # groups and single keys
    keys = {member.name: member.name for member in members}  # last part -> full key
    for member in members:
        schemas = []  # of a group: of all its kinds, or its only one
        if member.name in SCHEMAS:
            schemas = list(SCHEMAS[member.name].values())
        elif dataclasses.is_dataclass(member.type):
            schemas = [member.type]
        for schema in schemas:
            for field in dataclasses.fields(schema):
                keys.setdefault(field.name, f"{member.name}.{field.name}")
    matches = difflib.get_close_matches(name, keys, n=1)
    if not matches:
        return ""
    return f" The nearest is {keys[matches[0]]}."


# What word processors and web pages make of the signs on a keyboard
TYPESET = str.maketrans("\u2212\u2013\u2014\u201c\u201d\u201e\u2018\u2019", '---"""\'\'')


def explain_unreadable(override: str) -> str:
    """The message for a command-line argument that Hydra cannot parse: what to type instead.

    It may have line ends, from the argument.
    """
    key, equals, value = override.partition("=")
    if override.startswith("-"):
        name = key.lstrip("-").replace("-", "_").rpartition(".")[2]
        rule = "a setting is typed as key=value, without dashes"
        return f"there is no option {key}; {rule}.{nearest_key(name)}"
    if not equals or not key:
        example = "trainer.max_steps=100"
        for group in GROUPS:
            if override in choices(group):
                example = f"{group}={override}"
                break
        return f"{override!r} is not key=value; type it as {example}."
    if key.rstrip() != key:
        return f"{override!r} has blanks around its =; type it as {key.strip()}={value.strip()}."
    if not is_key(key):
        name = key.rpartition(".")[2]
        rule = "a key is typed as trainer.max_steps"
        return f"{override}: Hydra cannot read this key; {rule}.{nearest_key(name)}"
    typeset = [character for character in value if ord(character) in TYPESET]
    if typeset:
        shown = shlex.quote(f"{key}={value.translate(TYPESET)}")
        return f"{override}: Hydra cannot read the {typeset[0]} of typeset text; type {shown}."
    if re.search(r"""["'][\w.]+["']\s*:""", value):
        remedy = "leave out the quotes around keys"
    elif value[:1] in ("[", "{"):
        shown = shlex.quote(f'{key}=["a, b.txt"]')
        remedy = f"put quotes around each text in it, for the shell as {shown}"
    else:
        shown = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
        remedy = f"as a text it needs quotes, for the shell {shown}"
    return f"{override}: Hydra cannot read this value; {remedy}."


def is_key(text: str) -> bool:
    """Whether Hydra can parse this as the key of an override."""
    try:
        OverridesParser.create().parse_override(f"{text}=0")
    except HydraException:
        return False
    return True
