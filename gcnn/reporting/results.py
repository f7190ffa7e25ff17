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
from gcnn.runs.json_files import all_absent, checked, read_json, read_json_lines
from gcnn.runs.results import GeneratedText, Hardware, Member, Metric, Results, Training


def nothing(*of: Any) -> None:
    """None, for any arguments: what is known of a model without a paper."""


@dataclass(frozen=True)
class Publication:
    """What a paper reports of models, to stand beside our numbers. The default is no paper."""

    # From a model's config: its title in the paper, None where it is not the paper's.
    model_title: Callable[[Any], str | None] = nothing
    # From a model's config and the name of its data: an object with title, perplexity (of the test
    # set, a word) and hardware; None where the paper reports nothing.
    perplexity: Callable[[Any, str], Any] = nothing
    # Name in configs/model -> an object with throughput_cpu, throughput_gpu and responsiveness_gpu,
    # in tokens per second.
    speeds: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A run directory as it is on disk."""

    path: Path
    config: TrainConfig
    training: list[Metric]  # the lines of metrics.jsonl of kind train; empty: none yet
    validation: list[Metric]  # those of kind validation
    results: Results  # of an unfinished run: all None, or what Results has for "not recorded"
    finished: bool  # whether it has results.json
    samples: list[GeneratedText]
    member: Member  # of a run outside of a sweep: no overrides and no error
    label: str  # names the run within a report
    model_title: str  # the paper's, or a summary of the model's config
    published: Any  # what a paper reports for this model on this data, or None

    @property
    def data_title(self) -> str:
        """The name of the data, for readers.

        It is data.name. If that and data.source are `local`, it is the name of the folder that the
        training text is in; `local` if the folder is only ".". If data.train_tokens limits the
        training text, ", first N tokens" follows.
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
        """The final perplexity per token; of an unfinished run, that of its last validation.

        None if there was no validation, or if it was not finite.
        """
        if self.validation and not self.finished:
            return self.validation[-1].perplexity
        return self.results.validation.perplexity

    @property
    def test_perplexity(self) -> float:
        """The perplexity per token; infinite if it is not known."""
        return self.results.test.perplexity or math.inf

    @property
    def progress(self) -> Training | Metric:
        """What training took so far: the last line of training metrics of an unfinished run.

        If the run is finished, or has no such line, it is `results.train`. Both have `seconds` and
        `tokens_per_second`, which may be None.
        """
        if self.training and not self.finished:
            return self.training[-1]
        return self.results.train


def load_run(path: str | Path, paper: Publication | None = None) -> Run:
    """Read a run directory, finished or not. Its label is the experiment's name.

    paper: gives `model_title` and `published`; the latter is None for a run whose tokenizer is not
    of words. None: no paper.
    Raises UsageError if there is no config.yaml, if a file cannot be read or is not what a run
    writes there, or if a link in the folder leads out of it. Logs a warning as `load_config` does.
    Files besides config.yaml may be missing (see Run).
    """
    path = Path(path)
    paper = paper or Publication()
    config = load_config(path)
    metrics = read_json_lines(path / METRICS, Metric)
    results = read_json(path / RESULTS, Results)
    words = config.tokenizer.kind == "word"  # as the data is split in papers
    return Run(
        path=path,
        config=config,
        training=[line for line in metrics if line.kind == "train"],
        validation=[line for line in metrics if line.kind == "validation"],
        results=results or all_absent(Results),
        finished=results is not None,
        samples=read_json(path / SAMPLES, list[GeneratedText]) or [],
        member=read_json(path / MEMBER, Member) or all_absent(Member),
        label=config.experiment,
        model_title=paper.model_title(config.model) or config.model.summary(),
        published=paper.perplexity(config.model, config.data.name) if words else None,
    )


def varying_settings(members: list[dict[str, str]]) -> list[dict[str, str]]:
    """The settings (key -> value) of each member that are not the same in all members.

    A dictionary for each member, in their order. A key that only some members set is kept. A single
    member has none that differ, so its dictionary is empty.
    """
    result = []
    for member in members:
        settings = {}
        for key, choice in member.items():
            if any(other.get(key) != choice for other in members):
                settings[key] = choice
        result.append(settings)
    return result


def describe_hardware(hardware: Hardware) -> str:
    """As "Some CPU, 2 cores, 1 thread, no GPU, 8.0 GiB memory, Linux".

    Several GPUs are "8 × NAME". What is not known is left out; if nothing is known: a dash.
    """
    parts = [hardware.cpu]
    parts.append(hardware.cores and plural(hardware.cores, "core"))
    parts.append(hardware.threads and plural(hardware.threads, "thread"))
    several = f"{hardware.gpu_count:.0f} × " if (hardware.gpu_count or 0) > 1 else ""
    parts.append("no GPU" if hardware.gpu is None else f"{several}{hardware.gpu}")
    parts.append(hardware.memory_bytes and f"{gibibytes(hardware.memory_bytes)} memory")
    parts.append(hardware.platform)
    return ", ".join(str(part) for part in parts if part) or DASH


def receptive_field(results: Results) -> str:
    """The receptive field in tokens; "unbounded" (an LSTM), or a dash if it was not recorded."""
    if results.receptive_field is None:
        return "unbounded"
    return count(results.receptive_field) if results.receptive_field else DASH


def results_table(content: dict | Results) -> str:
    """The results of a run as aligned plain text: facts about it, then a table of both splits.

    The last lines say why a split has no values per word, if that is known. What was not measured
    is a dash. No newline at the end.
    content: results.json, as parsed JSON or as Results. Raises UsageError for parsed JSON with an
    entry of another type.
    """
    results = content if isinstance(content, Results) else checked(content, Results, "results")
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
    rows = []
    for title, cell in measures.items():
        rows.append([title, *map(cell, splits.values())])
    reasons = []
    for name, split in splits.items():
        if split.why_no_words:
            reasons.append(f"{name}, per word and bits per byte: {split.why_no_words}.")

    facts = run_facts(results)
    facts_text = to_text(Table(facts[0], facts[1:], text_columns=2))
    splits_text = "\n".join([to_text(Table(["", *splits], rows)), *reasons])
    return f"{facts_text}\n\n{splits_text}"


def run_facts(results: Results) -> list[list[str]]:
    """What a run is and what its training took: rows of [title, text].

    A row with an empty title continues the row above. What is not known is a dash; unknown parts
    of the parameters and of the hardware are left out. Processes have a row if there were several.
    """
    parameters = results.parameters
    train = results.train
    data = results.data
    parts = []
    for part in ("embedding", "body", "softmax"):
        size = getattr(parameters, part)
        if size is not None:
            parts.append(f"{part} {magnitude(size)}")
    in_parts = f" ({', '.join(parts)})" if parts else ""
    facts = [
        ["experiment", results.experiment or DASH],
        ["parameters", f"{count(parameters.total)}{in_parts}"],
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
    return facts
