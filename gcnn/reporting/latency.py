"""The latency benchmark's JSON, read and checked, and its tables beside the paper's Table 4."""

from pathlib import Path

from gcnn.errors import UsageError
from gcnn.reporting.document import Table
from gcnn.reporting.files import ANY, NUMBER, read_json, value
from gcnn.reporting.results import RESULTS
from gcnn.reporting.units import DASH, count, decimals, magnitude, milliseconds, plural, ratio
from gcnn.reproduction.paper import TABLE_4

SENTENCES = {ANY: dict.fromkeys(("median_ms", "p95_ms", "p99_ms", "repeats", "bound_ms"), NUMBER)}
RATIO = {"measured": NUMBER, "bound": NUMBER}
LATENCY = {
    "hardware": RESULTS["hardware"],
    "device": str,
    "threads": NUMBER,
    "git_commit": str,
    "command": str,
    "date": str,
    "models": {
        ANY: {
            "description": str,
            "parameters": NUMBER,
            "load_seconds": NUMBER,
            "sentences": SENTENCES,
            "sentences_without_softmax": SENTENCES,
            "throughput": {"sequences": NUMBER, "length": NUMBER, "tokens_per_second": NUMBER},
            "responsiveness": {"tokens": NUMBER, "tokens_per_second": NUMBER},
        }
    },
    "pairs": [
        {
            "gcnn": str,
            "lstm": str,
            "ratios": {ANY: RATIO},
            "ratios_without_softmax": {ANY: RATIO},
            "responsiveness": RATIO,
            "throughput": RATIO,
        }
    ],
}
SOFTMAX = {"": "with softmax", "_without_softmax": "without softmax"}  # suffix of the JSON's keys -> title


def load_latency(path: str | Path) -> dict:
    """The latency benchmark's results. Raises UsageError for a missing file or one of another kind."""
    latency = read_json(Path(path), LATENCY)
    if latency is None:
        raise UsageError(f"{path}: no such file. Give the JSON that the latency benchmark wrote.")
    if latency and "models" not in latency:
        raise UsageError(f"{path} has no models. Give the JSON that the latency benchmark wrote.")
    try:
        shortest = min(map(int, sentence_lengths(latency) + ratio_lengths(latency)), default=1)
    except ValueError:
        shortest = 0
    if shortest < 1:
        raise UsageError(f"{path}: a sentence length is not a number of words. Run the benchmark again.")
    return latency


def models_of(latency: dict) -> dict[str, dict]:
    return value(latency, "models") or {}


def pairs_of(latency: dict) -> list[dict]:
    return value(latency, "pairs") or []


def timings(model: dict, suffix: str) -> dict[str, dict]:
    """Sentence length in words -> its timing."""
    return value(model, f"sentences{suffix}") or {}


def sentence_lengths(latency: dict) -> list[str]:
    """The measured lengths, in words, shortest first."""
    models = models_of(latency).values()
    return sorted({length for model in models for suffix in SOFTMAX for length in timings(model, suffix)}, key=int)


def ratio_lengths(latency: dict) -> list[str]:
    """The lengths at which pairs are compared, in words, shortest first."""
    ratios = [value(pair, f"ratios{suffix}") or {} for pair in pairs_of(latency) for suffix in SOFTMAX]
    return sorted({length for lengths in ratios for length in lengths}, key=int)


def device(latency: dict) -> str:
    """What the benchmark ran on, as "CPU, 2 threads"."""
    name = (value(latency, "device") or "unknown device").upper()
    threads = value(latency, "threads")
    return f"{name}, {plural(threads, 'thread')}" if threads and name == "CPU" else name


def latency_table(latency: dict) -> Table:
    """Milliseconds a sentence: measured median and tail, and what counted bytes and operations take at the least."""
    lengths = sentence_lengths(latency)
    rows = []
    for name, model in models_of(latency).items():
        lines = []
        for suffix, title in SOFTMAX.items():
            measured = [timings(model, suffix).get(length) for length in lengths]
            if any(measured):
                lines.append([title, *map(spread, measured)])
                lines.append([f"counted, {title}", *(milliseconds(value(timing, "bound_ms")) for timing in measured)])
        rows += grouped(name, lines)
    caption = "Milliseconds a sentence, one sentence at a time: median (95th, 99th percentile)"
    return Table(["Model", "", *(f"{n} words" for n in lengths)], rows, caption, text_columns=2)


