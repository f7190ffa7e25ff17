"""The errors that a user meets: one line that names the thing and the remedy, and an exit code."""

import re


class UsageError(Exception):
    """What was asked cannot be done as asked (a wrong path, key or value)."""

    exit_code = 2


class RunError(Exception):
    """What was asked failed on the way (a full disk, a loss that is not finite)."""

    exit_code = 1


class Interrupted(RunError):
    """A signal ended the run after its work was saved; `go_on` is the command that goes on with it."""

    def __init__(self, saved: str, go_on: str, signal_number: int):
        super().__init__(f"{saved}; go on with: {go_on}")
        self.saved = saved
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # the shell's convention


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Python has a class of errors for it; torch has a message, one for each kind of memory."""
    return isinstance(error, MemoryError) or bool(
        re.search("out of memory|can't allocate memory", str(error))
    )
