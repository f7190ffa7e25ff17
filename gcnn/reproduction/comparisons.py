"""What each claim of the paper compares, as functions from a figure's record to comparisons.

A comparison whose groups the record lacks, or whose best learning rate is not known yet, is
NOT_MEASURED. "Better" is a lower test perplexity, and "best" is chosen on validation (rates.py).
All groups are taken at their best learning rates.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
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
    Noise,
    compare,
    figure_noise,
    is_lower,
    mean_log,
    weighted_mean,
)
from gcnn.reproduction.paper import MODEL_TITLES
from gcnn.reproduction.rates import best_group, best_groups, mean_or_infinite
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
    """A group's mean log test perplexity over its finished seeds; infinite if a seed diverged.

    None if `group` is None, or if no seed is finished or has diverged.
    """
    if group is None:
        return None
    diverged = [math.inf] * len(group.diverged)
    return mean_log([*group.test_perplexity.values(), *diverged])


def ordering(*names: str) -> Callable[[Record], list[Comparison]]:
    """A claim's `compare`: each named group better than each that is named after it.

    names: group names of the record, best first, all of them keys of TITLES.
    The function returns one comparison for each pair, as `compare_pairs`.
    """
    return partial(compare_pairs, pairs=list(combinations(names, 2)))


def better_than(worse: str, *names: str) -> Callable[[Record], list[Comparison]]:
    """A claim's `compare`: each group in `names` better than the group `worse`.

    All are group names of the record and keys of TITLES. Nothing is claimed of the order of `names`
    among themselves. The function returns one comparison for each of them, as `compare_pairs`.
    """
    return partial(compare_pairs, pairs=[(name, worse) for name in names])


def compare_pairs(record: Record, pairs: list[tuple[str, str]]) -> list[Comparison]:
    """For each pair of group names: whether the first has a lower test perplexity than the second.

    pairs: of keys of TITLES. One comparison for each, in their order; NOT_MEASURED if the record
    lacks one of the two or its best learning rate is not known yet.
    """
    noise = figure_noise(record)
    means = {name: group_mean(group) for name, group in best_groups(record).items()}
    comparisons = []
    for better, worse in pairs:
        text = f"{TITLES[better]} < {TITLES[worse]}"
        comparisons.append(is_lower(text, means.get(better), means.get(worse), noise))
    return comparisons


def non_linearity(record: Record) -> list[Comparison]:
    """Figure 5: GLU better than bilinear units, and both better than linear ones.

    On WikiText-2 also, as in the paper: bilinear units better than a Kneser-Ney 5-gram, and this
    better than linear units. So three or five comparisons; NOT_MEASURED if the record lacks a group
    or its best learning rate is not known yet.
    """
    comparisons = ordering("glu", "bilinear", "linear")(record)
    if record.data != KNESER_NEY_DATA:
        return comparisons
    groups = best_groups(record)
    noise = figure_noise(record)
    bilinear = group_mean(groups.get("bilinear"))
    linear = group_mean(groups.get("linear"))
    five_gram = MeanLog(math.log(KNESER_NEY))
    title = f"Kneser-Ney 5-gram ({KNESER_NEY})"
    comparisons.append(is_lower(f"bilinear < {title}", bilinear, five_gram, noise))
    comparisons.append(is_lower(f"{title} < linear", five_gram, linear, noise))
    return comparisons


def at_each_size(record: Record) -> list[Comparison]:
    """Figure S: the best GCNN better than the best LSTM, one comparison for each text size.

    Compared on the test set of the data that they were trained on; NOT_MEASURED if one of the two
    is missing or not known yet. If both have finished runs, the evidence gives their perplexities
    there and, if measured, on WikiText-103's test set. Each group must have `corpus_tokens`.
    """
    noise = figure_noise(record)
    comparisons = []
    for tokens, (gcnn, lstm) in pairs_of_a_size(record).items():
        evidence = ""
        if gcnn and lstm and gcnn.mean and lstm.mean:
            means = f"{perplexity(gcnn.mean)} / {perplexity(lstm.mean)}"
            evidence = f"{means} = {gcnn.mean / lstm.mean:.3f}"
            if gcnn.wikitext103 and lstm.wikitext103:
                gcnn_there = perplexity(mean_or_infinite(gcnn.wikitext103.values()))
                lstm_there = perplexity(mean_or_infinite(lstm.wikitext103.values()))
                evidence += f", on WikiText-103's test set {gcnn_there} / {lstm_there}"
        text = f"GCNN < LSTM at {magnitude(tokens)} tokens"
        first = group_mean(gcnn)
        second = group_mean(lstm)
        comparisons.append(is_lower(text, first, second, noise, evidence=evidence))
    return comparisons


def pairs_of_a_size(record: Record) -> dict[int, tuple[Group | None, Group | None]]:
    """The best GCNN and the best LSTM of Figure S, by the training text's tokens, ascending.

    Each is the best on validation of all its shapes, learning rates and orders of the text at that
    size; None if there is none or it is not known yet (`best_group`). Each group must have
    `corpus_tokens`.
    """
    pairs = {}
    for tokens in sorted({group.corpus_tokens for group in record.groups}):
        of_size = [group for group in record.groups if group.corpus_tokens == tokens]
        gcnns = [group for group in of_size if group.group.startswith("GCNN")]
        lstms = [group for group in of_size if group.group.startswith("LSTM")]
        pairs[tokens] = (best_group(gcnns), best_group(lstms))
    return pairs


def at_equal_operations(record: Record) -> list[Comparison]:
    """Figure 2: the adaptive softmax better than the full one at equal operations a token.

    One comparison (`adaptive_below`) for each model with a full softmax; all are NOT_MEASURED as
    long as the best learning rate of one with an adaptive softmax is not known. Without a model
    with a full softmax, or as long as the best rate of one is not known, there is no comparison.
    """
    noise = figure_noise(record)
    adaptive = with_softmax(record, "adaptive")
    return [adaptive_below(full, adaptive, noise) for full in with_softmax(record, "full")]


def adaptive_below(full: Group, adaptive: list[Group], noise: Noise) -> Comparison:
    """Whether models with an adaptive softmax are better than one with a full softmax.

    Compared with the perplexity that they have at its operations (`interpolated`); NOT_MEASURED if
    they have none there. Each adaptive one must have a seed that is finished or has diverged.
    """
    text = f"adaptive < full at {magnitude(full.flops_per_token)} FLOPs a token"
    neighbours = []  # (weight, mean) of the adaptive ones, whose sum is the one at `full`'s
    for weight, group in interpolated(adaptive, full.flops_per_token):
        neighbours.append((weight, group_mean(group)))
    if not neighbours:
        evidence = f"not measured (adaptive) against {spread(full)} (full)"
        return Comparison(text, NOT_MEASURED, evidence=evidence)
    mean = weighted_mean(neighbours)
    evidence = f"{perplexity(math.exp(mean.log))} (adaptive) against {spread(full)} (full)"
    return is_lower(text, mean, group_mean(full), noise, evidence=evidence)


def with_softmax(record: Record, kind: str) -> list[Group]:
    """The groups of Figure 2 with an `adaptive` or a `full` softmax, at their best learning rates.

    Empty if the best rate of one of them is not known yet.
    """
    groups = [group for name, group in best_groups(record).items() if name.startswith(kind)]
    return [] if None in groups else groups


def interpolated(groups: list[Group], flops: float | None) -> list[tuple[float, Group]]:
    """The (weight, group) pairs whose weighted log perplexities add up to the one at `flops`.

    flops: operations a token. Log perplexity is interpolated linearly in log operations between the
    next smaller and the next larger group, so there are one or two pairs, and the weights sum to 1.
    From the largest group's operations on, it is that group's.
    Empty if `flops` is None or below the smallest group's, if the operations of any group are not
    known, or without groups.
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
    """Figure 4: more context is better, with quickly diminishing returns past NEAR words.

    Let `middle` be the largest context up to NEAR words. The comparisons:
    - each context up to `middle` is better than the next smaller one;
    - each context past it is not worse than `middle` by NOT_WORSE or more;
    - from the second smallest context to `middle`, log perplexity falls by more than from `middle`
      to the largest context.
    A comparison is NOT_MEASURED if the best learning rate of one of its contexts is not known yet.
    Empty with fewer than three contexts up to NEAR words, or none past them. The names of the
    record's groups must be numbers of words.
    """
    noise = figure_noise(record)
    means = means_by_context(record)
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


