"""N-best lists: the hypotheses of a recogniser or translator, ranked anew by a model and the scores they came with.

moses   `id ||| sentence ||| features ||| score`, or without features, or without both
kaldi   `utt-1 words`: hypotheses of `utt` numbered, as lattice-to-nbest does; where a number comes twice it is part of
        the name. Their costs are in files apart
srilm   `acoustic language n words`, scores of base 10: one list, as `ngram -rescore` writes it
any     the one of these that the first line is
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
Fields = tuple[
    str, str, str, str
]  # the names that Hypothesis has for them: list, number, sentence, score as written


class Hypothesis(NamedTuple):
    line: str
    list: str  # the name of its list
    number: str  # its number there, if its line has one
    sentence: str
    score: float  # its own, in nats; 0 where none is asked for


def reader(kind: str, scored: bool) -> Callable[[str], Hypothesis]:
    """What reads a line of one of KINDS; `scored`: its score is needed.

    It raises UsageError, the end of a sentence that begins with the line's number.
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
    if "|||" in line:
        return "moses"
    if parse_srilm(line):
        return "srilm"
    if re.match(r"\S+-[1-9]\d*(\s|$)", line):
        return "kaldi"
    raise UsageError(
        "is not `id ||| sentence`, `utt-1 words` or `acoustic language n words`. Give n-best lists and say of which "
        f"kind (--nbest {'|'.join(PARSERS)}), or leave out --nbest."
    )


def parse_moses(line: str) -> Fields | None:
    name, *fields = line.split("|||")
    if not fields:
        return None
    return (
        name.strip(),
        "",
        fields[0],
        (fields[1:3] or [""])[-1],
    )  # the total comes after features, before alignments


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


PARSERS = {  # of each kind, how a line looks, and what finds its fields or None
    "moses": ("id ||| sentence", parse_moses),
    "kaldi": ("utt-1 words", parse_kaldi),
    "srilm": ("acoustic language n words", parse_srilm),
}


def to_nats(score: str, kind: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(score)):
            return number * math.log(10) if kind == "srilm" else number
    raise UsageError(
        f"has no score for --lm-weight (found: {score.strip()!r}). Give `id ||| sentence ||| score`, or no weight."
    )


class Scored(NamedTuple):
    """A hypothesis as the model scores it."""

    hypothesis: Hypothesis
    tokens: bytes  # the ids of its words: where these are the same, so is the score
    log_prob: float  # nats
    unknown: int  # tokens that are <unk>


class Ranker:
    """Ranks lists of hypotheses: by score + weight * (log_prob - unknown_penalty * unknown), or, without a weight, by
    what stands in brackets. Counts the hypotheses with unknown words on the way."""

    def __init__(self, weight: float | None = None, unknown_penalty: float | None = None):
        self.weight = weight
        self.unknown_penalty = unknown_penalty
        self.hypotheses = self.with_unknown = self.unknown = 0

    def rank(self, entries: Iterable[Scored]) -> Iterator[str]:
        """Each list as text, best first, equal ones in their order. A line is that of the hypothesis, its log_prob,
        with a penalty its number of unknown tokens, and the sum that it is ranked by where that is another number."""
        for group in split_into_lists(entries):
            rows = []
            first: dict[bytes, float] = {}
            for hypothesis, tokens, log_prob, unknown in group:
                # The same words have the same log-probability but for rounding, which differs from batch to batch.
                log_prob = first.setdefault(tokens, log_prob)
                self.count(unknown)
                rows.append([hypothesis.line, *self.figures(hypothesis.score, log_prob, unknown)])
            rows.sort(key=lambda row: -row[-1])
            yield "".join(" ||| ".join(map(str, row)) + "\n" for row in rows)

    def figures(self, score: float, log_prob: float, unknown: int) -> list[float]:
        """What is printed of a hypothesis; the last is what it is ranked by."""
        figures = [log_prob]
        total = log_prob
        if self.unknown_penalty is not None:
            total -= self.unknown_penalty * unknown
            figures += [unknown] if self.weight is not None else [unknown, total]
        if self.weight is not None:
            figures.append(score + self.weight * total)
        return figures

    def count(self, unknown: int) -> None:
        self.hypotheses += 1
        self.with_unknown += unknown > 0
        self.unknown += unknown

    def warning(self) -> str:
        """What to say of the unknown words that were ranked; empty where there were none."""
        if not self.unknown:
            return ""
        found = (
            f"{self.with_unknown:,} of {self.hypotheses:,} hypotheses have words that the model does not know, "
            f"{self.unknown:,} in all."
        )
        if self.unknown_penalty is not None:
            return found
        return (
            f"{found} It has one probability for all such words, <unk>, so that nonsense may come first; "
            "--unknown-penalty NATS takes as much off for each."
        )


def split_into_lists(entries: Iterable[Scored]) -> Iterator[list[Scored]]:
    for _, group in groupby(entries, key=lambda entry: entry.hypothesis.list):
        group = list(group)
        if len({entry.hypothesis.number for entry in group}) == len(group):
            yield group
        else:
            yield from (
                list(part) for _, part in groupby(group, key=lambda entry: entry.hypothesis.number)
            )