def grouped(name: str, lines: list[list[str]]) -> list[list[str]]:
    """Rows that share a name, which stands in the first of them only."""
    return [[name if i == 0 else "", *line] for i, line in enumerate(lines)]


def spread(timing: dict | None) -> str:
    median, *tail = (value(timing, key) for key in ("median_ms", "p95_ms", "p99_ms"))
    return DASH if median is None else f"{milliseconds(median)} ({', '.join(map(milliseconds, tail))})"


def ratio_table(latency: dict) -> Table:
    """How many times faster than the LSTM each GCNN is: measured, expected by counting, and the paper's."""
    lengths = ratio_lengths(latency)
    header = ["GCNN against LSTM", "", *(f"{n} words" for n in lengths), "Responsiveness", "Throughput"]
    rows = []
    for pair in pairs_of(latency):
        names = {key: value(pair, key) or DASH for key in ("gcnn", "lstm")}
        lines = [line for suffix in SOFTMAX for line in ratio_lines(pair, suffix, lengths)]
        lines += paper_lines(**names, lengths=len(lengths))
        rows += grouped(" against ".join(names.values()), lines)
    caption = (
        "Times faster than the LSTM. Expected: the ratio of what counted bytes and operations take on this machine"
    )
    return Table(header, rows, caption, text_columns=2)


def ratio_lines(pair: dict, suffix: str, lengths: list[str]) -> list[list[str]]:
    """Measured and expected ratio of a pair; responsiveness and throughput are always with the softmax."""
    ratios = value(pair, f"ratios{suffix}")
    lines = []
    for kind in RATIO if ratios else ():
        speeds = [None if suffix else value(pair, f"{test}.{kind}") for test in ("responsiveness", "throughput")]
        cells = [value(ratios.get(length), kind) for length in lengths] + speeds
        name = {"bound": "expected"}.get(kind, kind)
        lines.append([f"{name}, {SOFTMAX[suffix]}", *map(ratio, cells)])
    return lines


def paper_lines(gcnn: str, lstm: str, lengths: int) -> list[list[str]]:
    """The ratios of Table 4, where it has both models of a pair."""
    fast, slow = TABLE_4.get(gcnn), TABLE_4.get(lstm)
    if not (fast and slow):
        return []
    gpu = [fast.responsiveness_gpu / slow.responsiveness_gpu, fast.throughput_gpu / slow.throughput_gpu]
    dashes = [DASH] * lengths
    return [
        ["paper, GPU", *dashes, *map(ratio, gpu)],
        ["paper, CPU", *dashes, DASH, ratio(fast.throughput_cpu / slow.throughput_cpu)],
    ]


def speed_table(latency: dict) -> Table:
    """Table 4's quantities, in tokens per second, beside the paper's."""
    header = ["Model", "Description", "Parameters", "Load (s)", "Responsiveness", "Throughput"]
    header += ["Paper: responsiveness, GPU", "Paper: throughput, GPU", "Paper: throughput, CPU"]
    rows = []
    for name, model in models_of(latency).items():
        paper = TABLE_4.get(name)
        published = [paper.responsiveness_gpu, paper.throughput_gpu, paper.throughput_cpu] if paper else [None] * 3
        rows.append(
            [
                name,
                value(model, "description") or DASH,
                magnitude(value(model, "parameters")),
                decimals(value(model, "load_seconds")),
                count(value(model, "responsiveness.tokens_per_second")),
                count(value(model, "throughput.tokens_per_second")),
                *map(count, published),
            ]
        )
    caption = (
        "Tokens per second. Responsiveness: one sequence of 15,000 contiguous tokens; "
        "throughput: 750 sequences of 20 tokens in one batch"
    )
    return Table(header, rows, caption, text_columns=2)
