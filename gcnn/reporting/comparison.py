"""The comparison of two runs: its JSON, read and checked, and its tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn.base.errors import UsageError
from gcnn.reporting.document import Block, Code, Details, Heading, Paragraph, Table
from gcnn.reporting.units import DASH, count, decimals, percent, perplexity, plural, signed
from gcnn.runs.json_files import Number, Text, checked, read_json

NAMES = ("A", "B")
FEW = 20  # units: resampling fewer understates how much texts differ
EXPLANATION = (
    "A and B are nats a token. A part contributes its share of the tokens times B - A; "
    "the contributions of a table add up to the whole difference."
)
WAYS = {  # to divide the tokens: the title of the first column
    "frequency": "rank by training frequency",
    "recall": "in the {unit} so far",
    "position": "position in the {unit}",
}


@dataclass(kw_only=True)
class Part:
    """Those tokens of the text that have something in common, as a rank from 1 to 10."""

    part: Text  # its label
    tokens: Number
    nats_per_token: list[Number]  # of A and of B, on these tokens
    contribution: Number  # B - A summed over the part, divided by the tokens of the whole text
    interval: list[Number]  # 95 %, of the contribution: low and high; empty: none


@dataclass(kw_only=True)
class ComparedRun:
    """A run of a comparison."""

    run: Text  # its path as the user typed it
    experiment: Text
    weights_sha256: Text


@dataclass(kw_only=True)
class Comparison:
    """What `gcnn compare --json` prints, of runs A and B.

    Differences are B - A in nats a token, so A is better where they are positive. The ratio is B's
    perplexity divided by A's. A perplexity or ratio that is too large for a float is None.
    The functions of this module that take one expect it to be complete (`is_complete`).
    """

    git_commit: Text
    command: Text
    date: Text
    runs: list[ComparedRun]  # A and B
    text: Text
    scored: Text  # as running text | each line alone
    unit: Text  # article | line: what is resampled
    tokens: Number
    units: Number
    resamples: Number
    nats_per_token: list[Number]
    perplexity: list[Number]
    difference: Number
    difference_interval: list[Number]  # 95 %: low and high; empty: none, the text is one unit
    ratio: Number
    ratio_interval: list[Number]
    parts: dict[str, list[Part]]  # by the way to divide the tokens: a key of WAYS

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference excludes 0.

        False if there is no interval, or if the difference itself is 0.
        """
        if not self.difference or not self.difference_interval:
            return False
        low, high = self.difference_interval
        return low > 0 or high < 0


def load_comparison(path: str | Path) -> Comparison:
    """Read the JSON that `gcnn compare --json` printed.

    Raises UsageError if the file is missing, cannot be read or has an entry of another type, and if
    the comparison is not complete (`is_complete`, which says what may be None).
    """
    remedy = "Give what `gcnn compare --json` printed."
    content = read_json(Path(path), dict[str, Any])
    if content is None:
        raise UsageError(f"{path}: no such file. {remedy}")
    comparison = checked(content, Comparison, str(path))
    if not is_complete(comparison):
        raise UsageError(f"{path} is no comparison of two runs. {remedy}")
    return comparison


def is_complete(comparison: Comparison) -> bool:
    """Whether the comparison has all that its tables need.

    Each list but those of parts has two entries: for the two runs, or the bounds of an interval,
    which may also be empty. The number of tokens is not 0. None is allowed for labels,
    perplexities, the ratio, the number of resamples, and the bounds of all intervals but the
    difference's.
    """
    numbers = [comparison.tokens, comparison.units, comparison.difference]
    numbers += comparison.difference_interval
    numbers += comparison.nats_per_token
    pairs = [comparison.runs, comparison.nats_per_token, comparison.perplexity]
    intervals = [comparison.difference_interval, comparison.ratio_interval]
    for parts in comparison.parts.values():
        for part in parts:
            numbers += [part.tokens, part.contribution, *part.nats_per_token]
            pairs.append(part.nats_per_token)
            intervals.append(part.interval)
    pairs_whole = all(len(pair) == 2 for pair in pairs)
    intervals_whole = all(len(interval) in (0, 2) for interval in intervals)
    return pairs_whole and intervals_whole and None not in numbers and bool(comparison.tokens)


