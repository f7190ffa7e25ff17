"""The reproduction as a whole: claims, verdicts, tables and figures, as a part of docs/RESULTS.md and as a page."""

from pathlib import Path

from gcnn.errors import UsageError
from gcnn.files import write_atomically
from gcnn.reporting.document import Code, Figures, Heading, Paragraph, Table, markdown_blocks, to_html
from gcnn.reporting.files import read_text
from gcnn.reporting.latency import Latency
from gcnn.reporting.units import DASH, magnitude, plural
from gcnn.reproduction.claims import ABOUT_20, APART, CLAIMS, EQUAL, NEAR, SEEDS, SPEED_UP, Claim, failing, verdict
from gcnn.reproduction.figures import describe_size, drawing, groups_table
from gcnn.reproduction.records import FIGURES, Record, reproduce_command, sweeps

BEGIN, END = "<!-- reproduction: written by make reproduce-report -->", "<!-- /reproduction -->"
FOLDER = "results/reproduction"  # as seen from docs/RESULTS.md
TITLE = "The paper's tables and figures"
RULE = (
    "A comparison of two groups holds if the test perplexity of the first is lower for every seed, of at least "
    f"{SEEDS}, or fewer where the means are {APART:.0%} apart or more; a run that diverged counts as infinitely bad. A "
    "claim holds if all of its comparisons do, in part if some do, and is not measured as long as one of them is not "
    "or a run has not begun; a dash stands where it is not asked. Perplexities are the mean over the seeds, from the "
    "lowest to the highest in brackets. Figure 2 compares each model with a full softmax with the adaptive softmax at "
    "as many operations: on a straight line between the logarithms of its models, or its largest where that takes "
    f"fewer. In Figure 4 the contexts up to {NEAR} words are compared one by one, the two gains by their difference. "
    "In Tables 2 and 3 and the figures each model, gate, context or recipe is at its best learning rate on "
    f"validation, at the seeds that all its rates have; in Figure 6 “about twice as fast” is in at most {SPEED_UP:.0%} "
    "of the steps, counted up to the first validation of the full recipe that is as low; in Table 4 “about 20 times” "
    f"is at least {ABOUT_20}, on a GPU, and at throughputs of which neither is more than {EQUAL} times the other. "
    "Small models have the names of the paper's that they stand for."
)


def reproduction_blocks(records: dict[str, dict[str, Record]], latency: Latency | None) -> list:
    """All blocks, of records by scale and figure and the latency benchmark for Table 4."""
    if not records:
        raise UsageError("no figure has been made yet. Run `make reproduce` with --out, then this again.")
    blocks = [Heading(TITLE), Paragraph(RULE), *([verdicts_table(records, latency)] if len(records) > 1 else [])]
    for scale, by_figure in records.items():
        blocks += [Heading(f"Claims at scale {scale}", level=3), claims_table(scale, by_figure, latency)]
    for scale, by_figure in records.items():
        for figure in [name for name in FIGURES if name in by_figure]:
            blocks += figure_blocks(by_figure[figure], f"{': '.join(FIGURES[figure])}, at scale {scale}")
    return blocks


def verdicts_table(records: dict[str, dict[str, Record]], latency: Latency | None) -> Table:
    """Each claim's verdict at each scale, with the tokens that the longest run behind it was trained on."""
    rows, asked = [], {scale: claims_asked(scale, by_figure) for scale, by_figure in records.items()}
    for name, claim in CLAIMS.items():
        verdicts = []
        for scale, by_figure in records.items():
            record = latency if name == "table4" else by_figure.get(name)
            verdicts.append(verdict_and_tokens(claim, record) if name in asked[scale] else DASH)
        rows.append([FIGURES[name][0], claim.text, *verdicts])
    return Table(["Table or figure", "Claim", *records], rows, text_columns=2 + len(records))


def verdict_and_tokens(claim: Claim, record: Record | Latency | None) -> str:
    text = verdict(claim.compare(record) if record else [], getattr(record, "missing", 0))
    longest = max((group.tokens or 0 for group in getattr(record, "groups", [])), default=0)
    return f"{text}; {magnitude(longest)} tokens" if longest else text


def claims_asked(scale: str, records: dict[str, Record]) -> set[str]:
    """The claims that a scale asks about; Table 4 is one benchmark for all scales."""
    return {"table4", *records, *sweeps(scale)}


def claims_table(scale: str, records: dict[str, Record], latency: Latency | None) -> Table:
    header = ["Table or figure", "The paper's claim", "Verdict", "Our evidence", "Size", "Command"]
    rows, asked = [], claims_asked(scale, records)
    for name, claim in [(name, claim) for name, claim in CLAIMS.items() if name in asked]:
        record = latency if name == "table4" else records.get(name)
        comparisons, missing = claim.compare(record) if record else [], getattr(record, "missing", 0)
        against = failing(comparisons)
        evidence = [claim.evidence(record)] if record else []
        evidence += [f"{plural(missing, 'run')} not begun"] if missing else []
        evidence += [f"fails: {', '.join(against)}"] if against else []
        size, how = size_and_command(name, scale, record)
        found = verdict(comparisons, missing)
        rows.append([FIGURES[name][0], claim.text, found, "; ".join(evidence) or DASH, size, how])
    return Table(header, rows, text_columns=len(header))


def size_and_command(name: str, scale: str, record: Record | Latency | None) -> tuple[str, str]:
    """Size and command of a claim's evidence; without any, the command that would make it."""
    if record is None:
        return DASH, "make benchmark" if name == "table4" else reproduce_command(name, scale, [])
    if name == "table4":
        return f"the paper's own models, random weights; {record.machine()}", record.command or DASH
    return describe_size(record), record.command


def figure_blocks(record: Record, title: str) -> list:
    commits = ", ".join(commit[:10] for commit in record.git_commits) or DASH
    figure = drawing(record)
    return [
        Heading(title, level=3),
        groups_table(record),
        *([Figures([figure], f"{FOLDER}/{record.scale}")] if figure else []),
        Code(record.command),
        Paragraph(f"{'; '.join(record.hardware) or DASH}. Commits: {commits}."),
    ]


def generated_part(blocks: list) -> str:
    return f"{BEGIN}\n\n{markdown_blocks(blocks)}\n\n{END}"


def between_markers(text: str, where: str) -> tuple[str, str, str]:
    """What stands before the generated part, the part with its markers, what follows. Raises UsageError without it."""
    before, begin, rest = text.partition(BEGIN)
    part, end, after = rest.partition(END)
    if not end:
        raise UsageError(f"{where} lacks the lines {BEGIN} and {END}. Put them where the tables shall stand.")
    return before, begin + part + end, after


def write_reproduction_page(blocks: list, document: Path, page: Path) -> None:
    """Replace the generated part of `document`, and write all as one HTML page."""
    before, _, after = between_markers(read_text(document), str(document))
    page.parent.mkdir(parents=True, exist_ok=True)
    texts = {document: f"{before}{generated_part(blocks)}{after}", page: to_html(TITLE, blocks[1:])}
    for path, text in texts.items():
        write_atomically(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))
