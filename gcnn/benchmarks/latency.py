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

from gcnn.benchmarks.bounds import Bound, Clock, Machine, now, work_of
from gcnn.models.gcnn import GCNN
from gcnn.models.inference import prepare_for_inference
from gcnn.models.language_model import LanguageModel, zipf
from gcnn.models.lstm import LSTM

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


# Of scoring one text: "hidden" (the encoder alone) and "total" (with the softmax), each with the
# measured seconds and the least time that the machine allows.
Timing = dict[str, tuple[float, Bound]]


@dataclass
class Candidate:
    """A model to measure, which is not loaded yet."""

    name: str
    description: str
    load: Callable[[], LanguageModel]  # makes the model, on the CPU
    # Lay out an LSTM's weights once; False: torch.nn.LSTM does so at every call.
    packed_lstm: bool = False


class Subject:
    """A candidate that is loaded and ready for inference, with its measurements."""

    def __init__(self, candidate: Candidate, machine: Machine):
        """Load the model onto the machine's device in its precision and prepare it for inference.

        `load_seconds` is the time of all this. The model cannot be trained afterwards.
        """
        start = now(machine.device)
        self.name = candidate.name
        self.description = candidate.description
        self.model = candidate.load().to(machine.device, machine.dtype)
        self.parameters = self.model.parameter_counts()["total"]
        prepare_for_inference(self.model, candidate.packed_lstm)
        self.load_seconds = now(machine.device) - start
        self.timings: dict[int | str, list[Timing]] = {}  # by sentence length or protocol


