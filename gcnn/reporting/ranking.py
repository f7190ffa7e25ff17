"""When the perplexities of runs compare, and so may be ranked.

per token  with the same tokenizer, on the same text. Another tokenizer cuts the text into other
           pieces, or has other words as <unk>, which is the likelier the more words it stands for.
per word   (bits per byte too) with any tokenizer, on the same text, where all of its words are
           known: <unk> does not pay for the spelling of the word that it stands for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcnn.base.numbers import exp
from gcnn.reporting.results import Run
from gcnn.reporting.units import count
from gcnn.runs.results import Results, Split

# Measures, by the names of Split's entries.
PER_TOKEN = "perplexity"
PER_WORD = "word_perplexity"


@dataclass(frozen=True)
class Ranking:
    """What some runs may be ranked by, and why it is not the perplexity per token."""

    measure: str | None  # PER_TOKEN or PER_WORD; None: the runs do not compare
    reason: str = ""  # a clause; empty for PER_TOKEN

    @property
    def note(self) -> str:
        """A sentence to put beside the runs' perplexities; empty if all compare per token."""
        if self.measure == PER_TOKEN:
            return ""
        return f"{'Ranked per word' if self.measure else 'Not ranked'}: {self.reason}."


def ranking_of(results: Sequence[Results], split: str) -> Ranking:
    """What finished runs may be ranked by on a split, `validation` or `test`.

    With one tokenizer and one text: PER_TOKEN, also for a single run or none. With several
    tokenizers on one text: PER_WORD if each run is known to have no unknown word in it. Otherwise
    the measure is None, and the reason says why.
    """
    if not results:
        return Ranking(PER_TOKEN)
    first, *others = results
    if not all(same_text(first, other, split) for other in others):
        return Ranking(None, "perplexities on different texts do not compare")
    if all(same_tokenizer(first, other) for other in others):
        return Ranking(PER_TOKEN)
    texts = [getattr(one, split) for one in results]
    reason = "perplexities per token compare only with the same tokenizer"
    if all(text.unknown_words == 0 for text in texts):
        return Ranking(PER_WORD, reason)
    unknown = most_unknown_words(texts)
    return Ranking(None, f"{reason}, per word only where no word is unknown{unknown}")


def rankings(runs: Sequence[Run]) -> list[tuple[Ranking, list[Run]]]:
    """Groups of runs that may be ranked on their test text, each with what it is ranked by.

    In a group the best run is the first. A group has all runs on one text or, if these do not
    compare, those of one tokenizer, ranked per token. Texts are sorted by the name of their data;
    the groups of a text stand together. The measure is never None. Runs without a finite test
    perplexity are left out.
    """

    def same_test_text(one: Results, other: Results) -> bool:
        return same_text(one, other, "test")

    texts: list[list[Run]] = []  # the runs on each text
    for run in sorted(runs, key=lambda run: run.config.data.name):
        if math.isfinite(run.test_perplexity):
            append_to_matching_group(run, texts, same_test_text)
    ranked = []
    for group in texts:
        ranking, parts = comparable_parts(group)
        for part in parts:
            part.sort(key=lambda run: getattr(run.results.test, ranking.measure) or math.inf)
            ranked.append((ranking, part))
    return ranked


def comparable_parts(runs: list[Run]) -> tuple[Ranking, list[list[Run]]]:
    """What runs on one test text may be ranked by, and the parts of them within which they may.

    That is all of them as one part or, if these do not compare, a part for each tokenizer, per
    token. The measure is never None.
    """
    ranking = ranking_of([run.results for run in runs], "test")
    if ranking.measure:
        return ranking, [runs]
    parts: list[list[Run]] = []
    for run in runs:
        append_to_matching_group(run, parts, same_tokenizer)
    return Ranking(PER_TOKEN), parts


def append_to_matching_group(
    run: Run, groups: list[list[Run]], alike: Callable[[Results, Results], bool]
) -> None:
    """Append a run to the first group whose first run is alike, or else as a new group at the end.

    Changes `groups` in place. alike: whether the results of two runs belong together.
    """
    for group in groups:
        if alike(group[0].results, run.results):
            group.append(run)
            return
    groups.append([run])


def same_tokenizer(one: Results, other: Results) -> bool:
    """Whether two runs have the same tokenizer, by its fingerprint.

    If an older run has none, the fingerprint of tokenizer and texts together is compared: False for
    the same tokenizer on other texts, True if neither run has that one either.
    """
    mine, theirs = one.data, other.data
    if mine.tokenizer_fingerprint and theirs.tokenizer_fingerprint:
        return mine.tokenizer_fingerprint == theirs.tokenizer_fingerprint
    return mine.fingerprint == theirs.fingerprint


def same_text(one: Results, other: Results, split: str) -> bool:
    """Whether a split, `validation` or `test`, of two runs is the same text, by its fingerprint.

    If an older run has none, the text is the same if the fingerprint of all their data is (or
    neither run has that one), or if their data has the same name and their texts have as many words
    and bytes.
    """
    mine = getattr(one, split)
    theirs = getattr(other, split)
    if mine.text_fingerprint and theirs.text_fingerprint:
        return mine.text_fingerprint == theirs.text_fingerprint
    if one.data.fingerprint == other.data.fingerprint:
        return True
    same_size = (mine.words, mine.bytes) == (theirs.words, theirs.bytes) and mine.words is not None
    return one.data.name == other.data.name and same_size


def compare_on_validation(one: Run, other: Run) -> bool:
    """Whether the validation perplexities per token of two runs compare.

    They do with one tokenizer on one text. If one of the runs is unfinished, and so has no
    fingerprints, their configs must have the same tokenizer and the same name, path and files of
    the data.
    """
    if one.finished and other.finished:
        mine, theirs = one.results, other.results
        return same_text(mine, theirs, "validation") and same_tokenizer(mine, theirs)
    mine, theirs = one.config.data, other.config.data
    same_data = (mine.name, mine.path, mine.files) == (theirs.name, theirs.path, theirs.files)
    return same_data and one.config.tokenizer == other.config.tokenizer


def most_unknown_words(texts: Sequence[Split]) -> str:
    """The largest number of unknown words of a run, as " (1,200 of 245,569 are for one)".

    texts: the same split of several runs, one text (`same_text`), whose number of words is that of
    the first, a dash if not recorded. Empty if no run is known to have an unknown word.
    """
    most = max((text.unknown_words or 0 for text in texts), default=0)
    return f" ({count(most)} of {count(texts[0].words)} are for one)" if most else ""


def search_objective(results: Results) -> float:
    """What a search minimises: exp(nats of the validation text / its words); lower is better.

    Infinite if these are not known, or if it is too large for a float.
    With one tokenizer it ranks trials as the perplexity per token does. Between tokenizers it
    favours the one that knows fewer words; `sweep.search_warning` warns of that.
    """
    nats, words = results.validation.nll_nats, results.validation.words
    if nats is None or not words:
        return math.inf
    return exp(nats / words)
