"""What each claim of the paper compares, as functions from a figure's record to comparisons.

Without enough groups in the record, a comparison is not measured, or there are no comparisons.
"""

import math
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise
from operator import attrgetter

from gcnn.base.gates import GATES
from gcnn.reporting.latency import Latency
from gcnn.reporting.units import count, magnitude, perplexity, ratio
from gcnn.reproduction.grouping import RECIPES
from gcnn.reproduction.noise import (
    HOLDS,
    NOT,
    NOT_MEASURED,
    Comparison,
    MeanLog,
    compare,
    is_lower,
    mean_log,
    pooled_noise,
)
from gcnn.reproduction.paper import MODEL_TITLES
from gcnn.reproduction.rates import best_rate, best_rates, mean
from gcnn.reproduction.records import Group, Record

NEAR = 20  # words of context past which the paper sees quickly diminishing returns
NOT_WORSE = 0.01  # a context past NEAR may have a perplexity higher by this part and be "not worse"
ABOUT_20 = 15  # times as fast: what still counts as "about 20 times"
EQUAL = 1.25  # times, either way: what still counts as "the same throughput"
SPEED_UP = 0.6  # "about twice as fast" is as good after this part of the steps
# Test perplexity of KenLM's interpolated modified 5-gram (docs/RESULTS.md), and on what data.
KNESER_NEY = 220.1
KNESER_NEY_DATA = "wikitext2"
TITLES = MODEL_TITLES | {name: gate.title for name, gate in GATES.items()} | dict(RECIPES.values())


def group_mean(group: Group | None) -> MeanLog | None:
    """A group's mean log test perplexity over the seeds that ended, infinite where one diverged.

    None for no group, and where no seed has ended.
    """
    if group is None:
        return None
    diverged = [math.inf] * len(group.diverged)
    return mean_log([*group.test_perplexity.values(), *diverged])


def ordering(*names: str) -> Callable[[Record], list[Comparison]]:
    """A claim's `compare`: each named group better than each that is named after it.

    Each is taken at its best learning rate; one that is not in the record counts as not measured.
    """

    def compare_pairs(record: Record) -> list[Comparison]:
        noise = pooled_noise(record.groups)
        means = {name: group_mean(group) for name, group in best_rates(record).items()}
        return [
            is_lower(f"{TITLES[a]} < {TITLES[b]}", means.get(a), means.get(b), noise)
            for a, b in combinations(names, 2)
        ]

    return compare_pairs


def non_linearity(record: Record) -> list[Comparison]:
    """Figure 5: GLU better than bilinear units, and these better than linear ones.

    On WikiText-2 a Kneser-Ney 5-gram stands between the last two, as in the paper.
    """
    comparisons = ordering("glu", "bilinear", "linear")(record)
    if record.data != KNESER_NEY_DATA:
        return comparisons
    groups = best_rates(record)
    noise = pooled_noise(record.groups)
    bilinear = group_mean(groups.get("bilinear"))
    linear = group_mean(groups.get("linear"))
    five_gram = MeanLog(math.log(KNESER_NEY))
    title = f"Kneser-Ney 5-gram ({KNESER_NEY})"
    comparisons.append(is_lower(f"bilinear < {title}", bilinear, five_gram, noise))
    comparisons.append(is_lower(f"{title} < linear", five_gram, linear, noise))
    return comparisons


def at_each_size(record: Record) -> list[Comparison]:
    """Figure S: the GCNN better than the LSTM at each size of the text, each on its own test set.

    The perplexities on WikiText-103's test set stand in the evidence.
    """
    noise = pooled_noise(record.groups)
    comparisons = []
    for tokens, (gcnn, lstm) in pairs_of_a_size(record).items():
        evidence = ""
        if gcnn and lstm and gcnn.mean and lstm.mean:
            means = f"{perplexity(gcnn.mean)} / {perplexity(lstm.mean)}"
            evidence = f"{gcnn.title} / {lstm.title}: {means} = {gcnn.mean / lstm.mean:.3f}"
            if gcnn.wikitext103 and lstm.wikitext103:
                elsewhere = [mean(group.wikitext103.values()) for group in (gcnn, lstm)]
                means = " / ".join(map(perplexity, elsewhere))
                evidence += f", on WikiText-103's test set {means}"
        text = f"GCNN < LSTM at {magnitude(tokens)} tokens"
        first = group_mean(gcnn)
        second = group_mean(lstm)
        comparisons.append(is_lower(text, first, second, noise, evidence=evidence))
    return comparisons


