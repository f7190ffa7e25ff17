"""When the perplexities of runs compare, and so may be ranked.

per token  with the same tokenizer, on the same text. Another tokenizer cuts the text into other
           pieces, or has other words as <unk>, which is the likelier the more words it stands for.
per word   (bits per byte too) with any tokenizer, on the same text, where all of its words are
           known: <unk> does not pay for the spelling of the word that it stands for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gcnn.reporting.results import Run
from gcnn.reporting.units import count
from gcnn.runs.results import Results, Split

PER_TOKEN, PER_WORD = "perplexity", "word_perplexity"  # entries of Split


@dataclass(frozen=True)
class Ranking:
    """What some runs may be ranked by, and why it is not the perplexity per token."""

    measure: str | None  # PER_TOKEN, PER_WORD; None: nothing
    reason: str = ""  # empty for PER_TOKEN

    @property
    def note(self) -> str:
        """What to say beside the runs' perplexities; empty where all compare as they stand."""
        if self.measure == PER_TOKEN:
            return ""
        return f"{'Ranked per word' if self.measure else 'Not ranked'}: {self.reason}."


def compare(results: Sequence[Results], split: str) -> Ranking:
    """What runs may be ranked by on a split, `validation` or `test`; of no runs, by PER_TOKEN.

    Runs on different texts by nothing; with one tokenizer by PER_TOKEN; with several by PER_WORD
    where no run has an unknown word there, else by nothing. The runs must be finished.
    """
    first, *others = results or [None]
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
    """The runs that have a test perplexity, in groups that may be ranked, each the best first.

    Groups are sorted by the name of the data. Runs on one text that do not compare are in a group
    for each tokenizer.
    """
    texts: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.config.data.name):
        if math.isfinite(run.test_perplexity):
            append_to_matching_group(run, texts, lambda one, other: same_text(one, other, "test"))
    ranked = []
    for group in texts:
        comparison = compare([run.results for run in group], "test")
        parts = [group]
        if comparison.measure is None:
            comparison, parts = Ranking(PER_TOKEN), []
            for run in group:
                append_to_matching_group(run, parts, same_tokenizer)
        for part in parts:
            part.sort(key=lambda run: getattr(run.results.test, comparison.measure) or math.inf)
            ranked.append((comparison, part))
    return ranked


def append_to_matching_group(
    run: Run, groups: list[list[Run]], alike: Callable[[Results, Results], bool]
) -> None:
    """Append a run to the first group whose first run is `alike`, or to `groups` as a new one."""
    for group in groups:
        if alike(group[0].results, run.results):
            group.append(run)
            return
    groups.append([run])


def same_tokenizer(one: Results, other: Results) -> bool:
    """Whether two runs have the same tokenizer; of older runs, the same tokenizer and texts."""
    mine, theirs = one.data, other.data
    if mine.tokenizer_fingerprint and theirs.tokenizer_fingerprint:
        return mine.tokenizer_fingerprint == theirs.tokenizer_fingerprint
    return mine.fingerprint == theirs.fingerprint


def same_text(one: Results, other: Results, split: str) -> bool:
    """Whether a split of two runs is the same text.

    Older runs have no fingerprint of the text: theirs is the same where all of their data is, or
    where the data has the same name and the text as many words and bytes.
    """
    mine = getattr(one, split)
    theirs = getattr(other, split)
    if mine.text_fingerprint and theirs.text_fingerprint:
        return mine.text_fingerprint == theirs.text_fingerprint
    if one.data.fingerprint == other.data.fingerprint:
        return True
    same_size = (mine.words, mine.bytes) == (theirs.words, theirs.bytes) and mine.words is not None
    return one.data.name == other.data.name and same_size


def most_unknown_words(texts: Sequence[Split]) -> str:
    """As " (1,200 of 245,569 are for one)": the most unknown words of a run; empty without any."""
    most = max((text.unknown_words or 0 for text in texts), default=0)
    return f" ({count(most)} of {count(texts[0].words)} are for one)" if most else ""


def search_objective(results: Results) -> float:
    """What a search minimises: the validation text's perplexity per word; infinite where it is not
    finite.

    With one tokenizer it ranks trials as the perplexity per token does. Between tokenizers it ranks
    them too, except for words that one of them does not know: see `compare`.
    """
    nats, words = results.validation.nll_nats, results.validation.words
    if nats is None or not words:
        return math.inf
    return math.exp(nats / words) if nats / words < 700 else math.inf
