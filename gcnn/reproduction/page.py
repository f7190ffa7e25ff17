"""The reproduction as a whole: claims, verdicts, tables and figures.

Made twice of the same blocks: as a part of docs/REPRODUCTION.md, and as an HTML page.
"""

from collections import Counter
from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.base.files import write_text
from gcnn.reporting.document import (
    Block,
    Code,
    Figures,
    Heading,
    Paragraph,
    Table,
    markdown_blocks,
    table_of,
    to_html,
)
from gcnn.reporting.latency import Latency
from gcnn.reporting.units import DASH, magnitude, plural
from gcnn.reproduction.claims import CLAIMS, Claim, verdict
from gcnn.reproduction.comparisons import (
    ABOUT_20,
    EQUAL,
    KNESER_NEY,
    NEAR,
    NOT_WORSE,
    SPEED_UP,
    spreads,
)
from gcnn.reproduction.figures import describe_size, drawing, groups_table
from gcnn.reproduction.noise import (
    ASSUMED_DEVIATION,
    NORMAL_QUANTILE,
    NOT_MEASURED,
    Comparison,
    figure_noise,
)
from gcnn.reproduction.plans import figures_of
from gcnn.reproduction.rates import best_groups, rates_at_an_edge
from gcnn.reproduction.records import FIGURES, Record, reproduce_command
from gcnn.runs.json_files import read_text

BEGIN, END = "<!-- reproduction: written by make reproduce-report -->", "<!-- /reproduction -->"
FOLDER = "results/reproduction"  # as seen from docs/REPRODUCTION.md
TITLE = "The paper's tables and figures"
RULES = [  # a paragraph each
    # Comparisons
    "The noise of a figure is the standard deviation of log test perplexity over seeds, pooled "
    "over its groups at their best learning rates, as far as these have two seeds or more; if none "
    f"has two, {ASSUMED_DEVIATION:.0%} of the perplexity are assumed. A comparison of two groups "
    "is the difference of their mean log test perplexities over its standard error, t, in which a "
    "group of one seed has the noise of all; seeds are not paired. It holds, or does not hold, "
    "where |t| is beyond the two-sided 95% quantile of Student's t at the noise's degrees of "
    f"freedom (of the normal distribution, {NORMAL_QUANTILE}, where it is assumed), and is "
    "undecided otherwise. Beside a comparison of A with B stands the 95% interval of how far B's "
    "perplexity is above A's. Each comparison is judged by itself, so of twenty that are in truth "
    "equal about one is decided by chance. All groups are taken to scatter alike: where they "
    "visibly do not, a small |t| deserves doubt. A seed that diverged is worse than any; where "
    "both groups have one, they are undecided.",
    # Claims
    "A claim holds if all of its comparisons do and holds in part if some do; if none does, it "
    "does not hold where one is decided against it, and is undecided otherwise. It is not measured "
    "as long as one comparison is not or a run has not begun; a dash stands where it is not asked. "
    "An ordering is compared pair by pair, each with each.",
    # Numbers
    "Perplexities are the mean over the seeds, from the lowest to the highest in brackets. Each "
    "model, gate, context or recipe is at its best learning rate on validation, at the seeds that "
    "all its rates have; where that is the lowest or the highest tried, or the only one, it is "
    "said. Small models have the names of the paper's that they stand for.",
    # Figures with a rule of their own
    "Figure 2 compares each model with a full softmax with the adaptive softmax at as many "
    "operations: on a straight line between the logarithms of its models, or its largest where "
    f"that takes fewer. In Figure 4 the contexts up to {NEAR} words are compared with the next "
    "smaller one; those past them must not be worse than the last of these by "
    f"{NOT_WORSE:.0%} or more, and gain less (in log perplexity). Figure 5's Kneser-Ney 5-gram is "
    f"known on WikiText-2 alone: KenLM's {KNESER_NEY}, which does not scatter. In Figure 6 “about "
    f"twice as fast” is a validation perplexity after {SPEED_UP:.0%} of the steps below the "
    "other's at its end, by the noise of the final test perplexities. In Table 4 “about 20 times” "
    f"is at least {ABOUT_20}, on a GPU, and at throughputs of which neither is more than {EQUAL} "
    "times the other. Figure C, in which all layers have one width, compares each context with "
    "each smaller one. Figure S compares at each size the GCNN and the LSTM that are the best of "
    "their kind on validation.",
]


