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

from gcnn.errors import UsageError

KINDS = ("any", "moses", "kaldi", "srilm")
Fields = tuple[str, str, str, str]  # the names that Hypothesis has for them: list, number, sentence, score as written


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
            raise UsageError(f"is not `{form}`. Give n-best lists of one kind, or leave out --nbest.")
        name, number, sentence, score = fields
        return Hypothesis(line.rstrip(), name, number, sentence, to_nats(score, kind) if scored else 0.0)

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
    return name.strip(), "", fields[0], (fields[1:3] or [""])[-1]  # the total comes after features, before alignments


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


def rank_lists(entries: Iterable[tuple[Hypothesis, float]], weight: float | None) -> Iterator[str]:
    """Each list of hypotheses and their log-probabilities as text, best first, equal ones in their order.

    The best has the greatest log-probability, or, with a weight, the greatest sum of its score and as many times that.
    """
    for group in split_into_lists(entries):
        rows = []
        for hypothesis, log_prob in group:
            total = [] if weight is None else [hypothesis.score + weight * log_prob]
            rows.append([hypothesis.line, log_prob, *total])
        rows.sort(key=lambda row: -row[-1])
        yield "".join(" ||| ".join(map(str, row)) + "\n" for row in rows)


def split_into_lists(entries: Iterable[tuple[Hypothesis, float]]) -> Iterator[list[tuple[Hypothesis, float]]]:
    for _, group in groupby(entries, key=lambda entry: entry[0].list):
        group = list(group)
        if len({hypothesis.number for hypothesis, _ in group}) == len(group):
            yield group
        else:
            yield from (list(part) for _, part in groupby(group, key=lambda entry: entry[0].number))
