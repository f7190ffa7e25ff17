"""What the paper claims of each table and figure, in our words, and how far our numbers bear it out.

A claim is a list of comparisons, and its verdict follows from them alone; `RULE` in page.py says when one holds.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gcnn.gates import GATES
from gcnn.reporting.latency import Latency
from gcnn.reporting.units import count, decimals, magnitude, perplexity, ratio
from gcnn.reproduction.paper import MODEL_TITLES, TABLE_2, TABLE_3, Published
from gcnn.reproduction.records import RECIPES, Group, Record

HOLDS, IN_PART, NOT = "holds", "holds in part", "does not hold at this size"
NOT_MEASURED = "not measured"
SEEDS = 3  # that a comparison takes, where the two are nearer than this:
APART = 0.03  # of the mean test perplexity; over seeds, ours spreads by about 1.5 %
NEAR = 20  # words of context past which the paper sees quickly diminishing returns
ABOUT_20 = 15  # times: what still is "about 20 times"
EQUAL = 1.25  # times, either way: what still is "the same throughput"
SPEED_UP = 0.6  # of the steps, in which what is "about twice as fast" must be there
TITLES = MODEL_TITLES | {name: gate.title for name, gate in GATES.items()} | dict(RECIPES.values())
Scores = dict[int, float]  # seed -> test perplexity, infinite where the run diverged


@dataclass(frozen=True)
class Comparison:
    """`holds` is None where it was not measured; `evidence` is more than the perplexities of the figure's groups."""

    text: str
    holds: bool | None
    evidence: str = ""


@dataclass(frozen=True)
class Claim:
    """`compare` takes a figure's record (of Table 4, the latency benchmark)."""

    text: str
    compare: Callable[[Record | Latency], list[Comparison]]

    def evidence(self, record: Record | Latency) -> str:
        """That of the comparisons; without any, the groups at their best learning rates, or all."""
        evidence = "; ".join(c.evidence for c in self.compare(record) if c.evidence)
        if evidence or isinstance(record, Latency):
            return evidence
        return spreads(best_rates(record).values()) or spreads(record.groups)


def verdict(comparisons: list[Comparison], missing: int = 0) -> str:
    """`missing` members of the figure have not begun: what they are compared with is not known yet."""
    if missing or not comparisons or any(c.holds is None for c in comparisons):
        return NOT_MEASURED
    held = sum(c.holds for c in comparisons)
    return HOLDS if held == len(comparisons) else IN_PART if held else NOT


def failing(comparisons: list[Comparison]) -> list[str]:
    return [c.text for c in comparisons if c.holds is False]


def scores(group: Group | None) -> Scores:
    if group is None:
        return {}
    tests = {int(seed): test for seed, test in group.test_perplexity.items()}
    return tests | dict.fromkeys(group.diverged, math.inf)


def is_lower(first: Scores, second: Scores) -> bool | None:
    """Whether the first is lower for every seed of both; None with fewer than three such seeds, unless the means are
    3 % apart."""
    seeds = first.keys() & second.keys()
    if not seeds:
        return None
    means = [mean(tests[seed] for seed in seeds) for tests in (first, second)]
    apart = max(means) / min(means) >= 1 + APART
    return all(first[seed] < second[seed] for seed in seeds) if len(seeds) >= SEEDS or apart else None


def ordering(*names: str) -> Callable[[Record], list[Comparison]]:
    """Each named group, at its best learning rate, better than the next."""

    def compare(record: Record) -> list[Comparison]:
        tests = {name: scores(group) for name, group in best_rates(record).items()}
        return [
            Comparison(f"{TITLES[a]} < {TITLES[b]}", is_lower(tests.get(a, {}), tests.get(b, {})))
            for a, b in pairwise(names)
        ]

    return compare


def at_each_size(record: Record) -> list[Comparison]:
    """Each GCNN against the LSTM, for each size of the text: on its own test set, with WikiText-103's as evidence."""
    comparisons = []
    for gcnn, lstm in pairs_of_a_size(record):
        tokens, evidence = f"{magnitude(gcnn.corpus_tokens)} tokens", ""
        if lstm and gcnn.mean and lstm.mean:
            means = f"{perplexity(gcnn.mean)} / {perplexity(lstm.mean)} = {gcnn.mean / lstm.mean:.3f}"
            evidence = f"{gcnn.group} at {tokens}: {means}"
            if gcnn.wikitext103 and lstm.wikitext103:
                elsewhere = " / ".join(perplexity(mean(group.wikitext103.values())) for group in (gcnn, lstm))
                evidence += f", on WikiText-103's test set {elsewhere}"
        lower = is_lower(scores(gcnn), scores(lstm))
        comparisons.append(Comparison(f"{gcnn.group} < LSTM at {tokens}", lower, evidence))
    return comparisons


