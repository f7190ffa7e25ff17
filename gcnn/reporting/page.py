"""The report: one page about runs and latency, as self-contained HTML and as Markdown."""

from itertools import groupby
from math import isfinite
from pathlib import Path

from gcnn.reporting.document import (
    Code,
    Details,
    Figures,
    Heading,
    Paragraph,
    Sample,
    Table,
    to_html,
    to_markdown,
)
from gcnn.reporting.figures import latency_figures, learning_curves
from gcnn.reporting.files import value
from gcnn.reporting.latency import (
    device,
    latency_table,
    load_latency,
    models_of,
    pairs_of,
    ratio_lengths,
    ratio_table,
    speed_table,
)
from gcnn.reporting.results import Run, describe_hardware, describe_versions, load_runs, runs_table
from gcnn.reporting.units import DASH, count, milliseconds, perplexity, plural

TITLE = "Gated convolutional language models"


def write_report(runs: list[Path], out: Path, latency: Path | None = None) -> tuple[Path, Path]:
    """Write report.html and report.md (with its figures/) about the runs at or below the given folders.

    Raises UsageError where there is no run, or a file is not what a run or the latency benchmark writes.
    """
    blocks = report(load_runs(runs), load_latency(latency) if latency else None)
    drawings = [figure for block in blocks if isinstance(block, Figures) for figure in block.figures]
    files = {f"figures/{figure.name}.svg": figure.svg for figure in drawings}
    files |= {"report.html": to_html(TITLE, blocks), "report.md": to_markdown(TITLE, blocks)}
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", errors="replace")
    return out / "report.html", out / "report.md"


def report(runs: list[Run], latency: dict | None) -> list:
    """All blocks of the page."""
    blocks = [Paragraph(headline(runs, latency), lead=True), *runs_section(runs)]
    if latency is not None:
        blocks += latency_section(latency, runs)
    if any(run.samples for run in runs):
        blocks += samples_section(runs)
    return blocks + provenance_section(runs)


def headline(runs: list[Run], latency: dict | None) -> str:
    """What the numbers say: the best run on each data set, and the greatest gain in latency."""
    sentences = []
    for (data, _), group in groupby(sorted(runs, key=lambda run: run.data), key=lambda run: run.data):
        tested = [run for run in group if isfinite(test_perplexity(run))]
        if tested:
            sentences.append(best_run(data, sorted(tested, key=test_perplexity)))
    if not sentences:
        sentences = [f"{plural(len(runs), 'run')}, none with a test perplexity yet."]
    return " ".join(sentences + best_latency(latency))


def test_perplexity(run: Run) -> float:
    return value(run.results, "test.perplexity") or float("inf")


def best_run(data: str, ranked: list[Run]) -> str:
    """A sentence about the best of the runs on the same data, ranked by test perplexity."""
    best, *others = ranked
    figure = perplexity(test_perplexity(best))
    if others:
        second = f"{others[0].label} follows with {perplexity(test_perplexity(others[0]))}"
        sentence = f"{best.label} has the lowest test perplexity on {data}: {figure}; {second}"
    else:
        sentence = f"{best.label} has a test perplexity of {figure} on {data}"
    unigram = value(best.results, "test.unigram_perplexity")
    if unigram:
        sentence += f"; a unigram model has {perplexity(unigram)}"
    if best.published:
        paper = best.published
        sentence += f"; the paper reports {paper.perplexity} for {paper.title}, trained on {paper.hardware}"
    return f"{sentence}."


