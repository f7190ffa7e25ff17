"""What a run left on disk: its files read and checked, and its results as tables."""

import os
from dataclasses import dataclass
from pathlib import Path

from gcnn.config import GCNNConfig, LSTMConfig, TrainConfig, load_config
from gcnn.errors import UsageError
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.files import ANY, NUMBER, check, parse, read, read_json, value
from gcnn.reporting.units import DASH, count, decimals, duration, gibibytes, magnitude, perplexity, plural
from gcnn.reproduction.paper import TABLE_1, Published, model_name, published_perplexity

PARTS = ("embedding", "body", "softmax")  # of the parameters
SPLIT = {"nll_nats": NUMBER, "tokens": NUMBER, "perplexity": NUMBER, "unigram_perplexity": NUMBER}
SPLIT |= {"unknown": NUMBER, "known_perplexity": NUMBER}
SPLIT |= {"words": NUMBER, "word_perplexity": NUMBER, "bytes": NUMBER, "bits_per_byte": NUMBER}
RESULTS = {
    "experiment": str,
    "git_commit": str,
    "hardware": {"cpu": str, "cores": NUMBER, "threads": NUMBER, "memory_bytes": NUMBER, "platform": str},
    "versions": {ANY: str},
    "command": str,
    "processes": NUMBER,
    "parameters": dict.fromkeys(("total", *PARTS), NUMBER),
    "receptive_field": NUMBER,
    "flops_per_token": NUMBER,
    "data": {"name": str, "fingerprint": str, "vocabulary_size": NUMBER},
    "train": dict.fromkeys(("steps", "tokens", "seconds", "tokens_per_second", "peak_memory_bytes"), NUMBER),
    "validation": SPLIT,
    "test": SPLIT,
}
METRICS = {"kind": str} | dict.fromkeys(
    ("step", "epoch", "tokens", "seconds", "loss", "perplexity", "tokens_per_second", "nll_nats"), NUMBER
)
SAMPLES = [{"prompt": str, "text": str, "temperature": NUMBER, "top_k": NUMBER}]


@dataclass
class Run:
    """A run directory as it stands on disk; `results` is None as long as the run is unfinished."""

    path: Path
    config: TrainConfig
    config_text: str
    training: list[dict]  # the lines of metrics.jsonl, by kind
    validation: list[dict]
    results: dict | None
    samples: list[dict]
    label: str  # names the run within a report

    @property
    def data(self) -> tuple[str, str]:
        """Name and fingerprint of the data: perplexities compare where these agree."""
        return self.config.data.name, value(self.results, "data.fingerprint") or ""

    @property
    def published(self) -> Published | None:
        """The paper's test perplexity of this model on this data, which is split into words there."""
        if self.config.tokenizer.kind != "word":
            return None
        return published_perplexity(self.config.model, self.config.data.name)


def read_metrics(path: Path) -> dict[str, list[dict]]:
    """The lines of metrics.jsonl by kind; a last line without its newline is still being written: left out."""
    kinds = {"train": [], "validation": []}
    if not path.exists():
        return kinds
    for number, line in enumerate(read(path).split("\n")[:-1], start=1):
        entry = parse(line, METRICS, f"{path}: line {number}")
        kinds.get(entry.get("kind"), []).append(entry)
    return kinds


def load_run(path: str | Path) -> Run:
    """Read a run directory, finished or not.

    Raises UsageError where it has no config or where one of its files is not what a run writes.
    """
    path = Path(path)
    config = load_config(path)
    metrics = read_metrics(path / "metrics.jsonl")
    return Run(
        path=path,
        config=config,
        config_text=read(path / "config.yaml"),
        training=metrics["train"],
        validation=metrics["validation"],
        results=read_json(path / "results.json", RESULTS),
        samples=read_json(path / "samples.json", SAMPLES) or [],
        label=config.experiment,
    )


def find_runs(path: str | Path) -> list[Path]:
    """The run directory at `path`, or all below it. Raises UsageError where there is none."""
    found = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if "config.yaml" in files:
            found.append(Path(folder))
            subfolders.clear()  # what a logger keeps inside a run is no run
    if not found:
        raise UsageError(f"{path}: no run directory here (a folder with config.yaml). Give one, or a folder of them.")
    return found


def load_runs(paths: list[Path]) -> list[Run]:
    """All runs at or below the paths, each once, by data and test perplexity, their labels distinct."""
    folders = dict.fromkeys(folder.resolve() for path in paths for folder in find_runs(path))
    runs = [load_run(folder) for folder in folders]
    runs.sort(key=lambda run: (run.data[0], value(run.results, "test.perplexity") or float("inf")))
    for name in (lambda run: f"{run.label} {run.path.name}", lambda run: str(run.path)):
        labels = [run.label for run in runs]
        for run in runs:
            if labels.count(run.label) > 1:
                run.label = name(run)
    return runs