def reproduction_blocks(
    records: dict[str, dict[str, Record]], latency: Latency | None
) -> list[Block]:
    """All document blocks of the page: title, rules, verdicts, claims, then each table and figure.

    records: scale -> figure -> record, as `load_records` returns them. With a single scale there is
    no table of verdicts over scales.
    latency: the benchmark for Table 4; None if it was not run.
    Raises UsageError if there is no record, or one of a scale that is not in configs/reproduce.
    """
    if not records:
        raise UsageError(
            "no figure has been made yet. Run `make reproduce` with --out, then this again."
        )
    blocks = [Heading(TITLE), *map(Paragraph, RULES)]
    if len(records) > 1:
        blocks.append(verdicts_table(records, latency))
    for scale, by_figure in records.items():
        blocks.append(Heading(f"Claims at scale {scale}", level=3))
        blocks.append(claims_table(scale, by_figure, latency))
    for scale, by_figure in records.items():
        for figure in FIGURES:
            if figure in by_figure:
                title = f"{': '.join(FIGURES[figure])}, at scale {scale}"
                blocks += figure_blocks(by_figure[figure], title)
    if latency is not None:
        blocks += latency_blocks(latency)
    return blocks


def verdicts_table(records: dict[str, dict[str, Record]], latency: Latency | None) -> Table:
    """A table with a row for each claim: its figure, its text and the verdict at each scale.

    A verdict is as `verdict_and_tokens` writes it, a dash where the scale does not ask for the
    claim. records: scale -> figure -> record. latency: for Table 4; None if it was not run. Raises
    UsageError if a scale is not in configs/reproduce.
    """
    asked = {scale: claims_asked(scale, by_figure) for scale, by_figure in records.items()}
    rows = []
    for name, claim in CLAIMS.items():
        verdicts = []
        for scale, by_figure in records.items():
            if name not in asked[scale]:
                verdicts.append(DASH)
                continue
            record = latency if name == "table4" else by_figure.get(name)
            verdicts.append(verdict_and_tokens(claim, record))
        rows.append([FIGURES[name][0], claim.text, *verdicts])
    return Table(["Table or figure", "Claim", *records], rows, text_columns=2 + len(records))


def verdict_and_tokens(claim: Claim, record: Record | Latency | None) -> str:
    """A claim's verdict and the training tokens of its longest run, as "holds; 20 M tokens".

    record: None if there is none: the verdict is NOT_MEASURED. The tokens are left out without a
    finished run, and for Table 4.
    """
    if record is None:
        return NOT_MEASURED
    comparisons = claim.compare(record)
    if isinstance(record, Latency):
        return verdict(comparisons)
    text = verdict(comparisons, record.missing)
    longest = max((group.tokens or 0 for group in record.groups), default=0)
    return f"{text}; {magnitude(longest)} tokens" if longest else text


def claims_asked(scale: str, records: dict[str, Record]) -> set[str]:
    """The figures whose claims a scale asks for: those with a record or a plan at it, and Table 4.

    Table 4 is one benchmark for all scales. records: by figure. Raises UsageError if there is no
    such scale in configs/reproduce.
    """
    return {"table4", *records, *figures_of(scale)}


def claims_table(scale: str, records: dict[str, Record], latency: Latency | None) -> Table:
    """A table of the claims that a scale asks for, one row each.

    The columns: table or figure, claim, verdict, its comparisons by their answer, size of the runs,
    and the command that makes them.
    records: those of the scale, by figure. latency: for Table 4; None if it was not run. Raises
    UsageError if the scale is not in configs/reproduce.
    """
    header = ["Table or figure", "The paper's claim", "Verdict", "Comparisons", "Size", "Command"]
    asked = claims_asked(scale, records)
    rows = []
    for name, claim in CLAIMS.items():
        if name not in asked:
            continue
        record = latency if name == "table4" else records.get(name)
        found = NOT_MEASURED
        answers = DASH
        if record is not None:
            comparisons = claim.compare(record)
            missing = 0 if isinstance(record, Latency) else record.missing
            found = verdict(comparisons, missing)
            answers = count_answers(comparisons)
        size, command = size_and_command(name, scale, record)
        rows.append([FIGURES[name][0], claim.text, found, answers, size, command])
    return Table(header, rows, text_columns=len(header))


def count_answers(comparisons: list[Comparison]) -> str:
    """How many comparisons have each answer, as "holds: 2, undecided: 1"; a dash without any."""
    numbers = Counter(answer_text(comparison) for comparison in comparisons)
    return ", ".join(f"{answer}: {number}" for answer, number in numbers.items()) or DASH


def answer_text(comparison: Comparison) -> str:
    """A comparison's answer, without what a verdict says of the size."""
    return comparison.answer.removesuffix(" at this size")


def size_and_command(name: str, scale: str, record: Record | Latency | None) -> tuple[str, str]:
    """How large the runs behind a figure's claim are, and the command that made them.

    name: of the figure. record: its record, or for Table 4 the Latency, whose machine then stands
    in the size; its command is a dash if not recorded. None: there is none yet; the size is then a
    dash, and the command the one that would make it.
    """
    if record is None:
        command = "make benchmark" if name == "table4" else reproduce_command(name, scale)
        return DASH, command
    if isinstance(record, Latency):
        size = f"the paper's own models, random weights; {record.machine()}"
        return size, record.command or DASH
    return describe_size(record), record.command


