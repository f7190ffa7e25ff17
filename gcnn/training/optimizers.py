"""The optimizers: the paper's Nesterov momentum, and AdamW."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gcnn.config.schema import AdamWConfig, NesterovConfig


class Nesterov(torch.optim.SGD):
    """torch's SGD with Nesterov momentum, and decoupled weight decay: parameters are scaled by 1 - lr * weight_decay
    before the step, as in fairseq's `nag`. Torch keeps the velocity in units of the current learning rate, as it does.

    As torch's fused optimizers do for its GradScaler, it divides gradients by `grad_scale` and makes no step where
    `found_inf` is 1, both tensors set from outside.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, params, lr: float, momentum: float, weight_decay: float):
        super().__init__(params, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
        self.decay = weight_decay
        for parameter in (
            self.param_groups[0]["params"] if momentum else ()
        ):  # a first step that is left out makes none
            self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        touched = [p for p in group["params"] if p.grad is not None]
        if self.decay:
            steps = 1.0 if self.found_inf is None else 1 - self.found_inf
            torch._foreach_mul_(touched, 1 - group["lr"] * self.decay * steps)
        return super().step(closure)


def build_optimizer(config: NesterovConfig | AdamWConfig, model: nn.Module) -> Optimizer:
    """The optimizer of a config, over all parameters. AdamW does not decay gains, biases and embeddings."""
    if isinstance(config, NesterovConfig):
        return Nesterov(model.parameters(), config.lr, config.momentum, config.weight_decay)
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_gain = name.endswith(
            "original0"
        )  # weight normalisation's; stored with the weight's number of dimensions
        (others if parameter.dim() < 2 or is_gain or "embedding" in name else matrices).append(
            parameter
        )
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)
