"""Parameters, gradients and optimizer state shared out over the processes (FSDP2).

Each process keeps some rows of every tensor, a DTensor. A layer's are put together while it computes, and no longer; so
memory never falls below that of the largest layer, its weight and gradient whole and in the buffers that move them.
"""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from gcnn.models.language_model import LanguageModel
from gcnn.training.distributed import rank, world_size


def shard(model: LanguageModel, tied: bool, device: torch.device) -> None:
    """Keep this process's part of a model, on the device. Gradients are averaged over processes in every backward
    pass: keeping those of micro-batches back, as DistributedDataParallel does, would keep them whole."""
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")  # none is changed in place
    mesh = init_device_mesh(device.type, (world_size(),))
    units = [*getattr(model.encoder, "blocks", [])]
    if not tied:  # else both use one weight, and are part of the root
        units += [model.encoder.embedding, model.softmax]
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model if tied else model.softmax, "nll")
    model.register_load_state_dict_pre_hook(take_parts)


def together(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, whole, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(state: Any) -> Any:
    """A state dict with every sharded tensor whole, in rank 0's CPU memory; None on the others."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, DTensor):
        found = together(state)
        return found.cpu() if rank() == 0 else None
    return state


def part(value: Any, like: Tensor) -> Any:
    """This process's part of a whole tensor that belongs to a sharded parameter; all else as it is."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return value


def take_parts(model: LanguageModel, state: dict[str, Tensor], *_: Any) -> None:
    """Before a model loads whole weights: make them this process's part."""
    for name, parameter in model.named_parameters():
        state[name] = part(state[name], parameter)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `whole` made of an optimizer's state, of whatever number of processes; its settings (learning rate,
    momentum, weight decay) stay those that it was built with. Raises as torch does."""
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    parts = {i: {key: part(value, parameters[i]) for key, value in of.items()} for i, of in state["state"].items()}
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    groups = [{**saved, **settings} for saved, settings in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({"state": parts, "param_groups": groups})
