"""The weights with which a model ranks n-best lists at the fewest word errors, found on lists with
references.

(1) the word errors of each hypothesis, (2) lists as arrays, (3) a coarse grid over both weights,
(4) finer grids around its best point.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from gcnn.base.errors import UsageError
from gcnn.evaluation.nbest import Scored, split_into_lists

log = logging.getLogger(__name__)

# The coarse grid. Its weights of the model range widely, for lists have scores in any unit.
LM_WEIGHTS = [0.0, *(2.0 ** np.arange(-8, 8.5, 0.5))]
WORD_WEIGHTS = [float(nats) for nats in range(-8, 9)]
LM_STEP = 2**0.5  # of the coarse grid, a factor
WORD_STEP = 1.0  # of the coarse grid, nats
ROUNDS = 3  # of finer grids, the steps of each a quarter as large as those before


@dataclass
class Lists:
    """N-best lists with the word errors of each hypothesis.

    Arrays are (lists, hypotheses of the longest list); where a list is shorter, `own` is -inf and
    the others are 0.
    """

    own: np.ndarray  # the scores that came with the hypotheses, nats
    model: np.ndarray  # log-probabilities less the penalty of unknown words, nats
    words: np.ndarray  # of each hypothesis
    errors: np.ndarray  # words to substitute, delete and insert
    reference_words: int

    def errors_at(self, lm_weight: float, word_weight: float) -> int:
        """The word errors, over all lists, of the hypotheses that come first with these weights."""
        totals = self.own + lm_weight * (self.model + word_weight * self.words)
        best = totals.argmax(axis=1)  # of equal ones the first, as when they are ranked
        return int(self.errors[np.arange(len(best)), best].sum())

    def oracle(self) -> int:
        """The word errors, over all lists, of the hypothesis with the fewest in each list."""
        return int(np.where(np.isfinite(self.own), self.errors, np.inf).min(axis=1).sum())


def tune(lists: Lists) -> tuple[float, float]:
    """The weight of the model and the word weight (nats a word) with the fewest word errors of all
    pairs tried, rounded as `rounded` does.

    Those of LM_WEIGHTS and WORD_WEIGHTS are tried, then ROUNDS finer grids around the best so far.
    Of equal pairs, the one with the word weight nearest to 0, then with the smallest weight of the
    model.
    """

    def cost(weights: tuple[float, float]) -> tuple[float, ...]:
        return lists.errors_at(*weights), abs(weights[1]), weights[0]

    # A coarse grid, then finer ones around the best point so far
    best = min(map(rounded, product(LM_WEIGHTS, WORD_WEIGHTS)), key=cost)
    for level in range(1, ROUNDS + 1):
        steps = np.arange(-4, 5) / 4**level
        lm_weights = best[0] * LM_STEP**steps
        word_weights = best[1] + WORD_STEP * steps
        near = map(rounded, product(lm_weights, word_weights))
        best = min([best, *near], key=cost)
    return best


def rounded(weights: tuple[float, float]) -> tuple[float, float]:
    """Weights rounded to 4 digits and to 3 decimals, as they are printed: those were tried."""
    return float(f"{weights[0]:.4g}"), round(float(weights[1]), 3)


def make_lists(
    entries: Iterable[Scored], references: dict[str, str], unknown_penalty: float = 0.0
) -> Lists:
    """The `Lists` of scored hypotheses, with their word errors against references.

    entries: list by list, of lines parsed with `scored`; lists are those of `split_into_lists`.
    references: the right words, by the lists' names (`Hypothesis.list`); a text may be empty.
    unknown_penalty: nats taken off for each unknown token.
    Logs a warning for references without a list: they count neither as words nor as errors. Raises
    UsageError if there are no lists, for a list without a reference, for two lists of one name (its
    lines are not together, or a number comes twice), and without the package jiwer.
    """
    groups = list(split_into_lists(entries))
    if not groups:
        raise UsageError("there are no n-best lists. Give some, with references.")
    names = [group[0].hypothesis.list for group in groups]
    for name in names:
        if name not in references:
            raise UsageError(
                f"the references have no line for the list {name!r}. "
                "Give a line `name ||| words` for each list."
            )
    for name, number in Counter(names).items():
        if number > 1:
            raise UsageError(
                f"the list {name!r} comes in {number} parts. Bring the lines of each list together."
            )
    without = sorted(references.keys() - set(names))
    if without:
        log.warning(
            "%d of the references have no list, %s first: their words are not counted.",
            len(without),
            without[0],
        )

    shape = len(groups), max(map(len, groups))
    own = np.full(shape, -np.inf)
    model = np.zeros(shape)
    words = np.zeros(shape)
    errors = np.zeros(shape)
    for i, (name, group) in enumerate(zip(names, groups, strict=True)):
        row = i, slice(len(group))  # the rest of a short list stays as it is
        own[row] = [entry.hypothesis.score for entry in group]
        model[row] = [entry.log_prob - unknown_penalty * entry.unknown for entry in group]
        words[row] = [entry.hypothesis.words for entry in group]
        errors[row] = word_errors(references[name], [entry.hypothesis.sentence for entry in group])
    total = sum(len(references[name].split()) for name in names)
    return Lists(own, model, words, errors, total)


def word_errors(reference: str, hypotheses: Sequence[str]) -> list[int]:
    """For each hypothesis, the number of words to substitute, delete and insert to get the
    reference.

    Words are split at white space; a text may have none. Raises UsageError without the package
    jiwer.
    """
    try:
        from jiwer import process_words
    except ImportError:
        raise UsageError(
            "word errors are counted by the package jiwer, which is not installed. "
            "Run: pip install 'gcnn[nbest]'"
        ) from None
    plain = " ".join(reference.split())
    found = []
    for hypothesis in hypotheses:
        counts = process_words(plain, " ".join(hypothesis.split()))
        found.append(counts.substitutions + counts.deletions + counts.insertions)
    return found
