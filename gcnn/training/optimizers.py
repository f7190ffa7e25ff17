"""The optimizers: the paper's Nesterov momentum, and AdamW."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gcnn.config.schema import AdamWConfig, NesterovConfig


class Nesterov(torch.optim.SGD):
    """SGD with Nesterov momentum (section 4.2) and decoupled weight decay, as fairseq's `nag`.

    Weight decay scales parameters by 1 - lr * weight_decay before the step. The velocity is in
    units of gradients, as torch keeps it: a new learning rate applies to all of it, as in `nag`.

    As torch's fused optimizers do for its GradScaler, a step divides gradients by `grad_scale` and
    is left out, decay included, if `found_inf` is 1. Both are tensors that the caller sets before
    `step`; None: 1 and 0. There is one group of parameters, on their final device.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, params, lr: float, momentum: float, weight_decay: float):
        super().__init__(params, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
        self.decay = weight_decay
        if momentum:  # torch makes the buffers in the first step, but not if that is left out
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure=None):
        """Decay the weights, then make torch's SGD step; neither if `found_inf` is 1.

        Gradients are divided by `grad_scale` (see the class). A parameter without a gradient does
        not change. Returns what `closure` returns, which runs after the decay; None without one. At
        least one parameter must have a gradient before the call.
        """
        (group,) = self.param_groups
        touched = [p for p in group["params"] if p.grad is not None]
        if self.decay:
            # 0 where the step is left out: a tensor, which the host does not wait for
            is_made = 1.0 if self.found_inf is None else 1 - self.found_inf
            torch._foreach_mul_(touched, 1 - group["lr"] * self.decay * is_made)
        return super().step(closure)


def build_optimizer(config: NesterovConfig | AdamWConfig, model: nn.Module) -> Optimizer:
    """The optimizer of a config, over all parameters of a model that is on its device already.

    Its learning rate is the config's, without a schedule. Either kind takes `grad_scale` and
    `found_inf` as Nesterov's docstring says. AdamW's weight decay leaves out biases,
    gains (of norms and of weight normalisation) and embeddings; Nesterov's applies to all. Where
    weights are normalised, AdamW's thus shortens the directions alone: the function stays the same,
    and later updates turn the directions further. Raises TypeError for a config of another type.
    """
    if isinstance(config, NesterovConfig):
        return Nesterov(model.parameters(), config.lr, config.momentum, config.weight_decay)
    if isinstance(config, AdamWConfig):
        groups = decayed_and_others(model, config.weight_decay)
        return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)
    raise TypeError(f"no optimizer belongs to a {type(config).__name__}")


def decayed_and_others(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A model's parameters in two groups for torch: with `weight_decay`, and with none.

    Biases, gains and embeddings have none (see `build_optimizer`).
    """
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        # Weight normalisation's gains have as many dimensions as its weights
        is_gain = name.endswith("original0")
        if parameter.dim() < 2 or is_gain or "embedding" in name:
            others.append(parameter)
        else:
            matrices.append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
