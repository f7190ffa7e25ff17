"""Two models on the same text: how much they differ, how sure that is, and on which tokens.

(1) The text is divided into units: articles, or else lines. (2) The tokens are divided into parts,
in three ways: frequent and rare types, repeated and new bigrams, early and late in the unit. What
the parts contribute adds up to the whole difference. (3) Resampling the units gives an interval for
the difference and for each contribution.
"""

from collections.abc import Iterator

import numpy as np

from gcnn.base.errors import RunError
from gcnn.data.batches import line_ends
from gcnn.data.stream import TokenStream
from gcnn.data.tokenizers import Tokenizer
from gcnn.evaluation.perplexity import exp

RESAMPLES = 10_000
SEED = 1
PERCENTILES = (2.5, 97.5)  # a 95 % interval
DRAWS_AT_ONCE = 1 << 22  # units drawn together, which bounds the memory
DECADES = (10, 100, 1000, 10_000)
FREQUENT = 1000  # ranks of frequent types: their bigrams come again without being recalled
RECALL = (
    f"repeated bigram, rare token (rank > {FREQUENT:,})",
    "repeated bigram, frequent token",
    "new bigram, repeated token",
    "new token",
)


def compare(
    stream: TokenStream,
    starts: np.ndarray,
    nlls_a: np.ndarray,
    nlls_b: np.ndarray,
) -> dict:
    """Compare the nats of each token (tokens,) under two models, A and B.

    `starts` (units,) is where each unit begins. Differences are B - A in nats a token, so positive
    ones mean that A is better; `ratio` is B's perplexity divided by A's. The interval of a single
    unit is None, and so is a perplexity too large for a float. Raises RunError for nats that are
    not finite.
    """
    for name, nlls in (("first", nlls_a), ("second", nlls_b)):
        if not np.isfinite(nlls).all():
            what = f"the {name} run gives a token a loss that is not finite"
            raise RunError(f"{what}. Compare runs that converged.")
    differences = nlls_b - nlls_a
    means = [float(nlls.mean()) for nlls in (nlls_a, nlls_b)]

    # Each part's difference summed over each unit, the whole difference before them: a column each.
    columns = [np.add.reduceat(differences, starts)]
    rows = []  # (way, part) of each further column
    for way, labels, part_of in divisions(stream, starts):
        for number, label in enumerate(labels):
            inside = part_of == number
            if not inside.any():
                continue
            columns.append(np.add.reduceat(np.where(inside, differences, 0), starts))
            part = {
                "part": label,
                "tokens": int(inside.sum()),
                "nats_per_token": [float(nlls[inside].mean()) for nlls in (nlls_a, nlls_b)],
                "contribution": float(differences[inside].sum() / len(stream)),
            }
            rows.append((way, part))

    whole, *intervals = bootstrap(np.column_stack(columns), np.diff(starts, append=len(stream)))
    parts = {}
    for (way, part), interval in zip(rows, intervals, strict=True):
        parts.setdefault(way, []).append(part | {"interval": interval})
    difference = float(differences.mean())
    return {
        "tokens": len(stream),
        "units": len(starts),
        "resamples": RESAMPLES,
        "nats_per_token": means,
        "perplexity": [finite_exp(nats) for nats in means],
        "difference": difference,
        "difference_interval": whole,
        "ratio": finite_exp(difference),
        "ratio_interval": whole and [finite_exp(bound) for bound in whole],
        "parts": parts,
    }


def finite_exp(nats: float) -> float | None:
    """exp(nats), None where it is too large: JSON has no infinity."""
    value = exp(nats)
    return value if np.isfinite(value) else None


def bootstrap(unit_sums: np.ndarray, unit_tokens: np.ndarray) -> list[list[float] | None]:
    """The 95 % interval of each column's sum per token, by resampling units with replacement.

    unit_sums (units, columns), unit_tokens (units,) -> a pair of bounds a column. Each of RESAMPLES
    draws has as many units as the text, the same for every column and so for both models (a paired
    bootstrap). A single unit has no interval: None.
    """
    units, columns = unit_sums.shape
    if units == 1:
        return [None] * columns
    generator = np.random.default_rng(SEED)
    at_once = max(1, DRAWS_AT_ONCE // units)
    means = []
    for first in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - first)
        drawn = generator.integers(units, size=(rows, units))
        cells = drawn + units * np.arange(rows)[:, None]
        times = np.bincount(cells.ravel(), minlength=rows * units)  # that each unit is drawn
        times = times.reshape(rows, units)
        means.append(times @ unit_sums / (times @ unit_tokens)[:, None])
    return np.percentile(np.concatenate(means), PERCENTILES, axis=0).T.tolist()


