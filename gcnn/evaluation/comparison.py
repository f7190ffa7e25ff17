"""Two models on the same text: how much they differ, how sure that is, and on which tokens.

(1) The text is divided into units: articles, or else lines. (2) The tokens are divided into parts,
in three ways: frequent and rare types, repeated and new bigrams, early and late in the unit. What
the parts contribute adds up to the whole difference. (3) Resampling the units gives an interval for
the difference and for each contribution.
"""

from collections.abc import Iterator

import numpy as np

from gcnn.base.errors import RunError
from gcnn.base.numbers import exp
from gcnn.data.batches import line_ends
from gcnn.data.stream import TokenStream
from gcnn.data.tokenizers import Tokenizer

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
    """Compare two models, A and B, by their nats for each token of a text.

    nlls_a, nlls_b: negative log-likelihoods in the text's order, (tokens,).
    starts: the position of each unit's first token, (units,), ascending from 0 (`unit_starts`).
    Returns a dictionary, a part of `gcnn compare --json`:
    - tokens, units, resamples; nats_per_token and perplexity, each [A, B];
    - difference: B - A in nats a token, positive if A is better; ratio: B's perplexity / A's;
    - difference_interval, ratio_interval: [low, high] of 95 %, None for a single unit;
    - parts: for each way of `divisions` (frequency, recall, position) a list of the parts that have
      tokens: dictionaries of part (its label), tokens, nats_per_token ([A, B]), contribution and
      interval (of the contribution, None for a single unit). A way's contributions add up to the
      difference.
    A perplexity, a ratio or an end of its interval that is too large for a float is None. Raises
    RunError for nats that are not finite.
    """
    for name, nlls in (("first", nlls_a), ("second", nlls_b)):
        if not np.isfinite(nlls).all():
            what = f"the {name} run gives a token a loss that is not finite"
            raise RunError(f"{what}. Compare runs that converged.")
    differences = nlls_b - nlls_a
    means = [float(nlls_a.mean()), float(nlls_b.mean())]

    ways, entries, part_sums = zip(*parts_of(stream, starts, nlls_a, nlls_b), strict=True)

    # All intervals from the same draws
    unit_sums = np.column_stack([np.add.reduceat(differences, starts), *part_sums])
    unit_tokens = np.diff(starts, append=len(stream))
    difference_interval, *part_intervals = bootstrap(unit_sums, unit_tokens)
    ratio_interval = None
    if difference_interval is not None:
        ratio_interval = [finite_exp(bound) for bound in difference_interval]

    parts = {}
    for way, entry, interval in zip(ways, entries, part_intervals, strict=True):
        parts.setdefault(way, []).append(entry | {"interval": interval})
    difference = float(differences.mean())
    return {
        "tokens": len(stream),
        "units": len(starts),
        "resamples": RESAMPLES,
        "nats_per_token": means,
        "perplexity": [finite_exp(nats) for nats in means],
        "difference": difference,
        "difference_interval": difference_interval,
        "ratio": finite_exp(difference),
        "ratio_interval": ratio_interval,
        "parts": parts,
    }


def parts_of(
    stream: TokenStream,
    starts: np.ndarray,
    nlls_a: np.ndarray,
    nlls_b: np.ndarray,
) -> Iterator[tuple[str, dict, np.ndarray]]:
    """Yield the parts that have tokens, of all ways of `divisions` in their order.

    The arguments are those of `compare`. Each part is its way, its entry in the result of `compare`
    without the interval, and the sum of its tokens' differences in each unit, (units,).
    """
    differences = nlls_b - nlls_a
    for way, labels, part_of in divisions(stream, starts):
        for number, label in enumerate(labels):
            inside = part_of == number
            if not inside.any():
                continue
            entry = {
                "part": label,
                "tokens": int(inside.sum()),
                "nats_per_token": [float(nlls_a[inside].mean()), float(nlls_b[inside].mean())],
                "contribution": float(differences[inside].sum() / len(stream)),
            }
            yield way, entry, np.add.reduceat(np.where(inside, differences, 0), starts)


def finite_exp(nats: float) -> float | None:
    """exp(nats); None if that is not finite, because JSON has neither infinity nor nan."""
    value = exp(nats)
    return value if np.isfinite(value) else None