def figure_blocks(record: Record, title: str) -> list[Block]:
    """The document blocks of a table or figure, under a heading with this title.

    They are: table of its groups; if it has a claim, `claim_blocks`, else a remark on learning
    rates if there is one (`rates_at_an_edge`); picture (`drawing`) if there is one; command,
    machines and commits.
    """
    blocks = [Heading(title, level=3), groups_table(record)]
    if record.figure in CLAIMS:
        blocks += claim_blocks(CLAIMS[record.figure], record)
    elif rates_at_an_edge(record):
        blocks.append(Paragraph(sentence(rates_at_an_edge(record))))
    figure = drawing(record)
    if figure:
        blocks.append(Figures([figure], f"{FOLDER}/{record.scale}"))
    commits = ", ".join(commit[:10] for commit in record.git_commits) or DASH
    hardware = "; ".join(record.hardware) or DASH
    return [*blocks, Code(record.command), Paragraph(f"{hardware}. Commits: {commits}.")]


def claim_blocks(claim: Claim, record: Record) -> list[Block]:
    """What is behind a claim's verdict: the groups at their best learning rates, the comparisons,
    and what limits them: noise, best learning rates at an edge, and runs that have not begun.
    """
    blocks = []
    best = spreads(best_groups(record).values())
    if best:
        blocks.append(Paragraph(f"Each at its best learning rate: {best}."))
    blocks.append(comparisons_table(claim.compare(record)))
    limits = [figure_noise(record).describe(), rates_at_an_edge(record)]
    if record.missing:
        limits.append(f"{plural(record.missing, 'run')} not begun")
    return [*blocks, Paragraph(" ".join(sentence(limit) for limit in limits if limit))]


def sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[0].upper()}{clause[1:]}."


def latency_blocks(latency: Latency) -> list[Block]:
    """The document blocks of Table 4: heading, table of comparisons, command and machine."""
    title = ": ".join(FIGURES["table4"])
    table = comparisons_table(CLAIMS["table4"].compare(latency))
    size, command = size_and_command("table4", "", latency)
    return [Heading(title, level=3), table, Code(command), Paragraph(sentence(size))]


def comparisons_table(comparisons: list[Comparison]) -> Table:
    """A row for each comparison: what is compared, its evidence, answer, t and interval.

    There is no column of evidence if none has any. A dash stands for what is not known.
    """
    columns = {
        "Comparison of A with B": lambda c: c.text,
        "Numbers": lambda c: c.evidence or DASH,
        "Answer": answer_text,
        "t": lambda c: DASH if c.t is None else f"{c.t:.1f}",
        "B above A (95%)": lambda c: DASH if c.interval is None else interval_text(*c.interval),
    }
    if not any(comparison.evidence for comparison in comparisons):
        del columns["Numbers"]
    return table_of(comparisons, columns, text_columns=len(columns) - 2)


def interval_text(low: float, high: float) -> str:
    """The ends of an interval in percent, as "-4.6 to 0.6%"."""
    return f"{100 * low:.1f} to {high:.1%}"


def generated_part(blocks: list[Block]) -> str:
    """The blocks as Markdown between the markers, from BEGIN to END without a newline after it."""
    return f"{BEGIN}\n\n{markdown_blocks(blocks)}\n\n{END}"


def between_markers(text: str, where: str) -> tuple[str, str, str]:
    """A document's text before the generated part, that part with its markers, and the rest.

    where: the document, for the message. Raises UsageError if BEGIN, or END after it, is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    part, end, after = rest.partition(END)
    if not end:
        raise UsageError(
            f"{where} lacks the lines {BEGIN} and {END}. Put them where the tables shall stand."
        )
    return before, begin + part + end, after


def write_reproduction_page(blocks: list[Block], document: Path, page: Path) -> None:
    """Write blocks into the Markdown file `document` between its markers, and as the HTML `page`.

    blocks: of `reproduction_blocks`; the page has the first, a heading, as its title. Both files
    are replaced atomically; the page's folder is made. The pictures that the document links to are
    not written (`write_record` does).
    Raises UsageError if the document cannot be read or lacks a marker; nothing is then written.
    """
    before, _, after = between_markers(read_text(document), str(document))
    page.parent.mkdir(parents=True, exist_ok=True)
    texts = {document: f"{before}{generated_part(blocks)}{after}", page: to_html(TITLE, blocks[1:])}
    for path, text in texts.items():
        write_text(path, text)
