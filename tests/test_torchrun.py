"""What torchrun's variables say, set by torchrun, by a platform or by nobody."""

import pytest

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
    with process_group():
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
        process_group().__enter__()
