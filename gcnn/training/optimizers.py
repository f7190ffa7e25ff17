"""The optimizers: the paper's Nesterov momentum, and AdamW."""

import torch
from torch import nn

from gcnn.config import AdamWConfig, NesterovConfig


class Nesterov(torch.optim.SGD):
    """torch's SGD with Nesterov momentum, and decoupled weight decay: parameters are scaled by 1 - lr * weight_decay
    before the step, as in fairseq's `nag`. Torch keeps the velocity in units of the current learning rate, as it does.
    """

    def __init__(self, params, lr: float, momentum: float, weight_decay: float, sharded: bool = False):
        ways = {"fused": not sharded, "foreach": sharded}  # torch has no fused SGD for sharded parameters
        super().__init__(params, lr=lr, momentum=momentum, nesterov=momentum > 0, **ways)
        self.decay = weight_decay

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups if self.decay else ():
            touched = [p for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(touched, 1 - group["lr"] * self.decay)
        return super().step(closure)


def build_optimizer(
    config: NesterovConfig | AdamWConfig, model: nn.Module, sharded: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of a config, over all parameters. AdamW does not decay gains, biases and embeddings."""
    if isinstance(config, NesterovConfig):
        return Nesterov(model.parameters(), config.lr, config.momentum, config.weight_decay, sharded)
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        is_gain = name.endswith("original0")  # weight normalisation's; stored with the weight's number of dimensions
        (others if parameter.dim() < 2 or is_gain or "embedding" in name else matrices).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)
