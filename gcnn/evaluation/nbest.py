"""N-best lists: hypotheses of a recogniser or translator, ranked anew with a model's scores.

moses   `id ||| sentence ||| features ||| score`, or without features, or without both
kaldi   `utt-1 words`: numbered hypotheses of `utt`, as lattice-to-nbest writes them, without costs;
        where a number comes twice in a list it is part of the name
srilm   `acoustic language n words`, scores in log 10: one list, as `ngram -rescore` writes it
any     whichever of these fits the first line
"""

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from gcnn.base.errors import UsageError

KINDS = ("any", "moses", "kaldi", "srilm")
# As in Hypothesis: list, number, sentence, and the score as it is written
Fields = tuple[str, str, str, str]


class Hypothesis(NamedTuple):
    """A line of an n-best list."""

    line: str  # without white space at its end
    list: str  # the name of its list
    number: str  # its number there; empty where the line has none
    sentence: str
    score: float  # the one it came with, in nats; 0 where it is not needed

    @property
    def words(self) -> int:
        return len(self.sentence.split())


def reader(kind: str, scored: bool) -> Callable[[str], Hypothesis]:
    """A function that parses a line of one of KINDS; with `scored`, lines must have a score.

    For "any" the first line decides, which is printed to stderr unless it is moses. The function
    raises UsageError for other lines; its message is to follow the name of the line ("line 3 ").
    """

    def read_hypothesis(line: str) -> Hypothesis:
        nonlocal kind
        if kind == "any":
            kind = recognised(line)
            if kind != "moses":
                print(f"n-best lists as --nbest {kind} reads them.", file=sys.stderr)
        form, parse = PARSERS[kind]
        fields = parse(line)
        if fields is None:
            raise UsageError(
                f"is not `{form}`. Give n-best lists of one kind, or leave out --nbest."
            )
        name, number, sentence, score = fields
        return Hypothesis(
            line.rstrip(), name, number, sentence, to_nats(score, kind) if scored else 0.0
        )

    return read_hypothesis


def recognised(line: str) -> str:
    """The kind of n-best list that a line is of. Raises UsageError where it is of none."""
    if "|||" in line:
        return "moses"
    if parse_srilm(line):
        return "srilm"
    if re.match(r"\S+-[1-9]\d*(\s|$)", line):
        return "kaldi"
    raise UsageError(
        "is not `id ||| sentence`, `utt-1 words` or `acoustic language n words`. Give n-best lists "
        f"and say of which kind (--nbest {'|'.join(PARSERS)}), or leave out --nbest."
    )


def parse_moses(line: str) -> Fields | None:
    """The fields of a line, None where it is not of this kind; so of the parsers below."""
    name, *fields = line.split("|||")
    if not fields:
        return None
    # After the sentence come features, total score and alignments, or the score alone
    score = (fields[1:3] or [""])[-1]
    return name.strip(), "", fields[0], score


def parse_kaldi(line: str) -> Fields | None:
    match = re.match(r"(\S+?)(?:-([1-9]\d*))?(?:\s+(.*))?$", line.strip())
    return match and (match[1], match[2] or "", match[3] or "", "")


def parse_srilm(line: str) -> Fields | None:
    score, *fields = [*line.split(maxsplit=3), "", ""]
    try:
        float(score), float(fields[0]), int(fields[1])
    except ValueError:
        return None
    return "", "", fields[2], score


PARSERS = {  # of each kind, how a line looks, and its parser
    "moses": ("id ||| sentence", parse_moses),
    "kaldi": ("utt-1 words", parse_kaldi),
    "srilm": ("acoustic language n words", parse_srilm),
}


def to_nats(score: str, kind: str) -> float:
    """A score as it is written, in nats. Raises UsageError where it is not a finite number."""
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(score)):
            return number * math.log(10) if kind == "srilm" else number
    raise UsageError(
        f"has no score for --lm-weight (found: {score.strip()!r}). "
        "Give `id ||| sentence ||| score`, or no weight."
    )


class Scored(NamedTuple):
    """A hypothesis as the model scores it."""

    hypothesis: Hypothesis
    tokens: bytes  # the ids of its words: where these are the same, so is the score
    log_prob: float  # nats
    unknown: int  # tokens that are <unk>


class Ranker:
    """Ranks lists of hypotheses, and counts those with unknown words.

    They are ranked by
    score + weight * (log_prob - unknown_penalty * unknown + word_weight * words), in nats, or,
    without a weight, by what stands in brackets. A penalty or word weight that is not given is 0.
    """

    def __init__(
        self,
        weight: float | None = None,
        unknown_penalty: float | None = None,
        word_weight: float | None = None,
    ):
        self.weight = weight
        self.unknown_penalty = unknown_penalty
        self.word_weight = word_weight
        self.hypotheses = self.with_unknown = self.unknown = 0

    def rank(self, entries: Iterable[Scored]) -> Iterator[str]:
        """Each list as text, best hypothesis first, equal ones in their order.

        A line is the hypothesis's own, its log_prob, with a penalty its number of unknown tokens,
        with a word weight that of its words, and, where that is another number, the sum that it is
        ranked by. `entries` come list by list.
        """
        for group in split_into_lists(entries):
            rows = []
            for entry in group:
                self.count(entry.unknown)
                rows.append([entry.hypothesis.line, *self.figures(entry)])
            rows.sort(key=lambda row: -row[-1])
            yield "".join(" ||| ".join(map(str, row)) + "\n" for row in rows)

    def figures(self, entry: Scored) -> list[float]:
        """The numbers printed after a hypothesis; it is ranked by the last one."""
        hypothesis = entry.hypothesis
        figures = [entry.log_prob]
        total = entry.log_prob
        if self.unknown_penalty is not None:
            figures.append(entry.unknown)
            total -= self.unknown_penalty * entry.unknown
        if self.word_weight is not None:
            figures.append(hypothesis.words)
            total += self.word_weight * hypothesis.words
        if self.weight is not None:
            total = hypothesis.score + self.weight * total
        if (self.weight, self.unknown_penalty, self.word_weight) != (None, None, None):
            figures.append(total)
        return figures

    def count(self, unknown: int) -> None:
        self.hypotheses += 1
        self.with_unknown += unknown > 0
        self.unknown += unknown

    def warning(self) -> str:
        """A warning about the unknown words that were ranked; empty where there were none."""
        if not self.unknown:
            return ""
        found = (
            f"{self.with_unknown:,} of {self.hypotheses:,} hypotheses have words that the model "
            f"does not know, {self.unknown:,} in all."
        )
        if self.unknown_penalty is not None:
            return found
        return (
            f"{found} It has one probability for all such words, <unk>, so that nonsense may come "
            "first; --unknown-penalty NATS takes as much off for each."
        )


def split_into_lists(entries: Iterable[Scored]) -> Iterator[list[Scored]]:
    """Group hypotheses by the name of their list, in their order.

    Where a number comes twice in a list, it belongs to the name: hypotheses of one number are a
    list.
    """
    for _, group in groupby(entries, key=lambda entry: entry.hypothesis.list):
        group = with_equal_scores(group)
        if len({entry.hypothesis.number for entry in group}) == len(group):
            yield group
        else:
            yield from (
                list(part) for _, part in groupby(group, key=lambda entry: entry.hypothesis.number)
            )


def with_equal_scores(entries: Iterable[Scored]) -> list[Scored]:
    """The entries, with one log-probability where tokens are the same: rounding differs from batch
    to batch.
    """
    first: dict[bytes, float] = {}
    return [
        entry._replace(log_prob=first.setdefault(entry.tokens, entry.log_prob)) for entry in entries
    ]
