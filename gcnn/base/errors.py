"""Error classes that a command reports as one line (the cause and a remedy) and an exit code."""

import difflib
import re
from collections.abc import Collection


class UsageError(Exception):
    """The user gave an invalid path, key or value."""

    exit_code = 2


class RunError(Exception):
    """Valid work failed while it ran: a full disk, a loss that is not finite."""

    exit_code = 1


class Diverged(RunError):
    """A training run ended by a loss, gradient or validation that is not finite."""


class Interrupted(RunError):
    """A signal stopped the run after its work was saved.

    saved: a sentence without its full stop that says what was saved and where.
    go_on: the command that resumes the run.
    signal_number: the exit code is 128 + this.
    """

    def __init__(self, saved: str, go_on: str, signal_number: int):
        super().__init__(f"{saved}; go on with: {go_on}")
        self.saved = saved
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # the shell's convention


def one_line(error: BaseException) -> str:
    """The error's message in one line; the name of its class if the message is empty.

    Line ends, and white space of any length, become single blanks.
    """
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, names: Collection[str]) -> str:
    """A sentence, with a blank before it, that suggests the most similar name; empty if none is."""
    matches = difflib.get_close_matches(name, names, n=1)
    if not matches:
        return ""
    return f" The nearest is {matches[0]}."


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or the GPU.

    True for a MemoryError, and for an error of any class with torch's message for it ("out of
    memory" or "can't allocate memory"), because torch raises plain RuntimeErrors.
    """
    if isinstance(error, MemoryError):
        return True
    return re.search("out of memory|can't allocate memory", str(error)) is not None
