"""Runs that differ in their seed alone, as one line with the range of their perplexities."""

import dataclasses
import re
from dataclasses import dataclass
from operator import attrgetter

from gcnn.config.schema import LoggerConfig, TrainConfig
from gcnn.reporting.document import Table, table_of
from gcnn.reporting.results import Run
from gcnn.reporting.units import spread


@dataclass
class SeedGroup:
    """Runs of one config at different seeds; a run that no other shares its config with is one
    alone.
    """

    label: str
    runs: list[Run]


def seed_groups(runs: list[Run]) -> list[SeedGroup]:
    """The runs in groups of one recipe, in the order of their first runs, with distinct labels.

    Runs are of one recipe whose configs differ at most in the seed and in what changes no result
    (see `recipe`). A run that repeats a seed of its group is a group of its own.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = recipe(run.config)
        seeds = {other.config.seed for other in groups.get(key, [])}
        if run.config.seed in seeds:
            key = f"{key} {run.path}"
        groups.setdefault(key, []).append(run)
    labels = [group_label(group) for group in groups.values()]
    named = []
    for label, group in zip(labels, groups.values(), strict=True):
        unique = label if labels.count(label) == 1 else f"{label} ({group[0].path.name})"
        named.append(SeedGroup(unique, group))
    return named


def recipe(config: TrainConfig) -> str:
    """A config as text, without the seed and what changes no result: the same for runs that
    compare.
    """
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
    """The label of a group without the seed; the experiment where nothing else is left of it."""
    if len(group) == 1:
        return group[0].label
    labels = {re.sub(r",? ?seed=-?\d+$|seed=-?\d+, ", "", run.label) for run in group}
    common = labels.pop() if len(labels) == 1 else ""
    return f"{common or group[0].config.experiment}, {len(group)} seeds"


def seeds_table(groups: list[SeedGroup]) -> Table:
    """A row for each group with several finished runs: mean and range of their perplexities."""
    several = []
    for group in groups:
        finished = [run for run in group.runs if run.finished]
        if len(finished) > 1:
            several.append(SeedGroup(group.label, finished))

    def test(group: SeedGroup) -> str:
        return spread([run.results.test.perplexity for run in group.runs])

    def validation(group: SeedGroup) -> str:
        return spread([run.results.validation.perplexity for run in group.runs])

    def seeds(group: SeedGroup) -> str:
        return ", ".join(map(str, sorted(run.config.seed for run in group.runs)))

    columns = {
        "Runs that differ in their seed alone": attrgetter("label"),
        "Test perplexity: mean (range)": test,
        "Validation perplexity: mean (range)": validation,
        "Seeds": seeds,
    }
    return table_of(several, columns, text_columns=1)
