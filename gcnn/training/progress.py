"""Where a training run stands."""

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run stands; with the tensors of a checkpoint it says how to go on."""

    step: int = 0  # updates made
    epoch: int = 0  # full passes made
    index: int = 0  # batches of this epoch taken
    tokens: int = 0  # targets trained on
    seconds: float = 0.0  # of training; validation and checkpoints are not counted
    best_nll: float = math.inf  # validation, nats a token
    validated: int = 0  # the step of the last validation
    no_better: int = 0  # validations in a row that were not the best, every `validate_every` steps
    skipped: int = 0  # updates left out for a loss or gradient that was not finite
    logged_nll: float = 0.0  # nats since the last line of metrics
    logged_tokens: int = 0
    logged_seconds: float = 0.0
