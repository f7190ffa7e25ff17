"""Torch's random states of all processes, as a checkpoint has them."""

import logging
from typing import Any

import torch

from gcnn.training.distributed import all_gather, rank, world_size

log = logging.getLogger(__name__)


def random_states(device: torch.device) -> dict[str, list[torch.Tensor]]:
    """Torch's random states, of each rank in their order; all processes must call it.

    The keys: `random` (the CPU's) and `random_cuda` (that of the current GPU; empty unless `device`
    is one).
    """
    on_gpu = device.type == "cuda"
    return {
        "random": all_gather(torch.get_rng_state()),
        "random_cuda": all_gather(torch.cuda.get_rng_state()) if on_gpu else [],
    }


def restore_random_states(
    states: dict[str, Any], device: torch.device, seeds: tuple[int, int]
) -> None:
    """Set torch's random states of this process to those that `random_states` returned.

    states: may have other keys as well. If it comes from another number of processes, torch is
    seeded by `seeds` (the config's and the step) and the rank instead, and a warning logged; if it
    comes from a CPU, a GPU's state stays as it is. Raises KeyError, TypeError or RuntimeError for
    one that does not fit.
    """
    if len(states["random"]) != world_size():
        torch.manual_seed(hash((*seeds, rank())) % (1 << 63))
        log.warning(
            "Resumed with another number of processes: dropout goes on with other random numbers."
        )
        return
    torch.set_rng_state(states["random"][rank()])
    if device.type == "cuda" and states["random_cuda"]:
        torch.cuda.set_rng_state(states["random_cuda"][rank()])
