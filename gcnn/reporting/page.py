"""The report: one page about runs, a comparison of two, and latency; as HTML and Markdown."""

import datetime
import math
import sys
from pathlib import Path

from gcnn.reporting.comparison import comparison_blocks, load_comparison
from gcnn.reporting.document import (
    Code,
    Details,
    Figures,
    Heading,
    Paragraph,
    Sample,
    table_of,
    to_html,
    to_markdown,
)
from gcnn.reporting.figures import best_groups, latency_figures, learning_curves
from gcnn.reporting.latency import Latency, latency_table, load_latency, ratio_table, speed_table
from gcnn.reporting.ranking import PER_TOKEN, Ranking, compare, rankings
from gcnn.reporting.results import Publication, Run, describe_hardware
from gcnn.reporting.runs import load_runs, models_table, runs_table
from gcnn.reporting.seeds import SeedGroup, seed_groups, seeds_table
from gcnn.reporting.units import DASH, count, mean, milliseconds, perplexity, plural
from gcnn.runs.directory import CONFIG
from gcnn.runs.json_files import read_text

TITLE = "Gated convolutional language models"


def write_report(
    runs: list[Path],
    out: Path,
    latency: Path | None = None,
    paper: Publication | None = None,
    comparison: Path | None = None,
) -> tuple[Path, Path]:
    """Write report.html and report.md (with its figures/) about the runs at or below the given
    folders.

    Returns both paths. They are in the folder `out`, which is made where it is missing. `latency`
    and `comparison` are the JSON of the latency benchmark and of `gcnn compare --json`; None leaves
    their sections out. The numbers of `paper` stand beside ours; None: ours alone. Runs that cannot
    be read are left out, and named on the page and on standard error; a page that is replaced is
    named on standard error alone. Raises UsageError where no run is left, or a file is missing or
    of another kind.
    """
    paper = paper or Publication()
    found, refused = load_runs(runs, paper)
    measured = load_latency(latency) if latency else None
    compared = load_comparison(comparison) if comparison else None
    blocks = [Paragraph(headline(found, measured), lead=True)]
    blocks += [Paragraph(f"Left out: {reason}") for reason in refused]
    blocks += runs_section(found)
    blocks += comparison_blocks(compared) if compared else []
    blocks += latency_section(measured, found, paper) if measured else []
    blocks += samples_section(found) if any(run.samples for run in found) else []
    blocks += provenance_section(found)
    drawings = [
        figure for block in blocks if isinstance(block, Figures) for figure in block.figures
    ]
    files = {f"figures/{figure.name}.svg": figure.svg for figure in drawings}
    files |= {"report.html": to_html(TITLE, blocks), "report.md": to_markdown(TITLE, blocks)}
    warn_of_changes(out / "report.html", refused)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", errors="replace")
    return out / "report.html", out / "report.md"


def headline(runs: list[Run], latency: Latency | None) -> str:
    """The page's first sentences: the best run on each data set, the greatest gain in latency."""
    sentences = [best_run(comparison, ranked) for comparison, ranked in rankings(runs)]
    if not sentences:
        sentences = [f"{plural(len(runs), 'run')}, none with a test perplexity yet."]
    return " ".join(sentences + (best_latency(latency) if latency else []))


def best_run(comparison: Ranking, ranked: list[Run]) -> str:
    """A sentence about the best of runs that compare on their test text, best first; of seeds the
    mean.
    """
    measure = "test perplexity" if comparison.measure == PER_TOKEN else "test perplexity per word"

    def figure(group: SeedGroup) -> float:
        return mean([getattr(run.results.test, comparison.measure) for run in group.runs])

    first, *others = sorted(seed_groups(ranked), key=lambda group: figure(group) or math.inf)
    best = first.runs[0]
    if len(first.runs) > 1:
        measure = f"mean {measure}"
    if others:
        lowest = perplexity(figure(first))
        sentence = f"{first.label} has the lowest {measure} on {best.data_title}: {lowest}"
        sentence += f"; {others[0].label} follows with {perplexity(figure(others[0]))}"
    else:
        sentence = (
            f"{first.label} has a {measure} of {perplexity(figure(first))} on {best.data_title}"
        )
    if comparison.measure != PER_TOKEN:
        return f"{sentence}."  # what follows is per token
    if unigram := best.results.test.unigram_perplexity:
        sentence += f"; a unigram model has {perplexity(unigram)}"
    if paper := best.published:
        sentence += (
            f"; the paper reports {paper.perplexity} for {paper.title}, trained on {paper.hardware}"
        )
    return f"{sentence}."


def best_latency(latency: Latency) -> list[str]:
    """A sentence about the pair with the greatest ratio; none where no pair was measured.

    The length is 20 words where that was measured, else the shortest.
    """
    lengths = latency.ratio_lengths()
    length = "20" if "20" in lengths else next(iter(lengths), "")
    best = None
    greatest = 0
    for pair in latency.pairs:
        measured = pair.ratios[length].measured if length in pair.ratios else None
        if measured and measured > greatest:
            best = pair
            greatest = measured
    if best is None:
        return []
    names = [best.gcnn or "the GCNN", best.lstm or "the LSTM"]
    times = []
    for name in names:
        timing = latency.models[name].sentences.get(length) if name in latency.models else None
        if timing and timing.median_ms:
            times.append(milliseconds(timing.median_ms))
    times = f" ({' against '.join(times)} ms)" if len(times) == 2 else ""
    how = f"{greatest:.1f} times sooner than"
    if greatest < 1:
        how = f"{1 / greatest:.1f} times later than"
    answers = f"{names[0]} answers a {length}-word sentence {how} {names[1]}"
    return [f"On {latency.machine()}, {answers}{times}."]


