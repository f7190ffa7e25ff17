"""What a figure compares, each at its best learning rate, chosen on validation.

A record has a `Group` for each thing that the figure compares (a gate, say) and each learning rate;
for an LSTM that was trained with and without shuffled blocks, one for each of these at each rate.
The thing's name is `Group.group`, the rate `Group.lr`. Of each name, one `Group` is chosen here.
"""

import math
from collections.abc import Iterable

from gcnn.reproduction.grouping import SHUFFLED
from gcnn.reproduction.records import Group, Record


def best_groups(record: Record) -> dict[str, Group | None]:
    """For each group name of a record, the best of its `Group`s (`best_group`).

    None: not known, as no seed has ended in all of them.
    """
    return {name: best_group(groups) for name, groups in groups_by_name(record).items()}


def groups_by_name(record: Record) -> dict[str, list[Group]]:
    """For each group name of a record, its `Group`s (see above), in the record's order."""
    found: dict[str, list[Group]] = {}
    for group in record.groups:
        found.setdefault(group.group, []).append(group)
    return found


def best_group(groups: list[Group]) -> Group | None:
    """The best of groups on validation, such as those of one model at several learning rates.

    Only seeds that are finished or have diverged in all of the groups count. Best is the group in
    which the fewest of these diverged, then the one with the lowest mean validation perplexity over
    the finished ones; of equals the first. None if there is no group or no such seed.
    """
    if not groups:
        return None
    seeds = set.intersection(*map(ended_seeds, groups))
    if not seeds:
        return None

    def diverged_and_perplexity(group: Group) -> tuple[int, float]:
        diverged = seeds & set(group.diverged)
        perplexities = [group.validation_perplexity[str(seed)] for seed in seeds - diverged]
        return len(diverged), mean_or_infinite(perplexities)

    return min(groups, key=diverged_and_perplexity)


def ended_seeds(group: Group) -> set[int]:
    """The seeds that are finished or have diverged."""
    return set(map(int, group.test_perplexity)) | set(group.diverged)


def rates_at_an_edge(record: Record) -> str:
    """A clause that warns of best learning rates which may not be the best there are.

    It names the groups whose best rate is the lowest or highest tried with the same order of the
    text, and those for which only one was tried; if that is so of all groups, it says "one rate
    tried: in each case" without names. Groups whose best rate is not known yet are left out. It
    begins in lower case and has no full stop. Empty if there is nothing to say.
    """
    edge = []
    only = []
    several_tried = False
    for groups in groups_by_name(record).values():
        best = best_group(groups)
        if best is None:
            continue
        title = best.title.replace(", learning rate ", " at ")
        alike = [group for group in groups if is_shuffled(group) == is_shuffled(best)]
        tried = sorted({group.lr for group in alike})
        if len(tried) == 1:
            only.append(title)
            continue
        several_tried = True
        if best.lr in (tried[0], tried[-1]):
            edge.append(title)
    parts = []
    if edge:
        parts.append(f"best rate at the edge of its grid: {', '.join(edge)}")
    if only:
        parts.append(f"one rate tried: {', '.join(only) if several_tried else 'in each case'}")
    return "; ".join(parts)


def is_shuffled(group: Group) -> bool:
    """Whether it is of a recurrent model that reads its text in shuffled blocks."""
    return group.variant.endswith(SHUFFLED)


def mean_or_infinite(values: Iterable[float]) -> float:
    """The mean; infinite without values, where `mean` of reporting/units.py is None."""
    values = list(values)
    return sum(values) / len(values) if values else math.inf
