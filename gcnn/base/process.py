"""How a command begins and ends: its standard streams, one line for an error, and an exit code."""

import contextlib
import errno
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from gcnn.base import torchrun
from gcnn.base.errors import RunError, UsageError, one_line, out_of_memory


def message_and_code(error: BaseException) -> tuple[str, int] | None:
    """The one-line message and the exit code that a command ends with for this error.

    2: UsageError, and UnicodeEncodeError, which is taken for a path that is not UTF-8.
    1: RunError, OSError, MemoryError, and a RuntimeError that says that memory ran out. With
    several processes under torchrun also a RuntimeError that says that another process was lost.
    128 + n: Interrupted by signal n. 130: KeyboardInterrupt.
    None for any other error: a bug, whose traceback should be shown.
    """
    if isinstance(error, UsageError | RunError):
        return one_line(error), error.exit_code
    if isinstance(error, UnicodeEncodeError):  # a path with bytes that are not UTF-8
        name = error.object.encode(errors="backslashreplace").decode()
        return f"{name[:200]} is not UTF-8. Rename that file or folder.", 2
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # the disk, or this user's quota
        remedy = "Free some space" if full else "Check the path and its permissions"
        return f"{one_line(error)}. {remedy} and run the command again.", 1
    if isinstance(error, MemoryError | RuntimeError) and out_of_memory(error):
        return f"out of memory ({one_line(error)[:200]}). Give smaller sizes or a smaller model.", 1
    # Each backend of torch.distributed words the loss of another process differently.
    lost = re.search(r"gloo|NCCL|TCPStore|Connection (closed|reset)", str(error))
    if lost and isinstance(error, RuntimeError) and torchrun.world_size() > 1:
        message = "another process of this run has ended; its own message says why."
        return f"{message} Mend that and resume.", 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    return None


class OutputThatMayClose(io.FileIO):
    """An output stream that drops what cannot be written, as when its reader has ended."""

    def write(self, data: Any) -> int | None:
        """Write bytes and return how many; if this fails they are dropped and count as written."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def ignore_closed_output() -> None:
    """Keep this process running when the reader of its output ends, as `head` does.

    For training, which may take days; commands that filter text should end with their reader.
    Replaces sys.stdout and sys.stderr, until the process ends, by streams that drop what cannot be
    written, write each line at once and escape characters that the encoding lacks. What was printed
    before is written first, or dropped if it cannot be. A stream that does not write to descriptor
    1 or 2 (as under pytest) is not replaced. Further calls do nothing.
    SIGHUP is not handled: a terminal that is closed still sends it.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        # The stream is None, closed, or a replacement without a descriptor or a buffer: leave it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stream.fileno() != descriptor or isinstance(stream.buffer.raw, OutputThatMayClose):
                continue
            buffer = io.BufferedWriter(OutputThatMayClose(descriptor, "wb", closefd=False))
            replacement = io.TextIOWrapper(
                buffer, stream.encoding, "backslashreplace", line_buffering=True
            )
            setattr(sys, name, replacement)
            stream.flush()  # last: it fails if the reader has ended


def on_terminal() -> bool:
    """Whether stderr is a terminal: it shows progress bars; a file or a pipe gets lines instead."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error of the `with` block into one line on stderr and SystemExit with its exit code.

    Codes are those of `message_and_code`. An error that it takes for a bug, and SystemExit, pass
    through unchanged. Any BrokenPipeError is taken for the reader of stdout leaving, as `head`
    does: the code is 0, nothing is printed, and stdout is sent to the null device.
    An error with code 2 on a rank above 0 first waits ten seconds, in which rank 0 prints the same
    and torchrun ends this process.
    """
    try:
        yield
        return
    except BrokenPipeError:
        # Python flushes stdout when it ends; the null device keeps that from failing again.
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        explained = message_and_code(error)
        if explained is None:
            raise
        message, code = explained
    if torchrun.rank() > 0 and code == 2:
        time.sleep(10)  # rank 0 prints the same, and torchrun ends this process after rank 0
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def open_missing_streams() -> None:
    """Open the null device in place of each standard stream that the process was started without.

    Otherwise the next file that is opened would get the stream's descriptor, and its output.
    Call it before files are opened. Side effect: where sys.stdout or sys.stderr is None, it becomes
    a stream to the null device; sys.stdin stays None.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def exit_at_termination() -> Iterator[None]:
    """Exit with code 128 + n at signal n, of SIGTERM and SIGHUP, so that `finally` blocks are run.

    They remove temporary files and locks, for which Python's default leaves no time. A signal that
    is ignored (SIGHUP under nohup) or has another handler is left as it is. For the main thread, in
    a `with`; at its end the default is back. Does nothing where there are several processes: one
    that waits for another would not see the signal.
    """
    numbers = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        if torchrun.world_size() == 1 and signal.getsignal(number) == signal.SIG_DFL:
            numbers.append(number)

    def leave(number: int, frame: Any) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a terminal that closes sends SIGHUP twice
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command's main function and end the process with its exit code; never returns.

    command: takes nothing and returns the exit code; None is 0. Its errors are reported as
    `one_line_errors` does, and a bug is raised unchanged. Otherwise SystemExit is raised; but with
    several processes under torchrun, os._exit is called, which skips exit handlers.
    Side effects: sets $HYDRA_FULL_ERROR to 1 if it is not set or empty, opens standard streams that
    are closed, makes stdout escape characters that its encoding lacks, and in a single process
    handles SIGTERM and SIGHUP (`exit_at_termination`).
    """
    # Hydra then raises errors instead of printing them and exiting itself.
    os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR") or "1"
    open_missing_streams()
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with one_line_errors(), exit_at_termination():
            code = command() or 0
            sys.stdout.flush()  # here, where one_line_errors handles a reader that has left
            sys.exit(code)
    except SystemExit as stop:
        if torchrun.world_size() > 1:
            # Threads of torch's process group can crash Python's clean-up: end without it.
            with contextlib.suppress(OSError):  # a full disk, or a reader that has ended
                sys.stdout.flush()
            sys.stderr.flush()
            os._exit(stop.code or 0)
        raise