def runs_section(runs: list[Run]) -> list:
    """The tables of all runs, remarks on how they compare, and their learning curves."""
    finished = [run for run in runs if run.finished]
    comparison = compare([run.results for run in finished], "test")
    notes = [
        "Perplexity is per token unless it says per word; FLOPs are those of the forward pass."
    ]
    if comparison.note and len(rankings(runs)) > 1:
        notes.append(f"Ranked are runs with one tokenizer on one text: {comparison.reason}.")
    elif comparison.note:
        notes.append(comparison.note)
    reasons: dict[str, list[str]] = {}
    for run in finished:
        reasons.setdefault(run.results.test.why_no_words, []).append(run.label)
    reasons.pop("", None)
    for reason, (label, *more) in reasons.items():
        others = f" and {plural(len(more), 'other')}" if more else ""
        notes.append(f"No perplexity per word ({label}{others}): {reason}.")
    if len(finished) < len(runs):
        notes.append("An unfinished run is shown with its last validation.")
    blocks = [Heading("Runs"), runs_table(runs)]
    seeds = seeds_table(seed_groups(runs))
    blocks += [seeds] if seeds.rows else []
    blocks += [models_table(runs), Paragraph(" ".join(notes)), Heading("Learning curves")]
    curves = learning_curves(runs)
    return [*blocks, Figures(curves) if curves else Paragraph("The runs hold no metrics yet.")]


def latency_section(latency: Latency, runs: list[Run], paper: Publication) -> list:
    """The latency benchmark's tables and figures; `runs`: those of the page, for their colours."""
    facts = f"Measured on {latency.machine()}: {describe_hardware(latency.hardware)}."
    facts += f" Commit {latency.git_commit}." if latency.git_commit else ""
    facts += f" {latency.date}." if latency.date else ""
    labels = [group.label for group in best_groups(seed_groups(runs))]
    ratios, figures = ratio_table(latency, paper.speeds), latency_figures(latency, labels)
    blocks = [Heading("Latency"), Paragraph(facts)]
    blocks += [ratios] if ratios.rows else []
    blocks += [Figures(figures)] if figures else []
    blocks += [t for t in (speed_table(latency, paper.speeds), latency_table(latency)) if t.rows]
    if latency.command:
        blocks.append(Details("Command of the latency benchmark", [Code(latency.command)]))
    return blocks


def samples_section(runs: list[Run]) -> list:
    """The generated texts of the runs that have some."""
    blocks = [Heading("Samples")]
    for run in runs:
        blocks += [Heading(run.label, level=3)] if run.samples else []
        for sample in run.samples:
            prompt, text = sample.prompt or "", sample.text or ""
            settings = {"temperature": sample.temperature, "top-k": sample.top_k}
            settings = ", ".join(
                f"{key} {number}" for key, number in settings.items() if number is not None
            )
            blocks += [Paragraph(settings)] if settings else []
            blocks.append(Sample(prompt, text.removeprefix(prompt)))
    return blocks


def provenance_section(runs: list[Run]) -> list:
    """How each run can be repeated: commit, data, seed, machine, command and config.yaml."""
    columns = {
        "Run": lambda run: run.label,
        "Commit": lambda run: short_hash(run.results.git_commit),
        "Data fingerprint": lambda run: short_hash(run.results.data.fingerprint),
        "Vocabulary": lambda run: count(run.results.data.vocabulary_size),
        "Seed": lambda run: str(run.config.seed),
    }
    blocks = [
        Heading("Provenance"),
        table_of(runs, columns, text_columns=len(columns)),
        *machines(runs),
    ]
    for run in runs:
        results = run.results
        commit, data = results.git_commit or DASH, results.data.fingerprint or DASH
        inner = [Paragraph(f"Commit {commit}; data fingerprint {data}.")]
        inner += [Paragraph("Command"), Code(results.command)] if results.command else []
        inner += [Paragraph("config.yaml"), Code(read_text(run.path / CONFIG))]
        blocks.append(Details(f"{run.label}: command and configuration", inner))
    return blocks


def machines(runs: list[Run]) -> list[Paragraph]:
    """The hardware and versions of the runs, in one paragraph for those that have the same."""
    runs_on: dict[str, list[str]] = {}
    for run in runs:
        versions = ", ".join(
            f"{name} {version}" for name, version in run.results.versions.items() if version
        )
        machine = f"{describe_hardware(run.results.hardware)}; {versions or DASH}"
        runs_on.setdefault(machine, []).append(run.label)
    if len(runs_on) == 1:
        return [Paragraph(f"Hardware and versions: {next(iter(runs_on))}.")]
    return [
        Paragraph(f"Hardware and versions of {'; '.join(labels)}: {text}.")
        for text, labels in runs_on.items()
    ]


def short_hash(digits: str | None) -> str:
    """The first twelve digits of a commit or fingerprint, with a commit's mark of changed files
    ("+...").
    """
    if not digits:
        return DASH
    digits, plus, mark = digits.partition("+")
    return digits[:12] + plus + mark


def warn_of_changes(page: Path, refused: list[str]) -> None:
    """Name on standard error the runs that are left out, and a page that will be replaced."""
    for reason in refused:
        print(f"left out: {reason}", file=sys.stderr)
    if page.exists():
        written = datetime.datetime.fromtimestamp(page.stat().st_mtime)
        print(
            f"{page} of {written:%Y-%m-%d %H:%M} is replaced; --out DIR writes elsewhere.",
            file=sys.stderr,
        )