def pairs_of_a_size(record: Record) -> list[tuple[Group, Group | None]]:
    """Each GCNN with the LSTM of its text."""
    lstms = {group.corpus_tokens: group for group in record.groups if group.group.startswith("LSTM")}
    return [(group, lstms.get(group.corpus_tokens)) for group in record.groups if group.group.startswith("GCNN")]


def at_equal_operations(record: Record) -> list[Comparison]:
    """The adaptive softmax against each model with a full one."""
    adaptive, comparisons = with_softmax(record, "adaptive"), []
    for group in with_softmax(record, "full"):
        between = interpolated(adaptive, group.flops_per_token)
        middle = perplexity(mean(between.values())) if between else "not measured"
        at = f"at {magnitude(group.flops_per_token)} FLOPs a token"
        evidence = f"{at} {middle} (adaptive) against {spread(group)} (full)"
        comparisons.append(Comparison(f"adaptive < full {at}", is_lower(between, scores(group)), evidence))
    return comparisons


def with_softmax(record: Record, kind: str) -> list[Group]:
    """The models with an adaptive or a full softmax, each at its best learning rate; none before all are known."""
    groups = [group for name, group in best_rates(record).items() if name.startswith(kind)]
    return groups if all(groups) else []


def interpolated(groups: list[Group], flops: float | None) -> Scores:
    """The perplexity of models of one kind at so many operations a token, by seed: log perplexity is a straight line
    in log operations between two of them, and that of the largest where it takes fewer. Nothing below the smallest."""
    ordered = sorted((g for g in groups if g.flops_per_token), key=lambda g: g.flops_per_token)
    if flops is None or not groups or len(ordered) < len(groups) or flops < ordered[0].flops_per_token:
        return {}
    x, tests = np.log([g.flops_per_token for g in ordered]), list(map(scores, ordered))
    seeds = set.intersection(*map(set, tests))
    return {seed: float(np.exp(np.interp(np.log(flops), x, np.log([t[seed] for t in tests])))) for seed in seeds}


def more_context(record: Record) -> list[Comparison]:
    """Each context better than the next smaller one up to about 20 words; beyond, less is gained than before."""
    tests = {int(words): scores(group) for words, group in best_rates(record).items()}
    near = [words for words in sorted(tests) if words <= NEAR]
    if len(near) < 3 or len(near) == len(tests):
        return []
    comparisons = [Comparison(f"{b} < {a} words", is_lower(tests[b], tests[a])) for a, b in pairwise(near)]
    second, middle, last = near[1], near[-1], max(tests)
    seeds = tests[second].keys() & tests[middle].keys() & tests[last].keys()
    # by how much the first gain is the greater, as a part of the perplexity between the two
    differences = [(tests[second][s] + tests[last][s]) / tests[middle][s] - 2 for s in seeds]
    decided = len(seeds) >= SEEDS or (seeds and abs(mean(differences)) >= APART)
    diminish = all(difference > 0 for difference in differences) if decided else None
    text = f"the gain from {second} to {middle} words exceeds that from {middle} to {last}"
    return [*comparisons, Comparison(text, diminish)]


def best_rates(record: Record) -> dict[str, Group | None]:
    """What a figure compares, each at its best learning rate."""
    names = dict.fromkeys(group.group for group in record.groups)
    return {name: best_rate([group for group in record.groups if group.group == name]) for name in names}


def best_rate(groups: list[Group]) -> Group | None:
    """Of one thing at several learning rates the best, by mean validation perplexity over the seeds that all of them
    have; None where they have none."""
    seeds = set.intersection(*(set(scores(group)) for group in groups))

    def validation(group: Group) -> tuple[int, float]:
        diverged = seeds & set(group.diverged)
        return len(diverged), mean(group.validation_perplexity[str(seed)] for seed in seeds - diverged)

    return min(groups, key=validation) if seeds else None


