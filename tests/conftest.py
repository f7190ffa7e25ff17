"""What all tests share."""

import gc
import logging
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.sweeper import Sweeper
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("gcnn", deadline=None)  # machines are noisy
settings.load_profile("gcnn")
os.environ["WANDB_MODE"] = "offline"
# Within `make test`, a make that a test starts would print the folders that it enters, too.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
# Under nohup it is ignored, in all processes that are started from here, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
LONG = (  # files that take long
    "test_sweep", "test_train", "test_update", "test_distributed", "test_gpu", "test_configs",
    "test_fairseq_reference", "test_docs", "test_copies", "test_score_command", "test_small_text",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Let the files of LONG begin first, so that none of them keeps one worker at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Have torch compute with one thread in all tests.

    A fixture, because pytest-xdist's own process, which runs no test, need not import torch.
    """
    import torch

    torch.set_num_threads(1)  # the models of the tests are too small to share out
    gc.freeze()  # what torch brings is not looked through for garbage again and again


@pytest.fixture(scope="session", autouse=True)
def configs_read_once():
    """Have Hydra read the project's configs once, which halves what composing them takes.

    A fixture, as above: pytest-xdist's own process composes nothing.
    """
    from tests.composing import remember_the_projects_configs

    remember_the_projects_configs()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, GCNN_SHARED; a test that asks for it is skipped if that is not set.

    Whether the folder exists is not checked.
    """
    folder = os.environ.get("GCNN_SHARED")
    if not folder:
        pytest.skip("GCNN_SHARED is not set: the real data is not here")
    return Path(folder)


class Outcome(NamedTuple):
    """How a command ended: its exit code (None is 0, as sys.exit has it), stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    """A function that runs a command of scripts/ in this process, with tmp_path as the cwd."""
    monkeypatch.chdir(tmp_path)

    def run(script: str, *arguments: object, stdin: bytes = b"") -> Outcome:
        """Run a script until it calls sys.exit, which it must; other exceptions are passed on.

        script: its name without .py. arguments: each is turned into text.
        stdin: at most what a pipe holds (64 KiB). File descriptor 0 stays replaced afterwards; the
        arguments, the handlers of the log and what else is patched are undone after the test.
        """
        reader, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)
        GlobalHydra.instance().clear()
        # Hydra would compose everything once more for hydra.mode, which nothing sets.
        monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        # Nor is each member of a sweep composed once more by Hydra, after SweepFolder's check.
        monkeypatch.setattr(Sweeper, "validate_batch_is_legal", lambda *_: None)
        # The handlers of an earlier command write to its closed streams.
        monkeypatch.setattr(logging.root, "handlers", [])
        path = str(ROOT / "scripts" / f"{script}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(path, run_name="__main__")
        return Outcome(stop.value.code, *capfd.readouterr())

    return run
