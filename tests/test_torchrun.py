"""What torchrun's variables say, set by torchrun, by a platform or by nobody."""

import pytest
import torch
import torch.distributed as dist

from gcnn.base import torchrun
from gcnn.base.errors import UsageError
from gcnn.training.distributed import process_group, world_size

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "GROUP_WORLD_SIZE")


def told() -> tuple[int, ...]:
    return (
        torchrun.world_size(),
        torchrun.rank(),
        torchrun.local_world_size(),
        torchrun.local_rank(),
        torchrun.machines(),
    )


@pytest.fixture
def environment(monkeypatch):
    for name in (*NAMES, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("value", [None, "", " ", "two"])
def test_a_variable_that_is_empty_or_no_number_is_as_unset(environment, value):
    for name in NAMES if value is not None else ():
        environment.setenv(name, value)
    assert told() == (1, 0, 1, 0, 1)
    with process_group("auto"):
        assert world_size() == 1


def test_what_is_set_is_told(environment):
    for name, value in zip(NAMES, (8, 5, 4, 1, 2), strict=True):
        environment.setenv(name, str(value))
    assert told() == (8, 5, 4, 1, 2)


def test_several_processes_that_cannot_find_each_other_are_refused(environment):
    environment.setenv("WORLD_SIZE", "2")
    environment.setenv("RANK", "")
    with pytest.raises(
        UsageError, match=r"WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT is not set\."
    ):
        process_group("auto").__enter__()


@pytest.fixture
def backends(environment):
    """The backends of the groups that are joined, by rank 1 of 2 on a machine with one GPU."""
    variables = {"MASTER_ADDR": "localhost", "MASTER_PORT": 1, "WORLD_SIZE": 2}
    for name, value in {**variables, "RANK": 1, "LOCAL_RANK": 1}.items():
        environment.setenv(name, str(value))

    def set_device(number):
        if number > 0:
            raise RuntimeError("CUDA error: invalid device ordinal")

    joined = []
    environment.setattr(torch.cuda, "is_available", lambda: True)
    environment.setattr(torch.cuda, "device_count", lambda: 1)
    environment.setattr(torch.cuda, "set_device", set_device)
    environment.setattr(dist, "init_process_group", lambda backend, **_: joined.append(backend))
    environment.setattr(dist, "destroy_process_group", lambda: None)
    return joined


def test_processes_on_the_cpu_need_no_gpu_each(backends):
    with process_group("cpu"):
        assert backends == ["gloo"]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused(backends, device):
    with pytest.raises(UsageError, match=r"2 processes .* 1 GPUs; .* or set device=cpu\."):
        process_group(device).__enter__()
    assert backends == []


def test_one_process_a_gpu_has_its_own(backends, environment):
    environment.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    environment.setattr(torch.cuda, "set_device", chosen.append)
    with process_group("auto"):
        assert (chosen, backends) == ([1], ["cpu:gloo,cuda:nccl"])
