"""Numbers as people read them: sensible digits, units, thousands separators.

None is a dash everywhere.
"""

from collections.abc import Sequence

DASH = "–"


def count(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def plural(value: float, noun: str) -> str:
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def decimals(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:+,.{digits}f}"


def percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.1f} %"


def perplexity(value: float | None) -> str:
    return decimals(value, 2 if value is None or value < 10_000 else 0)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None without values, and where one of them is None."""
    return None if not values or None in values else sum(values) / len(values)


def spread(values: Sequence[float | None]) -> str:
    """The mean of perplexities and, in brackets, their range; a dash where one is not known."""
    average = mean(values)
    if average is None:
        return DASH
    return f"{perplexity(average)} ({perplexity(min(values))} to {perplexity(max(values))})"


def milliseconds(value: float | None) -> str:
    """Three significant digits, without a unit."""
    if value is None or value < 10:
        return decimals(value, 2)
    return decimals(value, 1 if value < 100 else 0)


def ratio(value: float | None) -> str:
    return DASH if value is None else f"{decimals(value, 2 if value < 10 else 1)}×"


def magnitude(value: float | None) -> str:
    """Four significant digits with k, M, G or T; below 10,000 all digits."""
    if value is None or not 10_000 <= value < float("inf"):
        return count(value)
    power = min(int(f"{value:.3e}".split("e")[1]) // 3, 4)
    return f"{value / 1000**power:.4g} {'kMGT'[power - 1]}"


def gibibytes(value: float | None) -> str:
    return DASH if value is None else f"{value / 2**30:.1f} GiB"


def duration(seconds: float | None) -> str:
    """As "12.3 s", "4 min 05 s" or "2 h 07 min"; a dash for None, negative and infinite ones."""
    if seconds is None or not 0 <= seconds < float("inf"):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
