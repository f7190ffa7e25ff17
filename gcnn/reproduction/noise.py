"""How much perplexity varies over seeds, and what a difference between groups then says.

Within a figure, log test perplexity is taken to vary over seeds with one standard deviation, pooled
over all groups with two seeds or more. A comparison is a weighted sum of mean log perplexities that
is positive where the claim is true; its t is that sum over its standard error.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gcnn.reproduction.records import Group

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
    """The standard deviation of log test perplexity over seeds; with 0 degrees of freedom, an
    assumed one.
    """

    deviation: float
    degrees: int

    @property
    def quantile(self) -> float:
        """The |t| from which a difference is decided: of a two-sided test at 95 %."""
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
    """The mean log perplexity of a number of seeds, infinite where one of them diverged.

    A known constant does not vary: it counts as infinitely many seeds.
    """

    log: float
    seeds: float = math.inf


@dataclass(frozen=True)
class Comparison:
    """The answer to one comparison: HOLDS, UNDECIDED, NOT or NOT_MEASURED, and what it rests on.

    `t` is None where the comparison is not about perplexities, or not measured.
    """

    text: str
    answer: str
    t: float | None = None
    evidence: str = ""

    def __str__(self) -> str:
        return self.text if self.t is None else f"{self.text} (t = {self.t:.1f})"


def pooled_noise(groups: Iterable[Group]) -> Noise:
    """The noise of the groups, pooled over those with two finished seeds or more; without one,
    assumed.
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
    """The mean log of the perplexities of seeds, one each; None without any."""
    logs = [math.log(perplexity) for perplexity in perplexities]
    return MeanLog(sum(logs) / len(logs), len(logs)) if logs else None


def compare(
    text: str,
    terms: list[tuple[float, MeanLog | None]],
    noise: Noise,
    margin: float = 0.0,
    evidence: str = "",
) -> Comparison:
    """Whether margin + the sum of weight * mean log perplexity over the terms is positive.

    It holds or does not hold where |t| is at least the noise's quantile, else it is undecided; a
    term of None makes it not measured. Diverged seeds are worse than any: where only one side of
    the sum has some, they decide; where both have, nothing is decided.
    """
    if any(mean is None for _, mean in terms):
        return Comparison(text, NOT_MEASURED, evidence=evidence)
    t = t_of(terms, noise, margin)
    if abs(t) < noise.quantile:
        return Comparison(text, UNDECIDED, t, evidence)
    return Comparison(text, HOLDS if t > 0 else NOT, t, evidence)


def t_of(terms: list[tuple[float, MeanLog]], noise: Noise, margin: float) -> float:
    """Margin + weighted sum, over its standard error; infinite where diverged seeds decide."""
    diverged_sides = set()
    for weight, mean in terms:
        if math.isinf(mean.log):
            diverged_sides.add(math.copysign(1.0, weight))
    if len(diverged_sides) == 2:
        return 0.0
    if diverged_sides:
        return diverged_sides.pop() * math.inf
    difference = margin + sum(weight * mean.log for weight, mean in terms)
    error = noise.deviation * math.sqrt(sum(weight**2 / mean.seeds for weight, mean in terms))
    if error:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0


def is_lower(
    text: str,
    first: MeanLog | None,
    second: MeanLog | None,
    noise: Noise,
    margin: float = 0.0,
    evidence: str = "",
) -> Comparison:
    """Whether the first perplexity is lower than the second; with a margin, whether it is not
    higher by more.

    The margin is one of log perplexity. None is a perplexity that is not measured, and so is the
    answer.
    """
    return compare(text, [(1.0, second), (-1.0, first)], noise, margin, evidence)
