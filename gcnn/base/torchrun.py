"""The environment variables by which torchrun tells each process its rank and the group's size.

A variable that is empty or not a number counts as not set: some platforms set them empty.
"""

import os

# What torch.distributed needs to join the other processes.
RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def number(name: str, default: int) -> int:
    """The value of an environment variable that holds a whole number from 0; else `default`."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def world_size() -> int:
    """The number of processes in the group, on all machines; 1 without torchrun."""
    return number("WORLD_SIZE", 1)


def rank() -> int:
    """This process's index in the whole group, from 0; 0 without torchrun."""
    return number("RANK", 0)


def local_world_size() -> int:
    """The number of the group's processes on this machine; if not set, all of them."""
    return number("LOCAL_WORLD_SIZE", world_size())


def local_rank() -> int:
    """This process's index among those of its machine, from 0; 0 without torchrun."""
    return number("LOCAL_RANK", 0)


def machines() -> int:
    """The number of machines that the group runs on; 1 without torchrun."""
    return number("GROUP_WORLD_SIZE", 1)
