"""Training by several processes that torchrun starts: their group, ranks, and what they share.

Every function also works in one process, where it does next to nothing. In several, those that
share or wait are collective: all processes must call them, in the same order.
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
    """The number of this process, from 0; 0 outside `process_group`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes; 1 outside `process_group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's processes for the time of a `with`; does nothing for a single one.

    Uses gloo on CPUs and NCCL on GPUs; makes this process's GPU the current one. Ranks other than 0
    log errors alone from then on. A process that waits longer than TIMEOUT for another one fails.
    At the end it waits for all, and leaves the group; where the body raises, it does neither.
    Raises UsageError where WORLD_SIZE says that there are several processes and torchrun's other
    variables are missing.
    """
    if torchrun.world_size() == 1:
        yield
        return
    unset = [name for name in torchrun.RENDEZVOUS if not os.environ.get(name)]
    if unset:
        raise UsageError(
            f"WORLD_SIZE is {torchrun.world_size()}, but {', '.join(unset)} is not set. "
            "Start with torchrun, or unset WORLD_SIZE to train in one process."
        )
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(torchrun.local_rank())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    if rank() > 0:
        logging.getLogger("gcnn").setLevel(logging.ERROR)  # rank 0 logs the rest
    yield
    wait_for_all()  # rank 0 evaluates for longer
    dist.destroy_process_group()


@contextlib.contextmanager
def first_of_each_machine() -> Iterator[None]:
    """Run the body of a `with` in one process of each machine, then in the others.

    What the first writes (caches) is then there for the others of that machine. All processes must
    enter it; where the first one's body raises, the others wait until torchrun ends them.
    """
    first = torchrun.local_rank() == 0
    if not first:
        wait_for_all()
    yield
    if first:
        wait_for_all()


def wait_for_all() -> None:
    """Wait until all processes have called this."""
    if world_size() > 1:
        dist.barrier()


def from_rank_0(value: Any) -> Any:
    """Rank 0's value, on every rank; all ranks must call it. In one process, `value` itself.

    Others' values are ignored; it is pickled on the way.
    """
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, in their order, on every rank; all have the same shape.

    In one process the list holds `tensor` itself, not a copy.
    """
    if world_size() == 1:
        return [tensor]
    # gloo ignores strides, and an LSTM's state is transposed
    tensor = tensor.contiguous()
    tensors = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(tensors, tensor)
    return tensors


def share_status(loss: Tensor, seconds: float, received: int | None) -> Tensor:
    """Share what all ranks must know to go on alike, in one collective on the loss's device.

    `loss` () is this rank's summand; `seconds` counts on rank 0 alone; `received` is the signal
    that this rank got, None: none. Returns, for `wait_for_status`, a float64 tensor
    (2 + len(SIGNALS),) on that device, which is not waited for: the sum of the losses, rank 0's
    seconds, and for each of SIGNALS how many ranks received it.
    """
    own = [seconds if rank() == 0 else 0.0]  # the sum is then rank 0's
    for number in SIGNALS:
        own.append(received == number)
    on_device = torch.tensor(own, dtype=torch.float64).to(loss.device, non_blocking=True)
    status = torch.cat([loss.double()[None], on_device])
    if world_size() > 1:
        dist.all_reduce(status)  # in place: `status` then has the sums over ranks
    return status


def wait_for_status(
    status: Tensor, norm: Tensor
) -> tuple[float, float, float, list[signal.Signals]]:
    """Wait for the device; returns loss, gradient norm, seconds, and the signals of all ranks.

    `status` is as `share_status` returns it, `norm` () the gradients' norm on the same device. The
    loss is the sum over ranks and the seconds are rank 0's, so that all ranks get the same values.
    Signals that several ranks received are listed once, in the order of SIGNALS.
    """
    # One copy from the device, of all values together
    loss, seconds, *receivers, norm = torch.cat([status, norm.double()[None]]).tolist()
    signals = []
    for number, ranks_that_got_it in zip(SIGNALS, receivers, strict=True):
        if ranks_that_got_it:
            signals.append(number)
    return loss, norm, seconds, signals


class Loss(nn.Module):
    """Model and softmax in one module: the summed loss of a micro-batch.

    DistributedDataParallel and torch.compile take a module whose `forward` gives the loss.
    """

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, targets: Tensor, cluster_indices: list[Tensor], state: State | None
    ) -> tuple[Tensor, State]:
        """tokens, targets (batch, time) -> total nats () of the targets, state after the tokens.

        `targets` that are IGNORE (data/batches.py) count 0; `cluster_indices` is what
        `softmax.cluster_indices(targets)` returns. All are on the model's device. `state` is that
        before `tokens`, None: zeros. The state that is returned is detached and a copy: views would
        keep whole activations.
        """
        hidden, state = self.model(tokens, state)
        nats = self.model.nll(hidden, targets, cluster_indices).sum()
        return nats, [tensor.detach().clone() for tensor in state]
