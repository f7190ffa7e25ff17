"""The least time in which a machine could score a text with a model (a roofline bound).

Operations and bytes are counted, and divided by rates that are measured on the machine. A text
takes at least the larger of

- the operations of its products with weights (those within attention are left out), at the rate of
  the fastest product, of few rows or many, and
- the bytes of all weights that it touches, each read once (an embedding for each token), at the
  rate of reading an array far larger than the caches.

An LSTM's recurrent products wait for one another, so each token reads the recurrent weights again.
They are counted apart, once a token, at the rate of reading an array of their size repeatedly: from
a cache where they fit into one, else from memory.
"""

import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from gcnn.models.inference import prepare_for_inference
from gcnn.models.language_model import LanguageModel
from gcnn.models.layers import weight_count


@dataclass(frozen=True)
class Sizes:
    """What a device's rates are measured on."""

    large: int  # bytes of an array that fits no cache
    channels: int  # of the product whose rate counts
    rows: tuple[int, ...]  # of the product that are tried: those of a sentence, of a large batch


SIZES = {
    "cpu": Sizes(1 << 29, 2048, (21, 2048)),
    "cuda": Sizes(1 << 32, 8192, (21, 8192)),  # smaller products keep no GPU busy
}


@dataclass(frozen=True)
class Work:
    """Operations of products with weights, and bytes of these, that scoring a text takes at least.

    Those of an LSTM's recurrence are counted apart, since its steps wait for one another.
    """

    flops: int  # without the recurrence
    bytes: int  # without the recurrence; each weight once, but an embedding for each token
    steps: int = 0  # of the recurrence; 0: there is none
    step_flops: int = 0  # of one step
    step_bytes: int = 0  # of one step


@dataclass(frozen=True)
class Bound:
    """A least time, and the part of the work that takes most of it."""

    seconds: float
    by: str  # the part, as a phrase for readers


@dataclass
class Machine:
    """A device's rates at one precision, each measured on first use (about a second) and kept.

    Measuring products draws from torch's random state.
    """

    device: torch.device
    dtype: torch.dtype  # of the matrix products
    measured: dict[str, float] = field(default_factory=dict)  # rates by what was measured
    sizes: Sizes | None = None  # None: those of SIZES for the device

    def __post_init__(self):
        self.sizes = self.sizes or SIZES[self.device.type]

    def flops_per_second(self) -> float:
        """Floating-point operations a second: the fastest matrix product of those in `sizes`."""
        rates = []
        for rows in self.sizes.rows:
            rates.append(self._rate(f"product of {rows} rows", partial(self._multiply, rows)))
        return max(rates)

    def read_bytes_per_second(self, size: int) -> float:
        """Bytes a second of reading an array of `size` bytes repeatedly."""
        return self._rate(f"read of {size} bytes", partial(self._read, size))

    def bound(self, work: Work) -> Bound:
        """The least seconds for some work, and what takes most of them.

        An LSTM's recurrence comes after the other products. Within each of the two, computing and
        reading overlap, so that the slower one counts. Measures the rates that are not known yet.
        """
        parallel = {
            "matrix products": work.flops / self.flops_per_second(),
            "reading weights": work.bytes / self.read_bytes_per_second(self.sizes.large),
        }
        slowest = max(parallel, key=parallel.get)
        if not work.steps:
            return Bound(parallel[slowest], slowest)
        step_bytes = work.steps * work.step_bytes
        recurrence = {
            "recurrent products": work.steps * work.step_flops / self.flops_per_second(),
            "rereading recurrent weights": step_bytes / self.read_bytes_per_second(work.step_bytes),
        }
        slowest_step = max(recurrence, key=recurrence.get)
        seconds = parallel[slowest] + recurrence[slowest_step]
        if parallel[slowest] > recurrence[slowest_step]:
            return Bound(seconds, slowest)
        return Bound(seconds, slowest_step)

    def _rate(self, name: str, measure: Callable[[], float]) -> float:
        """The rate of this name; calls `measure` where it is not known yet."""
        if name not in self.measured:
            self.measured[name] = measure()
        return self.measured[name]

    def _multiply(self, rows: int) -> float:
        """FLOP/s of the product of (rows, channels) and (channels, channels); measures it.

        The channels are those of `sizes`. Where oneDNN packs weights (`packable`), it is the faster
        of torch's own product and the one with packed weights.
        """
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
        """Bytes a second of summing an array of `size` bytes of float32."""
        array = torch.ones(size // 4, device=self.device)
        return array.nbytes / least_seconds(array.sum, self.device)


@torch.inference_mode()
def least_seconds(call: Callable[[], object], device: torch.device) -> float:
    """The seconds of the shortest of eleven calls, in inference mode; each waits for the device."""
    seconds = timeit.repeat(call, timer=partial(now, device), repeat=11, number=1)
    return min(seconds)  # the first call warms up, and is never the shortest


class Clock:
    """Points in time in a device's work, and the seconds between two of them.

    On a GPU, which must be torch's current one, `mark` does not wait: it records an event in the
    current stream. Wait for the device before `seconds` is called.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def mark(self) -> "float | torch.cuda.Event":
        """A mark after all work given so far: an event on a GPU, otherwise the time now."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def seconds(start: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> float:
        """Seconds between two marks; a GPU must have reached the second one."""
        if isinstance(start, float):
            return end - start
        return start.elapsed_time(end) / 1000


def now(device: torch.device) -> float:
    """Seconds on a monotonic clock; first waits until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def work_of(model: LanguageModel, targets: Tensor, softmax: bool = True) -> Work:
    """The work of scoring a text with a model, counted and not measured.

    targets: ids, (batch, time), none of them IGNORE; they decide which clusters of an adaptive
    softmax are computed. softmax: False counts the encoder alone.
    Each weight takes as many bytes as one of the embedding. A row of the embedding is read for each
    token, even if the same row was read before. Of the softmax, the head is read, and the clusters
    that `targets` need. The products within a Transformer's attention have no weights, and are left
    out.
    """
    encoder = model.encoder
    embedding = encoder.embedding.weight
    recurrent = encoder.recurrent_macs()
    weights = weight_count(encoder)  # not `macs`, which counts attention's products, too
    if recurrent:
        weights = encoder.macs() - recurrent  # `weight_count` leaves out an nn.LSTM
    macs = weights * targets.numel()  # multiply-accumulates, two operations each
    weights_read = weights
    if softmax:
        rows_of_parts = [targets.numel()]  # of the head, then of each cluster
        for indices in model.softmax.cluster_indices(targets):
            rows_of_parts.append(len(indices))
        for count, rows in zip(model.softmax.weight_counts(), rows_of_parts, strict=True):
            macs += count * rows
            if rows:
                weights_read += count
    size = embedding.element_size()
    looked_up = embedding.size(1) * targets.numel()
    parallel = Work(flops=2 * macs, bytes=size * (weights_read + looked_up))
    if not recurrent:
        return parallel
    batch, steps = targets.shape
    return replace(
        parallel, steps=steps, step_flops=2 * batch * recurrent, step_bytes=size * recurrent
    )
