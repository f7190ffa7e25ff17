"""How the softmax's forward and backward pass grow with the vocabulary: the adaptive one beside the full one.

Every vocabulary is timed in a process of its own, the two softmaxes in turn, with the reuse of memory of training. Each
one's memory is measured in a process that holds nothing else and gives back what it frees: what is needed, not kept.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from gcnn.benchmarks.latency import Zipf
from gcnn.models.adaptive_softmax import AdaptiveSoftmax, FullSoftmax, Softmax
from gcnn.training.run import reuse_large_blocks

VOCABULARIES = (10_000, 25_000, 50_000, 100_000, 200_000, 400_000, 800_000)
CUTOFFS = (
    2_000,
    10_000,
    50_000,
    200_000,
)  # those below the vocabulary: GCNN-8's, and the last of the others
KINDS = ("adaptive", "full")
WARM_UP = 2  # rounds
KEPT = 2  # times what is needed, that a heap which reuses its memory takes of the system


@dataclass(frozen=True)
class Size:
    """What a softmax is measured at."""

    vocabulary: int
    hidden_dim: int
    tokens: int
    threads: int


class Step:
    """The forward and backward pass of one softmax; targets are as frequent as English words."""

    def __init__(self, kind: str, size: Size):
        torch.manual_seed(1)
        self.softmax = build(kind, size)
        self.hidden = torch.randn(size.tokens, size.hidden_dim, requires_grad=True)
        self.targets = Zipf(size.vocabulary, seed=1).words(size.tokens)

    def __call__(self) -> float:
        """Seconds."""
        self.softmax.zero_grad()
        self.hidden.grad = None
        start = time.perf_counter()
        self.softmax.nll(self.hidden, self.targets).mean().backward()
        return time.perf_counter() - start


def build(kind: str, size: Size) -> Softmax:
    if kind == "adaptive":
        return AdaptiveSoftmax(size.hidden_dim, size.vocabulary, cutoffs_of(size.vocabulary))
    return FullSoftmax(size.hidden_dim, size.vocabulary, None, normalised=False, dropout=0.0)


def measure(size: Size, rounds: int, most_bytes: float) -> dict[str, dict]:
    """Parameters, seconds (median) and peak memory of both softmaxes; one that may take more than `most_bytes` of the
    system is not run, and has null for the latter two."""
    costs = {}
    for kind in KINDS:
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build(kind, size).parameters())
        costs[kind] = {"parameters": parameters, "seconds": None, "memory_bytes": None}
    kinds = [
        kind
        for kind in KINDS
        if KEPT * least_bytes(size, kind, costs[kind]["parameters"]) <= most_bytes
    ]
    for kind, seconds in in_own_process(partial(times, kinds, size, rounds)).items():
        costs[kind]["seconds"] = seconds
        costs[kind]["memory_bytes"] = in_own_process(partial(memory, kind, size))
    return costs


def least_bytes(size: Size, kind: str, parameters: int) -> int:
    """The weights, and the largest layer's log-probabilities with the gradients of these and of the logits."""
    cutoffs = cutoffs_of(size.vocabulary)
    width = cutoffs[0] + len(cutoffs) if kind == "adaptive" else size.vocabulary
    return 4 * (parameters + 3 * size.tokens * width)


def cutoffs_of(vocabulary: int) -> list[int]:
    return [cutoff for cutoff in CUTOFFS if cutoff < vocabulary]


def times(kinds: list[str], size: Size, rounds: int) -> dict[str, float]:
    """The median of each softmax's seconds; within a round each has its turn."""
    reuse_large_blocks()
    torch.set_num_threads(size.threads)
    steps = {kind: Step(kind, size) for kind in kinds}
    seconds = [{kind: step() for kind, step in steps.items()} for _ in range(WARM_UP + rounds)]
    return {kind: median(of_round[kind] for of_round in seconds[WARM_UP:]) for kind in kinds}


def memory(kind: str, size: Size) -> int:
    """Peak bytes of one softmax: its weights, their gradients and all that two passes hold."""
    torch.set_num_threads(size.threads)
    Step(
        kind, replace(size, vocabulary=3_000, hidden_dim=8, tokens=10)
    )()  # libraries come to memory as they are used
    before = peak_resident_bytes()
    step = Step(kind, size)
    for _ in range(2):
        step()
    return peak_resident_bytes() - before


def peak_resident_bytes() -> int:
    """Of this program alone; `getrusage` would count in what ran before it in its process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def in_own_process(call: Callable[[], Any]) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call).result()


def growth(by_vocabulary: dict[str, dict]) -> dict[str, dict[str, float]]:
    """The exponents of growth with the vocabulary, kind by kind: slopes in log-log; 1 is linear."""
    exponents = {kind: {} for kind in KINDS}
    for kind, quantity in product(KINDS, ("parameters", "seconds", "memory_bytes")):
        points = [
            (int(n), entry[kind][quantity])
            for n, entry in by_vocabulary.items()
            if entry[kind][quantity]
        ]
        if len(points) > 1:
            exponents[kind][quantity] = float(
                np.polyfit(*np.log(np.array(points, float)).T, deg=1)[0]
            )
    return exponents
