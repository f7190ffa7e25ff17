"""The latency benchmark's JSON, read and checked, and its tables beside published speeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn.base.errors import UsageError
from gcnn.reporting.document import Table
from gcnn.reporting.units import DASH, count, decimals, magnitude, milliseconds, plural, ratio
from gcnn.runs.json_files import Number, Text, checked, read_json
from gcnn.runs.results import Hardware

SOFTMAX = {
    "": "with softmax",
    "_without_softmax": "without softmax",
}  # suffix of the JSON's keys -> title


@dataclass(kw_only=True)
class Timing:
    """Of one sentence; `bound_ms` is what counted bytes and operations take at the least."""

    median_ms: Number
    p95_ms: Number
    p99_ms: Number
    bound_ms: Number


@dataclass(kw_only=True)
class Speed:
    tokens_per_second: Number


@dataclass(kw_only=True)
class MeasuredModel:
    description: Text
    parameters: Number
    load_seconds: Number
    sentences: dict[str, Timing]  # by their length in words
    sentences_without_softmax: dict[str, Timing]
    throughput: Speed
    responsiveness: Speed

    def timings(self, suffix: str) -> dict[str, Timing]:
        return getattr(self, f"sentences{suffix}")


@dataclass(kw_only=True)
class Ratio:
    """How many times faster the GCNN is than the LSTM."""

    measured: Number
    bound: Number  # as counted bytes and operations let expect


@dataclass(kw_only=True)
class Pair:
    gcnn: Text
    lstm: Text
    ratios: dict[str, Ratio]  # by the sentences' length in words
    ratios_without_softmax: dict[str, Ratio]
    responsiveness: Ratio
    throughput: Ratio

    def by_length(self, suffix: str) -> dict[str, Ratio]:
        return getattr(self, f"ratios{suffix}")


@dataclass(kw_only=True)
class Latency:
    hardware: Hardware
    device: Text
    threads: Number
    git_commit: Text
    command: Text
    date: Text
    models: dict[str, MeasuredModel]
    pairs: list[Pair]

    def sentence_lengths(self) -> list[str]:
        """The measured lengths, in words, shortest first."""
        models = self.models.values()
        return sorted(
            {words for model in models for suffix in SOFTMAX for words in model.timings(suffix)},
            key=int,
        )

    def ratio_lengths(self) -> list[str]:
        """The lengths at which pairs are compared, in words, shortest first."""
        return sorted(
            {
                words
                for pair in self.pairs
                for suffix in SOFTMAX
                for words in pair.by_length(suffix)
            },
            key=int,
        )

    def machine(self) -> str:
        """What the benchmark ran on, as "CPU, 2 threads"."""
        name = (self.device or "unknown device").upper()
        return (
            f"{name}, {plural(self.threads, 'thread')}" if self.threads and name == "CPU" else name
        )


def load_latency(path: str | Path) -> Latency:
    """The latency benchmark's results. Raises UsageError for a missing file or one of another kind."""
    content = read_json(Path(path), dict[str, Any])
    if content is None:
        raise UsageError(f"{path}: no such file. Give the JSON that the latency benchmark wrote.")
    if content and "models" not in content:
        raise UsageError(f"{path} has no models. Give the JSON that the latency benchmark wrote.")
    latency = checked(content, Latency, str(path))
    try:
        shortest = min(map(int, latency.sentence_lengths() + latency.ratio_lengths()), default=1)
    except ValueError:
        shortest = 0
    if shortest < 1:
        raise UsageError(
            f"{path}: a sentence length is not a number of words. Run the benchmark again."
        )
    return latency