def comparison_blocks(comparison: Comparison) -> list[Block]:
    """The comparison as a section of a page.

    In this order: a heading, a table of both runs, the conclusion, EXPLANATION, a table for each
    way to divide the tokens (`part_table`) and, if it was recorded, the command.
    """
    blocks = [Heading("Comparison of two runs"), compared_runs(comparison)]
    blocks += [Paragraph(conclusion(comparison)), Paragraph(EXPLANATION)]
    blocks += [part_table(comparison, way) for way in comparison.parts]
    if comparison.command:
        blocks.append(Details("Command of the comparison", [Code(comparison.command)]))
    return blocks


def compared_runs(comparison: Comparison) -> Table:
    """One row a run: A or B, experiment, path, nats a token and perplexity; a dash for None.

    The caption says what the text is, how it was scored, and its numbers of tokens and units.
    """
    rows = []
    totals = zip(comparison.nats_per_token, comparison.perplexity, strict=True)
    for name, run, (nats, value) in zip(NAMES, comparison.runs, totals, strict=True):
        labels = [name, run.experiment or DASH, run.run or DASH]
        rows.append([*labels, decimals(nats, 4), perplexity(value)])
    units = plural(comparison.units, comparison.unit or "unit")
    how = f"{comparison.text or DASH}, scored {comparison.scored or DASH}"
    caption = f"{how}: {count(comparison.tokens)} tokens in {units}"
    header = ["", "experiment", "run", "nats a token", "perplexity"]
    return Table(header, rows, caption, text_columns=3)


def conclusion(comparison: Comparison) -> str:
    """Two sentences: the ratio of the perplexities with its interval, and what that covers.

    With an interval, the first also says which run is better, or that the text does not tell (see
    `is_clear`), and the second warns of fewer than FEW units. Without an interval, the second says
    that the text is a single unit.
    """
    unit = comparison.unit or "unit"
    sentence = f"B's perplexity is {decimals(comparison.ratio, 3)} times A's"
    if not comparison.ratio_interval:
        return f"{sentence}. The text is one {unit}, which gives no interval."
    low, high = (decimals(bound, 3) for bound in comparison.ratio_interval)
    verdict = "this text does not tell which is better"
    if comparison.is_clear:
        verdict = f"{'A' if comparison.difference > 0 else 'B'} is better on this text"
    resamples = f"{count(comparison.resamples)} resamples"
    covered = f"The interval covers the choice of {unit}s ({resamples}), not that of seeds"
    if comparison.units < FEW:
        covered += f"; of {count(comparison.units)} {unit}s it is too narrow"
    return f"{sentence}, 95 % interval {low} to {high}: {verdict}. {covered}."


def part_table(comparison: Comparison, way: str) -> Table:
    """What each part of the tokens contributes to the difference: a row a part, and one for all.

    Columns: the part, its share of the tokens, the nats a token of A, of B and B - A, its
    contribution, the interval of that (a dash: none), and its share of the whole difference (a dash
    unless the difference `is_clear`).
    way: a key of `comparison.parts`. The title of the first column is from WAYS, or `way` itself if
    it is not in WAYS.
    """
    title = WAYS[way].format(unit=comparison.unit or "unit") if way in WAYS else way
    rows = []
    for part in comparison.parts[way]:
        rows.append(part_row(comparison, part, part.part or DASH))
    whole = Part(
        part="all",
        tokens=comparison.tokens,
        nats_per_token=comparison.nats_per_token,
        contribution=comparison.difference,
        interval=comparison.difference_interval,
    )
    rows.append(part_row(comparison, whole, "all"))
    header = [
        title,
        "share of tokens",
        "A",
        "B",
        "B - A",
        "contribution",
        "95 % interval",
        "share of difference",
    ]
    return Table(header, rows)


def part_row(comparison: Comparison, part: Part, label: str) -> list[str]:
    """A row of `part_table`: the label, then one cell for each further column.

    comparison: the one that shares refer to. label: the first cell; `part.part` is not used.
    """
    a, b = part.nats_per_token
    share = part.contribution / comparison.difference if comparison.is_clear else None
    return [
        label,
        percent(part.tokens / comparison.tokens),
        decimals(a, 3),
        decimals(b, 3),
        signed(b - a, 3),
        signed(part.contribution, 4),
        " to ".join(signed(bound, 4) for bound in part.interval) or DASH,
        percent(share),
    ]
