"""What a number says of how it was made."""

import sys

from gcnn.base.provenance import command


def test_the_command_of_several_machines_names_their_number(monkeypatch):
    for name, value in {"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4, "GROUP_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "a=b c"])
    launcher = "python -m torch.distributed.run --nnodes=2 --nproc-per-node=4 -- "
    assert command() == launcher + "scripts/train.py 'a=b c'"


def test_the_installed_command_is_typed_as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gcnn train", "a=b c"])
    assert command() == "gcnn train 'a=b c'"
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    launcher = "python -m torch.distributed.run --standalone --nproc-per-node=2 -m -- "
    assert command() == launcher + "gcnn train 'a=b c'"