def pairs_of_a_size(record: Record) -> dict[int, tuple[Group | None, Group | None]]:
    """The best GCNN and the best LSTM on validation, by the size of the training text in tokens.

    Each is the best of its shapes and learning rates; None as long as that is not known.
    """
    pairs = {}
    for tokens in sorted({group.corpus_tokens for group in record.groups}):
        of_size = [group for group in record.groups if group.corpus_tokens == tokens]
        gcnns = [group for group in of_size if group.group.startswith("GCNN")]
        lstms = [group for group in of_size if group.group.startswith("LSTM")]
        pairs[tokens] = (best_rate(gcnns), best_rate(lstms))
    return pairs


def at_equal_operations(record: Record) -> list[Comparison]:
    """Figure 2: the adaptive softmax better than each full one, at equal operations a token."""
    noise = pooled_noise(record.groups)
    adaptive = with_softmax(record, "adaptive")
    comparisons = []
    for full in with_softmax(record, "full"):
        at = f"at {magnitude(full.flops_per_token)} FLOPs a token"
        between = interpolated(adaptive, full.flops_per_token)
        terms = [(-weight, group_mean(group)) for weight, group in between]
        middle = "not measured"
        if between and all(group.mean for _, group in between):
            log = sum(weight * group_mean(group).log for weight, group in between)
            middle = perplexity(math.exp(log))
        if not between:
            terms = [(-1.0, None)]  # not measured
        evidence = f"{at} {middle} (adaptive) against {spread(full)} (full)"
        terms.insert(0, (1.0, group_mean(full)))
        comparisons.append(compare(f"adaptive < full {at}", terms, noise, evidence=evidence))
    return comparisons


def with_softmax(record: Record, kind: str) -> list[Group]:
    """The models with an `adaptive` or a `full` softmax, each at its best learning rate.

    Empty as long as the best rate of one of them is not known.
    """
    groups = [group for name, group in best_rates(record).items() if name.startswith(kind)]
    return groups if all(groups) else []


def interpolated(groups: list[Group], flops: float | None) -> list[tuple[float, Group]]:
    """Models of one kind and weights whose sum of log perplexities is the one at `flops` a token.

    Between two models, log perplexity is taken to be a straight line in log operations. Above the
    largest model it is that model's. Empty below the smallest, and as long as the operations of one
    are not known.
    """
    if flops is None or not groups or any(group.flops_per_token is None for group in groups):
        return []
    ordered = sorted(groups, key=attrgetter("flops_per_token"))
    if flops >= ordered[-1].flops_per_token:
        return [(1.0, ordered[-1])]
    for small, large in pairwise(ordered):
        if small.flops_per_token <= flops < large.flops_per_token:
            whole = math.log(large.flops_per_token / small.flops_per_token)
            part = math.log(flops / small.flops_per_token) / whole
            if part == 0:
                return [(1.0, small)]
            return [(1.0 - part, small), (part, large)]
    return []


def more_context(record: Record) -> list[Comparison]:
    """Figure 4: each context up to NEAR words better than the next smaller one, more gains little.

    Contexts past NEAR words must not be worse than the last one up to them, and together gain less
    than was gained from the second to that one. No comparisons with fewer than three contexts up to
    NEAR words, or none past them.
    """
    noise = pooled_noise(record.groups)
    means = {int(words): group_mean(group) for words, group in best_rates(record).items()}
    near = [words for words in sorted(means) if words <= NEAR]
    far = [words for words in sorted(means) if words > NEAR]
    if len(near) < 3 or not far:
        return []
    comparisons = []
    for fewer, more in pairwise(near):
        text = f"{more} < {fewer} words"
        comparisons.append(is_lower(text, means[more], means[fewer], noise))
    second = near[1]
    middle = near[-1]
    last = far[-1]
    for words in far:
        text = f"{words} words not worse than {middle} by {NOT_WORSE:.0%}"
        margin = math.log1p(NOT_WORSE)
        comparisons.append(is_lower(text, means[words], means[middle], noise, margin=margin))
    gains = [(1.0, means[second]), (-2.0, means[middle]), (1.0, means[last])]
    text = f"the gain from {second} to {middle} words exceeds that from {middle} to {last}"
    comparisons.append(compare(text, gains, noise))
    return comparisons


