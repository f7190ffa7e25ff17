"""Errors that a user meets: one line that names the thing and the remedy, and an exit code, never a traceback."""

import errno
import os
import sys
from collections.abc import Callable


class UsageError(Exception):
    """What was asked cannot be done as asked (a wrong path, key or value)."""

    exit_code = 2


class RunError(Exception):
    """What was asked failed on the way (a full disk, a loss that is not finite)."""

    exit_code = 1


class Interrupted(RunError):
    """A signal ended the run after its work was saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number  # the shell's convention


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command's main function and exit: 0 done, 1 failure, 2 usage, 128 + n after signal n.

    Hydra and OmegaConf report wrong keys and values as exceptions of their own; they are usage errors here.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing and exiting itself
    try:
        code, message = command() or 0, None
    except (UsageError, RunError) as error:
        code, message = error.exit_code, one_line(error)
    except (HydraException, OmegaConfBaseException) as error:
        code, message = 2, one_line(error)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second complaint when Python flushes
        code, message = 0, None
    except OSError as error:
        remedy = "Free some space" if error.errno == errno.ENOSPC else "Check the path and its permissions"
        code, message = 1, f"{one_line(error)}. {remedy} and run the command again."
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
