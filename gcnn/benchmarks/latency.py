"""How fast models score: sentences one at a time, and the paper's protocol of Table 4.

Scoring a text is the forward pass and the negative log-likelihood of every word and <eos>. Beside
each measurement stands the least time that the machine would allow (see bounds.py).

The order: load the models of a group, measure them in turns on the same texts, report each model,
compare each GCNN with each LSTM.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, mode

import numpy as np
import torch
from torch import Tensor

from gcnn.benchmarks.bounds import Bound, Clock, Machine, now, work
from gcnn.models.inference import prepare_for_inference
from gcnn.models.language_model import LanguageModel, zipf

log = logging.getLogger(__name__)
LENGTHS = (5, 10, 20, 50, 100)  # words a sentence
THROUGHPUT = (750, 20)  # sequences in one batch, tokens a sequence
RESPONSIVENESS = (1, 15_000)  # one sequence, contiguous tokens
BLOCK = {  # tokens of a sequence that are scored together, the state carried
    "cpu": 1000,  # more are no faster
    "cuda": 15_000,
}
WARM_UP = 3  # rounds of sentences
EOS = 0  # the id that stands for <eos>: any frequent type


# Of one text: "hidden" (the encoder alone) and "total" (with the softmax), each as measured seconds
# and the least time that the machine allows.
Timing = dict[str, tuple[float, Bound]]


@dataclass
class Candidate:
    """A model to measure, not loaded yet: `load` makes it, on the CPU.

    `packed_lstm` lays out an LSTM's weights once; without it torch.nn.LSTM does so at every call.
    """

    name: str
    description: str
    load: Callable[[], LanguageModel]
    packed_lstm: bool = False


class Subject:
    """A candidate that is loaded and ready for inference, with its measurements.

    The constructor times the loading (`load_seconds`) and prepares the model for inference, after
    which it cannot be trained.
    """

    def __init__(self, candidate: Candidate, machine: Machine):
        start = now(machine.device)
        self.name, self.description = candidate.name, candidate.description
        self.model = candidate.load().to(machine.device, machine.dtype)
        self.parameters = self.model.parameter_counts()["total"]
        prepare_for_inference(self.model, candidate.packed_lstm)
        self.load_seconds = now(machine.device) - start
        self.timings: dict[int | str, list[Timing]] = {}  # by sentence length or protocol


class Zipf:
    """Random texts with words as frequent as `zipf` says. The same seed gives the same texts."""

    def __init__(self, vocabulary_size: int, seed: int):
        self.cumulative = zipf(vocabulary_size).cumsum(0).numpy()
        self.random = np.random.default_rng(seed)

    def words(self, *shape: int) -> Tensor:
        """Random ids of this shape, int64, on the CPU; the id 0 is the most frequent word's."""
        places = self.random.random(shape) * self.cumulative[-1]
        return torch.from_numpy(np.searchsorted(self.cumulative, places))

    def sentence(self, length: int) -> tuple[Tensor, Tensor]:
        """Tokens `<eos> w1 .. wn` and targets `w1 .. wn <eos>`, each (1, length + 1)."""
        words, eos = self.words(1, length), torch.full((1, 1), EOS)
        return torch.cat([eos, words], dim=1), torch.cat([words, eos], dim=1)

    def text(self, sequences: int, length: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets of running text, each (sequences, length)."""
        words = self.words(sequences, length + 1)
        return words[:, :-1], words[:, 1:]


def benchmark(
    groups: list[list[Candidate]],
    machine: Machine,
    repeats: int = 100,
    long_repeats: int = 3,
    seed: int = 1,
) -> dict:
    """Measure groups of models and return the benchmark's JSON: device, rates, models, pairs.

    The models of a group must have one vocabulary size; they are in memory together and take turns.
    `pairs` compares each GCNN with each LSTM of its group. `repeats` counts the rounds of
    sentences, `long_repeats` those of Table 4's protocol; `seed` is that of the texts.
    """
    models, pairs = {}, []
    for group in groups:
        log.info("loading %s", ", ".join(candidate.name for candidate in group))
        subjects = [Subject(candidate, machine) for candidate in group]
        measure(subjects, machine, repeats, long_repeats, seed)
        models |= {subject.name: report(subject) for subject in subjects}
        lstms = [subject.name for subject in subjects if subject.model.receptive_field is None]
        gcnns = [subject.name for subject in subjects if subject.name not in lstms]
        pairs += [compare(gcnn, lstm, models) for gcnn in gcnns for lstm in lstms]
    return {
        "device": machine.device.type,
        "threads": torch.get_num_threads(),
        "precision": str(machine.dtype).removeprefix("torch."),
        "rates": {
            "flops_per_second": machine.flops(),
            "read_bytes_per_second": machine.read_rate(machine.sizes.large),
            "measured": machine.measured,
        },
        "models": models,
        "pairs": pairs,
    }


@torch.inference_mode()
def measure(
    subjects: list[Subject], machine: Machine, repeats: int, long_repeats: int, seed: int
) -> None:
    """Measure models on the same texts and fill their `timings`.

    Within every round each model has its turn, so that all meet the same disturbances. The models
    must have one vocabulary size. See `benchmark` for `repeats` and `long_repeats`.
    """
    zipf = Zipf(subjects[0].model.vocabulary_size, seed)
    for length in LENGTHS:
        texts = [zipf.sentence(length) for _ in range(WARM_UP + repeats)]
        take_turns(subjects, machine, length, texts)
        for subject in subjects:
            del subject.timings[length][:WARM_UP]
    for protocol, shape in (("throughput", THROUGHPUT), ("responsiveness", RESPONSIVENESS)):
        texts = [zipf.text(*shape) for _ in range(long_repeats)]
        take_turns(subjects, machine, protocol, texts)


def take_turns(
    subjects: list[Subject], machine: Machine, kind: int | str, texts: list[tuple[Tensor, Tensor]]
) -> None:
    """Have every model score every text, and append the timings under `kind`.

    `kind` is a sentence length in words, or `throughput` or `responsiveness`. The first model of a
    round changes: each finds the caches full of each other one equally often.
    """
    title = f"sentences of {kind} words" if isinstance(kind, int) else kind
    log.info("%s, %d rounds", title, len(texts))
    for i, (tokens, targets) in enumerate(texts):
        first = i % len(subjects)
        for subject in subjects[first:] + subjects[:first]:
            timing = score(subject.model, tokens, targets, machine)
            subject.timings.setdefault(kind, []).append(timing)


def score(model: LanguageModel, tokens: Tensor, targets: Tensor, machine: Machine) -> Timing:
    """Score a text on the clock: tokens and targets (batch, time). The host waits for the device
    once, at the end.
    """
    device, state = machine.device, None
    clock, block_size = Clock(device), BLOCK[device.type]
    token_blocks = tokens.to(device).split(block_size, dim=1)
    target_blocks = targets.split(block_size, dim=1)  # the clusters' rows are found on the CPU
    hidden_marks, nats = [], []
    now(device)  # what came before is done

    start = clock.mark()
    for block, block_targets in zip(token_blocks, target_blocks, strict=True):
        before = clock.mark()
        hidden, state = model(block, state)
        hidden_marks.append((before, clock.mark()))
        nats.append(model.nll(hidden, block_targets).double().sum(dim=1))
    total = torch.stack(nats).sum(dim=0)
    end = clock.mark()
    total.cpu()

    seconds = {
        "hidden": sum(clock.seconds(*marks) for marks in hidden_marks),
        "total": clock.seconds(start, end),
    }
    return {
        part: (seconds[part], machine.bound(work(model, targets, part == "total")))
        for part in seconds
    }


def report(subject: Subject) -> dict:
    """The JSON of one measured model: its sentences by length in words, and both protocols."""
    timings = subject.timings
    return {
        "description": subject.description,
        "parameters": subject.parameters,
        "load_seconds": subject.load_seconds,
        "sentences": {str(n): latency(timings[n], "total") for n in LENGTHS},
        "sentences_without_softmax": {str(n): latency(timings[n], "hidden") for n in LENGTHS},
        "throughput": dict(zip(("sequences", "length"), THROUGHPUT, strict=True))
        | speed(timings["throughput"], THROUGHPUT[0] * THROUGHPUT[1]),
        "responsiveness": {"tokens": RESPONSIVENESS[1]}
        | speed(timings["responsiveness"], RESPONSIVENESS[1]),
    }


def latency(timings: list[Timing], part: str) -> dict:
    """Milliseconds of a sentence: percentiles and the bound; `part` is `hidden` or `total`."""
    seconds, bounds = zip(*(timing[part] for timing in timings), strict=True)
    percentiles = 1000 * np.percentile(seconds, [50, 95, 99])
    return {
        **dict(zip(("median_ms", "p95_ms", "p99_ms"), percentiles.tolist(), strict=True)),
        "repeats": len(timings),
        "bound_ms": 1000 * median(bound.seconds for bound in bounds),
        "bounded_by": mode(bound.by for bound in bounds),
    }


def speed(timings: list[Timing], tokens: int) -> dict:
    """Tokens a second of texts of `tokens` tokens each, by their median time, and the bound."""
    seconds, bounds = zip(*(timing["total"] for timing in timings), strict=True)
    return {
        "tokens_per_second": tokens / median(seconds),
        "bound_tokens_per_second": tokens / median(bound.seconds for bound in bounds),
        "bounded_by": mode(bound.by for bound in bounds),
        "repeats": len(timings),
    }


def compare(gcnn: str, lstm: str, models: dict[str, dict]) -> dict:
    """How many times faster a GCNN is than an LSTM: measured, and by the bounds of both."""
    fast, slow = models[gcnn], models[lstm]

    def ratios(over: dict, under: dict, measured: str, bound: str) -> dict:
        return {"measured": over[measured] / under[measured], "bound": over[bound] / under[bound]}

    def by_length(kind: str) -> dict:
        return {
            n: ratios(slow[kind][n], fast[kind][n], "median_ms", "bound_ms") for n in fast[kind]
        }

    rates = "tokens_per_second", "bound_tokens_per_second"
    return {
        "gcnn": gcnn,
        "lstm": lstm,
        "ratios": by_length("sentences"),
        "ratios_without_softmax": by_length("sentences_without_softmax"),
        "responsiveness": ratios(fast["responsiveness"], slow["responsiveness"], *rates),
        "throughput": ratios(fast["throughput"], slow["throughput"], *rates),
    }
