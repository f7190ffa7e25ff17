"""The reproduction as a whole: claims, verdicts, tables and figures, as a part of docs/RESULTS.md and as a page."""

from pathlib import Path

from gcnn.errors import UsageError
from gcnn.files import write_atomically
from gcnn.reporting.document import Code, Figures, Heading, Paragraph, Table, markdown_block, to_html
from gcnn.reporting.files import read, value
from gcnn.reporting.latency import device
from gcnn.reporting.units import DASH
from gcnn.reproduction.claims import ABOUT_20, CLAIMS, NEAR, SEEDS, SPEED_UP, failing, verdict
from gcnn.reproduction.figures import drawing, groups_table, size
from gcnn.reproduction.records import FIGURES, command, sweeps

BEGIN, END = "<!-- reproduction: written by make reproduce-report -->", "<!-- /reproduction -->"
FOLDER = "results/reproduction"  # as seen from docs/RESULTS.md
TITLE = "The paper's tables and figures"
RULE = (
    "A comparison of two groups holds if the test perplexity of the first is lower for every seed, of at least "
    f"{SEEDS}; a run that diverged counts as infinitely bad. A claim holds if all of its comparisons do, in part if "
    "some do, and is not measured as long as one of them is not or a run has not begun. Perplexities are the mean over "
    "the seeds, from the lowest to the highest in brackets. Figure 2 compares each model with a full softmax with the "
    "adaptive softmax at as many operations: on a straight line between the logarithms of its models, or its largest "
    f"where that takes fewer. In Figure 4 the contexts up to {NEAR} words are compared one by one. In Figures 3, 5 "
    "and 6 each gate or recipe is at its best learning rate on validation, at the seeds that all its rates have; in "
    f"Figure 6 “about twice as fast” is in at most {SPEED_UP:.0%} of the steps, counted up to the first validation of "
    "the full recipe that is as low; in Table 4 “about 20 times” is "
    f"at least {ABOUT_20}. Small models have the names of the paper's that they stand for."
)


def reproduction_blocks(records: dict[str, dict[str, dict]], latency: dict | None) -> list:
    """All blocks, of records by scale and figure and the latency benchmark for Table 4."""
    if not records:
        raise UsageError("no figure has been made yet. Run `make reproduce` with --out, then this again.")
    blocks = [Heading(TITLE), Paragraph(RULE)]
    for scale, of in records.items():
        blocks += [Heading(f"Claims at scale {scale}", level=3), claims_table(scale, of, latency)]
    for scale, of in records.items():
        for figure in [name for name in FIGURES if name in of]:
            blocks += figure_blocks(of[figure], f"{FIGURES[figure][0]}, at scale {scale}")
    return blocks


def claims_table(scale: str, records: dict[str, dict], latency: dict | None) -> Table:
    header = ["Table or figure", "The paper's claim", "Verdict", "Our evidence", "Size", "Command"]
    rows = []
    for name, claim in CLAIMS.items():
        found = latency if name == "table4" else records.get(name)
        comparisons = claim.compare(found)
        against = failing(comparisons)
        missing = value(found, "missing") or 0
        evidence = [claim.evidence(found)] if found else []
        evidence += [f"{missing} runs not begun"] if missing else []
        evidence += [f"fails: {', '.join(against)}"] if against else []
        how_large, how = about(name, scale, found)
        place = FIGURES[name][0].partition(":")[0]
        rows.append([place, claim.text, verdict(comparisons, missing), "; ".join(evidence) or DASH, how_large, how])
    return Table(header, rows, text_columns=len(header))


def about(name: str, scale: str, found: dict | None) -> tuple[str, str]:
    """Size and command of a claim's evidence; without any, the command that would make it, if there is one."""
    if name == "table4":
        if found is None:
            return DASH, "make benchmark"
        return f"the paper's own models, random weights; {device(found)}", value(found, "command") or DASH
    if found is not None:
        return size(found), found["command"]
    return DASH, command(name, scale, []) if name in sweeps(scale) else DASH


def figure_blocks(record: dict, title: str) -> list:
    made = (
        f"{'; '.join(record['hardware']) or DASH}. Commits: {', '.join(c[:10] for c in record['git_commits']) or DASH}."
    )
    figure = drawing(record)
    return [
        Heading(title, level=3),
        groups_table(record),
        *([Figures([figure], f"{FOLDER}/{record['scale']}")] if figure else []),
        Code(record["command"]),
        Paragraph(made),
    ]


def markdown(blocks: list) -> str:
    return "\n\n".join([BEGIN, *map(markdown_block, blocks), END])


def between_markers(text: str, where: str) -> tuple[str, str, str]:
    """What stands before the generated part, the part with its markers, what follows. Raises UsageError without it."""
    start, end = text.find(BEGIN), text.find(END)
    if not 0 <= start < end:
        raise UsageError(f"{where} lacks the lines {BEGIN} and {END}. Put them where the tables shall stand.")
    end += len(END)
    return text[:start], text[start:end], text[end:]


def write_reproduction_page(blocks: list, document: Path, page: Path) -> None:
    """Replace the generated part of `document`, and write all as one HTML page."""
    before, _, after = between_markers(read(document), str(document))
    page.parent.mkdir(parents=True, exist_ok=True)
    texts = {document: f"{before}{markdown(blocks)}{after}", page: to_html(TITLE, blocks[1:])}
    for path, text in texts.items():
        write_atomically(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))
