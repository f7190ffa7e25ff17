"""Numbers as people read them: sensible digits, units, thousands separators.

None becomes a dash in every function that returns text.
"""

from collections.abc import Sequence

DASH = "–"


def count(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def plural(value: float, noun: str) -> str:
    """As "1 run" or "1,200 runs". noun: in the singular; its plural has an s."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def decimals(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:+,.{digits}f}"


def percent(fraction: float | None) -> str:
    """As "12.3 %" for 0.123."""
    return DASH if fraction is None else f"{100 * fraction:.1f} %"


def perplexity(value: float | None) -> str:
    """Two decimals; from 10,000 on none, and from 10 million on an exponent, as "1.23e+07"."""
    if value is not None and 1e7 <= value < float("inf"):  # the run has diverged
        return f"{value:.3g}"
    return decimals(value, 2 if value is None or value < 10_000 else 0)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if there are no values or one of them is None."""
    return None if not values or None in values else sum(values) / len(values)


def spread(values: Sequence[float | None]) -> str:
    """The mean and range of perplexities, as "105.00 (100.00 to 111.00)".

    A dash if there are no values or one of them is None.
    """
    average = mean(values)
    if average is None:
        return DASH
    return f"{perplexity(average)} ({perplexity(min(values))} to {perplexity(max(values))})"


def milliseconds(value: float | None) -> str:
    """Milliseconds with about three digits, as "6.31", "63.1" or "631", without the unit."""
    if value is None or value < 10:
        return decimals(value, 2)
    return decimals(value, 1 if value < 100 else 0)


def ratio(value: float | None) -> str:
    """As "1.25×" or "14.5×"."""
    return DASH if value is None else f"{decimals(value, 2 if value < 10 else 1)}×"


def magnitude(value: float | None) -> str:
    """Up to four significant digits with k, M, G, T, P or E, as "15.3 M".

    Values below 10,000 (all negative ones too), infinite and nan are written as `count` does.
    From 10,000 E (1e22) on, the number has an exponent, as "1e+04 E".
    """
    if value is None or not 10_000 <= value < float("inf"):
        return count(value)
    _, exponent = f"{value:.3e}".split("e")  # after rounding: 999,960 is 1 M, not 1000 k
    power = min(int(exponent) // 3, 6)
    return f"{value / 1000**power:.4g} {'kMGTPE'[power - 1]}"


def gibibytes(value: float | None) -> str:
    """Bytes in GiB, as "8.0 GiB"."""
    return DASH if value is None else f"{value / 2**30:.1f} GiB"


def duration(seconds: float | None) -> str:
    """As "12.3 s", "4 min 05 s" or "2 h 07 min"; a dash for None, nan, infinite and negative."""
    if seconds is None or not 0 <= seconds < float("inf"):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
