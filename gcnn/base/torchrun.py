"""What torchrun tells each of the processes that it starts, by environment variables. A platform may set them as well,
and some set them empty: a variable that is empty, or no number, is as one that is not set."""

import os

RENDEZVOUS = (
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)  # what torch.distributed needs to join the others


def number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def world_size() -> int:
    """How many processes were started together, 1 without torchrun."""
    return number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process among all, from 0."""
    return number("RANK", 0)


def local_world_size() -> int:
    """How many of them run on this machine. Without torchrun's word on it: all."""
    return number("LOCAL_WORLD_SIZE", world_size())


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return number("LOCAL_RANK", 0)


def machines() -> int:
    return number("GROUP_WORLD_SIZE", 1)
