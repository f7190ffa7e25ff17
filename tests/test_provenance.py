"""What a number says of how it was made."""

import sys

from gcnn.provenance import command


def test_the_command_of_several_machines_names_their_number(monkeypatch):
    for name, value in {"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4, "GROUP_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(sys, "argv", ["scripts/train.py", "a=b c"])
    launcher = "python -m torch.distributed.run --nnodes=2 --nproc-per-node=4 -- "
    assert command() == launcher + "scripts/train.py 'a=b c'"