def divisions(
    stream: TokenStream,
    starts: np.ndarray,
) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield each way to divide the tokens into parts.

    It is a name, the labels of the parts, and the index of each token's part among them: (tokens,).
    """
    positions = np.arange(len(stream))
    units = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(stream)))
    yield "frequency", *decades(stream.tokens + 1)  # ids are sorted by training frequency
    yield "recall", list(RECALL), recall_parts(stream, units)
    yield "position", *decades(positions - starts[units] + 1)


def decades(numbers: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Divide whole numbers (n,), from 1 on, at DECADES: labels, and each number's part (n,)."""
    lows = [1, *(border + 1 for border in DECADES)]
    labels = [f"{low:,} to {high:,}" for low, high in zip(lows, DECADES, strict=False)]
    return [*labels, f"{lows[-1]:,} or more"], np.searchsorted(DECADES, numbers)


def recall_parts(stream: TokenStream, units: np.ndarray) -> np.ndarray:
    """The index in RECALL of each token's part: (tokens,); `units` (tokens,) is the unit of each.

    A bigram is a token and the one before it; a token is repeated if it occurred earlier in its
    unit. After Arora et al. 2023 (Zoology, arXiv 2312.04927), who leave out bigrams that are
    frequent in the training text, as a model knows them without recalling them. Here a rank of the
    second token up to FREQUENT stands for a frequent bigram.
    """
    before = np.append(stream.eos_id, stream.tokens[:-1]).astype(np.int64)
    repeated_bigram = occurred_before(units, before * stream.vocabulary_size + stream.tokens)
    repeated_token = occurred_before(units, stream.tokens)
    rare = stream.tokens >= FREQUENT
    conditions = [repeated_bigram & rare, repeated_bigram, repeated_token]  # the first that holds
    return np.select(conditions, [0, 1, 2], default=3)


def occurred_before(units: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Whether each id has occurred earlier in its unit: (tokens,)."""
    _, ranks = np.unique(ids, return_inverse=True)
    _, first = np.unique(units * (ranks.max() + 1) + ranks, return_index=True)
    before = np.ones(len(ids), bool)
    before[first] = False
    return before


def unit_starts(
    stream: TokenStream,
    tokenizer: Tokenizer,
    sentences: bool,
) -> tuple[str, np.ndarray]:
    """The kind of unit, "article" or "line", and the position of each unit's first token: (units,).

    An article begins with a heading ` = Title = ` between empty lines, as in WikiText; what is
    before the first heading is a unit of its own unless it is empty. Units are lines where there is
    no heading and for `sentences` (lines that are scored alone).
    """
    ends = line_ends(stream.tokens, stream.eos_id)
    starts = np.append(0, ends[:-1])
    headings = [] if sentences else article_headings(stream, tokenizer, starts, ends)
    if not headings:
        return "line", starts
    begins = starts[headings]
    if (stream.tokens[: begins[0]] == stream.eos_id).all():
        begins[0] = 0  # empty lines before the first heading
    elif begins[0] > 0:
        begins = np.append(0, begins)  # the end of an article whose heading is missing
    return "article", begins


def article_headings(
    stream: TokenStream,
    tokenizer: Tokenizer,
    starts: np.ndarray,
    ends: np.ndarray,
) -> list[int]:
    """The numbers of the lines that are headings of articles, from 0.

    `starts` (lines,) are the positions of the lines' first tokens, `ends` those after their <eos>.
    """
    mark = tokenizer.encode("=")
    if tokenizer.unk_id in mark:  # any unknown word would look like it
        return []
    empty = np.concatenate([[True], ends - starts == 1, [True]])
    between_empty = np.flatnonzero(empty[:-2] & ~empty[1:-1] & empty[2:])
    headings = []
    for line in between_empty.tolist():
        tokens = stream.tokens[starts[line] : ends[line] - 1].tolist()
        if is_heading(tokens, mark):
            headings.append(line)
    return headings


def is_heading(line: list[int], mark: list[int]) -> bool:
    """Whether a line (ids without <eos>) begins and ends with exactly one `mark`, the ids of "=".

    Headings of sections begin and end with two or more.
    """
    size = len(mark)
    if len(line) <= 2 * size or line[:size] != mark or line[-size:] != mark:
        return False
    return line[size : 2 * size] != mark and line[-2 * size : -size] != mark
