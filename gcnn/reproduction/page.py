"""The reproduction as a whole: claims, verdicts, tables and figures.

Made twice of the same blocks: as a part of docs/REPRODUCTION.md, and as an HTML page.
"""

from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.base.files import write_atomically
from gcnn.reporting.document import (
    Code,
    Figures,
    Heading,
    Paragraph,
    Table,
    markdown_blocks,
    to_html,
)
from gcnn.reporting.latency import Latency
from gcnn.reporting.units import DASH, magnitude, plural
from gcnn.reproduction.claims import CLAIMS, Claim, answered, evidence, verdict
from gcnn.reproduction.comparisons import (
    ABOUT_20,
    EQUAL,
    KNESER_NEY,
    NEAR,
    NOT_WORSE,
    SPEED_UP,
)
from gcnn.reproduction.figures import describe_size, drawing, groups_table
from gcnn.reproduction.noise import (
    ASSUMED_DEVIATION,
    HOLDS,
    NORMAL_QUANTILE,
    NOT,
    NOT_MEASURED,
    UNDECIDED,
    Comparison,
    pooled_noise,
)
from gcnn.reproduction.plans import figures_of
from gcnn.reproduction.rates import rates_at_an_edge
from gcnn.reproduction.records import FIGURES, Record, reproduce_command
from gcnn.runs.json_files import read_text

BEGIN, END = "<!-- reproduction: written by make reproduce-report -->", "<!-- /reproduction -->"
FOLDER = "results/reproduction"  # as seen from docs/REPRODUCTION.md
TITLE = "The paper's tables and figures"
RULE = (
    "The noise of a figure is the standard deviation of log test perplexity over seeds, pooled "
    f"over all of its groups with two seeds or more; where none has two, {ASSUMED_DEVIATION:.0%} "
    "of the perplexity are assumed. A comparison of two groups is the difference of their mean "
    "log test perplexities over its standard error, t, in which a group of one seed has the noise "
    "of all; seeds are not paired. It holds, or does not hold, where |t| is beyond the two-sided "
    "95% quantile of Student's t at the noise's degrees of freedom (of the normal distribution, "
    f"{NORMAL_QUANTILE}, where it is assumed), and is undecided otherwise; each is judged by "
    "itself. A seed that diverged is worse than any; where both groups have one, they are "
    "undecided. A claim holds if all of its comparisons do and holds in part if some do; if none "
    "does, it does not hold where one is decided against it, and is undecided otherwise. It is "
    "not measured as long as one comparison is not or a run has not begun; a dash stands where it "
    "is not asked. An ordering is compared pair by pair, each with each. Perplexities are the "
    "mean over the seeds, from the lowest to the highest in brackets. Each model, gate, context "
    "or recipe is at its best learning rate on validation, at the seeds that all its rates have; "
    "where that is the lowest or the highest tried, or the only one, it is said. Figure 2 "
    "compares each model with a full softmax with the adaptive softmax at as many operations: on "
    "a straight line between the logarithms of its models, or its largest where that takes fewer. "
    f"In Figure 4 the contexts up to {NEAR} words are compared with the next smaller one; those "
    f"past them must not be worse than the last of these by {NOT_WORSE:.0%} or more, and gain less "
    "(in log perplexity). Figure 5's Kneser-Ney 5-gram is known on WikiText-2 alone: KenLM's "
    f"{KNESER_NEY}, which does not scatter. In Figure 6 “about twice as fast” is a validation "
    f"perplexity after {SPEED_UP:.0%} of the steps below the other's at its end. In Table 4 “about "
    f"20 times” is at least {ABOUT_20}, on a GPU, and at throughputs of which neither is more than "
    f"{EQUAL} times the other. Figure S compares at each size the GCNN and the LSTM that are the "
    "best of their kind on validation. Small models have the names of the paper's that they stand "
    "for."
)


def reproduction_blocks(records: dict[str, dict[str, Record]], latency: Latency | None) -> list:
    """All blocks of the page: the rules, verdicts, claims, then each table and figure.

    `records` are by scale and figure; `latency` is the benchmark for Table 4, None where it was not
    run. Raises UsageError where there is no record.
    """
    if not records:
        raise UsageError(
            "no figure has been made yet. Run `make reproduce` with --out, then this again."
        )
    blocks = [Heading(TITLE), Paragraph(RULE)]
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
    return blocks


def verdicts_table(records: dict[str, dict[str, Record]], latency: Latency | None) -> Table:
    """Each claim's verdict at each scale, with the training tokens of the longest run behind it."""
    asked = {scale: claims_asked(scale, by_figure) for scale, by_figure in records.items()}
    rows = []
    for name, claim in CLAIMS.items():
        verdicts = []
        for scale, by_figure in records.items():
            record = latency if name == "table4" else by_figure.get(name)
            verdicts.append(verdict_and_tokens(claim, record) if name in asked[scale] else DASH)
        rows.append([FIGURES[name][0], claim.text, *verdicts])
    return Table(["Table or figure", "Claim", *records], rows, text_columns=2 + len(records))


