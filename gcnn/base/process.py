"""How a command begins and ends: its standard streams, one line for an error, and an exit code."""

import contextlib
import errno
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gcnn.base import torchrun
from gcnn.base.errors import RunError, UsageError, one_line, out_of_memory


def explain(error: BaseException) -> tuple[str, int] | None:
    """What to tell of an error in one line, and the exit code; None of a mistake in the code, for its traceback."""
    if isinstance(error, UsageError | RunError):
        return one_line(error), error.exit_code
    if isinstance(error, UnicodeEncodeError):  # of a path: it holds bytes that are no letters
        name = error.object.encode(errors="backslashreplace").decode()
        return f"{name[:200]} is not UTF-8. Rename that file or folder.", 2
    if isinstance(error, OSError):
        full = error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
        )  # the disk, or what this user may have of it
        remedy = "Free some space" if full else "Check the path and its permissions"
        return f"{one_line(error)}. {remedy} and run the command again.", 1
    if isinstance(error, MemoryError | RuntimeError) and out_of_memory(error):
        return f"out of memory ({one_line(error)[:200]}). Give smaller sizes or a smaller model.", 1
    lost = re.search(
        r"gloo|NCCL|TCPStore|Connection (closed|reset)", str(error)
    )  # one for each backend
    if lost and isinstance(error, RuntimeError) and torchrun.world_size() > 1:
        return (
            "another process of this run has ended; its own message says why. Mend that and resume.",
            1,
        )
    return ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else None


class Outliving(io.FileIO):
    """A standard stream of a job of days: what its reader (`head`, a terminal) no longer takes is dropped."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def ignore_closed_output() -> None:
    """Let this process write to its end whoever listens. (A filter ends with its reader instead: see below.)"""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # none, or not that of the process
            if stream.fileno() == descriptor and not isinstance(stream.buffer.raw, Outliving):
                stream.flush()
                buffer = io.BufferedWriter(Outliving(descriptor, "wb", closefd=False))
                setattr(
                    sys,
                    name,
                    io.TextIOWrapper(
                        buffer, stream.encoding, "backslashreplace", line_buffering=True
                    ),
                )


def on_terminal() -> bool:
    """Whether somebody watches the messages: who does sees bars move, and a file or a pipe gets lines."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line and an exit code where a command fails: 1 failure, 2 usage, 128 + n signal n."""
    try:
        yield
        return
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # no second complaint when Python flushes
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error)
        if explained is None:
            raise
        message, code = explained
    if torchrun.rank() > 0 and code == 2:
        time.sleep(10)  # rank 0 says the same, and torchrun ends this process when rank 0 has ended
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def open_missing_streams() -> None:
    """Put the null device where the caller closed a standard stream: files opened later would take its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command's main function and exit, in every case: 0 where it is done."""
    # Hydra then raises instead of printing and exiting itself.
    os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR") or "1"
    open_missing_streams()
    sys.stdout.reconfigure(
        errors="backslashreplace"
    )  # a letter that the terminal lacks is no failure
    try:
        with one_line_errors():
            code = command() or 0
            sys.stdout.flush()  # here, where a reader that has left is no error
            sys.exit(code)
    except SystemExit as stop:
        if (
            torchrun.world_size() > 1
        ):  # threads of torch's process group can abort the end of Python
            sys.stderr.flush()
            os._exit(stop.code or 0)
        raise
