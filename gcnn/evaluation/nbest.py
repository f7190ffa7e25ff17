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


def line_parser(kind: str, scored: bool) -> Callable[[str], Hypothesis]:
    """A function that parses a line of an n-best list.

    kind: one of KINDS. For "any" the first line that the function parses decides the kind of all,
    which is then printed to stderr unless it is moses.
    scored: each line must have a score; otherwise scores are not read and are 0.
    The function raises UsageError for a line that is not of the kind; for kaldi that is a blank one
    alone, as any other begins with a name. If `scored`, it also raises UsageError for a line
    without a finite score, which is every line of kaldi. The message begins with a verb, so that
    the caller can put the line's name ("line 3") before it.
    """

    def read_hypothesis(line: str) -> Hypothesis:
        """The hypothesis of a line, with or without its line end; decides `kind`, and raises, as
        `line_parser` says.
        """
        nonlocal kind
        if kind == "any":
            kind = recognise_kind(line)
            if kind != "moses":
                print(f"n-best lists as --nbest {kind} reads them.", file=sys.stderr)
        form, parse = PARSERS[kind]
        fields = parse(line.rstrip("\n"))
        if fields is None:
            raise UsageError(
                f"is not `{form}`. Give n-best lists of one kind, or leave out --nbest."
            )
        name, number, sentence, score = fields
        nats = to_nats(score, kind) if scored else 0.0
        return Hypothesis(line.rstrip(), name, number, sentence, nats)

    return read_hypothesis


def recognise_kind(line: str) -> str:
    """The kind of n-best list that a line is from: moses, srilm or kaldi, the first that fits.

    It is kaldi only if it begins with a name that ends with `-` and a number from 1. Raises
    UsageError if none fits; the message begins with a verb, as those of `line_parser`.
    """
    if "|||" in line:
        return "moses"
    if parse_srilm(line):
        return "srilm"
    if re.match(r"\s*\S+-[1-9]\d*(\s|$)", line):
        return "kaldi"
    raise UsageError(
        "is not `id ||| sentence`, `utt-1 words` or `acoustic language n words`. Give n-best lists "
        f"and say of which kind (--nbest {'|'.join(PARSERS)}), or leave out --nbest."
    )


def parse_moses(line: str) -> Fields | None:
    """List, number, sentence and score of `id ||| sentence ...`; None for a line without `|||`.

    The list is the id, and the number is empty. The score is the fourth field, or the third of
    three; empty if there are two. Sentence and score keep the blanks around them.
    """
    fields = line.split("|||")
    if len(fields) == 1:
        return None
    # After the sentence come features, total score and alignments, or the score alone
    score = ""
    if len(fields) == 3:
        score = fields[2]
    elif len(fields) > 3:
        score = fields[3]
    return fields[0].strip(), "", fields[1], score


def parse_kaldi(line: str) -> Fields | None:
    """List, number, sentence and score of `utt-1 words`; None only for a blank line.

    The number is that after the last `-` of the name; empty if there is none or it begins with 0,
    and then the list is all before the words. The sentence may be empty; the score is.
    """
    match = re.match(r"(\S+?)(?:-([1-9]\d*))?(?:\s+(.*))?$", line.strip())
    if match is None:
        return None
    name, number, words = match.groups(default="")
    return name, number, words, ""


def parse_srilm(line: str) -> Fields | None:
    """List, number, sentence and score of `acoustic language n words`; None unless it begins with
    two numbers and a whole one.

    List and number are empty, since the input is one list; the score is the acoustic one. The
    sentence may be empty, and keeps the blanks after it.
    """
    fields = line.split(maxsplit=3)
    fields += [""] * (4 - len(fields))  # what a short line lacks; the words may be none
    acoustic, language, count, words = fields
    try:
        float(acoustic)
        float(language)
        int(count)
    except ValueError:
        return None
    return "", "", words, acoustic


PARSERS = {  # of each kind, how a line looks, and its parser
    "moses": ("id ||| sentence", parse_moses),
    "kaldi": ("utt-1 words", parse_kaldi),
    "srilm": ("acoustic language n words", parse_srilm),
}


