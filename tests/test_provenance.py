"""What a number says of how it was made."""

import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import gcnn
from gcnn.base import provenance
from gcnn.base.errors import RunError
from gcnn.base.provenance import command, command_to_resume, portable, run_child
from gcnn.commands.main import run
from gcnn.reporting.results import describe_hardware
from gcnn.runs.json_files import checked
from gcnn.runs.results import Hardware
from tests.conftest import ROOT


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


@pytest.mark.parametrize("resume", ["resume=true", "+resume=false", "++resume=true"])
def test_a_sweep_is_resumed_once_however_it_was_begun(monkeypatch, resume):
    monkeypatch.setattr(sys, "argv", ["gcnn train", resume, "--multirun", "seed=1,2", "++lr=1"])
    assert command_to_resume() == "gcnn train --multirun seed=1,2 ++lr=1 resume=true"


def test_a_published_command_has_no_path_however_its_keys_are_written():
    words = ["data.path=/home/me", "+data.path=/home/me", "++tokenizer.model=/home/me/m", "++lr=1"]
    local = ["logger=none", "run_dir=/home/me", "+resume=/home/me", "++data.cache_dir=/home/me"]
    shown = portable(["gcnn", "train", *words, *local])
    assert shown[2:] == ["data.path=DIR", "data.path=DIR", "tokenizer.model=FILE", "++lr=1"]


def test_the_version_of_a_checkout_is_not_known_and_nothing_fails(monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert gcnn.__version__ is None
    assert run("--version") is None
    assert capsys.readouterr().out == "gcnn from a checkout, not installed\n"
    assert provenance.made_with()["versions"]["gcnn"] is None


def test_the_peak_memory_of_a_process_is_not_that_of_its_parent():
    ballast = b"x" * (300 << 20)
    text, used = run_child(["-c", "print('a\\n\\nb', end='')"])
    print_peak = "print(peak_memory_bytes(SimpleNamespace(type='cpu')))"
    code = f"from types import *; from gcnn.base.provenance import *; {print_peak}"
    own = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert text == "a\n\nb"
    assert 1 << 20 < 1024 * used.ru_maxrss < len(ballast)
    assert 1 << 20 < int(own.stdout) < len(ballast)


def test_a_child_that_fails_is_named_with_its_exit_code(capfd):
    with pytest.raises(RunError, match=r"^-c 'raise SystemExit\(3\)' failed with 3\."):
        run_child(["-c", "raise SystemExit(3)"])
    with pytest.raises(RunError, match="failed with -9"):
        run_child(["-c", "import os; os.kill(os.getpid(), 9)"])
    assert capfd.readouterr() == ("", "")


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = provenance.hardware()
    assert (said["gpu"], said["gpu_count"]) == (None, 0)
    assert {said[name] for name in ("driver", "cudnn", "tf32")} == {None}


def test_a_gpu_is_described_with_its_driver_cudnn_and_tf32(monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
        "GCC version:  gcc version 13.3.0\n"
    )
    monkeypatch.setattr(provenance, "NVIDIA_DRIVER", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=False))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    said = checked(provenance.hardware(), Hardware, "hardware")
    assert (said.gpu, said.gpu_count, said.driver) == ("NVIDIA H100", 2, "580.65.06")
    assert (said.cudnn, said.tf32) == ("91300", "convolutions")
    assert "2 × NVIDIA H100" in describe_hardware(said)
    driver.unlink()
    assert provenance.gpu_driver() is None


def test_the_commit_is_that_with_which_the_process_began(monkeypatch):
    answers = iter(["first", "second"])
    monkeypatch.setattr(
        provenance.subprocess, "run", lambda *call, **how: SimpleNamespace(stdout=next(answers))
    )
    monkeypatch.setattr(provenance, "__file__", str(ROOT / "gcnn" / "base" / "provenance.py"))
    provenance.git_commit.cache_clear()
    monkeypatch.setattr(provenance.Path, "exists", lambda path: True)  # .git: in a wheel it is not
    found = [provenance.git_commit(), provenance.git_commit()]
    provenance.git_commit.cache_clear()
    assert found == ["first", "first"]