def latency_table(latency: Latency) -> Table:
    """Milliseconds a sentence: measured median and tail, and what counted bytes and operations take at the least."""
    lengths, rows = latency.sentence_lengths(), []
    for name, model in latency.models.items():
        lines = []
        for suffix, title in SOFTMAX.items():
            timings = [model.timings(suffix).get(length, NOT_MEASURED) for length in lengths]
            if model.timings(suffix):
                lines.append([title, *map(median_and_tail, timings)])
                lines.append(
                    [f"counted, {title}", *(milliseconds(timing.bound_ms) for timing in timings)]
                )
        rows += named_once(name, lines)
    caption = "Milliseconds a sentence, one sentence at a time: median (95th, 99th percentile)"
    return Table(["Model", "", *(f"{n} words" for n in lengths)], rows, caption, text_columns=2)


NOT_MEASURED = checked({}, Timing, "")


def named_once(name: str, lines: list[list[str]]) -> list[list[str]]:
    """Rows that share a name, which stands in the first of them only."""
    return [[name if i == 0 else "", *line] for i, line in enumerate(lines)]


def median_and_tail(timing: Timing) -> str:
    if timing.median_ms is None:
        return DASH
    return f"{milliseconds(timing.median_ms)} ({milliseconds(timing.p95_ms)}, {milliseconds(timing.p99_ms)})"


def ratio_table(latency: Latency, published: Mapping[str, Any] | None = None) -> Table:
    """How many times faster than the LSTM each GCNN is: measured, expected by counting, and of the `published` speeds
    of both (by model; see Publication). Responsiveness and throughput are always with the softmax."""
    lengths, rows = latency.ratio_lengths(), []
    for pair in latency.pairs:
        lines = []
        for suffix, title in SOFTMAX.items():
            ratios = [pair.by_length(suffix).get(length) for length in lengths]
            ratios += [None, None] if suffix else [pair.responsiveness, pair.throughput]
            if pair.by_length(suffix):
                lines.append(
                    [f"measured, {title}", *(ratio(entry and entry.measured) for entry in ratios)]
                )
                lines.append(
                    [f"expected, {title}", *(ratio(entry and entry.bound) for entry in ratios)]
                )
        fast, slow = ((published or {}).get(name) for name in (pair.gcnn, pair.lstm))
        if fast and slow:
            responsiveness = fast.responsiveness_gpu / slow.responsiveness_gpu
            gpu, cpu = (
                fast.throughput_gpu / slow.throughput_gpu,
                fast.throughput_cpu / slow.throughput_cpu,
            )
            dashes = [DASH] * len(lengths)
            lines += [["paper, GPU", *dashes, ratio(responsiveness), ratio(gpu)]]
            lines += [["paper, CPU", *dashes, DASH, ratio(cpu)]]
        rows += named_once(f"{pair.gcnn or DASH} against {pair.lstm or DASH}", lines)
    header = [
        "GCNN against LSTM",
        "",
        *(f"{n} words" for n in lengths),
        "Responsiveness",
        "Throughput",
    ]
    caption = "Times faster than the LSTM. Expected: the ratio of what counted bytes and operations take on this machine"
    return Table(header, rows, caption, text_columns=2)


def speed_table(latency: Latency, published: Mapping[str, Any] | None = None) -> Table:
    """The paper's Table 4's quantities, in tokens per second, beside the `published` ones (by model)."""
    header, rows = (
        ["Model", "Description", "Parameters", "Load (s)", "Responsiveness", "Throughput"],
        [],
    )
    if published:
        header += ["Paper: responsiveness, GPU", "Paper: throughput, GPU", "Paper: throughput, CPU"]
    for name, model in latency.models.items():
        row = [
            name,
            model.description or DASH,
            magnitude(model.parameters),
            decimals(model.load_seconds),
        ]
        row += [
            count(speed.tokens_per_second) for speed in (model.responsiveness, model.throughput)
        ]
        if published:
            keys = ("responsiveness_gpu", "throughput_gpu", "throughput_cpu")
            row += [count(getattr(published.get(name), key, None)) for key in keys]
        rows.append(row)
    caption = (
        "Tokens per second. Responsiveness: one sequence of 15,000 contiguous tokens; "
        "throughput: 750 sequences of 20 tokens in one batch"
    )
    return Table(header, rows, caption, text_columns=2)
