"""Runs that differ in their seed alone: one line, with the range of what they found."""

import dataclasses
import re
from dataclasses import dataclass

from gcnn.config.schema import LoggerConfig, TrainConfig
from gcnn.reporting.document import Table, table_of
from gcnn.reporting.results import Run
from gcnn.reporting.units import spread


@dataclass
class SeedGroup:
    """Runs of one config but for the seed; a single run, where no other has its config."""

    label: str
    runs: list[Run]


def seed_groups(runs: list[Run]) -> list[SeedGroup]:
    """The runs in groups, in the order of their first ones. A run that repeats another's seed is a group of its own."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = recipe(run.config)
        seeds = {other.config.seed for other in groups.get(key, [])}
        groups.setdefault(f"{key} {run.path}" if run.config.seed in seeds else key, []).append(run)
    labels = [group_label(group) for group in groups.values()]
    return [
        SeedGroup(label if labels.count(label) == 1 else f"{label} ({group[0].path.name})", group)
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def recipe(config: TrainConfig) -> str:
    """All of a config but the seed and what changes no result."""
    same = {
        "seed": 0,
        "run_dir": None,
        "resume": False,
        "threads": None,
        "device": "auto",
        "logger": LoggerConfig(),
    }
    return repr(dataclasses.replace(config, **same))


def group_label(group: list[Run]) -> str:
    """What a group's runs are called, without the seed: its experiment where nothing else is left."""
    if len(group) == 1:
        return group[0].label
    labels = {re.sub(r",? ?seed=-?\d+$|seed=-?\d+, ", "", run.label) for run in group}
    common = labels.pop() if len(labels) == 1 else ""
    return f"{common or group[0].config.experiment}, {len(group)} seeds"


def seeds_table(groups: list[SeedGroup]) -> Table:
    """A row for each group of several runs that are done: mean and range of their perplexities."""
    several = [
        SeedGroup(group.label, [run for run in group.runs if run.finished]) for group in groups
    ]
    columns = {
        "Runs that differ in their seed alone": lambda group: group.label,
        "Test perplexity: mean (range)": lambda group: spread(
            [r.results.test.perplexity for r in group.runs]
        ),
        "Validation perplexity: mean (range)": lambda group: spread(
            [run.results.validation.perplexity for run in group.runs]
        ),
        "Seeds": lambda group: ", ".join(map(str, sorted(run.config.seed for run in group.runs))),
    }
    return table_of([group for group in several if len(group.runs) > 1], columns, text_columns=1)
