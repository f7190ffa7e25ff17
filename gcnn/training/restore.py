"""Going on from a checkpoint: load it, and set aside what was trained after it."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcnn.base.errors import RunError, UsageError, one_line
from gcnn.models.weights import WEIGHTS
from gcnn.training import distributed
from gcnn.training.checkpoints import BEST
from gcnn.training.distributed import rank
from gcnn.training.trainer import Trainer

log = logging.getLogger(__name__)


def restore(
    trainer: Trainer, path: Path | None, write_config: Callable[[], None] = lambda: None
) -> None:
    """Load a checkpoint into a new trainer, its model included; all processes must call it.

    path: the checkpoint; None: the newest intact one of the run, and newer ones that are damaged
    are removed. If there are no checkpoints, the trainer stays at step 0.
    write_config: called on each process in all these cases, after the last check. Only then newer
    checkpoints are set aside and model.safetensors becomes the best weights of that time (see
    `undo_later_steps`), so that a process that is killed meanwhile can be resumed.
    Sets torch's random state. Raises UsageError if `path` is no checkpoint or does not fit the
    config, RunError if it is damaged, or all are, OSError if a file may not be opened or moved, and
    what `write_config` raises; the trainer must not be used then.
    """
    if path is None:
        path, state = load_newest(trainer)
    else:
        state = load_given(trainer, path)
    if path is None:
        log.info("No checkpoint in %s: starting at step 0.", trainer.run_dir)
        write_config()
        return
    if state.get("layout") != trainer.batches.layout:
        raise UsageError(
            f"checkpoint {path} stands at a place in batches of {state.get('layout')}, over all "
            f"processes; the config gives {trainer.batches.layout}. "
            "Set trainer.batch_size and trainer.block_size as they were."
        )
    try:
        trainer.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(
            f"checkpoint {path} does not fit this config ({reason}). Resume with its run's."
        ) from None
    write_config()
    if rank() == 0:
        undo_later_steps(trainer, path)
    trainer.progress.best_nll = distributed.from_rank_0(trainer.progress.best_nll)
    log.info("Resumed at step %s from %s.", f"{trainer.progress.step:,}", path)


def load_newest(trainer: Trainer) -> tuple[Path, dict[str, Any]] | tuple[None, None]:
    """Load the newest intact checkpoint of a run; all processes must call it.

    Returns its path and its training state; two times None if there are no checkpoints. Rank 0
    chooses it, and removes newer ones that are damaged, before the others load it. Raises RunError
    if all are damaged, and UsageError and OSError as `Checkpoints.load` does.
    """
    path = state = None
    if rank() == 0:
        path, state = trainer.checkpoints.load_newest(trainer.model) or (None, None)
    path = distributed.from_rank_0(path)
    if rank() > 0 and path is not None:
        state = load_given(trainer, path)
    return path, state


def load_given(trainer: Trainer, path: Path) -> dict[str, Any]:
    """Load a checkpoint into the trainer's model; returns its training state.

    Raises UsageError and OSError as `Checkpoints.load` does, and RunError, with a remedy, if it is
    damaged.
    """
    try:
        return trainer.checkpoints.load(path, trainer.model)
    except RunError as error:
        raise RunError(
            f"{error} Give another checkpoint, or resume=true for the newest intact one."
        ) from None


def undo_later_steps(trainer: Trainer, path: Path) -> None:
    """Set aside later checkpoints than `path`, and restore the best weights of that time.

    Call it on rank 0 alone, once `path` is loaded. Which are later: see
    `Checkpoints.set_aside_newer`.
    model.safetensors is removed if there were no best weights yet or they are lost; then
    `progress.best_nll` is infinite, so that the next validation gives the best weights. It stays if
    nothing was set aside and the checkpoint has no copy of it, as in older versions. Logs a warning
    if checkpoints were set aside, and if best weights are lost.
    """
    newer = trainer.checkpoints.set_aside_newer(path)
    if newer is not None:
        folder, checkpoints = newer
        names = ", ".join(checkpoint.name for checkpoint in checkpoints)
        log.warning("What was trained after %s is set aside in %s: %s.", path, folder, names)
    if trainer.progress.best_nll == math.inf:  # no best weights yet: these are of a later step
        (trainer.run_dir / WEIGHTS).unlink(missing_ok=True)
    elif not (path / BEST).exists() and newer is None:
        return  # older versions keep the best weights in the run alone
    elif not trainer.checkpoints.restore_or_remove_best(path):
        log.warning("%s has no intact %s: the best weights are those from here on.", path, BEST)
        trainer.progress.best_nll = math.inf
