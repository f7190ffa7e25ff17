"""The lines of `gcnn train --help`: groups with their choices, keys with values and meanings."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from gcnn.base.values import default_of
from gcnn.config.compose import compose_config
from gcnn.config.groups import GROUPS, choices
from gcnn.config.schema import SCHEMAS


def help_lines(
    overrides: list[str],
    groups: tuple[str, ...] = (*GROUPS, "trainer"),
    config_dir: Path | None = None,
) -> Iterator[str]:
    """Lines for --help: the groups with their choices, then each key with its value and meaning.

    Lines do not end in newlines, but a title begins with one, for a blank line before it.
    overrides: values shown are those of a command with these. Raises UsageError, on the first line
    taken, if one is invalid.
    groups: what to list; "experiment" stands for the keys outside of all groups. In a group with
    several kinds, the keys of the other kinds follow, with their defaults.
    config_dir: the folder of the user's own configs; None: only the project's.
    """
    config = compose_config(*overrides, config_dir=config_dir)
    for group in groups:
        if group in GROUPS:
            yield f"{group + '=':12}{', '.join(choices(group, config_dir))}"
    for group in groups:
        if group == "experiment":
            yield from key_lines(group, config, prefix="", skip=(*GROUPS[1:], "trainer"))
            continue
        chosen = getattr(config, group)
        schemas = SCHEMAS.get(group, {}).values()
        title = f"{group}, of the kind {chosen.kind}" if schemas else group
        yield from key_lines(title, chosen, prefix=f"{group}.")
        # The other kinds of the group, by their schemas, with the defaults as values.
        for schema in schemas:
            if not isinstance(chosen, schema):
                title = f"{group}, of the kind {schema.kind}"
                yield from key_lines(title, schema, prefix=f"{group}.")


def key_lines(title: str, owner: Any, prefix: str, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """A title after a newline, then a line for each field of a dataclass: key, value, meaning.

    owner: the instance whose values are shown, or the class, whose defaults are. Values are JSON,
    texts and keys without quotes, None as null; "(by choice)" if there is no default.
    prefix: stands before each key, as "trainer.". skip: names of fields that are left out.
    """
    yield f"\n{title}"
    for field in dataclasses.fields(owner):
        if field.name in skip:
            continue
        value = default_of(field) if isinstance(owner, type) else getattr(owner, field.name)
        shown = "(by choice)"
        if value not in (MISSING, dataclasses.MISSING):
            shown = json.dumps(value, default=dataclasses.asdict).strip('"')
            shown = re.sub(r'"(\w+)":', r"\1:", shown)  # a key in quotes cannot be typed
        meaning = field.metadata.get("meaning", "")
        yield f"  {prefix + field.name:30} {shown:14} {meaning}".rstrip()
