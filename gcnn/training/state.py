"""What a checkpoint holds of a trainer besides its weights, and how a trainer goes on from one."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gcnn.errors import RunError, UsageError, one_line
from gcnn.models.weights import WEIGHTS
from gcnn.training import distributed
from gcnn.training.checkpoints import BEST
from gcnn.training.distributed import rank, world_size
from gcnn.training.sharding import gather_on_rank_0, load_optimizer_state

if TYPE_CHECKING:
    from gcnn.training.trainer import Trainer

log = logging.getLogger(__name__)


def save_checkpoint(trainer: "Trainer") -> None:
    """Write a checkpoint of all that decides how the run goes on."""
    state = {
        "progress": dataclasses.asdict(trainer.progress),
        "optimizer": gather_on_rank_0(trainer.optimizer.state_dict()),
        "schedule": trainer.schedule.state_dict(),
        "random": distributed.all_gather(torch.get_rng_state()),  # of each rank
        "random_cuda": distributed.all_gather(torch.cuda.get_rng_state()) if trainer.device.type == "cuda" else [],
        "state": trainer.state and [torch.cat(distributed.all_gather(rows)) for rows in trainer.state],
        "layout": trainer.batches.layout,
    }
    weights = gather_on_rank_0(trainer.model.state_dict())
    if rank() == 0:
        trainer.checkpoints.save(trainer.progress.step, weights, state)
    trainer.saved_at = time.monotonic()


def resume_from_checkpoint(trainer: "Trainer", path: Path | None, write_config: Callable = lambda: None) -> None:
    """Go on from a checkpoint, or from the newest intact one where `path` is None; without any, from the start.

    `write_config` is called once the checkpoint is known to fit and before anything else changes: a process that
    is killed from there on can be resumed.
    """
    newest = None
    if path is None:
        newest = trainer.checkpoints.load_newest(trainer.model) if rank() == 0 else None
        path = distributed.from_rank_0(newest and newest[0])
        if path is None:
            log.info("No checkpoint in %s: starting at step 0.", trainer.run_dir)
            return write_config()
    try:
        state = newest[1] if newest else trainer.checkpoints.load(path, trainer.model)
    except RunError as error:
        raise RunError(f"{error} Give another checkpoint, or resume=true for the newest intact one.") from None
    if state.get("layout") != trainer.batches.layout:
        raise UsageError(
            f"checkpoint {path} stands at a place in batches of {state.get('layout')}, over all processes; the "
            f"config gives {trainer.batches.layout}. Set trainer.batch_size and trainer.block_size as they were."
        )
    try:
        load_training_state(trainer, state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(
            f"checkpoint {path} does not fit this config ({reason}). Resume with the config of that run."
        ) from None
    write_config()
    if rank() == 0:
        set_aside_later(trainer, path)
    trainer.progress.best_nll = distributed.from_rank_0(trainer.progress.best_nll)
    log.info("Resumed at step %s from %s.", f"{trainer.progress.step:,}", path)


def set_aside_later(trainer: "Trainer", path: Path) -> None:
    """Leave nothing of what came after a checkpoint where it could be taken for this run's."""
    turned = trainer.checkpoints.turn_back(path)
    if turned is not None:
        aside, later = turned
        names = ", ".join(checkpoint.name for checkpoint in later)
        log.warning("What was trained after %s is set aside in %s: %s.", path, aside, names)
    if trainer.progress.best_nll == math.inf:
        (trainer.run_dir / WEIGHTS).unlink(missing_ok=True)  # of a later step
    elif not (path / BEST).exists() and turned is None:
        return  # of an older version, whose best weights lie in the run alone
    elif not trainer.checkpoints.restore_best(path):
        log.warning("%s has no intact %s: the best weights are those from here on.", path, BEST)
        trainer.progress.best_nll = math.inf


def load_training_state(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Take up a checkpoint's training state; what `save_checkpoint` wrote."""
    trainer.progress = type(trainer.progress)(**state["progress"])
    load_optimizer_state(trainer.optimizer, state["optimizer"])
    trainer.schedule.load_state_dict(state["schedule"])
    if state["state"] is not None:
        trainer.state = [rows.chunk(world_size())[rank()].to(trainer.device) for rows in state["state"]]
    if len(state["random"]) != world_size():
        torch.manual_seed(hash((trainer.config.seed, trainer.progress.step, rank())) % (1 << 63))
        log.warning("Resumed with another number of processes: dropout goes on with other random numbers.")
        return
    torch.set_rng_state(state["random"][rank()])
    if trainer.device.type == "cuda" and state["random_cuda"]:
        torch.cuda.set_rng_state(state["random_cuda"][rank()])
