"""What a figure compares, each at its best learning rate, chosen on validation."""

import math
from collections.abc import Iterable

from gcnn.reproduction.records import Group, Record


def best_rates(record: Record) -> dict[str, Group | None]:
    """What a figure compares, by name, each at its best learning rate; None where that is not
    known.
    """
    return {name: best_rate(groups) for name, groups in rates(record).items()}


def rates(record: Record) -> dict[str, list[Group]]:
    """What a figure compares, by name, each at all learning rates that were tried."""
    found: dict[str, list[Group]] = {}
    for group in record.groups:
        found.setdefault(group.group, []).append(group)
    return found


def best_rate(groups: list[Group]) -> Group | None:
    """The group with the best learning rate, of groups that should differ in it alone.

    The fewest diverged seeds count first, then the lowest mean validation perplexity, over the
    seeds that have ended in all groups. None where there is no such seed, or no group.
    """
    if not groups:
        return None
    seeds = set.intersection(*map(ended_seeds, groups))
    if not seeds:
        return None

    def diverged_and_perplexity(group: Group) -> tuple[int, float]:
        diverged = seeds & set(group.diverged)
        perplexities = [group.validation_perplexity[str(seed)] for seed in seeds - diverged]
        return len(diverged), mean(perplexities)

    return min(groups, key=diverged_and_perplexity)


def ended_seeds(group: Group) -> set[int]:
    """The seeds that are finished or have diverged."""
    return set(map(int, group.test_perplexity)) | set(group.diverged)


def rates_at_an_edge(record: Record) -> str:
    """A remark on the best learning rates that say little; empty without any.

    Named are those at the edge of their grid, and those that were the only one tried.
    """
    edge = []
    only = []
    several_tried = False
    for groups in rates(record).values():
        best = best_rate(groups)
        if best is None:
            continue
        title = best.title.replace(", learning rate ", " at ")
        tried = sorted({group.lr for group in groups})
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


def mean(values: Iterable[float]) -> float:
    """The mean; infinite without values."""
    values = list(values)
    return sum(values) / len(values) if values else math.inf
