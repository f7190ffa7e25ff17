"""The latency benchmark's JSON, read and checked, and its tables beside published speeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn.base.errors import UsageError
from gcnn.reporting.document import Table
from gcnn.reporting.units import DASH, count, decimals, magnitude, milliseconds, plural, ratio
from gcnn.runs.json_files import Number, Text, all_absent, checked, read_json
from gcnn.runs.results import Hardware

SOFTMAX = {  # suffix of the JSON's keys -> title
    "": "with softmax",
    "_without_softmax": "without softmax",
}


@dataclass(kw_only=True)
class Timing:
    """Milliseconds of one sentence.

    bound_ms: the least that its bytes and operations can take at the machine's measured rates.
    """

    median_ms: Number
    p95_ms: Number
    p99_ms: Number
    bound_ms: Number


@dataclass(kw_only=True)
class Speed:
    tokens_per_second: Number


@dataclass(kw_only=True)
class MeasuredModel:
    """A model's entry in the latency benchmark's JSON."""

    description: Text
    parameters: Number
    load_seconds: Number
    sentences: dict[str, Timing]  # by their length in words
    sentences_without_softmax: dict[str, Timing]
    throughput: Speed
    responsiveness: Speed

    def timings(self, suffix: str) -> dict[str, Timing]:
        """Length in words -> timing. suffix: a key of SOFTMAX."""
        return getattr(self, f"sentences{suffix}")


@dataclass(kw_only=True)
class Ratio:
    """How many times faster the GCNN is than the LSTM."""

    measured: Number
    bound: Number  # the ratio of the bounds: see Timing


@dataclass(kw_only=True)
class Pair:
    """A GCNN and an LSTM of one vocabulary, and how their speeds compare."""

    gcnn: Text
    lstm: Text
    ratios: dict[str, Ratio]  # by the sentences' length in words
    ratios_without_softmax: dict[str, Ratio]
    responsiveness: Ratio
    throughput: Ratio

    def by_length(self, suffix: str) -> dict[str, Ratio]:
        """Length in words -> ratio of the latencies. suffix: a key of SOFTMAX."""
        return getattr(self, f"ratios{suffix}")


@dataclass(kw_only=True)
class Latency:
    """The latency benchmark's JSON, as far as it is shown. Lengths are digits, as in its keys."""

    hardware: Hardware
    device: Text
    threads: Number
    git_commit: Text
    command: Text
    date: Text
    models: dict[str, MeasuredModel]
    pairs: list[Pair]

    def sentence_lengths(self) -> list[str]:
        """The lengths, in words, at which any model was measured; the shortest first."""
        lengths = set()
        for model in self.models.values():
            for suffix in SOFTMAX:
                lengths.update(model.timings(suffix))
        return sorted(lengths, key=int)

    def ratio_lengths(self) -> list[str]:
        """The lengths, in words, at which any pair is compared; the shortest first."""
        lengths = set()
        for pair in self.pairs:
            for suffix in SOFTMAX:
                lengths.update(pair.by_length(suffix))
        return sorted(lengths, key=int)

    def machine(self) -> str:
        """What the benchmark ran on, as "CPU, 2 threads", "CUDA" or "UNKNOWN DEVICE"."""
        name = (self.device or "unknown device").upper()
        if self.threads and name == "CPU":
            return f"{name}, {plural(self.threads, 'thread')}"
        return name


NOT_MEASURED = all_absent(Timing)
NO_RATIO = all_absent(Ratio)


def load_latency(path: str | Path) -> Latency:
    """Read the JSON that the latency benchmark wrote. An empty object is a Latency of no models.

    Raises UsageError if the file is missing, cannot be read or is not such JSON, if the length of a
    sentence is not a whole number from 1 on, or if a pair names a model that is not there (it may
    name none).
    """
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
    for pair in latency.pairs:
        names = {pair.gcnn, pair.lstm}
        if names != {None} and not names <= latency.models.keys():
            raise UsageError(
                f"{path}: the pair of {pair.gcnn} and {pair.lstm} is not among its models. Run the "
                "benchmark again."
            )
    return latency


def latency_table(latency: Latency) -> Table:
    """Milliseconds a sentence. Columns: the model, what its row has, and one for each length.

    Each model has a row of measured times (`median_and_tail`) and one of bounds (see Timing) with
    the softmax, and the same two rows without it. Two rows that were not measured are left out; a
    length that was not measured is a dash. The model is named in its first row alone.
    """
    lengths = latency.sentence_lengths()
    rows = []
    for name, model in latency.models.items():
        lines = []
        for suffix, title in SOFTMAX.items():
            by_length = model.timings(suffix)
            if not by_length:
                continue
            timings = [by_length.get(length, NOT_MEASURED) for length in lengths]
            bounds = [milliseconds(timing.bound_ms) for timing in timings]
            lines.append([title, *map(median_and_tail, timings)])
            lines.append([f"counted, {title}", *bounds])
        rows += named_once(name, lines)
    caption = "Milliseconds a sentence, one sentence at a time: median (95th, 99th percentile)"
    return Table(["Model", "", *(f"{n} words" for n in lengths)], rows, caption, text_columns=2)


