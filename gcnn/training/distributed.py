"""Several processes, started by torchrun, that train one model: who they are, and what they tell each other.

Every function also works in one process, where it does next to nothing.
"""

import contextlib
import datetime
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gcnn.base import torchrun
from gcnn.base.errors import UsageError
from gcnn.models.language_model import LanguageModel, State
from gcnn.training.signals import SIGNALS

TIMEOUT = datetime.timedelta(hours=1)  # the others wait while rank 0 evaluates at the end


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's processes, by gloo on CPUs and NCCL on GPUs; nothing where there is one process. Raises
    UsageError where the environment says that there are several and not how to find them."""
    if torchrun.world_size() == 1:
        yield
        return
    if unset := [name for name in torchrun.RENDEZVOUS if not os.environ.get(name)]:
        raise UsageError(
            f"WORLD_SIZE is {torchrun.world_size()}, but {', '.join(unset)} is not set. Start with torchrun, or unset "
            "WORLD_SIZE to train in one process."
        )
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(torchrun.local_rank())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    if rank() > 0:
        logging.getLogger("gcnn").setLevel(logging.ERROR)  # rank 0 says the rest
    yield
    wait_for_all()  # rank 0 still measures
    dist.destroy_process_group()


@contextlib.contextmanager
def first_of_each_machine() -> Iterator[None]:
    """Let one process of each machine do something before the others do it: they find its files."""
    first = torchrun.local_rank() == 0
    if not first:
        wait_for_all()
    yield
    if first:
        wait_for_all()


def wait_for_all() -> None:
    if world_size() > 1:
        dist.barrier()


def from_rank_0(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, of one shape, on every rank: a list of one a rank."""
    if world_size() == 1:
        return [tensor]
    tensor = (
        tensor.contiguous()
    )  # gloo takes memory as it lies, and an LSTM's state lies layers first
    tensors = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(tensors, tensor)
    return tensors


def share_status(loss: Tensor, seconds: float, received: int | None) -> Tensor:
    """What ranks must know to go on alike, in one collective on the loss's device: the sum of their losses, rank 0's
    seconds, and how many ranks received each of SIGNALS; (2 + signals,), float64."""
    own = [seconds * (rank() == 0), *(received == number for number in SIGNALS)]
    status = torch.cat(
        [
            loss.double()[None],
            torch.tensor(own, dtype=torch.float64).to(loss.device, non_blocking=True),
        ]
    )
    if world_size() > 1:
        dist.all_reduce(status)
    return status


def wait_for_status(
    status: Tensor, norm: Tensor
) -> tuple[float, float, float, list[signal.Signals]]:
    """Wait for the device: loss, gradient norm, seconds, and the signals that any rank received.

    `status` is as `share_status` returns it.
    """
    loss, seconds, *ranks, norm = torch.cat([status, norm.double()[None]]).tolist()
    signals = []
    for number, ranks_that_got_it in zip(SIGNALS, ranks, strict=True):
        if ranks_that_got_it:
            signals.append(number)
    return loss, norm, seconds, signals


class Loss(nn.Module):
    """The summed loss of a micro-batch in one forward pass, for DistributedDataParallel and the compiler."""

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, targets: Tensor, rows: list[Tensor], state: State | None
    ) -> tuple[Tensor, State]:
        """tokens, targets (batch, time), and the targets' rows -> nats, and the state after them: copies, for views
        would keep whole activations."""
        hidden, state = self.model(tokens, state)
        return self.model.nll(hidden, targets, rows).sum(), [
            tensor.detach().clone() for tensor in state
        ]
