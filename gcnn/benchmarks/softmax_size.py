"""How the time and memory of a softmax grow with the vocabulary: the adaptive and the full one.

One forward and backward pass is measured. Time: each vocabulary in a process of its own, the two
softmaxes in turns, with memory reused as in training. Memory: each softmax in a process that holds
nothing else and returns freed memory to the system, so that what is needed is measured and not what
is kept.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch

from gcnn.base.provenance import peak_memory_bytes
from gcnn.benchmarks.latency import Zipf
from gcnn.models.adaptive_softmax import AdaptiveSoftmax, FullSoftmax, Softmax
from gcnn.training.run import reuse_large_blocks

VOCABULARIES = (10_000, 25_000, 50_000, 100_000, 200_000, 400_000, 800_000)
# Those below the vocabulary are taken: GCNN-8's, and the last one of the paper's other models.
CUTOFFS = (2_000, 10_000, 50_000, 200_000)
KINDS = ("adaptive", "full")
WARM_UP = 2  # rounds
KEPT = 2  # a heap that reuses its memory takes so many times what is needed


@dataclass(frozen=True)
class Size:
    """The size at which a softmax is measured."""

    vocabulary: int  # types
    hidden_dim: int
    tokens: int  # of the batch
    threads: int  # of torch


class Step:
    """The forward and backward pass of one softmax, `adaptive` or `full`, on one random batch.

    On the CPU in float32. The targets are as frequent as English words (`zipf`). The constructor
    sets torch's random seed.
    """

    def __init__(self, kind: str, size: Size):
        torch.manual_seed(1)
        self.softmax = build(kind, size)
        self.hidden = torch.randn(size.tokens, size.hidden_dim, requires_grad=True)
        self.targets = Zipf(size.vocabulary, seed=1).words(size.tokens)

    def __call__(self) -> float:
        """Run both passes once; returns the seconds of both together."""
        self.softmax.zero_grad()
        self.hidden.grad = None
        start = time.perf_counter()
        self.softmax.nll(self.hidden, self.targets).mean().backward()
        return time.perf_counter() - start


def build(kind: str, size: Size) -> Softmax:
    """A softmax of this kind, `adaptive` or `full`, with random weights and no dropout."""
    if kind == "adaptive":
        return AdaptiveSoftmax(size.hidden_dim, size.vocabulary, cutoffs_of(size.vocabulary))
    return FullSoftmax(size.hidden_dim, size.vocabulary, None, normalised=False, dropout=0.0)


def measure(size: Size, rounds: int, most_bytes: float) -> dict[str, dict]:
    """Measure both softmaxes at a size: {kind: {parameters, seconds, memory_bytes}} for KINDS.

    seconds: median of `rounds` steps (`times`). memory_bytes: the peak (`memory`). Both are None
    for a softmax that may need more than `most_bytes` of memory, which is not run.
    rounds: at least one. Starts processes and waits for them; see `in_own_process` for what that
    asks of the caller, and for errors. Linux only.
    """
    costs = {}
    kinds = []  # those that fit into the memory
    for kind in KINDS:
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build(kind, size).parameters())
        costs[kind] = {"parameters": parameters, "seconds": None, "memory_bytes": None}
        if KEPT * least_bytes(size, kind, parameters) <= most_bytes:
            kinds.append(kind)
    for kind, seconds in in_own_process(partial(times, kinds, size, rounds)).items():
        costs[kind]["seconds"] = seconds
        costs[kind]["memory_bytes"] = in_own_process(partial(memory, kind, size))
    return costs


def least_bytes(size: Size, kind: str, parameters: int) -> int:
    """The bytes of memory that a step of a softmax needs at the least, in float32.

    Counted are the weights and, of the full softmax or of an adaptive one's head, the
    log-probabilities, their gradients and those of the logits.
    kind: `adaptive` or `full`. parameters: the number of its weights.
    """
    head, *clusters = [*cutoffs_of(size.vocabulary), size.vocabulary]
    width = head + len(clusters) if kind == "adaptive" else size.vocabulary
    return 4 * (parameters + 3 * size.tokens * width)


def cutoffs_of(vocabulary: int) -> list[int]:
    """Those of CUTOFFS that are below the vocabulary; without any, there is the head alone."""
    return [cutoff for cutoff in CUTOFFS if cutoff < vocabulary]


def times(kinds: list[str], size: Size, rounds: int) -> dict[str, float]:
    """The median seconds of a `Step` of each kind over `rounds`, after WARM_UP rounds.

    rounds: at least one. The kinds take turns within each. Changes this process for good (torch's
    threads and random seed, how memory is reused), so call it in a process of its own.
    """
    reuse_large_blocks()
    torch.set_num_threads(size.threads)
    steps = {kind: Step(kind, size) for kind in kinds}
    seconds = {kind: [] for kind in kinds}
    for _ in range(WARM_UP + rounds):
        for kind, step in steps.items():
            seconds[kind].append(step())
    return {kind: median(seconds[kind][WARM_UP:]) for kind in kinds}


def memory(kind: str, size: Size) -> int:
    """Peak bytes that two steps of a softmax take: weights, gradients and all in between.

    kind: `adaptive` or `full`. It is what the steps add to this process's peak memory so far, so
    call it in a fresh process: after a higher peak the result is too small, or 0. Sets torch's
    number of threads and random seed.
    """
    torch.set_num_threads(size.threads)
    # A small step first: it loads the libraries, which are not the softmax's memory.
    warm_up = Step(kind, replace(size, vocabulary=3_000, hidden_dim=8, tokens=10))
    warm_up()
    cpu = torch.device("cpu")
    before = peak_memory_bytes(cpu)
    step = Step(kind, size)
    for _ in range(2):
        step()
    return peak_memory_bytes(cpu) - before


def in_own_process(call: Callable[[], Any]) -> Any:
    """Run `call` in a fresh (spawned) process and return its result; waits for it.

    `call` and its result must be picklable. The process imports the main script again: a script
    must call this under `if __name__ == "__main__":`. Raises what `call` raises, and
    BrokenProcessPool if the process is killed, for memory say.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call).result()


def growth(by_vocabulary: dict[str, dict]) -> dict[str, dict[str, float]]:
    """The exponent with which each quantity grows with the vocabulary (1: linearly).

    Returns {kind: {quantity: exponent}} for KINDS and the quantities that `measure` returns, from a
    straight line fitted to logarithms. A quantity with fewer than two values other than None and 0
    is left out.
    by_vocabulary: the number of types, as text, -> what `measure` returns.
    """
    exponents = {kind: {} for kind in KINDS}
    for kind, quantity in product(KINDS, ("parameters", "seconds", "memory_bytes")):
        types = []
        values = []
        for vocabulary, costs in by_vocabulary.items():
            if costs[kind][quantity]:
                types.append(int(vocabulary))
                values.append(costs[kind][quantity])
        if len(types) > 1:
            slope, _ = np.polyfit(np.log(types), np.log(values), deg=1)
            exponents[kind][quantity] = float(slope)
    return exponents