def bootstrap(unit_sums: np.ndarray, unit_tokens: np.ndarray) -> list[list[float] | None]:
    """The 95 % interval of each column's sum per token, by resampling units with replacement.

    unit_sums: each unit's sum in each column, (units, columns). unit_tokens: each unit's number of
    tokens, (units,). Returns [low, high] for each column, or None for each if there is a single
    unit. A draw has as many units as the text. All columns have the same RESAMPLES draws (a paired
    bootstrap). The seed is fixed: equal arguments give equal intervals.
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
        # How many times each draw has each unit: a single bincount over the cells (draw, unit)
        cells = drawn + units * np.arange(rows)[:, None]
        times = np.bincount(cells.ravel(), minlength=rows * units).reshape(rows, units)
        means.append(times @ unit_sums / (times @ unit_tokens)[:, None])
    return np.percentile(np.concatenate(means), PERCENTILES, axis=0).T.tolist()


def divisions(
    stream: TokenStream,
    starts: np.ndarray,
) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield three ways to divide the tokens into parts: frequency, recall and position.

    Each is its name, the labels of the parts, and the index of each token's part: (tokens,). A part
    may have no tokens. frequency: by the rank of the type in the training text; position: by the
    place in the unit; both count from 1 (`split_at_decades`). recall: see `recall_parts`.
    starts: the position of each unit's first token, (units,), ascending from 0.
    """
    positions = np.arange(len(stream))
    units = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(stream)))
    yield "frequency", *split_at_decades(stream.tokens + 1)  # ids are sorted by training frequency
    yield "recall", list(RECALL), recall_parts(stream, units)
    yield "position", *split_at_decades(positions - starts[units] + 1)


def split_at_decades(numbers: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Divide whole numbers (n,), from 1 on, at DECADES: the labels of the parts, as "1 to 10", and
    the index of each number's part, (n,).
    """
    labels = []
    low = 1
    for high in DECADES:
        labels.append(f"{low:,} to {high:,}")
        low = high + 1
    labels.append(f"{low:,} or more")
    return labels, np.searchsorted(DECADES, numbers)


def recall_parts(stream: TokenStream, units: np.ndarray) -> np.ndarray:
    """The index in RECALL of each token's part: (tokens,).

    units: the number of each token's unit, (tokens,). A bigram is a token and the one before it; a
    bigram or token is repeated if it occurred earlier in its unit.
    After Arora et al. 2023 (Zoology, arXiv 2312.04927), who leave out bigrams that are frequent in
    the training text, since a model knows them without recalling them. Here a bigram counts as
    frequent if the rank of its second token is at most FREQUENT.
    """
    before = np.append(stream.eos_id, stream.tokens[:-1]).astype(np.int64)
    repeated_bigram = occurred_before(units, before * stream.vocabulary_size + stream.tokens)
    repeated_token = occurred_before(units, stream.tokens)
    rare = stream.tokens >= FREQUENT
    conditions = [repeated_bigram & rare, repeated_bigram, repeated_token]  # the first that holds
    return np.select(conditions, [0, 1, 2], default=3)


def occurred_before(units: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Whether each id occurred earlier in its unit: (tokens,), bool.

    units: the number of each id's unit, (tokens,). ids: (tokens,), at least one.
    """
    # Distinct ids are numbered from 0, so that the number of a pair (unit, id) does not overflow
    _, id_numbers = np.unique(ids, return_inverse=True)
    pairs = units * (id_numbers.max() + 1) + id_numbers
    _, first_places = np.unique(pairs, return_index=True)
    before = np.ones(len(ids), bool)
    before[first_places] = False
    return before


def unit_starts(
    stream: TokenStream,
    tokenizer: Tokenizer,
    sentences: bool,
) -> tuple[str, np.ndarray]:
    """The kind of unit, "article" or "line", and the position of each unit's first token: (units,).

    An article begins with a heading ` = Title = ` between empty lines, as in WikiText (see
    `article_headings`). What is before the first heading is a unit of its own, or, if all its lines
    are empty, a part of the first article.
    Units are lines if there is no heading, or if `sentences` (lines are scored alone).
    """
    ends = line_ends(stream.tokens, stream.eos_id)
    starts = np.append(0, ends[:-1])
    headings = [] if sentences else article_headings(stream, tokenizer, starts, ends)
    if not headings:
        return "line", starts
    begins = starts[headings]
    if (stream.tokens[: begins[0]] == stream.eos_id).all():
        begins[0] = 0  # nothing or empty lines before the first heading
    else:
        begins = np.append(0, begins)  # the end of an article whose heading is missing
    return "article", begins


def article_headings(
    stream: TokenStream,
    tokenizer: Tokenizer,
    starts: np.ndarray,
    ends: np.ndarray,
) -> list[int]:
    """The numbers, from 0, of the lines that are headings of articles, in order.

    A heading is a line that `is_heading`, between two empty ones; the start and the end of the text
    count as empty lines.
    starts: the positions of the lines' first tokens, (lines,). ends: those after their <eos>.
    Empty if the tokenizer does not know "=".
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
    """Whether a line (ids without <eos>) is `mark`, something else, and `mark` again.

    mark: the ids of "=". With two or more at either end it is a heading of a section: False.
    """
    size = len(mark)
    if len(line) <= 2 * size or line[:size] != mark or line[-size:] != mark:
        return False
    return line[size : 2 * size] != mark and line[-2 * size : -size] != mark
