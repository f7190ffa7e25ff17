"""Parameters, gradients and optimizer state shared out over the processes (FSDP2).

Each process keeps some rows of every tensor, a DTensor. A layer's rows are gathered while it computes, and no longer;
so memory never falls below that of the largest layer, its full weight and gradient and the buffers that move them.

torch.distributed.checkpoint.state_dict does the same, but fails for an optimizer without state (momentum 0).
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
    """Keep this process's rows of a model's parameters, on the device. Gradients are averaged over processes in every
    backward pass: keeping those of micro-batches back, as DistributedDataParallel does, would keep them whole."""
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")  # none is changed in place
    mesh = init_device_mesh(device.type, (world_size(),))
    units = [*getattr(model.encoder, "blocks", [])]
    if not tied:  # else both use one weight, and are part of the root
        units += [model.encoder.embedding, model.softmax]
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model if tied else model.softmax, "nll")
    model.register_load_state_dict_pre_hook(shard_state_dict)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with the rows of all ranks, on every rank, whether it is sharded or not."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_on_rank_0(state: Any) -> Any:
    """A state dict with its sharded tensors in full: on rank 0 on the CPU, None on the others. All ranks must call."""
    if isinstance(state, dict):
        return {key: gather_on_rank_0(value) for key, value in state.items()}
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if rank() == 0 else None
    return state


def shard_like(value: Any, parameter: Tensor) -> Any:
    """This rank's rows of a full tensor that belongs to a sharded parameter; any other value as it is."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


def shard_state_dict(model: LanguageModel, state: dict[str, Tensor], *_: Any) -> None:
    """Before a model loads a state dict of full tensors: replace each by this rank's rows."""
    for name, parameter in model.named_parameters():
        state[name] = shard_like(state[name], parameter)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state dict of full tensors, saved by any number of ranks. Learning rate, momentum and weight
    decay stay those that the optimizer was built with. Raises what torch raises for a state that does not fit."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: shard_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    pairs = zip(optimizer.param_groups, state["param_groups"], strict=True)
    groups = [{**own, "params": saved["params"]} for own, saved in pairs]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
