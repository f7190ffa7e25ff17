"""How much perplexity varies over seeds, and what a difference between groups then says.

Within a figure, log test perplexity is taken to vary over seeds with one standard deviation, pooled
over what it compares, each at its best learning rate: at rates that are too high seeds scatter far
more, and no comparison rests on those. A comparison is a weighted sum of mean log perplexities that
is positive where the claim is true; its t is that sum over its standard error.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gcnn.reproduction.rates import best_groups
from gcnn.reproduction.records import Group, Record

HOLDS = "holds"
UNDECIDED = "undecided"
NOT = "does not hold at this size"
NOT_MEASURED = "not measured"
ASSUMED_DEVIATION = 0.02  # where no group has two seeds; no figure's own is larger
NORMAL_QUANTILE = 1.960  # of the assumed one, which is not estimated
T_QUANTILES = (  # two-sided 95 %, of 1 to 30 degrees of freedom; more are taken as 30
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Noise:
    """The standard deviation of log test perplexity over seeds."""

    deviation: float
    degrees: int  # of freedom; 0: the deviation is assumed, not estimated

    @property
    def quantile(self) -> float:
        """The |t| from which a difference is significant: two-sided, at 95 %."""
        if self.degrees == 0:
            return NORMAL_QUANTILE
        return T_QUANTILES[min(self.degrees, len(T_QUANTILES)) - 1]

    def describe(self) -> str:
        """A clause for the reader: how much seeds vary, and on how much data that rests."""
        if self.degrees == 0:
            return f"seeds taken to scatter by {self.deviation:.1%}, for no group has two"
        degrees = "degree" if self.degrees == 1 else "degrees"
        return f"seeds scatter by {self.deviation:.1%} ({self.degrees} {degrees} of freedom)"


@dataclass(frozen=True)
class MeanLog:
    """The mean of log perplexity (natural logarithm) over a number of seeds."""

    log: float  # infinite if one of the seeds diverged
    seeds: float = math.inf  # infinite: a known constant, which does not vary with the seed


@dataclass(frozen=True)
class Comparison:
    """One comparison that a claim makes, and its answer."""

    text: str  # what is compared, as "GLU < ReLU"
    answer: str  # HOLDS, UNDECIDED, NOT or NOT_MEASURED
    t: float | None = None  # None: not about perplexities, or not measured
    evidence: str = ""  # the numbers behind it, for readers
    interval: tuple[float, float] | None = None  # `interval_of` the two; None: not two, or diverged


def figure_noise(record: Record) -> Noise:
    """The noise of a figure: pooled (`pooled_noise`) over its groups at their best rates."""
    return pooled_noise(group for group in best_groups(record).values() if group)


def pooled_noise(groups: Iterable[Group]) -> Noise:
    """The standard deviation of log test perplexity over seeds, pooled over groups.

    Each group contributes the deviations from its own mean. Groups with fewer than two finished
    seeds are left out; if all are, the noise is ASSUMED_DEVIATION with 0 degrees of freedom.
    """
    squares = 0.0
    degrees = 0
    for group in groups:
        logs = [math.log(perplexity) for perplexity in group.test_perplexity.values()]
        if len(logs) < 2:
            continue
        center = sum(logs) / len(logs)
        squares += sum((log - center) ** 2 for log in logs)
        degrees += len(logs) - 1
    if degrees == 0:
        return Noise(ASSUMED_DEVIATION, 0)
    return Noise(math.sqrt(squares / degrees), degrees)


def mean_log(perplexities: Iterable[float]) -> MeanLog | None:
    """The mean log of perplexities, one for each seed (infinite: it diverged); None without any."""
    logs = [math.log(perplexity) for perplexity in perplexities]
    return MeanLog(sum(logs) / len(logs), len(logs)) if logs else None


def weighted_mean(parts: list[tuple[float, MeanLog]]) -> MeanLog:
    """The sum of weight * mean log perplexity, with the number of seeds that gives its noise.

    parts: (weight, mean), of positive weights that sum to 1; at least one.
    """
    log = sum(weight * mean.log for weight, mean in parts)
    return MeanLog(log, 1 / sum(weight**2 / mean.seeds for weight, mean in parts))


def compare(
    text: str,
    terms: list[tuple[float, MeanLog | None]],
    noise: Noise,
    margin: float = 0.0,
    evidence: str = "",
) -> Comparison:
    """Test whether margin + sum of weight * mean log perplexity over the terms is positive.

    terms: (weight, mean); positive weights are of the side that is to be worse. If a mean is None,
    the answer is NOT_MEASURED.
    text, evidence: stored in the comparison for readers.
    The answer is HOLDS or NOT by the sign of t (`t_of`) if |t| is at least the noise's quantile,
    else UNDECIDED.
    """
    if any(mean is None for _, mean in terms):
        return Comparison(text, NOT_MEASURED, evidence=evidence)
    t = t_of(terms, noise, margin)
    if abs(t) < noise.quantile:
        return Comparison(text, UNDECIDED, t, evidence)
    return Comparison(text, HOLDS if t > 0 else NOT, t, evidence)


def t_of(terms: list[tuple[float, MeanLog]], noise: Noise, margin: float) -> float:
    """margin + sum of weight * mean log perplexity, divided by its standard error.

    No mean may be None. A diverged seed is worse than any perplexity: if only terms of one sign
    have one, t is infinite with that sign; if terms of both signs have, t is 0. t is also infinite
    if the standard error is 0, unless the sum is 0 too.
    """
    diverged_sides = set()
    for weight, mean in terms:
        if math.isinf(mean.log):
            diverged_sides.add(math.copysign(1.0, weight))
    if len(diverged_sides) == 2:
        return 0.0
    if diverged_sides:
        return diverged_sides.pop() * math.inf
    difference = margin + sum(weight * mean.log for weight, mean in terms)
    error = standard_error(terms, noise)
    if error:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0


def standard_error(terms: list[tuple[float, MeanLog]], noise: Noise) -> float:
    """The standard error of the sum of weight * mean log perplexity over the terms."""
    return noise.deviation * math.sqrt(sum(weight**2 / mean.seeds for weight, mean in terms))


def is_lower(
    text: str,
    first: MeanLog | None,
    second: MeanLog | None,
    noise: Noise,
    margin: float = 0.0,
    evidence: str = "",
) -> Comparison:
    """Test whether the first perplexity is lower than the second (see `compare`).

    With a margin, in log perplexity: whether the first is less than the margin above the second.
    If one of them is None, the answer is NOT_MEASURED. text, evidence: stored for readers. The
    comparison has an interval unless a seed diverged.
    """
    comparison = compare(text, [(1.0, second), (-1.0, first)], noise, margin, evidence)
    if comparison.answer == NOT_MEASURED or math.isinf(first.log) or math.isinf(second.log):
        return comparison
    return replace(comparison, interval=interval_of(first, second, noise))


def interval_of(first: MeanLog, second: MeanLog, noise: Noise) -> tuple[float, float]:
    """The 95 % interval of the part by which the second perplexity is above the first.

    As (-0.05, 0.01): from 5 % below the first to 1 % above it. Neither may have diverged.
    """
    difference = second.log - first.log
    half = noise.quantile * standard_error([(1.0, second), (-1.0, first)], noise)
    return math.expm1(difference - half), math.expm1(difference + half)
