"""Learning-rate schedules: a factor on the optimizer's learning rate."""

import math

import torch

from gcnn.config.schema import ConstantScheduleConfig, CosineScheduleConfig, PlateauScheduleConfig

ScheduleConfig = ConstantScheduleConfig | PlateauScheduleConfig | CosineScheduleConfig


class Schedule:
    """Sets the learning rate before each step; `validated` tells it how validation went."""

    def __init__(self, config: ScheduleConfig, optimizer: torch.optim.Optimizer):
        self.config, self.optimizer = config, optimizer
        self.base = optimizer.param_groups[0]["lr"]  # of all groups
        self.scale = 1.0  # what plateaus have left
        self.best = math.inf
        self.bad_checks = 0

    def factor(self, step: int, progress: float) -> float:
        """The factor at a step (from 0); `progress` is the part of the run that is over, from 0 to 1."""
        warmup = (
            min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        )
        if isinstance(self.config, CosineScheduleConfig):
            low = self.config.final_fraction
            return warmup * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        return warmup * self.scale

    def set(self, step: int, progress: float) -> float:
        """Set the learning rate for a step and return it."""
        lr = max(self.base * self.factor(step, progress), getattr(self.config, "min_lr", 0.0))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def validated(self, nll: float) -> None:
        """Count a validation: on a plateau schedule, checks without improvement lower the learning rate."""
        if nll < self.best:
            self.best, self.bad_checks = nll, 0
            return
        self.bad_checks += 1
        if (
            isinstance(self.config, PlateauScheduleConfig)
            and self.bad_checks > self.config.patience
        ):
            self.scale *= self.config.factor
            self.bad_checks = 0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "best": self.best, "bad_checks": self.bad_checks}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.best, self.bad_checks = state["scale"], state["best"], state["bad_checks"]
