"""Processes of the tests, forked from one that has imported what takes seconds to import."""

import multiprocessing
import os
import runpy
import socket
import sys
from pathlib import Path

from gcnn.training import run

SCRIPTS = Path(__file__).parents[1] / "scripts"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([run.__name__, "torch._dynamo", "hydra.main"])


class Command(FORKS.Process):
    """A command of scripts/ in a process of its own, which the constructor starts.

    script: its name without .py. arguments: each is turned into text.
    environment: variables that are added to this process's.
    Its stdout is dropped; its stderr goes into `said`, a file in `folder` with a name of its own.
    """

    def __init__(self, folder: Path, script: str, *arguments: object, **environment: object):
        super().__init__()
        self.script = str(SCRIPTS / f"{script}.py")
        self.arguments = [str(argument) for argument in arguments]
        self.environment = {key: str(value) for key, value in environment.items()}
        self.said = folder / f"{self.name}.err"
        self.start()

    def run(self) -> None:
        """Run the script. The new process calls this; it is not for callers."""
        for descriptor, path in ((1, os.devnull), (2, self.said)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
        os.environ.update(self.environment)
        sys.argv = [self.script, *self.arguments]
        runpy.run_path(self.script, run_name="__main__")

    def finish(self, code: int = 0) -> str:
        """Wait at most 120 seconds for its end; returns its stderr.

        Raises AssertionError, with that text, if it has not ended or has another exit code than
        `code` (as in multiprocessing: negative for a signal).
        """
        self.join(timeout=120)
        said = self.said.read_text()
        assert self.exitcode == code, said
        return said


def environments_of_ranks(number: int) -> list[dict[str, object]]:
    """The environment variables by which torchrun tells each of `number` processes its rank.

    By rank, all on this machine and with one port, which was free when this was called.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sizes = {
        "WORLD_SIZE": number,
        "LOCAL_WORLD_SIZE": number,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return [{"RANK": rank, "LOCAL_RANK": rank, **sizes} for rank in range(number)]
