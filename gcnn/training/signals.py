"""Signals that end a training run once its step is finished and saved."""

import logging
import signal
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class StopSignals:
    """Remembers which of SIGNALS this process received last, instead of being ended by it.

    `received` is that signal's number; None: none yet. A context manager for the main thread:
    within it its handlers are installed, afterwards the former ones are back. SIGHUP stays ignored
    if it was, as under nohup. Ctrl-C after any signal (a second Ctrl-C, say) raises
    KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopSignals":
        self.previous = {}
        for number in without_ignored_hangup(SIGNALS):
            self.previous[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: Any) -> None:
        """The signal handler: sets `received` and logs a warning.

        Raises KeyboardInterrupt instead for a SIGINT (Ctrl-C) after any signal.
        """
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        name = signal.Signals(number).name
        log.warning("%s: finishing the step, then saving. Ctrl-C stops at once.", name)


def without_ignored_hangup(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """The signals to install a handler for: not SIGHUP if it is ignored, as under nohup."""
    hangup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in numbers if number != signal.SIGHUP or not hangup_ignored]
