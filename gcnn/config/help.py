"""What `gcnn train --help` lists: groups with their choices, keys with their values and meanings."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from omegaconf import MISSING

from gcnn.config.compose import compose_config
from gcnn.config.groups import GROUPS, choices
from gcnn.config.schema import SCHEMAS


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
        others = [
            schema for schema in SCHEMAS.get(group, {}).values() if not isinstance(chosen, schema)
        ]
        for owner in (chosen, *others):
            yield f"\n{group}" + (f", of the kind {owner.kind}" if group in SCHEMAS else "")
            for field in dataclasses.fields(owner):
                if field.name in (*GROUPS[1:], "trainer") and group == "experiment":
                    continue
                value = getattr(owner, field.name, "(by choice)")
                key = field.name if group == "experiment" else f"{group}.{field.name}"
                shown = (
                    "(by choice)"
                    if value == MISSING
                    else json.dumps(value, default=dataclasses.asdict).strip('"')
                )
                yield f"  {key:30} {shown:14} {field.metadata.get('meaning', '')}".rstrip()
