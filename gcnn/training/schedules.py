"""Learning-rate schedules: a factor on the config's learning rate, constant, plateau or cosine."""

import math

import torch

from gcnn.config.schema import ConstantScheduleConfig, CosineScheduleConfig, PlateauScheduleConfig

ScheduleConfig = ConstantScheduleConfig | PlateauScheduleConfig | CosineScheduleConfig


class Schedule:
    """Sets the learning rate; call `set` before each step, `note_validation` after a validation."""

    def __init__(self, config: ScheduleConfig, optimizer: torch.optim.Optimizer):
        """The factors will apply to the learning rate that `optimizer` has now.

        It must be the same in all groups of parameters. Nothing is changed before `set` is called.
        """
        self.config = config
        self.optimizer = optimizer
        self.base = optimizer.param_groups[0]["lr"]  # of all groups
        self.scale = 1.0  # the product of the factors of all plateaus so far
        self.best = math.inf  # validation, nats a token
        self.bad_checks = 0  # validations in a row without improvement

    def factor(self, step: int, progress: float) -> float:
        """The factor on the learning rate for a step: that of the warm-up times the schedule's.

        step: the number of steps before it, on which the linear warm-up to 1 depends. progress: the
        fraction of the run that is over, on which the cosine depends; above 1 it counts as 1. On
        the plateau schedule, the schedule's factor is the product of those of all plateaus so far;
        the constant one's is 1. Raises TypeError for a config of another type.
        """
        warmup = 1.0
        if self.config.warmup_steps:
            warmup = min(1.0, (step + 1) / self.config.warmup_steps)
        if isinstance(self.config, CosineScheduleConfig):
            low = self.config.final_fraction
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))  # falls from 1 to 0
            return warmup * (low + (1 - low) * cosine)
        if isinstance(self.config, ConstantScheduleConfig | PlateauScheduleConfig):
            return warmup * self.scale
        raise TypeError(f"no schedule belongs to a {type(self.config).__name__}")

    def set(self, step: int, progress: float) -> float:
        """Set the optimizer's learning rate for a step and return it; arguments as in `factor`.

        It is at least the plateau schedule's min_lr, also during warm-up.
        """
        lr = max(self.base * self.factor(step, progress), getattr(self.config, "min_lr", 0.0))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def note_validation(self, nll: float) -> None:
        """Take note of a validation. nll: in nats a token.

        On the plateau schedule, after more than schedule.patience validations in a row without a
        new best (NaN is none), the learning rate is multiplied by schedule.factor, from the next
        `set` on, and the count begins anew. Other schedules do not depend on validations.
        """
        if nll < self.best:
            self.best = nll
            self.bad_checks = 0
            return
        self.bad_checks += 1
        if (
            isinstance(self.config, PlateauScheduleConfig)
            and self.bad_checks > self.config.patience
        ):
            self.scale *= self.config.factor
            self.bad_checks = 0

    def state_dict(self) -> dict[str, float]:
        """What validations have led to so far: the keys `scale`, `best` and `bad_checks`."""
        return {"scale": self.scale, "best": self.best, "bad_checks": self.bad_checks}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from what `state_dict` returned. Raises KeyError if a value is missing."""
        self.scale = state["scale"]
        self.best = state["best"]
        self.bad_checks = state["bad_checks"]