def to_nats(score: str, kind: str) -> float:
    """A written score as a number in nats: srilm's are in log 10, others in nats already.

    Raises UsageError if it is no number or its nats are not finite; the message begins with a verb.
    """
    with contextlib.suppress(ValueError):
        nats = float(score)
        if kind == "srilm":
            nats *= math.log(10)
        if math.isfinite(nats):
            return nats
    raise UsageError(
        f"has no score of its own (found: {score.strip()!r}). "
        "Give `id ||| sentence ||| score`; only gcnn score without --lm-weight needs none."
    )


class Scored(NamedTuple):
    """A hypothesis as the model scores it."""

    hypothesis: Hypothesis
    ids: bytes  # of its tokens: where these are the same, so is the score
    log_prob: float  # nats
    unknown: int  # tokens that are <unk>


class Ranker:
    """Ranks lists of hypotheses, and counts those with unknown words.

    They are ranked, the largest first, by the sum
    score + weight * (log_prob - unknown_penalty * unknown + word_weight * words), in nats.
    Without a weight it is what stands in brackets.
    """

    def __init__(
        self,
        weight: float | None = None,
        unknown_penalty: float | None = None,
        word_weight: float | None = None,
    ):
        """weight: None: rank without the scores that came with the hypotheses.

        unknown_penalty, word_weight: nats for each unknown token and for each word. None: 0, and
        `figures` leaves out the number of unknown tokens or of words.
        """
        self.weight = weight
        self.unknown_penalty = unknown_penalty
        self.word_weight = word_weight
        self.hypotheses = self.with_unknown = self.unknown = 0

    def rank(self, entries: Iterable[Scored]) -> Iterator[str]:
        """Yield each list as text, best hypothesis first, equal ones in their order.

        entries: list by list; lists are those of `split_into_lists`, in which hypotheses with the
        same tokens have the same log-probability. Each hypothesis is a line, with its newline: its
        own line and its `figures`, with ` ||| ` between them. Adds the hypotheses to the counts for
        `warning`.
        """
        for group in split_into_lists(entries):
            rows = []
            for entry in group:
                self.count(entry.unknown)
                rows.append([entry.hypothesis.line, *self.figures(entry)])
            rows.sort(key=lambda row: -row[-1])
            lines = [" ||| ".join(map(str, row)) for row in rows]
            yield "".join(f"{line}\n" for line in lines)

    def figures(self, entry: Scored) -> list[float]:
        """The numbers printed after a hypothesis; it is ranked by the last one.

        They are its log_prob; with a penalty, its unknown tokens; with a word weight, its words;
        and, if there is any weight or penalty, the sum of the class's formula.
        """
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
        """A warning about the unknown words ranked so far, without a newline at its end; empty if
        there were none.

        Without a penalty, it also recommends --unknown-penalty.
        """
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
    """Yield lists: neighbouring hypotheses whose list has the same name, in their order.

    If a number comes twice under a name, it is a part of the name: neighbours with the same number
    are then a list. (Hypotheses without numbers stay one list.) The log-probabilities are those of
    `with_equal_scores`, made equal over all hypotheses of the name.
    """
    for _, group in groupby(entries, key=lambda entry: entry.hypothesis.list):
        group = with_equal_scores(group)
        numbers = {entry.hypothesis.number for entry in group}
        if len(numbers) == len(group):
            yield group
        else:
            for _, part in groupby(group, key=lambda entry: entry.hypothesis.number):
                yield list(part)


def with_equal_scores(entries: Iterable[Scored]) -> list[Scored]:
    """The entries; those with the same tokens all get the log-probability of the first of them.

    Otherwise it differs by rounding, which depends on the batch.
    """
    known: dict[bytes, float] = {}  # by ids
    equal = []
    for entry in entries:
        log_prob = known.setdefault(entry.ids, entry.log_prob)
        equal.append(entry._replace(log_prob=log_prob))
    return equal