def convergence(record: Record) -> list[Comparison]:
    """Figure 6: the full recipe better than without weight normalisation or without clipping.

    And faster: after SPEED_UP of the steps, its validation perplexity is below that of each other
    recipe at its end. Better is a lower test perplexity. Each recipe is taken at its best learning
    rate; one that is not in the record counts as not measured.
    """
    groups = best_rates(record)
    noise = pooled_noise(record.groups)
    both, no_clipping, no_weight_norm, neither = (name for name, _ in RECIPES.values())
    comparisons = []

    # Better at the end
    full_mean = group_mean(groups.get(both))
    evidence = spreads(groups.values())  # of all recipes, so with the first comparison alone
    for name in (no_clipping, no_weight_norm):
        text = f"both < {TITLES[name]}"
        other_mean = group_mean(groups.get(name))
        comparisons.append(is_lower(text, full_mean, other_mean, noise, evidence=evidence))
        evidence = ""

    # Faster
    line = validation_means(groups.get(both))
    early = [reached for part, reached in line if part <= SPEED_UP]
    full_early = early[-1] if early else None
    for name in (no_clipping, no_weight_norm, neither):
        text = f"both in at most {SPEED_UP:.0%} of the steps where {TITLES[name]} ends"
        other_line = validation_means(groups.get(name))
        other_end = other_line[-1][1] if other_line else None
        evidence = when_below(line, other_line, TITLES[name])
        comparisons.append(is_lower(text, full_early, other_end, noise, evidence=evidence))
    return comparisons


def when_below(
    line: list[tuple[float, MeanLog]], other_line: list[tuple[float, MeanLog]], title: str
) -> str:
    """After which part of the steps a line is first as low as another's end; empty without both.

    The lines are `validation_means`, that of the full recipe and that of the recipe `title`.
    """
    if not line or not other_line:
        return ""
    _, end = other_line[-1]
    share = "none"
    for part, reached in line:
        if reached.log <= end.log:
            share = f"{part:.0%}"
            break
    return f"where {title} ends, both is after {share} of the steps"


def validation_means(group: Group | None) -> list[tuple[float, MeanLog]]:
    """A group's mean log validation perplexity over the seeds that ended, validation by validation.

    Each comes with the part of the steps (0 to 1) after which it was reached; it is infinite where
    a seed diverged, and at a validation that was not finite. Of a group that diverged at each seed
    there is the end alone; empty for no group.
    """
    if group is None:
        return []
    diverged = [math.inf] * len(group.diverged)
    if not group.curve.steps:
        return [(1.0, mean_log(diverged))] if diverged else []
    last_step = group.curve.steps[-1]
    by_validation = zip(*group.curve.perplexity.values(), strict=True)
    line = []
    for step, perplexities in zip(group.curve.steps, by_validation, strict=True):
        finite = [math.inf if perplexity is None else perplexity for perplexity in perplexities]
        line.append((step / last_step, mean_log([*finite, *diverged])))
    return line


def responsiveness(latency: Latency | None) -> list[Comparison]:
    """Table 4: GCNN-8B reads a long text faster than each LSTM, and about 20 times as fast.

    The paper claims it on a GPU and at the same throughput: without both it is not measured. None
    is a benchmark that was not run.
    """
    comparisons = []
    for pair in latency.pairs if latency else []:
        faster = pair.responsiveness.measured
        throughput = pair.throughput.measured
        if pair.gcnn != "gcnn_8b" or faster is None:
            continue
        equal = throughput is not None and 1 / EQUAL <= throughput <= EQUAL
        comparable = latency.device == "cuda" and equal
        speeds = []
        for name in (pair.gcnn, pair.lstm):
            speeds.append(count(latency.models[name].responsiveness.tokens_per_second))
        measured = f"{ratio(faster)} ({' against '.join(speeds)} tokens/s)"
        evidence = f"{pair.lstm}: {measured}, at {ratio(throughput)} its throughput"
        ahead = NOT_MEASURED
        about_20 = NOT_MEASURED
        if comparable:
            ahead = HOLDS if faster >= 1 else NOT
            about_20 = HOLDS if faster >= ABOUT_20 else NOT
        text = f"GCNN-8B ahead of {pair.lstm}"
        comparisons.append(Comparison(text, ahead, evidence=evidence))
        text = f"GCNN-8B {ABOUT_20:g} times as fast as {pair.lstm}"
        comparisons.append(Comparison(text, about_20))
    return comparisons


def spread(group: Group) -> str:
    """The mean of a group's test perplexities, of several seeds their range, and other seeds.

    As "120.50 (119.20 to 121.80), 1 diverged": seeds that diverged or are unfinished are not in the
    mean.
    """
    parts = []
    if group.mean is not None:
        mean_and_range = perplexity(group.mean)
        if len(group.test_perplexity) > 1:
            mean_and_range += f" ({perplexity(group.min)} to {perplexity(group.max)})"
        parts.append(mean_and_range)
    if group.diverged:
        parts.append(f"{len(group.diverged)} diverged")
    if group.unfinished:
        parts.append(f"{len(group.unfinished)} unfinished")
    return ", ".join(parts)


def spreads(groups: Iterable[Group | None]) -> str:
    """Title and `spread` of each group; None is left out."""
    return "; ".join(f"{group.title} {spread(group)}" for group in groups if group)