def best_latency(latency: dict | None) -> list[str]:
    """A sentence about the pair with the greatest ratio, at 20 words where that was measured."""
    lengths = ratio_lengths(latency)
    if not lengths:
        return []
    length = "20" if "20" in lengths else lengths[0]
    ratios = [(value(pair, f"ratios.{length}.measured") or 0, pair) for pair in pairs_of(latency)]
    ratio, pair = max(ratios, key=lambda entry: entry[0])
    if not ratio:
        return []
    names = [value(pair, "gcnn") or "the GCNN", value(pair, "lstm") or "the LSTM"]
    times = [value(models_of(latency).get(name), f"sentences.{length}.median_ms") for name in names]
    measured = f" ({' against '.join(map(milliseconds, times))} ms)" if all(times) else ""
    how = f"{ratio:.1f} times sooner than" if ratio >= 1 else f"{1 / ratio:.1f} times later than"
    return [f"On {device(latency)}, {names[0]} answers a {length}-word sentence {how} {names[1]}{measured}."]


def runs_section(runs: list[Run]) -> list:
    notes = ["Perplexity is per token; FLOPs are those of the forward pass."]
    if len({run.data for run in runs if run.results}) > 1:
        notes.append("Perplexities per token compare only between runs on the same data with the same tokenizer.")
    if any(run.results is None for run in runs):
        notes.append("An unfinished run is shown with its last validation.")
    curves = learning_curves(runs)
    shown = Figures(curves) if curves else Paragraph("The runs hold no metrics yet.")
    return [Heading("Runs"), runs_table(runs), Paragraph(" ".join(notes)), Heading("Learning curves"), shown]


def latency_section(latency: dict, runs: list[Run]) -> list:
    facts = [
        f"Measured on {device(latency)}: {describe_hardware(latency.get('hardware'))}.",
        f"Commit {latency['git_commit']}." if latency.get("git_commit") else "",
        f"{latency['date']}." if latency.get("date") else "",
    ]
    figures = latency_figures(latency, [run.label for run in runs])
    content = [ratio_table(latency), Figures(figures), speed_table(latency), latency_table(latency)]
    blocks = [Heading("Latency"), Paragraph(" ".join(filter(None, facts)))]
    blocks += [block for block in content if (block.figures if isinstance(block, Figures) else block.rows)]
    if latency.get("command"):
        blocks.append(Details("Command of the latency benchmark", [Code(latency["command"])]))
    return blocks


def samples_section(runs: list[Run]) -> list:
    blocks = [Heading("Samples")]
    for run in runs:
        blocks += [Heading(run.label, level=3)] if run.samples else []
        for sample in run.samples:
            prompt, text = sample.get("prompt") or "", sample.get("text") or ""
            names = [key for key in ("temperature", "top_k") if sample.get(key) is not None]
            settings = ", ".join(f"{key.replace('_', '-')} {sample[key]}" for key in names)
            blocks += [Paragraph(settings)] if settings else []
            blocks.append(Sample(prompt, text.removeprefix(prompt)))
    return blocks


def provenance_section(runs: list[Run]) -> list:
    header = ["Run", "Commit", "Data fingerprint", "Vocabulary", "Seed", "Hardware", "Versions"]
    rows = [
        [
            run.label,
            short(value(run.results, "git_commit")),
            short(value(run.results, "data.fingerprint")),
            count(value(run.results, "data.vocabulary_size")),
            str(run.config.seed),
            describe_hardware(value(run.results, "hardware")),
            describe_versions(value(run.results, "versions")),
        ]
        for run in runs
    ]
    blocks = [Heading("Provenance"), Table(header, rows, text_columns=len(header))]
    for run in runs:
        command = value(run.results, "command")
        commit, data = (
            value(run.results, "git_commit") or DASH,
            value(run.results, "data.fingerprint") or DASH,
        )
        inner = [Paragraph(f"Commit {commit}; data fingerprint {data}.")]
        inner += [Paragraph("Command"), Code(command)] if command else []
        inner += [Paragraph("config.yaml"), Code(run.config_text)]
        blocks.append(Details(f"{run.label}: command and configuration", inner))
    return blocks


def short(hash_: str | None) -> str:
    """Twelve digits of a commit or fingerprint, and what follows the forty, which marks changed files."""
    return hash_[:12] + hash_[40:] if hash_ else DASH
