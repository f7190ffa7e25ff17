"""The least time that a machine would allow a model: counted operations and bytes at the machine's measured rates.

A text takes at least the larger of

- the operations of its matrix products, at the rate of the fastest product, of few rows or many, and
- the bytes of all weights that it touches, each read once, at the rate of reading an array far larger than caches.

An LSTM's recurrent products wait for one another, so that each token reads the recurrent weights again. They are
counted apart, once a token, at the rate of reading an array of their size again and again: out of a cache where they
fit one, else out of memory.
"""

import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from gcnn.models.inference import prepare_for_inference
from gcnn.models.language_model import LanguageModel


@dataclass(frozen=True)
class Sizes:
    """What a device's rates are measured on."""

    large: int  # bytes of an array that fits no cache
    channels: int  # of the product whose rate counts
    rows: tuple[int, ...]  # of it: a sentence, a large batch


SIZES = {
    "cpu": Sizes(1 << 29, 2048, (21, 2048)),
    "cuda": Sizes(1 << 32, 8192, (21, 8192)),  # smaller products keep no GPU busy
}


@dataclass(frozen=True)
class Work:
    """What scoring a text takes: products of all its tokens together, and those of an LSTM token by token."""

    flops: int
    bytes: int
    steps: int = 0
    step_flops: int = 0
    step_bytes: int = 0


@dataclass(frozen=True)
class Bound:
    seconds: float
    by: str  # what takes most of them


@dataclass
class Machine:
    """A device's rates at one precision, each measured when it is first asked for."""

    device: torch.device
    dtype: torch.dtype
    measured: dict[str, float] = field(default_factory=dict)
    sizes: Sizes | None = None  # None: those of the device

    def __post_init__(self):
        self.sizes = self.sizes or SIZES[self.device.type]

    def flops(self) -> float:
        """Floating-point operations a second of the fastest matrix product."""
        return max(
            self._rate(f"product of {rows} rows", lambda n=rows: self._multiply(n))
            for rows in self.sizes.rows
        )

    def read_rate(self, size: int) -> float:
        """Bytes a second of reading an array of `size` bytes again and again."""
        return self._rate(f"read of {size} bytes", lambda: self._read(size))

    def bound(self, work: Work) -> Bound:
        """The least time for some work, and what takes most of it."""
        parallel = {
            "matrix products": work.flops / self.flops(),
            "reading weights": work.bytes / self.read_rate(self.sizes.large),
        }
        by = max(parallel, key=parallel.get)
        if not work.steps:
            return Bound(parallel[by], by)
        one_by_one = {
            "recurrent products": work.steps * work.step_flops / self.flops(),
            "rereading recurrent weights": work.steps
            * work.step_bytes
            / self.read_rate(work.step_bytes),
        }
        then = max(one_by_one, key=one_by_one.get)
        return Bound(
            parallel[by] + one_by_one[then], by if parallel[by] > one_by_one[then] else then
        )

    def _rate(self, name: str, measure: Callable[[], float]) -> float:
        if name not in self.measured:
            self.measured[name] = measure()
        return self.measured[name]

    def _multiply(self, rows: int) -> float:
        """The better of torch's own product and the packed one."""
        channels = self.sizes.channels
        layer = nn.Linear(channels, channels, bias=False).to(self.device, self.dtype)
        packed = nn.Sequential(layer)
        prepare_for_inference(packed)
        inputs = torch.ones(rows, channels, device=self.device, dtype=self.dtype)
        seconds = min(
            least_seconds(partial(product, inputs), self.device) for product in (layer, packed)
        )
        return 2 * rows * channels**2 / seconds

    def _read(self, size: int) -> float:
        array = torch.ones(size // 4, device=self.device)
        return array.nbytes / least_seconds(array.sum, self.device)


@torch.inference_mode()
def least_seconds(call: Callable[[], object], device: torch.device) -> float:
    return min(
        timeit.repeat(call, timer=partial(now, device), repeat=11, number=1)
    )  # the first one warms up


class Clock:
    """Marks in the course of a device's work. On a GPU they are events in its stream: the host goes on at once, and
    reads them when it has waited for the last one."""

    def __init__(self, device: torch.device):
        self.device = device

    def mark(self) -> "float | torch.cuda.Event":
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def seconds(start: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> float:
        """Between two marks, of which the device has passed the second."""
        if isinstance(start, float):
            return end - start
        return start.elapsed_time(end) / 1000


def now(device: torch.device) -> float:
    """Seconds on a clock that waits for what the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def work(model: LanguageModel, targets: Tensor, softmax: bool = True) -> Work:
    """What scoring `targets` (batch, time) takes, with or without the softmax; matrix products only."""
    encoder, embedding = model.encoder, model.encoder.embedding.weight
    recurrent = encoder.recurrent_macs()
    weights = encoder.macs() - recurrent
    macs = weights * targets.numel()
    if softmax:
        rows_of_parts = [
            targets.numel(),
            *map(len, model.softmax.rows(targets)),
        ]  # of the head and of each cluster
        for count, rows in zip(model.softmax.weight_counts(), rows_of_parts, strict=True):
            macs += count * rows
            weights += count if rows else 0
    size, looked_up = embedding.element_size(), embedding.size(1) * targets.numel()
    batch, steps = targets.shape
    sequential = (steps, 2 * batch * recurrent, size * recurrent) if recurrent else ()
    return Work(2 * macs, size * (weights + looked_up), *sequential)