def named_once(name: str, lines: list[list[str]]) -> list[list[str]]:
    """The lines with a first cell added to each: the name in the first line, else empty."""
    return [[name if i == 0 else "", *line] for i, line in enumerate(lines)]


def median_and_tail(timing: Timing) -> str:
    """The median, 95th and 99th percentile, as "6.31 (6.90, 7.42)"; a dash without a median."""
    if timing.median_ms is None:
        return DASH
    tail = f"{milliseconds(timing.p95_ms)}, {milliseconds(timing.p99_ms)}"
    return f"{milliseconds(timing.median_ms)} ({tail})"


def ratio_table(latency: Latency, published: Mapping[str, Any] | None = None) -> Table:
    """How many times faster the GCNN of each pair is than its LSTM: measured, expected, published.

    Columns: the pair (named in its first row alone), what its row has, one for each length of a
    sentence, responsiveness and throughput (these only with the softmax). A dash: not measured.
    Expected is the ratio of the bounds (see Timing). A pair's rows with the softmax are left out if
    no length was compared with it, and likewise those without it.
    published: `Publication.speeds`; if both models of a pair are in it, the pair has two rows of
    the paper's, for GPU and CPU. None: no such rows.
    """
    published = published or {}
    lengths = latency.ratio_lengths()
    rows = []
    for pair in latency.pairs:
        lines = []
        for suffix, title in SOFTMAX.items():
            by_length = pair.by_length(suffix)
            if not by_length:
                continue
            ratios = [by_length.get(length, NO_RATIO) for length in lengths]
            ratios += [NO_RATIO, NO_RATIO] if suffix else [pair.responsiveness, pair.throughput]
            measured = [ratio(entry.measured) for entry in ratios]
            expected = [ratio(entry.bound) for entry in ratios]
            lines.append([f"measured, {title}", *measured])
            lines.append([f"expected, {title}", *expected])
        fast = published.get(pair.gcnn)
        slow = published.get(pair.lstm)
        if fast and slow:
            responsiveness = ratio(fast.responsiveness_gpu / slow.responsiveness_gpu)
            gpu = ratio(fast.throughput_gpu / slow.throughput_gpu)
            cpu = ratio(fast.throughput_cpu / slow.throughput_cpu)
            dashes = [DASH] * len(lengths)
            lines.append(["paper, GPU", *dashes, responsiveness, gpu])
            lines.append(["paper, CPU", *dashes, DASH, cpu])
        rows += named_once(f"{pair.gcnn or DASH} against {pair.lstm or DASH}", lines)
    words = [f"{length} words" for length in lengths]
    header = ["GCNN against LSTM", "", *words, "Responsiveness", "Throughput"]
    caption = (
        "Times faster than the LSTM. Expected: the ratio of what counted bytes and operations take "
        "on this machine"
    )
    return Table(header, rows, caption, text_columns=2)


def speed_table(latency: Latency, published: Mapping[str, Any] | None = None) -> Table:
    """The quantities of the paper's Table 4, a row a model.

    Columns: model, description, parameters, seconds to load, responsiveness and throughput (tokens
    per second). What is not known is a dash.
    published: `Publication.speeds`, for three more columns with the paper's own values, a dash for
    a model that is not in it; without any (None or empty) these columns are left out.
    """
    header = ["Model", "Description", "Parameters", "Load (s)", "Responsiveness", "Throughput"]
    if published:
        header += ["Paper: responsiveness, GPU", "Paper: throughput, GPU", "Paper: throughput, CPU"]
    rows = []
    for name, model in latency.models.items():
        row = [name, model.description or DASH, magnitude(model.parameters)]
        row.append(decimals(model.load_seconds))
        row.append(count(model.responsiveness.tokens_per_second))
        row.append(count(model.throughput.tokens_per_second))
        if published:
            for key in ("responsiveness_gpu", "throughput_gpu", "throughput_cpu"):
                row.append(count(getattr(published.get(name), key, None)))
        rows.append(row)
    caption = (
        "Tokens per second. Responsiveness: one sequence of 15,000 contiguous tokens; "
        "throughput: 750 sequences of 20 tokens in one batch"
    )
    return Table(header, rows, caption, text_columns=2)