def describe_model(model: GCNNConfig | LSTMConfig) -> str:
    """The paper's name of a model, or its size in a few words."""
    name = model_name(model)
    if name:
        return TABLE_1[name].title if name in TABLE_1 else f"LSTM-{name.removeprefix('lstm_')}"
    if model.kind == "lstm":
        return f"LSTM, {model.num_layers} × {model.hidden_dim}"
    convolutions = sum(block.repeat * len(block.convs) for block in model.blocks)
    return f"GCNN, {convolutions} layers" + (f", {model.gate}" if model.gate != "glu" else "")


def describe_hardware(hardware: dict | None) -> str:
    hardware = hardware or {}
    parts = [hardware.get("cpu")]
    parts += [plural(hardware[key], key[:-1]) for key in ("cores", "threads") if hardware.get(key)]
    parts += [hardware.get("gpu") or ("no GPU" if "gpu" in hardware else None)]
    parts += [f"{gibibytes(hardware['memory_bytes'])} memory" if hardware.get("memory_bytes") else None]
    return ", ".join(str(part) for part in [*parts, hardware.get("platform")] if part) or DASH


def describe_versions(versions: dict | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (versions or {}).items() if version) or DASH


def receptive_field(results: dict | None) -> str:
    if results is None or "receptive_field" not in results:
        return DASH
    field = results["receptive_field"]
    return "unbounded" if field is None else count(field)


def results_table(results: dict) -> str:
    """The content of results.json as aligned plain text, for the end of a training run."""
    check(results, RESULTS, "results")
    parameters, train = results.get("parameters") or {}, results.get("train") or {}
    parts = ", ".join(f"{part} {magnitude(parameters[part])}" for part in PARTS if part in parameters)
    several = (results.get("processes") or 1) > 1
    vocabulary = count(value(results, "data.vocabulary_size"))
    facts = [
        ["experiment", results.get("experiment") or DASH],
        ["parameters", count(parameters.get("total")) + (f" ({parts})" if parts else "")],
        ["receptive field", receptive_field(results)],
        ["operations", f"{magnitude(results.get('flops_per_token'))} FLOPs a token"],
        ["data", f"{value(results, 'data.name') or DASH}, vocabulary of {vocabulary}"],
        ["trained", f"{count(train.get('steps'))} steps, {count(train.get('tokens'))} tokens"],
        ["", f"{duration(train.get('seconds'))}, {count(train.get('tokens_per_second'))} tokens/s"],
        ["peak memory", gibibytes(train.get("peak_memory_bytes"))],
        ["hardware", describe_hardware(results.get("hardware"))],
        *([["processes", f"{count(results['processes'])} of torchrun"]] if several else []),
    ]
    measures = [
        ("perplexity", "perplexity", perplexity),
        ("without unknown", "known_perplexity", perplexity),
        ("of a unigram model", "unigram_perplexity", perplexity),
        ("per word", "word_perplexity", perplexity),
        ("bits per byte", "bits_per_byte", lambda x: decimals(x, 4)),
        ("tokens", "tokens", count),
        ("unknown", "unknown", count),
        ("words", "words", count),
        ("bytes", "bytes", count),
    ]
    splits = [results.get("validation"), results.get("test")]
    rows = [[title, *(show(value(split, key)) for split in splits)] for title, key, show in measures]
    facts_text = to_text(Table(facts[0], facts[1:], text_columns=2))
    return f"{facts_text}\n\n{to_text(Table(['', 'validation', 'test'], rows))}"


def runs_table(runs: list[Run]) -> Table:
    """One row a run, with the paper's test perplexity of the same model on the same data, if any."""
    columns = {
        "Run": lambda run: run.label if run.results is not None else f"{run.label} (unfinished)",
        "Model": lambda run: describe_model(run.config.model),
        "Data": lambda run: run.config.data.name,
        "Validation perplexity": lambda run: perplexity(validation_perplexity(run)),
        "Test perplexity": lambda run: perplexity(value(run.results, "test.perplexity")),
    }
    if any(run.published for run in runs):
        columns["Paper, test"] = lambda run: decimals(run.published.perplexity, 1) if run.published else DASH
    if any(run.config.tokenizer.kind != "word" for run in runs):
        columns["Test, per word"] = lambda run: perplexity(value(run.results, "test.word_perplexity"))
    columns |= {
        "Unigram, test": lambda run: perplexity(value(run.results, "test.unigram_perplexity")),
        "Parameters": lambda run: magnitude(value(run.results, "parameters.total")),
        "FLOPs/token": lambda run: magnitude(value(run.results, "flops_per_token")),
        "Receptive field": lambda run: receptive_field(run.results),
        "Tokens/s": lambda run: count(trained(run, "tokens_per_second")),
        "Training time": lambda run: duration(trained(run, "seconds")),
    }
    return Table(list(columns), [[show(run) for show in columns.values()] for run in runs], text_columns=3)


def validation_perplexity(run: Run) -> float | None:
    """The final one, or the last so far."""
    if run.results is None and run.validation:
        return run.validation[-1].get("perplexity")
    return value(run.results, "validation.perplexity")


def trained(run: Run, key: str) -> float | None:
    """A figure of the training, or its last value so far."""
    if run.results is None and run.training:
        return run.training[-1].get(key)
    return value(run.results, f"train.{key}")