class Zipf:
    """Random texts with words as frequent as `zipf` says.

    The same seed and the same calls give the same texts. All tensors are on the CPU.
    """

    def __init__(self, vocabulary_size: int, seed: int):
        self.cumulative = zipf(vocabulary_size).cumsum(0).numpy()
        self.random = np.random.default_rng(seed)

    def words(self, *shape: int) -> Tensor:
        """Random ids of this shape, int64, on the CPU; the id 0 is the most frequent word's."""
        places = self.random.random(shape) * self.cumulative[-1]
        return torch.from_numpy(np.searchsorted(self.cumulative, places))

    def sentence(self, length: int) -> tuple[Tensor, Tensor]:
        """Tokens `<eos> w1 .. wn` and targets `w1 .. wn <eos>`, each (1, length + 1)."""
        words = self.words(1, length)
        eos = torch.full((1, 1), EOS)
        return torch.cat([eos, words], dim=1), torch.cat([words, eos], dim=1)

    def text(self, sequences: int, length: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets (the next tokens) of running text, each (sequences, length)."""
        words = self.words(sequences, length + 1)
        return words[:, :-1], words[:, 1:]


def benchmark(
    groups: list[list[Candidate]],
    machine: Machine,
    repeats: int = 100,
    long_repeats: int = 3,
    seed: int = 1,
) -> dict:
    """Measure groups of models and return the benchmark's JSON.

    Its keys are device (cpu or cuda), threads, precision, models (name -> `report`), pairs and
    rates of the machine: flops_per_second, read_bytes_per_second, and all `measured`. pairs has
    `compare` of each GCNN with each LSTM of its group.
    groups: the models of a group, at least one, are in memory together and take turns; they must
    have the same vocabulary size. Names must differ over all groups.
    repeats: timed rounds for each sentence length. long_repeats: rounds of Table 4's protocol. Both
    are at least 1. seed: of the random texts. Logs progress.
    """
    models = {}
    pairs = []
    for group in groups:
        log.info("loading %s", ", ".join(candidate.name for candidate in group))
        subjects = [Subject(candidate, machine) for candidate in group]
        measure(subjects, machine, repeats, long_repeats, seed)
        models |= {subject.name: report(subject) for subject in subjects}
        lstms = [subject.name for subject in subjects if isinstance(subject.model.encoder, LSTM)]
        gcnns = [subject.name for subject in subjects if isinstance(subject.model.encoder, GCNN)]
        pairs += [compare(gcnn, lstm, models) for gcnn in gcnns for lstm in lstms]
        del subjects  # before the next group is loaded, which needs the memory
    return {
        "device": machine.device.type,
        "threads": torch.get_num_threads(),
        "precision": str(machine.dtype).removeprefix("torch."),
        "rates": {
            "flops_per_second": machine.flops_per_second(),
            "read_bytes_per_second": machine.read_bytes_per_second(machine.sizes.large),
            "measured": machine.measured,
        },
        "models": models,
        "pairs": pairs,
    }


@torch.inference_mode()
def measure(
    subjects: list[Subject], machine: Machine, repeats: int, long_repeats: int, seed: int
) -> None:
    """Measure models on the same texts and add to their `timings`, which must be empty.

    The keys are the LENGTHS (`repeats` timings each, after WARM_UP that are dropped), `throughput`
    and `responsiveness` (`long_repeats` each). The models take turns within every round, so that
    all meet the same disturbances. They must have the same vocabulary size.
    machine: the one that they were loaded onto. seed: of the random texts.
    """
    source = Zipf(subjects[0].model.vocabulary_size, seed)
    for length in LENGTHS:
        texts = [source.sentence(length) for _ in range(WARM_UP + repeats)]
        take_turns(subjects, machine, length, texts)
        for subject in subjects:
            del subject.timings[length][:WARM_UP]
    for protocol, shape in (("throughput", THROUGHPUT), ("responsiveness", RESPONSIVENESS)):
        texts = [source.text(*shape) for _ in range(long_repeats)]
        take_turns(subjects, machine, protocol, texts)


def take_turns(
    subjects: list[Subject], machine: Machine, kind: int | str, texts: list[tuple[Tensor, Tensor]]
) -> None:
    """Have every model score every text, and append the results to its `timings[kind]`.

    kind: a sentence length in words, `throughput` or `responsiveness`. texts: tokens and targets of
    each, as in `score`; a text is a round. Each round begins with the next model, so that none
    always finds the caches in the same state. Logs a line. Call it in inference mode.
    """
    title = f"sentences of {kind} words" if isinstance(kind, int) else kind
    log.info("%s, %d rounds", title, len(texts))
    for i, (tokens, targets) in enumerate(texts):
        first = i % len(subjects)
        for subject in subjects[first:] + subjects[:first]:
            timing = score(subject.model, tokens, targets, machine)
            subject.timings.setdefault(kind, []).append(timing)


def score(model: LanguageModel, tokens: Tensor, targets: Tensor, machine: Machine) -> Timing:
    """Score a text once; returns the seconds that it took and the least possible (see Timing).

    tokens, targets: (batch, time) on the CPU. Long texts are scored in blocks with the state
    carried, from a state of zeros. On a GPU the host waits before the first block and after the
    last, not between them. Call it in inference mode.
    """
    device = machine.device
    clock = Clock(device)
    block_size = BLOCK[device.type]
    token_blocks = tokens.to(device).split(block_size, dim=1)
    target_blocks = targets.split(block_size, dim=1)  # the clusters' rows are found on the CPU
    state = None
    hidden_marks = []
    nats = []
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

    hidden_seconds = sum(clock.seconds(*marks) for marks in hidden_marks)
    total_seconds = clock.seconds(start, end)
    return {
        "hidden": (hidden_seconds, machine.bound(work_of(model, targets, softmax=False))),
        "total": (total_seconds, machine.bound(work_of(model, targets))),
    }


def report(subject: Subject) -> dict:
    """The JSON of a model that `measure` has measured.

    Keys: description, parameters (the total), load_seconds; sentences and
    sentences_without_softmax, by length in words as text, each a `latency`; throughput and
    responsiveness, Table 4's protocols, each a `speed` with the size of its text: `sequences` and
    their `length` in tokens, or `tokens`.
    """
    timings = subject.timings
    sequences, length = THROUGHPUT
    throughput = speed(timings["throughput"], sequences * length)
    _, tokens = RESPONSIVENESS
    responsiveness = speed(timings["responsiveness"], tokens)
    return {
        "description": subject.description,
        "parameters": subject.parameters,
        "load_seconds": subject.load_seconds,
        "sentences": {str(n): latency(timings[n], "total") for n in LENGTHS},
        "sentences_without_softmax": {str(n): latency(timings[n], "hidden") for n in LENGTHS},
        "throughput": {"sequences": sequences, "length": length, **throughput},
        "responsiveness": {"tokens": tokens, **responsiveness},
    }


def latency(timings: list[Timing], part: str) -> dict:
    """The JSON of sentences of one length: milliseconds a sentence, and what bounds them.

    Keys: median_ms, p95_ms and p99_ms (percentiles), bound_ms (the median bound), bounded_by (what
    bounds most often) and repeats (the number of timings, at least one).
    part: `hidden` (the encoder alone) or `total` (with the softmax).
    """
    seconds = [timing[part][0] for timing in timings]
    bounds = [timing[part][1] for timing in timings]
    median_ms, p95_ms, p99_ms = (1000 * np.percentile(seconds, [50, 95, 99])).tolist()
    return {
        "median_ms": median_ms,
        "p95_ms": p95_ms,
        "p99_ms": p99_ms,
        "repeats": len(timings),
        "bound_ms": 1000 * median(bound.seconds for bound in bounds),
        "bounded_by": mode(bound.by for bound in bounds),
    }


def speed(timings: list[Timing], tokens: int) -> dict:
    """The JSON of one protocol: tokens a second by the median time, with the softmax.

    Keys: tokens_per_second, bound_tokens_per_second (by the median bound), bounded_by (what bounds
    most often) and repeats (the number of timings, at least one).
    tokens: those of each text, all sequences together.
    """
    seconds = [timing["total"][0] for timing in timings]
    bounds = [timing["total"][1] for timing in timings]
    return {
        "tokens_per_second": tokens / median(seconds),
        "bound_tokens_per_second": tokens / median(bound.seconds for bound in bounds),
        "bounded_by": mode(bound.by for bound in bounds),
        "repeats": len(timings),
    }


def compare(gcnn: str, lstm: str, models: dict[str, dict]) -> dict:
    """How many times faster a GCNN is than an LSTM: measured, and by the bounds of both.

    Keys: gcnn, lstm (their names); ratios and ratios_without_softmax, of sentences by length in
    words as text; responsiveness and throughput, the protocols of Table 4. Each ratio is
    {"measured": ratio, "bound": ratio}, above 1 if the GCNN is faster.
    gcnn, lstm: names in `models`, which has the `report` of each.
    """
    gcnn_report = models[gcnn]
    lstm_report = models[lstm]

    def ratios(over: dict, under: dict, measured: str, bound: str) -> dict:
        return {"measured": over[measured] / under[measured], "bound": over[bound] / under[bound]}

    def by_length(kind: str) -> dict:
        """The ratios of milliseconds; kind is a key of `report` with sentences by length."""
        found = {}
        for n in gcnn_report[kind]:  # milliseconds, not rates: the LSTM's come first
            found[n] = ratios(lstm_report[kind][n], gcnn_report[kind][n], "median_ms", "bound_ms")
        return found

    def by_rates(protocol: str) -> dict:
        """The ratios of tokens a second of one of Table 4's protocols."""
        reports = gcnn_report[protocol], lstm_report[protocol]
        return ratios(*reports, "tokens_per_second", "bound_tokens_per_second")

    return {
        "gcnn": gcnn,
        "lstm": lstm,
        "ratios": by_length("sentences"),
        "ratios_without_softmax": by_length("sentences_without_softmax"),
        "responsiveness": by_rates("responsiveness"),
        "throughput": by_rates("throughput"),
    }
