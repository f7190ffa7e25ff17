"""The report: one page about runs and latency, as self-contained HTML and as Markdown."""

from itertools import groupby
from math import isfinite
from pathlib import Path

from gcnn.reporting.document import Code, Details, Figures, Heading, Paragraph, Sample, table_of, to_html, to_markdown
from gcnn.reporting.figures import best_runs, latency_figures, learning_curves
from gcnn.reporting.files import read_text
from gcnn.reporting.latency import Latency, latency_table, load_latency, ratio_table, speed_table
from gcnn.reporting.results import Publication, Run, describe_hardware, load_runs, runs_table
from gcnn.reporting.units import DASH, count, milliseconds, perplexity, plural

TITLE = "Gated convolutional language models"


def write_report(
    runs: list[Path], out: Path, latency: Path | None = None, paper: Publication | None = None
) -> tuple[Path, Path]:
    """Write report.html and report.md (with its figures/) about the runs at or below the given folders.

    The numbers of `paper` stand beside ours. Raises UsageError where there is no run, or a file is not what a run or
    the latency benchmark writes.
    """
    paper = paper or Publication()
    found, measured = load_runs(runs, paper), load_latency(latency) if latency else None
    blocks = [Paragraph(headline(found, measured), lead=True), *runs_section(found)]
    blocks += latency_section(measured, found, paper) if measured else []
    blocks += samples_section(found) if any(run.samples for run in found) else []
    blocks += provenance_section(found)
    drawings = [figure for block in blocks if isinstance(block, Figures) for figure in block.figures]
    files = {f"figures/{figure.name}.svg": figure.svg for figure in drawings}
    files |= {"report.html": to_html(TITLE, blocks), "report.md": to_markdown(TITLE, blocks)}
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", errors="replace")
    return out / "report.html", out / "report.md"


def headline(runs: list[Run], latency: Latency | None) -> str:
    """What the numbers say: the best run on each data set, and the greatest gain in latency."""
    sentences = []
    for _, group in groupby(sorted(runs, key=lambda run: run.data), key=lambda run: run.data):
        tested = [run for run in group if isfinite(run.test_perplexity)]
        if tested:
            sentences.append(best_run(sorted(tested, key=lambda run: run.test_perplexity)))
    if not sentences:
        sentences = [f"{plural(len(runs), 'run')}, none with a test perplexity yet."]
    return " ".join(sentences + (best_latency(latency) if latency else []))


def best_run(ranked: list[Run]) -> str:
    """A sentence about the best of the runs on the same data, ranked by test perplexity."""
    best, *others = ranked
    figure = perplexity(best.test_perplexity)
    if others:
        sentence = f"{best.label} has the lowest test perplexity on {best.data_title}: {figure}"
        sentence += f"; {others[0].label} follows with {perplexity(others[0].test_perplexity)}"
    else:
        sentence = f"{best.label} has a test perplexity of {figure} on {best.data_title}"
    if unigram := best.results.test.unigram_perplexity:
        sentence += f"; a unigram model has {perplexity(unigram)}"
    if paper := best.published:
        sentence += f"; the paper reports {paper.perplexity} for {paper.title}, trained on {paper.hardware}"
    return f"{sentence}."


def best_latency(latency: Latency) -> list[str]:
    """A sentence about the pair with the greatest ratio, at 20 words where that was measured."""
    lengths = latency.ratio_lengths()
    length = "20" if "20" in lengths else next(iter(lengths), "")
    pairs = [pair for pair in latency.pairs if length in pair.ratios and pair.ratios[length].measured]
    if not pairs:
        return []
    pair = max(pairs, key=lambda pair: pair.ratios[length].measured)
    ratio, names = pair.ratios[length].measured, [pair.gcnn or "the GCNN", pair.lstm or "the LSTM"]
    timings = [latency.models[name].sentences.get(length) for name in names if name in latency.models]
    times = [timing.median_ms for timing in timings if timing and timing.median_ms]
    measured = f" ({' against '.join(map(milliseconds, times))} ms)" if len(times) == 2 else ""
    how = f"{ratio:.1f} times sooner than" if ratio >= 1 else f"{1 / ratio:.1f} times later than"
    return [f"On {latency.machine()}, {names[0]} answers a {length}-word sentence {how} {names[1]}{measured}."]


def runs_section(runs: list[Run]) -> list:
    notes = ["Perplexity is per token; FLOPs are those of the forward pass."]
    if len({run.data for run in runs if run.finished}) > 1:
        notes.append("Perplexities per token compare only between runs on the same data with the same tokenizer.")
    if not all(run.finished for run in runs):
        notes.append("An unfinished run is shown with its last validation.")
    curves = learning_curves(runs)
    shown = Figures(curves) if curves else Paragraph("The runs hold no metrics yet.")
    return [Heading("Runs"), runs_table(runs), Paragraph(" ".join(notes)), Heading("Learning curves"), shown]


def latency_section(latency: Latency, runs: list[Run], paper: Publication) -> list:
    facts = f"Measured on {latency.machine()}: {describe_hardware(latency.hardware)}."
    facts += f" Commit {latency.git_commit}." if latency.git_commit else ""
    facts += f" {latency.date}." if latency.date else ""
    ratios, figures = ratio_table(latency, paper.speeds), latency_figures(latency, [r.label for r in best_runs(runs)])
    blocks = [Heading("Latency"), Paragraph(facts)]
    blocks += [ratios] if ratios.rows else []
    blocks += [Figures(figures)] if figures else []
    blocks += [t for t in (speed_table(latency, paper.speeds), latency_table(latency)) if t.rows]
    if latency.command:
        blocks.append(Details("Command of the latency benchmark", [Code(latency.command)]))
    return blocks


def samples_section(runs: list[Run]) -> list:
    blocks = [Heading("Samples")]
    for run in runs:
        blocks += [Heading(run.label, level=3)] if run.samples else []
        for sample in run.samples:
            prompt, text = sample.prompt or "", sample.text or ""
            settings = {"temperature": sample.temperature, "top-k": sample.top_k}
            settings = ", ".join(f"{key} {number}" for key, number in settings.items() if number is not None)
            blocks += [Paragraph(settings)] if settings else []
            blocks.append(Sample(prompt, text.removeprefix(prompt)))
    return blocks


def provenance_section(runs: list[Run]) -> list:
    columns = {
        "Run": lambda run: run.label,
        "Commit": lambda run: short_hash(run.results.git_commit),
        "Data fingerprint": lambda run: short_hash(run.results.data.fingerprint),
        "Vocabulary": lambda run: count(run.results.data.vocabulary_size),
        "Seed": lambda run: str(run.config.seed),
        "Hardware": lambda run: describe_hardware(run.results.hardware),
        "Versions": lambda run: ", ".join(f"{name} {v}" for name, v in run.results.versions.items() if v) or DASH,
    }
    blocks = [Heading("Provenance"), table_of(runs, columns, text_columns=len(columns))]
    for run in runs:
        results = run.results
        commit, data = results.git_commit or DASH, results.data.fingerprint or DASH
        inner = [Paragraph(f"Commit {commit}; data fingerprint {data}.")]
        inner += [Paragraph("Command"), Code(results.command)] if results.command else []
        inner += [Paragraph("config.yaml"), Code(read_text(run.path / "config.yaml"))]
        blocks.append(Details(f"{run.label}: command and configuration", inner))
    return blocks


def short_hash(digits: str | None) -> str:
    """Twelve digits of a commit or fingerprint, and what follows the forty, which marks changed files."""
    return digits[:12] + digits[40:] if digits else DASH