def better_with_context(record: Record) -> list[Comparison]:
    """Figure C: each context better than each smaller one.

    A comparison is NOT_MEASURED if the best learning rate of one of its contexts is not known yet.
    Empty with fewer than two contexts. The names of the record's groups must be numbers of words.
    """
    noise = figure_noise(record)
    means = means_by_context(record)
    comparisons = []
    for fewer, more in combinations(sorted(means), 2):
        text = f"{more} < {fewer} words"
        comparisons.append(is_lower(text, means[more], means[fewer], noise))
    return comparisons


def means_by_context(record: Record) -> dict[int, MeanLog | None]:
    """Each context's mean at its best learning rate (`group_mean`), by its number of words.

    None where the best rate is not known yet. The names of the record's groups must be numbers.
    """
    return {int(words): group_mean(group) for words, group in best_groups(record).items()}


def convergence(record: Record) -> list[Comparison]:
    """Figure 6: weight normalisation and clipping together are better, and faster.

    Better (two comparisons): a lower test perplexity than with either one alone.
    Faster (three): its validation perplexity after SPEED_UP of the steps (at the last validation
    until then) is lower than that of each other recipe at its end; tested with the noise of test
    perplexities.
    A comparison is NOT_MEASURED if the record lacks one of its recipes, its best learning rate is
    not known yet, or there is no such validation.
    """
    groups = best_groups(record)
    noise = figure_noise(record)
    both, no_clipping, no_weight_norm, neither = (name for name, _ in RECIPES.values())  # in order
    comparisons = []

    # Better at the end
    full_mean = group_mean(groups.get(both))
    for name in (no_clipping, no_weight_norm):
        text = f"both < {TITLES[name]}"
        other_mean = group_mean(groups.get(name))
        comparisons.append(is_lower(text, full_mean, other_mean, noise))

    # Faster
    line = validation_means(groups.get(both))
    early = [mean_at for part, mean_at in line if part <= SPEED_UP]
    full_early = early[-1] if early else None
    for name in (no_clipping, no_weight_norm, neither):
        text = f"both in at most {SPEED_UP:.0%} of the steps where {TITLES[name]} ends"
        other_line = validation_means(groups.get(name))
        other_end = other_line[-1][1] if other_line else None
        evidence = when_below(line, other_line)
        comparisons.append(is_lower(text, full_early, other_end, noise, evidence=evidence))
    return comparisons


