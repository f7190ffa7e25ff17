"""How far a training run is, and when it ends."""

import math
import time
from dataclasses import dataclass

from gcnn.config.schema import TrainerConfig


@dataclass
class Progress:
    """How far a run is: the numbers that a checkpoint stores beside its tensors."""

    step: int = 0  # updates made, skipped ones included
    epoch: int = 0  # full passes made
    index: int = 0  # batches of this epoch taken
    tokens: int = 0  # targets of these updates
    seconds: float = 0.0  # of training; validation and checkpoints are not counted
    best_nll: float = math.inf  # validation, nats a token; infinity: there are no best weights
    validated: int = 0  # the step of the last validation
    no_better: int = 0  # validations in a row that were not the best, every `validate_every` steps
    skipped: int = 0  # updates left out for a loss or gradient that was not finite
    # Since the last line of metrics
    logged_nll: float = 0.0  # nats, without skipped updates
    logged_tokens: int = 0  # without skipped updates
    logged_seconds: float = 0.0


class Bounds:
    """When a run ends: at the first bound that it reaches, or when validation no longer improves.

    batches: in an epoch. max_tokens: what trainer.max_flops allows; None: no such bound. At least
    one bound must be set.
    """

    def __init__(self, config: TrainerConfig, batches: int, max_tokens: float | None):
        self.config = config
        self.batches = batches
        self.max_tokens = max_tokens

    def epochs(self, progress: Progress) -> float:
        """Passes over the training text, with the part that is over of the present one."""
        return progress.epoch + progress.index / self.batches

    def fraction_done(self, progress: Progress) -> float:
        """How much of the run is over, by the nearest bound; 1 or more at its end.

        Patience does not count.
        """
        bounds = (
            (progress.step, self.config.max_steps),
            (self.epochs(progress), self.config.max_epochs),
            (progress.seconds / 60, self.config.max_minutes),
            (progress.tokens, self.max_tokens),
        )
        return max(done / bound for done, bound in bounds if bound is not None)

    def out_of_patience(self, progress: Progress) -> bool:
        """Whether validation has not improved `trainer.patience` times in a row; None: never."""
        return progress.no_better >= (self.config.patience or math.inf)

    def reached(self, progress: Progress) -> bool:
        """Whether the run is over, by a bound or for lack of improvement."""
        return self.fraction_done(progress) >= 1 or self.out_of_patience(progress)


class StepTimer:
    """Times training steps; validation and checkpoints, between two steps, are not counted.

    Each step calls `start`, `seconds_to_share` and `stop`, in this order. Processes agree on the
    time within a step (see `distributed.share_status`), before it is over: the rest of a step is
    therefore counted with the next one.
    """

    def __init__(self) -> None:
        self.uncounted = 0.0  # seconds of the last step after its time was shared

    def start(self) -> None:
        """Begin a step."""
        self.started = time.perf_counter()

    def seconds_to_share(self) -> float:
        """Seconds of this step until now, and the rest of the last step. Call it once a step."""
        self.shared = time.perf_counter()
        return self.uncounted + self.shared - self.started

    def stop(self) -> None:
        """End the step. What it took since `seconds_to_share` is counted with the next one."""
        self.uncounted = time.perf_counter() - self.shared
