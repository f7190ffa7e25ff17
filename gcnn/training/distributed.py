"""Training by several processes that torchrun starts: their group, ranks, and what they share.

Every function also works in one process, where it does next to nothing. In several, those that
share values or wait for other processes are collective: all must call them, in the same order.
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
def process_group(device: str) -> Iterator[None]:
    """Join torchrun's processes for the time of a `with`; does nothing for a single process.

    device: the config's: auto, cpu or cuda. Uses gloo, and where it trains on GPUs NCCL as well; it
    then makes this process's GPU the current one. Ranks above 0 log nothing but errors from then
    on, also after the body. A process that waits longer than TIMEOUT for another one fails. After
    the body it waits for all and leaves the group; if the body raises, it does neither. Raises
    UsageError if WORLD_SIZE is above 1 but other variables of torchrun are missing, and if the
    machine has fewer GPUs than processes that would train on them.
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
    if device != "cpu" and torch.cuda.is_available():
        processes = torchrun.local_world_size()
        gpus = torch.cuda.device_count()
        if processes > gpus:
            raise UsageError(
                f"device is {device}, and {processes} processes of this machine have {gpus} GPUs; "
                "start one process a GPU, or set device=cpu."
            )
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
    """Run the body of a `with` in one process of each machine first, then in the others.

    What the first one writes to a cache is then there for the others of its machine. All processes
    must enter it. If the first one's body raises, the others wait until torchrun ends them.
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

    The values of other ranks are ignored. Rank 0's must be picklable: the others get a copy.
    """
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, in the order of the ranks, on every rank; all ranks must call it.

    All have the same shape and dtype. In one process the list holds `tensor` itself, not a copy.
    """
    if world_size() == 1:
        return [tensor]
    # gloo ignores strides, and an LSTM's state is transposed
    tensor = tensor.contiguous()
    tensors = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(tensors, tensor)
    return tensors


def gathered_state(state: State | None) -> State | None:
    """The carried states of all ranks, joined along the batch in the order of the ranks.

    All ranks must call it, each with its own. None where theirs are None: all of them or none.
    """
    if state is None:
        return None
    return [torch.cat(all_gather(part)) for part in state]


def signal_of_any(received: int | None) -> int | None:
    """The highest number of the signals that the ranks received; None if none did.

    All ranks must call it, and get the same. received: this rank's signal; None: none.
    """
    numbers = [int(number) for number in all_gather(torch.tensor(received or 0))]
    return max(numbers) or None


def share_status(
    loss: Tensor, total_seconds: float, checkpoint_due: bool, received: int | None
) -> Tensor:
    """Share what all ranks must know to go on alike, in one collective on the loss's device.

    loss: (), this rank's part of the loss over all ranks. total_seconds: of training until now.
    checkpoint_due: by the clock. Rank 0's values of these two count, those of others are ignored.
    received: this rank's signal, one of SIGNALS; None: none.
    Returns a float64 tensor (3 + len(SIGNALS),) on that device, for `wait_for_status`: the sum of
    the losses, rank 0's seconds, 1 if its checkpoint is due, and for each of SIGNALS how many ranks
    received it. The host does not wait for it.
    """
    own = [0.0, 0.0]  # other ranks add nothing: the sums are rank 0's
    if rank() == 0:
        own = [total_seconds, checkpoint_due]
    for number in SIGNALS:
        own.append(received == number)
    on_device = torch.tensor(own, dtype=torch.float64).to(loss.device, non_blocking=True)
    status = torch.cat([loss.double()[None], on_device])
    if world_size() > 1:
        dist.all_reduce(status)  # in place: `status` then has the sums over ranks
    return status


def wait_for_status(
    status: Tensor, norm: Tensor
) -> tuple[float, float, float, bool, list[signal.Signals]]:
    """Read a status: loss, gradient norm, seconds, whether a checkpoint is due, signals.

    status: as `share_status` returns it. norm: (), of the gradients, on the same device.
    Waits for the device; not collective. All ranks get the same values: the loss is the sum over
    ranks, seconds and checkpoint are rank 0's. The signals that any rank received are listed once
    each, in the order of SIGNALS.
    """
    # One copy from the device, of all values together
    loss, seconds, due, *receivers, norm = torch.cat([status, norm.double()[None]]).tolist()
    signals = []
    for number, ranks_that_got_it in zip(SIGNALS, receivers, strict=True):
        if ranks_that_got_it:
            signals.append(number)
    return loss, norm, seconds, bool(due), signals


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

        Targets that are IGNORE (data/batches.py) count 0. All tensors are on the model's device.
        cluster_indices: what `softmax.cluster_indices(targets)` returns. state: the one before the
        tokens; None: zeros. The one returned is detached and a copy: views would keep whole
        activations.
        """
        hidden, state = self.model(tokens, state)
        nats = self.model.nll(hidden, targets, cluster_indices).sum()
        return nats, [tensor.detach().clone() for tensor in state]