def verdict_and_tokens(claim: Claim, record: Record | Latency | None) -> str:
    """As "holds; 20 M tokens": a claim's verdict and the training tokens of the longest run behind
    it.
    """
    text = verdict(claim.compare(record) if record else [], getattr(record, "missing", 0))
    longest = max((group.tokens or 0 for group in getattr(record, "groups", [])), default=0)
    return f"{text}; {magnitude(longest)} tokens" if longest else text


def claims_asked(scale: str, records: dict[str, Record]) -> set[str]:
    """The names of the claims that a scale asks about; Table 4 is one benchmark for all scales."""
    return {"table4", *records, *figures_of(scale)}


def claims_table(scale: str, records: dict[str, Record], latency: Latency | None) -> Table:
    """The claims that a scale asks about: verdict, evidence, size of the runs and their command."""
    header = ["Table or figure", "The paper's claim", "Verdict", "Our evidence", "Size", "Command"]
    asked = claims_asked(scale, records)
    rows = []
    for name, claim in CLAIMS.items():
        if name not in asked:
            continue
        record = latency if name == "table4" else records.get(name)
        comparisons = claim.compare(record) if record else []
        found = verdict(comparisons, getattr(record, "missing", 0))
        behind = evidence_of(comparisons, record) if record else DASH
        size, command = size_and_command(name, scale, record)
        rows.append([FIGURES[name][0], claim.text, found, behind, size, command])
    return Table(header, rows, text_columns=len(header))


def evidence_of(comparisons: list[Comparison], record: Record | Latency) -> str:
    """The numbers behind a verdict, the comparisons by their answer, and what limits them."""
    parts = [evidence(comparisons, record)]
    for answer in (HOLDS, UNDECIDED, NOT, NOT_MEASURED):
        if texts := answered(comparisons, answer):
            parts.append(f"{answer.removesuffix(' at this size')}: {', '.join(texts)}")
    if isinstance(record, Record):
        parts += [pooled_noise(record.groups).describe(), rates_at_an_edge(record)]
        parts += [f"{plural(record.missing, 'run')} not begun"] if record.missing else []
    return "; ".join(filter(None, parts)) or DASH


def size_and_command(name: str, scale: str, record: Record | Latency | None) -> tuple[str, str]:
    """How large the runs behind a claim are, and the command that made them.

    Without a record: a dash, and the command that would make it.
    """
    if record is None:
        return DASH, "make benchmark" if name == "table4" else reproduce_command(name, scale)
    if name == "table4":
        return f"the paper's own models, random weights; {record.machine()}", record.command or DASH
    return describe_size(record), record.command


def figure_blocks(record: Record, title: str) -> list:
    """A table or figure of the paper: its groups, remarks, picture, command and machines."""
    blocks = [Heading(title, level=3), groups_table(record)]
    edges = rates_at_an_edge(record)
    if edges:
        blocks.append(Paragraph(f"{edges[0].upper()}{edges[1:]}."))
    figure = drawing(record)
    if figure:
        blocks.append(Figures([figure], f"{FOLDER}/{record.scale}"))
    commits = ", ".join(commit[:10] for commit in record.git_commits) or DASH
    hardware = "; ".join(record.hardware) or DASH
    return [*blocks, Code(record.command), Paragraph(f"{hardware}. Commits: {commits}.")]


def generated_part(blocks: list) -> str:
    return f"{BEGIN}\n\n{markdown_blocks(blocks)}\n\n{END}"


def between_markers(text: str, where: str) -> tuple[str, str, str]:
    """A document's text before the generated part, that part with its markers, and the rest.

    `where` names the document. Raises UsageError where a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    part, end, after = rest.partition(END)
    if not end:
        raise UsageError(
            f"{where} lacks the lines {BEGIN} and {END}. Put them where the tables shall stand."
        )
    return before, begin + part + end, after


def write_reproduction_page(blocks: list, document: Path, page: Path) -> None:
    """Replace the generated part of `document`, and write all blocks as the HTML page `page`.

    Makes the page's folder. Raises UsageError where the document lacks the markers of that part.
    """
    before, _, after = between_markers(read_text(document), str(document))
    page.parent.mkdir(parents=True, exist_ok=True)
    texts = {document: f"{before}{generated_part(blocks)}{after}", page: to_html(TITLE, blocks[1:])}
    for path, text in texts.items():
        write_atomically(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))
