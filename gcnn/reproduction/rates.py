"""Each thing that a figure compares at its best learning rate, chosen on validation."""

import math
from collections.abc import Iterable

from gcnn.reproduction.records import Group, Record


def best_rates(record: Record) -> dict[str, Group | None]:
    """What a figure compares, each at its best learning rate."""
    return {name: best_rate(groups) for name, groups in rates(record).items()}


def rates(record: Record) -> dict[str, list[Group]]:
    """What a figure compares, each at all learning rates that were tried."""
    found: dict[str, list[Group]] = {}
    for group in record.groups:
        found.setdefault(group.group, []).append(group)
    return found


def best_rate(groups: list[Group]) -> Group | None:
    """Of one thing at several learning rates the best, by mean validation perplexity over the seeds that all of them
    have; None where they have none."""
    seeds = set.intersection(*(ended_seeds(group) for group in groups)) if groups else set()

    def validation(group: Group) -> tuple[int, float]:
        diverged = seeds & set(group.diverged)
        return len(diverged), mean(
            group.validation_perplexity[str(seed)] for seed in seeds - diverged
        )

    return min(groups, key=validation) if seeds else None


def ended_seeds(group: Group) -> set[int]:
    return set(map(int, group.test_perplexity)) | set(group.diverged)


def rates_at_an_edge(record: Record) -> str:
    """Which of the best learning rates say little: those at the edge of their grid, and those without a choice."""
    edge, only, chosen = [], [], 0
    for groups in rates(record).values():
        best = best_rate(groups)
        if best is None:
            continue
        title = best.title.replace(", learning rate ", " at ")
        tried = sorted({group.lr for group in groups})
        chosen += len(tried) > 1
        if len(tried) == 1:
            only.append(title)
        elif best.lr in (tried[0], tried[-1]):
            edge.append(title)
    parts = [f"best rate at the edge of its grid: {', '.join(edge)}"] if edge else []
    if only:
        parts.append(f"one rate tried: {', '.join(only) if chosen else 'in each case'}")
    return "; ".join(parts)


def mean(values: Iterable[float]) -> float:
    """Infinite of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else math.inf
