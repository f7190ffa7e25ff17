"""What the paper claims of each table and figure, in our words, and how far our numbers bear it out.

A claim is a list of comparisons. One between two groups of runs holds if the test perplexity of the first is lower for
every seed that both have, of which there must be three; a diverged run counts as infinitely bad. The verdict follows
from the comparisons alone.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gcnn.reporting.latency import pairs_of
from gcnn.reporting.units import count, decimals, magnitude, perplexity, ratio
from gcnn.reproduction.paper import TABLE_2, TABLE_3, TABLE_4
from gcnn.reproduction.records import GATES, RECIPES

HOLDS, IN_PART, NOT = "holds", "holds in part", "does not hold at this size"
NOT_MEASURED = "not measured"
SEEDS = 3  # that a comparison takes
NEAR = 20  # words of context past which the paper sees quickly diminishing returns
ABOUT_20 = 15  # times: what still is "about 20 times"
SPEED_UP = 0.6  # of the steps, in which what is "about twice as fast" must be there
TITLES = {name: row.title for table in (TABLE_2, TABLE_3, TABLE_4) for name, row in table.items()}
TITLES |= GATES | dict(RECIPES.values())
Scores = dict[int, float]  # seed -> perplexity, infinite where the run diverged


@dataclass(frozen=True)
class Comparison:
    """`holds` is None where it was not measured."""

    text: str
    holds: bool | None


@dataclass(frozen=True)
class Claim:
    """`compare` takes what was found (a reproduction's record, or the latency benchmark) and None where nothing was."""

    text: str
    compare: Callable[[dict[str, Any] | None], list[Comparison]]
    evidence: Callable[[dict[str, Any]], str]


def verdict(comparisons: list[Comparison], missing: int = 0) -> str:
    """`missing` members of the figure have not begun: what they are compared with is not known yet."""
    if missing or not comparisons or any(c.holds is None for c in comparisons):
        return NOT_MEASURED
    held = sum(c.holds for c in comparisons)
    return HOLDS if held == len(comparisons) else IN_PART if held else NOT


def failing(comparisons: list[Comparison]) -> list[str]:
    return [c.text for c in comparisons if c.holds is False]


def groups_of(record: dict | None, name: str | None = None) -> list[dict]:
    groups = (record or {}).get("groups") or []
    return [g for g in groups if name in (None, g["group"])]


def scores(group: dict | None) -> Scores:
    if group is None:
        return {}
    found = {int(seed): test for seed, test in group["test_perplexity"].items()}
    return found | dict.fromkeys(group["diverged"], math.inf)


def lower(first: Scores, second: Scores) -> bool | None:
    """Whether the first is lower for every seed of both; None with fewer than three such seeds."""
    seeds = first.keys() & second.keys()
    return all(first[seed] < second[seed] for seed in seeds) if len(seeds) >= SEEDS else None


def ordering(*names: str) -> Callable[[dict | None], list[Comparison]]:
    """Each named group, at its best learning rate, better than the next."""

    def compare(record: dict | None) -> list[Comparison]:
        of = {name: scores(best(groups_of(record, name))) for name in names}
        return [Comparison(f"{TITLES[a]} < {TITLES[b]}", lower(of[a], of[b])) for a, b in pairwise(names)]

    return compare


def at_equal_operations(record: dict | None) -> list[Comparison]:
    """The adaptive softmax against each model with a full one."""
    full, adaptive = groups_of(record, "full"), groups_of(record, "adaptive")
    if not full or not adaptive:
        return [Comparison("adaptive softmax < full softmax", None)]
    found = []
    for group in full:
        text = f"adaptive < full at {magnitude(group['flops_per_token'])} FLOPs a token"
        found.append(Comparison(text, lower(interpolated(adaptive, group["flops_per_token"]), scores(group))))
    return found


def interpolated(groups: list[dict], flops: float | None) -> Scores:
    """The perplexity of models of one kind at so many operations a token, by seed: log perplexity is a straight line
    in log operations between two of them, and that of the largest where it takes fewer. Nothing below the smallest."""
    known = sorted((g for g in groups if g["flops_per_token"]), key=lambda g: g["flops_per_token"])
    if flops is None or len(known) < len(groups) or flops < known[0]["flops_per_token"]:
        return {}
    x = np.log([g["flops_per_token"] for g in known])
    every = [scores(g) for g in known]
    seeds = set.intersection(*map(set, every))
    return {seed: float(np.exp(np.interp(np.log(flops), x, np.log([s[seed] for s in every])))) for seed in seeds}


def more_context(record: dict | None) -> list[Comparison]:
    """Each context better than the next smaller one up to about 20 words; beyond, less is gained than before."""
    of = {g["receptive_field"]: scores(g) for g in groups_of(record)}
    words = sorted(of)
    near = [n for n in words if n <= NEAR]
    if len(near) < 3 or near == words:
        return [Comparison("more context is better", None)]
    found = [Comparison(f"{b} < {a} words", lower(of[b], of[a])) for a, b in pairwise(near)]
    second, middle, last = near[1], near[-1], words[-1]
    seeds = of[second].keys() & of[middle].keys() & of[last].keys()
    gains = [(of[second][s] - of[middle][s], of[middle][s] - of[last][s]) for s in seeds]
    diminish = all(before > after for before, after in gains) if len(seeds) >= SEEDS else None
    text = f"the gain from {second} to {middle} words exceeds that from {middle} to {last}"
    return [*found, Comparison(text, diminish)]


def best_of_rates(record: dict | None) -> dict[str, dict | None]:
    """What a figure compares, each at its best learning rate."""
    return {name: best(groups_of(record, name)) for name in dict.fromkeys(g["group"] for g in groups_of(record))}


def best(groups: list[dict]) -> dict | None:
    """Of one thing at several learning rates the best, by mean validation perplexity over the seeds that all of them
    have; None where they have none."""
    seeds = set.intersection(*(set(scores(group)) for group in groups)) if groups else set()

    def validation(group: dict) -> tuple[int, float]:
        diverged = seeds & set(group["diverged"])
        return len(diverged), mean(group["validation_perplexity"][str(seed)] for seed in seeds - diverged)

    return min(groups, key=validation) if seeds else None


def mean(values: Iterable[float]) -> float:
    """Infinite of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else math.inf


def recipes(record: dict | None) -> list[Comparison]:
    """The full recipe lower than without either part, and sooner where each of the others ends."""
    of = best_of_rates(record)
    both, *others = (name for name, _ in RECIPES.values())
    found = [
        Comparison(f"both < {TITLES[name]}", lower(scores(of.get(both)), scores(of.get(name)))) for name in others[:2]
    ]
    for name in others:
        shares = shares_of_steps(of.get(both), of.get(name))
        soon = all(share <= SPEED_UP for share in shares.values()) if len(shares) >= SEEDS else None
        text = f"both in at most {SPEED_UP:.0%} of the steps where {TITLES[name]} ends"
        found.append(Comparison(text, soon))
    return found


def shares_of_steps(first: dict | None, second: dict | None) -> dict[int, float]:
    """The part of the steps after which the first stands, at one of its validations, where the second ends; by seed.

    Infinite where it never does; the first validation's where the second diverged.
    """
    if first is None or second is None:
        return {}
    found = {}
    for seed in scores(first).keys() & scores(second).keys():
        end = (second["curve"]["perplexity"].get(str(seed)) or [math.inf])[-1]
        steps = zip(first["curve"]["steps"], first["curve"]["perplexity"].get(str(seed), []), strict=False)
        total = max(first["curve"]["steps"], default=0)
        found[seed] = next((step / total for step, reached in steps if reached <= end), math.inf)
    return found


def sooner(latency: dict | None) -> list[Comparison]:
    """GCNN-8B's responsiveness against each LSTM's."""
    pairs = [pair for pair in pairs_of(latency) if pair.get("gcnn") == "gcnn_8b" and pair.get("responsiveness")]
    if not pairs:
        return [Comparison("GCNN-8B ahead of the LSTM", None)]
    of = {pair["lstm"]: pair["responsiveness"]["measured"] for pair in pairs}
    ahead = [Comparison(f"GCNN-8B ahead of {name}", times > 1) for name, times in of.items()]
    far = [Comparison(f"{ABOUT_20:g} times as fast as {name}", times >= ABOUT_20) for name, times in of.items()]
    return ahead + far


def spread(group: dict) -> str:
    """Mean of the test perplexity and, of several seeds, its range; and what has no part in them."""
    parts = [f"{len(group[kind])} {kind}" for kind in ("diverged", "unfinished") if group[kind]]
    if group["mean"] is not None:
        several = len(group["test_perplexity"]) > 1
        extremes = f" ({perplexity(group['min'])} to {perplexity(group['max'])})" if several else ""
        parts.insert(0, perplexity(group["mean"]) + extremes)
    return ", ".join(parts)


def all_groups(record: dict) -> str:
    return "; ".join(f"{g['title']} {spread(g)}" for g in groups_of(record))


def at_best_rates(record: dict) -> str:
    return "; ".join(f"{g['title']} {spread(g)}" for g in best_of_rates(record).values() if g is not None)


def interpolations(record: dict) -> str:
    adaptive, found = groups_of(record, "adaptive"), []
    for group in groups_of(record, "full"):
        between = interpolated(adaptive, group["flops_per_token"]).values()
        middle = perplexity(mean(between)) if between else "not measured"
        flops = magnitude(group["flops_per_token"])
        found.append(f"at {flops} FLOPs a token {middle} (adaptive) against {spread(group)} (full)")
    return "; ".join(found) or all_groups(record)


def recipes_found(record: dict) -> str:
    of = {name: group for name, group in best_of_rates(record).items() if group is not None}
    found = [f"{group['title']} {spread(group)}" for group in of.values()]
    for name in [name for name in of if name != "both" and "both" in of]:
        shares = shares_of_steps(of["both"], of[name]).values()
        text = ", ".join(f"{share:.0%}" if math.isfinite(share) else "never" for share in shares)
        found.append(f"where {TITLES[name]} ends, both is after {text} of the steps")
    return "; ".join(found) or all_groups(record)


def responsiveness(latency: dict) -> str:
    found = []
    for pair in pairs_of(latency):
        if pair.get("gcnn") == "gcnn_8b":
            speeds = [latency["models"][pair[kind]]["responsiveness"]["tokens_per_second"] for kind in ("gcnn", "lstm")]
            times, throughput = (ratio(pair[kind]["measured"]) for kind in ("responsiveness", "throughput"))
            speeds = " against ".join(map(count, speeds))
            found.append(f"{pair['lstm']}: {times} ({speeds} tokens/s), at {throughput} its throughput")
    return "; ".join(found)


def published(table: dict, *names: str) -> str:
    return ", ".join(f"{table[name].title} ({decimals(table[name].perplexity, 1)})" for name in names)


MODELS = {"table2": ("gcnn_14b", "gcnn_13", "lstm_2048x2", "lstm_2048"), "table3": ("gcnn_14", "gcnn_8", "lstm_1024")}
CLAIMS = {
    "table2": Claim(
        f"On Billion Word's sentences, the best first: {published(TABLE_2, *MODELS['table2'])}",
        ordering(*MODELS["table2"]),
        all_groups,
    ),
    "table3": Claim(
        f"On WikiText-103's running text, the best first: {published(TABLE_3, *MODELS['table3'])}",
        ordering(*MODELS["table3"]),
        all_groups,
    ),
    "table4": Claim(
        "GCNN-8B reads one long text about 20 times as fast as LSTM-2048 on a GPU, at the same throughput",
        sooner,
        responsiveness,
    ),
    "fig2": Claim(
        "For as many operations a token, the adaptive softmax has a lower perplexity than the full one",
        at_equal_operations,
        interpolations,
    ),
    "fig3": Claim("GLU ends lowest, then ReLU, GTU, tanh", ordering("glu", "relu", "gtu", "tanh"), at_best_rates),
    "fig4": Claim(
        "More context is better, with quickly diminishing returns past about 20 words", more_context, all_groups
    ),
    "fig5": Claim(
        "GLU is better than bilinear units, and these than linear ones",
        ordering("glu", "bilinear", "linear"),
        at_best_rates,
    ),
    "fig6": Claim(
        "Weight normalisation and clipping both speed convergence up, to about twice", recipes, recipes_found
    ),
}
