"""One update of the weights: gradients of its micro-batches, clipping, the optimizer's step."""

import contextlib
import warnings

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from gcnn.base.errors import RunError, one_line, out_of_memory
from gcnn.config.schema import TrainerConfig
from gcnn.data.batches import to_device
from gcnn.models.language_model import LanguageModel, State
from gcnn.models.lstm import LSTM
from gcnn.training import distributed
from gcnn.training.distributed import world_size

# Tokens and targets, (batch, time), and the indices of each softmax cluster's targets
MicroBatch = tuple[Tensor, Tensor, list[Tensor]]


class Updater:
    """Updates a model's weights by batches; an update does not wait for the device.

    An update is `accumulate_gradients`, then `clip_and_update`; `try_compiler` may go before.
    """

    def __init__(
        self,
        config: TrainerConfig,
        model: LanguageModel,
        optimizer: Optimizer,
        device: torch.device,
    ):
        """Prepare updates; all processes must make one: their models get rank 0's weights.

        config: says precision, clipping and whether the loss is compiled. If so, that happens at
        its first call, and the `recur` of a model that is an LSTM is replaced by one that is never
        compiled. model: on `device`. optimizer: what `build_optimizer` returns for it.
        Raises TypeError for an optimizer that does not declare, as torch's own do by
        `_step_supports_amp_scaling`, that its step heeds `grad_scale` and `found_inf`: without
        them gradients would not be clipped, and updates that are not finite would be made.
        """
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            name = type(optimizer).__name__
            raise TypeError(f"{name}.step heeds neither grad_scale nor found_inf")
        self.config = config
        self.model = model
        self.optimizer = optimizer
        self.device = device
        loss = distributed.Loss(model)
        if config.compile and isinstance(model.encoder, LSTM):  # which has a kernel of its own
            model.encoder.recur = torch.compiler.disable(model.encoder.recur)
        self.loss = torch.compile(loss) if config.compile else loss
        if world_size() > 1:
            self.loss = DistributedDataParallel(self.loss, gradient_as_bucket_view=True)

    def try_compiler(self, batches: list[MicroBatch], state: State | None, count: int) -> None:
        """Compile the loss, by a forward and backward pass over the first micro-batch.

        For trainer.compile=true, before the first update, in all processes. Changes neither weights
        nor torch's random state; gradients are dropped. Arguments as in `accumulate_gradients`.
        Raises RunError for any error but one that says that memory ran out, which passes through.
        """
        try:
            # Whatever the compiler does to the warnings' filters is undone, too
            with torch.random.fork_rng(), warnings.catch_warnings():
                self.backward(batches[0], split_state(state, batches)[0], count)
        except Exception as error:  # of any class: there may be no C++ compiler, say
            if out_of_memory(error):
                raise
            reason = one_line(error)[:200]
            raise RunError(
                f"trainer.compile: the compiler fails ({reason}). Set trainer.compile=false."
            ) from None
        self.optimizer.zero_grad(set_to_none=True)

    def accumulate_gradients(
        self, batches: list[MicroBatch], state: State | None, count: int
    ) -> tuple[Tensor, list[State]]:
        """Forward and backward over this process's micro-batches of one update.

        state: that of all their sequences before them; None: zeros. count: the number of the
        update's targets in all processes.
        Adds the gradient of the mean loss to the parameters' gradients. Returns this process's part
        of that loss, (), in nats a target, and the state after each micro-batch, all on the device.
        All processes must call it: they share their gradients.
        """
        states = split_state(state, batches)
        loss = torch.zeros((), device=self.device)
        in_several_processes = isinstance(self.loss, DistributedDataParallel)
        for i, batch in enumerate(batches):
            is_last = i + 1 == len(batches)
            # Processes average their gradients once an update, with its last micro-batch
            averaging = contextlib.nullcontext()
            if in_several_processes and not is_last:
                averaging = self.loss.no_sync()
            with averaging:
                part, states[i] = self.backward(batch, states[i], count)
            loss += part
        return loss, states

    def backward(self, batch: MicroBatch, state: State | None, count: int) -> tuple[Tensor, State]:
        """Add the gradient of a micro-batch's nats / count to the parameters' gradients.

        batch: may be on the CPU. state: the one before it; None: zeros. count: the number of
        targets of the whole update, so that the gradients of its micro-batches add up to that of
        the mean loss. Returns nats / count, (), on the device and detached, and the state after the
        batch.
        """
        tokens, targets, cluster_indices = batch
        tokens = to_device(tokens, self.device)
        targets = to_device(targets, self.device)
        cluster_indices = [to_device(indices, self.device) for indices in cluster_indices]
        if self.config.compile:
            for indices in cluster_indices:  # their numbers differ: one graph for all batches
                torch._dynamo.maybe_mark_dynamic(indices, 0)
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            nats, state = self.loss(tokens, targets, cluster_indices, state)
        # DistributedDataParallel averages over the processes, but their gradients are to add up
        (nats * (world_size() / count)).backward()
        return nats.detach() / count, state

    def clip_and_update(self, loss: Tensor) -> Tensor:
        """Clip the gradients (section 4.2), make the optimizer's step, and drop the gradients.

        loss: (), that of all processes. Returns the gradients' norm, (), before clipping, on the
        device. If it or `loss` is not finite, weights and optimizer stay as they are.

        This is torch's clip_grad_norm_ and step, without waiting for the device: its fused
        optimizers divide gradients by `grad_scale`, and make no step if `found_inf` is 1.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        limit = self.config.clip_norm
        is_finite = loss.isfinite() & norm.isfinite()
        self.optimizer.found_inf = (~is_finite).float()
        self.optimizer.grad_scale = None
        if limit is not None:
            self.optimizer.grad_scale = ((norm + 1e-6) / limit).clamp(min=1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def split_state(state: State | None, batches: list[MicroBatch]) -> list[State | None]:
    """Split the state of all micro-batches' sequences into one state for each micro-batch.

    state: None stands for zeros, and each micro-batch gets None.
    """
    if state is None:
        return [None] * len(batches)
    sizes = [len(tokens) for tokens, *_ in batches]
    parts = [tensor.split(sizes) for tensor in state]
    return [list(tensors) for tensors in zip(*parts, strict=True)]


def join_states(states: list[State]) -> State:
    """Join the states of micro-batches, none of them None: the inverse of `split_state`."""
    return [torch.cat(parts) for parts in zip(*states, strict=True)]
