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
    """Runs of one config, each with another seed; at least one."""

    label: str
    runs: list[Run]


def seed_groups(runs: list[Run]) -> list[SeedGroup]:
    """The runs in groups with the same config except for the seed (see `config_without_seed`).

    Groups are in the order of their first runs. A run that repeats a seed of its group becomes a
    group of its own. Labels are those of `group_label`; where several are equal, each is followed
    by the name of the folder of its group's first run, as "lr=0.1, 3 seeds (NAME)". They are still
    equal if these names are.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = config_without_seed(run.config)
        seeds = {other.config.seed for other in groups.get(key, [])}
        if run.config.seed in seeds:
            key = f"{key} {run.path}"
        groups.setdefault(key, []).append(run)
    labels = [group_label(group) for group in groups.values()]
    named = []
    for label, group in zip(labels, groups.values(), strict=True):
        if labels.count(label) > 1:
            label = f"{label} ({group[0].path.name})"
        named.append(SeedGroup(label, group))
    return named


def config_without_seed(config: TrainConfig) -> str:
    """A config as text, without the seed and the keys that change results by rounding at most.

    These are run_dir, resume, threads, device and the logger. The texts of configs that differ only
    in the seed and these are equal.
    """
    defaults = {
        "seed": 0,
        "run_dir": None,
        "resume": False,
        "threads": None,
        "device": "auto",
        "logger": LoggerConfig(),
    }
    return repr(dataclasses.replace(config, **defaults))


def group_label(group: list[Run]) -> str:
    """The label of a group: that of its runs without "seed=N", and how many, as "lr=0.1, 3 seeds".

    If nothing is left of the labels, or they still differ, the experiment's name takes their place.
    A group of a single run has the label of that run. `group` is not empty.
    """
    if len(group) == 1:
        return group[0].label
    # The seed with what joins it to the other settings: it is the last of them, or another follows.
    labels = {re.sub(r",? ?seed=-?\d+$|seed=-?\d+, ", "", run.label) for run in group}
    common = labels.pop() if len(labels) == 1 else ""
    return f"{common or group[0].config.experiment}, {len(group)} seeds"


def seeds_table(runs: list[Run]) -> Table:
    """Mean and range of the perplexities per token of finished runs that differ in seed alone.

    A row for each of their `seed_groups` with two or more runs. Columns: the group's label, test
    and validation (a dash if a run has none), and the seeds. Unfinished runs are left out; the
    label does not count them either. The table has no rows if there is no such group.
    """
    finished = [run for run in runs if run.finished]
    several = [group for group in seed_groups(finished) if len(group.runs) > 1]

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