def mean(values: Iterable[float]) -> float:
    """Infinite of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else math.inf


def convergence(record: Record) -> list[Comparison]:
    """The full recipe lower than without either part, and sooner where each of the others ends."""
    groups = best_rates(record)
    both, *others = (name for name, _ in RECIPES.values())
    comparisons = [
        Comparison(f"both < {TITLES[name]}", is_lower(scores(groups.get(both)), scores(groups.get(name))), evidence)
        for name, evidence in ((others[0], spreads(groups.values())), (others[1], ""))
    ]
    for name in others:
        shares = shares_of_steps(groups.get(both), groups.get(name)).values()
        soon = all(share <= SPEED_UP for share in shares) if len(shares) >= SEEDS else None
        steps = ", ".join(f"{share:.0%}" if math.isfinite(share) else "never" for share in shares)
        evidence = f"where {TITLES[name]} ends, both is after {steps} of the steps" if shares else ""
        text = f"both in at most {SPEED_UP:.0%} of the steps where {TITLES[name]} ends"
        comparisons.append(Comparison(text, soon, evidence))
    return comparisons


def shares_of_steps(first: Group | None, second: Group | None) -> dict[int, float]:
    """The part of the steps after which the first stands, at one of its validations, where the second ends; by seed.

    Infinite where it never does; the first validation's where the second diverged.
    """
    if first is None or second is None:
        return {}
    shares, total = {}, max(first.curve.steps, default=0)
    for seed in scores(first).keys() & scores(second).keys():
        end = (second.curve.perplexity.get(str(seed)) or [math.inf])[-1]
        validations = zip(first.curve.steps, first.curve.perplexity.get(str(seed), []), strict=False)
        shares[seed] = next((step / total for step, reached in validations if reached <= end), math.inf)
    return shares


def responsiveness(latency: Latency | None) -> list[Comparison]:
    """GCNN-8B's against each LSTM's; unknown but on a GPU and at the same throughput, for which the paper claims it."""
    comparisons = []
    for pair in latency.pairs if latency else []:
        faster, same = pair.responsiveness.measured, pair.throughput.measured
        if pair.gcnn != "gcnn_8b" or faster is None:
            continue
        comparable = latency.device == "cuda" and same is not None and 1 / EQUAL <= same <= EQUAL
        speeds = [latency.models[name].responsiveness.tokens_per_second for name in (pair.gcnn, pair.lstm)]
        tokens = " against ".join(map(count, speeds))
        evidence = f"{pair.lstm}: {ratio(faster)} ({tokens} tokens/s), at {ratio(same)} its throughput"
        ahead, about_20 = (faster > 1, faster >= ABOUT_20) if comparable else (None, None)
        comparisons += [
            Comparison(f"GCNN-8B ahead of {pair.lstm}", ahead, evidence),
            Comparison(f"GCNN-8B {ABOUT_20:g} times as fast as {pair.lstm}", about_20),
        ]
    return comparisons


def spread(group: Group) -> str:
    """Mean of the test perplexity and, of several seeds, its range; and what has no part in them."""
    parts = [f"{len(seeds)} {kind}" for kind in ("diverged", "unfinished") if (seeds := getattr(group, kind))]
    if group.mean is not None:
        several = len(group.test_perplexity) > 1
        extremes = f" ({perplexity(group.min)} to {perplexity(group.max)})" if several else ""
        parts.insert(0, perplexity(group.mean) + extremes)
    return ", ".join(parts)


def spreads(groups: Iterable[Group | None]) -> str:
    return "; ".join(f"{group.title} {spread(group)}" for group in groups if group)


def published_ordering(text: str, table: dict[str, Published], *names: str) -> Claim:
    models = ", ".join(f"{table[name].title} ({decimals(table[name].perplexity, 1)})" for name in names)
    return Claim(f"On {text}, the best first: {models}", ordering(*names))


CLAIMS = {
    "table2": published_ordering(
        "Billion Word's sentences", TABLE_2, "gcnn_14b", "gcnn_13", "lstm_2048x2", "lstm_2048"
    ),
    "table3": published_ordering("WikiText-103's running text", TABLE_3, "gcnn_14", "gcnn_8", "lstm_1024"),
    "table4": Claim(
        "GCNN-8B reads one long text about 20 times as fast as LSTM-2048 on a GPU, at the same throughput",
        responsiveness,
    ),
    "fig2": Claim(
        "For as many operations a token, the adaptive softmax has a lower perplexity than the full one",
        at_equal_operations,
    ),
    "fig3": Claim("GLU ends lowest, then ReLU, GTU, tanh", ordering("glu", "relu", "gtu", "tanh")),
    "fig4": Claim("More context is better, with quickly diminishing returns past about 20 words", more_context),
    "fig5": Claim(
        "GLU is better than bilinear units, and these than linear ones", ordering("glu", "bilinear", "linear")
    ),
    "fig6": Claim("Weight normalisation and clipping both speed convergence up, to about twice", convergence),
    "figs": Claim(
        "(None of the paper's: there the GCNN is ahead at 100 million tokens.) GCNN ahead of an LSTM of as many "
        "parameters for as many operations, at each size of the text",
        at_each_size,
    ),
}