def when_below(line: list[tuple[float, MeanLog]], other_line: list[tuple[float, MeanLog]]) -> str:
    """A clause: after which part of the steps the full recipe first is as low as another's end.

    line, other_line: `validation_means` of the full recipe and of the other.
    As "there after 60% of the steps", or "not there by the end". Empty if one of the lines is.
    """
    if not line or not other_line:
        return ""
    _, end = other_line[-1]
    for part, mean_at in line:
        if mean_at.log <= end.log:
            return f"there after {part:.0%} of the steps"
    return "not there by the end"


def validation_means(group: Group | None) -> list[tuple[float, MeanLog]]:
    """A group's validation curve: (part of the steps, mean log perplexity over its seeds) each.

    The part is 1 at the last validation. The mean is infinite if a seed diverged, and at a
    validation that was not finite. Without a validation that all finished seeds have, the curve is
    one infinite point at 1 if a seed diverged, else empty. Empty also if `group` is None.
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
        known = [math.inf if value is None else value for value in perplexities]
        part = step / last_step if last_step else 1.0  # the only one may be before any update
        line.append((part, mean_log([*known, *diverged])))
    return line


def responsiveness(latency: Latency | None) -> list[Comparison]:
    """Table 4: GCNN-8B reads one long text at least as fast as an LSTM, and ABOUT_20 times as fast.

    Two comparisons for each LSTM that the benchmark measured against GCNN-8B; the first has the
    evidence of both. The paper claims it on a GPU and at the same throughput (within EQUAL times):
    otherwise they are NOT_MEASURED.
    latency: None if the benchmark was not run; the result is then empty.
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
    """A group's mean test perplexity and range over finished seeds, and how many others there are.

    As "120.50 (119.20 to 121.80), 1 diverged, 2 unfinished"; no range for a single seed. Empty for
    a group without seeds.
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
    """Title and `spread` of each group, joined by "; "; None is left out."""
    return "; ".join(f"{group.title}: {spread(group)}" for group in groups if group)
