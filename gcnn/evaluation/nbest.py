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
        name, number, sentence, score = PARSERS[kind](line)
        return Hypothesis(line.rstrip(), name, number, sentence, to_nats(score, kind) if scored else 0.0)

    return read_hypothesis


def recognised(line: str) -> str:
    if "|||" in line:
        return "moses"
    with contextlib.suppress(UsageError):
        read_srilm(line)
        return "srilm"
    if re.match(r"\S+-[1-9]\d*(\s|$)", line):
        return "kaldi"
    raise UsageError(
        "is not `id ||| sentence`, `utt-1 words` or `acoustic language n words`. Give n-best lists and say of which "
        f"kind (--nbest {'|'.join(PARSERS)}), or leave out --nbest."
    )


def read_moses(line: str) -> tuple[str, str, str, str]:
    name, *fields = line.split("|||")
    if not fields:
        raise UsageError("is not `id ||| sentence`. Give n-best lists of one kind, or leave out --nbest.")
    return name.strip(), "", fields[0], (fields[1:3] or [""])[-1]  # the total comes after features, before alignments


def read_kaldi(line: str) -> tuple[str, str, str, str]:
    match = re.match(r"(\S+?)(?:-([1-9]\d*))?(?:\s+(.*))?$", line.strip())
    if not match:
        raise UsageError("is not `utt-1 words`. Give n-best lists of one kind, or leave out --nbest.")
    return match[1], match[2] or "", match[3] or "", ""


def read_srilm(line: str) -> tuple[str, str, str, str]:
    score, *fields = [*line.split(maxsplit=3), "", ""]
    try:
        float(score), float(fields[0]), int(fields[1])
    except ValueError:
        raise UsageError(
            "is not `acoustic language n words`. Give n-best lists of one kind, or leave out --nbest."
        ) from None
    return "", "", fields[2], score


PARSERS = {"moses": read_moses, "kaldi": read_kaldi, "srilm": read_srilm}


def to_nats(score: str, kind: str) -> float:
    try:
        number = float(score)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"has no score for --lm-weight (found: {score.strip()!r}). Give `id ||| sentence ||| score`, or no weight."
        )
    return number * math.log(10) if kind == "srilm" else number


def rank_lists(entries: Iterable[tuple[Hypothesis, float]], weight: float | None) -> Iterator[str]:
    """Each list of hypotheses and their log-probabilities as text, best first, equal ones in their order.

    The best has the greatest log-probability, or, with a weight, the greatest sum of its score and as many times that.
    """
    for group in split_into_lists(entries):
        totals = [
            log_prob if weight is None else hypothesis.score + weight * log_prob for hypothesis, log_prob in group
        ]
        lines = []
        for i in sorted(range(len(group)), key=lambda i: -totals[i]):
            hypothesis, log_prob = group[i]
            lines.append(f"{hypothesis.line} ||| {log_prob}" + ("" if weight is None else f" ||| {totals[i]}") + "\n")
        yield "".join(lines)


def split_into_lists(entries: Iterable[tuple[Hypothesis, float]]) -> Iterator[list[tuple[Hypothesis, float]]]:
    for _, group in groupby(entries, key=lambda entry: entry[0].list):
        group = list(group)
        if len({hypothesis.number for hypothesis, _ in group}) == len(group):
            yield group
        else:
            yield from (list(part) for _, part in groupby(group, key=lambda entry: entry[0].number))
