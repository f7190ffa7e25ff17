"""The report: one page about runs, a comparison of two, and latency; as HTML and Markdown."""

import datetime
import math
import sys
from operator import itemgetter
from pathlib import Path

from gcnn.base.files import write_text
from gcnn.reporting.comparison import comparison_blocks, load_comparison
from gcnn.reporting.document import (
    Block,
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
from gcnn.reporting.figures import coloured_groups, latency_figures, learning_curves
from gcnn.reporting.latency import (
    Latency,
    Pair,
    latency_table,
    load_latency,
    ratio_table,
    speed_table,
)
from gcnn.reporting.ranking import PER_TOKEN, Ranking, ranking_of, rankings
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
    """Write report.html, and report.md with its figures/, into `out`; returns the two paths.

    runs: at least one run directory, or folder with run directories at any depth; one given twice
    counts once. A run that cannot be read, or a path without a run, is left out, and named on the
    page and on stderr.
    out: made if it is missing. Files that are already there are replaced, which is said on stderr
    if report.html is one of them; figures that only an older page has stay.
    latency: the latency benchmark's JSON; None: no section about latency.
    paper: what a paper reports, to stand beside our numbers; None: our numbers alone.
    comparison: what `gcnn compare --json` printed; None: no section about it.
    Raises UsageError if no run is left, or if the file of latency or comparison is missing or of
    another kind; nothing is written then. Raises OSError if `out` cannot be written.
    """
    paper = paper or Publication()
    found, refused = load_runs(runs, paper)
    measured = load_latency(latency) if latency else None
    compared = load_comparison(comparison) if comparison else None

    # The page, section by section.
    blocks = [Paragraph(headline(found, measured), lead=True)]
    blocks += [Paragraph(f"Left out: {reason}") for reason in refused]
    blocks += runs_section(found)
    if compared:
        blocks += comparison_blocks(compared)
    if measured:
        blocks += latency_section(measured, found, paper)
    if any(run.samples for run in found):
        blocks += samples_section(found)
    blocks += provenance_section(found)

    # Its files.
    files = {"report.html": to_html(TITLE, blocks), "report.md": to_markdown(TITLE, blocks)}
    for block in blocks:
        if isinstance(block, Figures):
            for figure in block.figures:
                files[f"figures/{figure.name}.svg"] = figure.svg
    warn_of_changes(out / "report.html", refused)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_text(out / name, text, errors="replace")
    return out / "report.html", out / "report.md"


def headline(runs: list[Run], latency: Latency | None) -> str:
    """The page's first sentences: the best run of each of `rankings`, then `best_latency`.

    If no run has a test perplexity, it says so. latency: None leaves its sentence out.
    """
    sentences = [best_run(ranking, ranked) for ranking, ranked in rankings(runs)]
    if not sentences:
        sentences.append(f"{plural(len(runs), 'run')}, none with a test perplexity yet.")
    if latency:
        sentences += best_latency(latency)
    return " ".join(sentences)


def best_run(ranking: Ranking, ranked: list[Run]) -> str:
    """A sentence about the best of some runs on their test text, and the second best.

    ranking, ranked: a pair that `rankings` returned. Runs that differ in their seed alone count as
    one, by their mean. If all runs count as one, the sentence names no second best. If ranked per
    token, it also has a unigram model's perplexity and what a paper reports for the best model, if
    these are known.
    """
    measure = "test perplexity" if ranking.measure == PER_TOKEN else "test perplexity per word"

    def average(group: SeedGroup) -> float | None:
        return mean([getattr(run.results.test, ranking.measure) for run in group.runs])

    first, *others = sorted(seed_groups(ranked), key=lambda group: average(group) or math.inf)
    best = first.runs[0]
    if len(first.runs) > 1:
        measure = f"mean {measure}"
    if others:
        lowest = perplexity(average(first))
        sentence = f"{first.label} has the lowest {measure} on {best.data_title}: {lowest}"
        sentence += f"; {others[0].label} follows with {perplexity(average(others[0]))}"
    else:
        sentence = (
            f"{first.label} has a {measure} of {perplexity(average(first))} on {best.data_title}"
        )
    if ranking.measure != PER_TOKEN:
        return f"{sentence}."  # what follows is per token
    if unigram := best.results.test.unigram_perplexity:
        sentence += f"; a unigram model has {perplexity(unigram)}"
    if published := best.published:
        sentence += f"; the paper reports {published.perplexity} for {published.title}"
        sentence += f", trained on {published.hardware}"
    return f"{sentence}."


def best_latency(latency: Latency) -> list[str]:
    """A list of one sentence: how many times sooner (or later) a GCNN answers than its LSTM.

    It is about the pair with the greatest ratio, for sentences of 20 words if a ratio was measured
    at that length, otherwise of the shortest length. Ratios without the softmax do not count. The
    list is empty if no other was measured.
    """
    measured: dict[str, list[tuple[float, Pair]]] = {}  # length in words -> ratios and their pairs
    for pair in latency.pairs:
        for length, ratio in pair.ratios.items():
            if (ratio.measured or 0) > 0:
                measured.setdefault(length, []).append((ratio.measured, pair))
    if not measured:
        return []
    length = "20" if "20" in measured else min(measured, key=int)
    greatest, best = max(measured[length], key=itemgetter(0))
    names = [best.gcnn or "the GCNN", best.lstm or "the LSTM"]
    medians = []
    for name in names:
        timing = latency.models[name].sentences.get(length) if name in latency.models else None
        if timing and timing.median_ms:
            medians.append(milliseconds(timing.median_ms))
    times = f" ({' against '.join(medians)} ms)" if len(medians) == 2 else ""
    how = f"{greatest:.1f} times sooner than"
    if greatest < 1:
        how = f"{1 / greatest:.1f} times later than"
    answers = f"{names[0]} answers a {length}-word sentence {how} {names[1]}"
    return [f"On {latency.machine()}, {answers}{times}."]


def runs_section(runs: list[Run]) -> list[Block]:
    """The sections "Runs" (tables of all runs and remarks on them) and "Learning curves".

    If finished runs differ in their seed alone, `seeds_table` is among the tables. Without metrics,
    a sentence takes the place of the curves.
    """
    finished = [run for run in runs if run.finished]
    ranking = ranking_of([run.results for run in finished], "test")
    notes = [
        "Perplexity is per token unless it says per word; FLOPs are those of the forward pass."
    ]
    if ranking.note and len(rankings(runs)) > 1:
        notes.append(f"Ranked are runs with one tokenizer on one text: {ranking.reason}.")
    elif ranking.note:
        notes.append(ranking.note)
    reasons: dict[str, list[str]] = {}  # why there is no perplexity per word -> labels of runs
    for run in finished:
        reasons.setdefault(run.results.test.why_no_words, []).append(run.label)
    reasons.pop("", None)
    for reason, (label, *more) in reasons.items():
        others = f" and {plural(len(more), 'other')}" if more else ""
        notes.append(f"No perplexity per word ({label}{others}): {reason}.")
    if len(finished) < len(runs):
        notes.append("An unfinished run is shown with its last validation.")
    blocks = [Heading("Runs"), runs_table(runs)]
    seeds = seeds_table(runs)
    if seeds.rows:
        blocks.append(seeds)
    blocks += [models_table(runs), Paragraph(" ".join(notes)), Heading("Learning curves")]
    curves = learning_curves(runs)
    blocks.append(Figures(curves) if curves else Paragraph("The runs hold no metrics yet."))
    return blocks


def latency_section(latency: Latency, runs: list[Run], paper: Publication) -> list[Block]:
    """The section "Latency": machine, tables, figures and, if it was recorded, the command.

    Tables and figures without content are left out.
    runs: those of the page; a model that has the label of a coloured learning curve gets its
    colour. paper: its `speeds` stand beside ours.
    """
    facts = [f"Measured on {latency.machine()}: {describe_hardware(latency.hardware)}."]
    if latency.git_commit:
        facts.append(f"Commit {latency.git_commit}.")
    if latency.date:
        facts.append(f"{latency.date}.")
    labels = [group.label for group in coloured_groups(seed_groups(runs))]
    ratios = ratio_table(latency, paper.speeds)
    figures = latency_figures(latency, labels)
    blocks = [Heading("Latency"), Paragraph(" ".join(facts))]
    if ratios.rows:
        blocks.append(ratios)
    if figures:
        blocks.append(Figures(figures))
    for table in (speed_table(latency, paper.speeds), latency_table(latency)):
        if table.rows:
            blocks.append(table)
    if latency.command:
        blocks.append(Details("Command of the latency benchmark", [Code(latency.command)]))
    return blocks


def samples_section(runs: list[Run]) -> list[Block]:
    """The heading "Samples" and the generated texts of the runs that have some, run by run.

    Each text has its prompt and, if recorded, temperature and top-k. Without texts there is the
    heading alone.
    """
    blocks = [Heading("Samples")]
    for run in runs:
        if run.samples:
            blocks.append(Heading(run.label, level=3))
        for sample in run.samples:
            settings = []
            if sample.temperature is not None:
                settings.append(f"temperature {sample.temperature}")
            if sample.top_k is not None:
                settings.append(f"top-k {sample.top_k}")
            if settings:
                blocks.append(Paragraph(", ".join(settings)))
            prompt = sample.prompt or ""
            text = sample.text or ""
            blocks.append(Sample(prompt, text.removeprefix(prompt)))
    return blocks


def provenance_section(runs: list[Run]) -> list[Block]:
    """The section "Provenance": how each run can be repeated.

    Its heading, a table of the runs, the paragraphs of `machines` and a folded part for each run.
    The table's columns: run, commit, data fingerprint, vocabulary size and seed. The folded part:
    commit, data fingerprint, command (if recorded) and config.yaml, which is read again.
    Raises UsageError if it cannot be read.
    """
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
        commit = results.git_commit or DASH
        fingerprint = results.data.fingerprint or DASH
        inner = [Paragraph(f"Commit {commit}; data fingerprint {fingerprint}.")]
        if results.command:
            inner += [Paragraph("Command"), Code(results.command)]
        inner += [Paragraph("config.yaml"), Code(read_text(run.path / CONFIG))]
        blocks.append(Details(f"{run.label}: command and configuration", inner))
    return blocks


def machines(runs: list[Run]) -> list[Paragraph]:
    """A paragraph for each combination of hardware and software versions, with its runs' labels.

    If it is the same for all runs, the labels are left out. Without runs: no paragraph.
    """
    labels_of: dict[str, list[str]] = {}  # hardware and versions -> labels of runs
    for run in runs:
        versions = []
        for name, version in run.results.versions.items():
            if version:
                versions.append(f"{name} {version}")
        machine = f"{describe_hardware(run.results.hardware)}; {', '.join(versions) or DASH}"
        labels_of.setdefault(machine, []).append(run.label)
    if len(labels_of) == 1:
        return [Paragraph(f"Hardware and versions: {next(iter(labels_of))}.")]
    paragraphs = []
    for machine, labels in labels_of.items():
        paragraphs.append(Paragraph(f"Hardware and versions of {'; '.join(labels)}: {machine}."))
    return paragraphs


def short_hash(digits: str | None) -> str:
    """The first twelve digits of a commit or fingerprint; a dash for None or an empty one.

    A commit's mark of changed files, as "+changes", is kept.
    """
    if not digits:
        return DASH
    digits, plus, mark = digits.partition("+")
    return digits[:12] + plus + mark


def warn_of_changes(page: Path, refused: list[str]) -> None:
    """Print to stderr the runs that are left out, and that `page` will be replaced if it exists.

    refused: a line for each run or path that is left out. Changes no file.
    """
    for reason in refused:
        print(f"left out: {reason}", file=sys.stderr)
    if page.exists():
        written = datetime.datetime.fromtimestamp(page.stat().st_mtime)
        print(
            f"{page} of {written:%Y-%m-%d %H:%M} is replaced; --out DIR writes elsewhere.",
            file=sys.stderr,
        )
