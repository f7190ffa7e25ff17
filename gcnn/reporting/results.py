"""What a run left on disk: its files read and checked, and its results as tables."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcnn.config.schema import TrainConfig
from gcnn.config.stored import load_config
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import (
    DASH,
    count,
    decimals,
    duration,
    gibibytes,
    magnitude,
    perplexity,
    plural,
)
from gcnn.runs.directory import MEMBER, METRICS, RESULTS, SAMPLES
from gcnn.runs.json_files import checked, read_json, read_json_lines
from gcnn.runs.results import GeneratedText, Hardware, Member, Metric, Results, Training


def nothing(*of: Any) -> None:
    """What is reported where there is no paper."""


@dataclass(frozen=True)
class Publication:
    """What a paper reports of models, to stand beside our numbers; by default nothing."""

    # From a model's config: its title in the paper, None where it is not the paper's.
    model_title: Callable[[Any], str | None] = nothing
    # From a model's config and the name of its data: an object with title, perplexity (of the test
    # set, a word) and hardware; None where the paper reports nothing.
    perplexity: Callable[[Any, str], Any] = nothing
    # Tokens per second by model, as `speed_table` shows them.
    speeds: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A run directory as it is on disk. Of an unfinished run all entries of `results` are None."""

    path: Path
    config: TrainConfig
    training: list[Metric]
    validation: list[Metric]
    results: Results
    finished: bool
    samples: list[GeneratedText]
    member: Member
    label: str  # names the run within a report
    model_title: str
    published: Any  # what a paper reports for this model on this data, or None

    @property
    def data_title(self) -> str:
        """The name of the corpus, or of the folder of a user's own text, for readers.

        With how much of the training text was used, where that is not all.
        """
        data = self.config.data
        name = data.name
        if name == data.source == "local":  # which names no corpus
            folders = [Path(path).parent for path in data.files.get("train", [])]
            folders = folders or [Path(data.path or "local")]
            name = folders[0].name or name
        if data.train_tokens:
            return f"{name}, first {magnitude(data.train_tokens)} tokens"
        return name

    @property
    def validation_perplexity(self) -> float | None:
        """The final one, or of an unfinished run the last so far; None where there is none."""
        unfinished = not self.finished and self.validation
        return self.validation[-1].perplexity if unfinished else self.results.validation.perplexity

    @property
    def test_perplexity(self) -> float:
        """The perplexity a token; infinite where it is not known."""
        return self.results.test.perplexity or math.inf

    @property
    def progress(self) -> Training | Metric:
        """What the training took, or its last line so far.

        Both have `seconds` and `tokens_per_second`, which may be None.
        """
        if self.training and not self.finished:
            return self.training[-1]
        return self.results.train


def load_run(path: str | Path, paper: Publication | None = None) -> Run:
    """Read a run directory, finished or not; the numbers of `paper` become its `published`.

    Raises UsageError where it has no config or where one of its files is not what a run writes.
    """
    path, paper = Path(path), paper or Publication()
    config = load_config(path)
    metrics = read_json_lines(path / METRICS, Metric)
    results = read_json(path / RESULTS, Results)
    words = config.tokenizer.kind == "word"  # as the data is split in papers
    return Run(
        path=path,
        config=config,
        training=[line for line in metrics if line.kind == "train"],
        validation=[line for line in metrics if line.kind == "validation"],
        results=results or checked({}, Results, ""),
        finished=results is not None,
        samples=read_json(path / SAMPLES, list[GeneratedText]) or [],
        member=read_json(path / MEMBER, Member) or checked({}, Member, ""),
        label=config.experiment,
        model_title=paper.model_title(config.model) or config.model.summary(),
        published=paper.perplexity(config.model, config.data.name) if words else None,
    )


def varying(members: list[dict[str, str]]) -> list[dict[str, str]]:
    """The settings (value by key) of each member, without those that are the same in all."""
    result = []
    for member in members:
        settings = {}
        for key, choice in member.items():
            if any(other.get(key) != choice for other in members):
                settings[key] = choice
        result.append(settings)
    return result


def describe_hardware(hardware: Hardware) -> str:
    """As "CPU, 2 cores, 1 thread, no GPU, 8.0 GiB memory, Linux"; what is not known is left out."""
    parts = [hardware.cpu, hardware.cores and plural(hardware.cores, "core")]
    parts += [hardware.threads and plural(hardware.threads, "thread")]
    several = f"{hardware.gpu_count:.0f} × " if (hardware.gpu_count or 0) > 1 else ""
    parts += ["no GPU" if hardware.gpu is None else f"{several}{hardware.gpu}"]
    parts += [
        hardware.memory_bytes and f"{gibibytes(hardware.memory_bytes)} memory",
        hardware.platform,
    ]
    return ", ".join(str(part) for part in parts if part) or DASH


def receptive_field(results: Results) -> str:
    """The receptive field for readers; a model without a bound (an LSTM) has "unbounded"."""
    if results.receptive_field is None:
        return "unbounded"
    return count(results.receptive_field) if results.receptive_field else DASH


def results_table(content: dict | Results) -> str:
    """The content of results.json as aligned plain text, for the end of a training run.

    What was not measured is a dash. No newline at the end. Raises UsageError for a dict with an
    entry of another type.
    """
    results = content if isinstance(content, Results) else checked(content, Results, "results")
    parameters, train, data = results.parameters, results.train, results.data
    sizes = (
        ("embedding", parameters.embedding),
        ("body", parameters.body),
        ("softmax", parameters.softmax),
    )
    parts = ", ".join(f"{part} {magnitude(size)}" for part, size in sizes if size is not None)
    facts = [
        ["experiment", results.experiment or DASH],
        ["parameters", count(parameters.total) + (f" ({parts})" if parts else "")],
        ["receptive field", receptive_field(results)],
        ["operations", f"{magnitude(results.flops_per_token)} FLOPs a token"],
        ["data", f"{data.name or DASH}, vocabulary of {count(data.vocabulary_size)}"],
        ["trained", f"{count(train.steps)} steps, {count(train.tokens)} tokens"],
        ["", f"{duration(train.seconds)}, {count(train.tokens_per_second)} tokens/s"],
        ["peak memory", gibibytes(train.peak_memory_bytes)],
        ["hardware", describe_hardware(results.hardware)],
    ]
    if (results.processes or 1) > 1:
        facts.append(["processes", f"{count(results.processes)} of torchrun"])
    measures = {
        "perplexity": lambda split: perplexity(split.perplexity),
        "without unknown": lambda split: perplexity(split.known_perplexity),
        "of a unigram model": lambda split: perplexity(split.unigram_perplexity),
        "per word": lambda split: perplexity(split.word_perplexity),
        "bits per byte": lambda split: decimals(split.bits_per_byte, 4),
        "tokens": lambda split: count(split.tokens),
        "unknown": lambda split: count(split.unknown),
        "words": lambda split: count(split.words),
        "bytes": lambda split: count(split.bytes),
    }
    splits = {"validation": results.validation, "test": results.test}
    rows = [[title, *map(show, splits.values())] for title, show in measures.items()]
    facts_text = to_text(Table(facts[0], facts[1:], text_columns=2))
    table = to_text(Table(["", *splits], rows))
    missing = {name: split for name, split in splits.items() if split.why_no_words}
    reasons = [
        f"{name}, per word and bits per byte: {split.why_no_words}."
        for name, split in missing.items()
    ]
    return "\n\n".join([facts_text, "\n".join([table, *reasons])])
