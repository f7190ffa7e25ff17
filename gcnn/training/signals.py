"""Signals that end a training run once its step is finished and saved."""

import logging
import signal
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class StopSignals:
    """Remembers which of SIGNALS this process received last, instead of being ended by it.

    A context manager for the main thread: within it its handlers are installed, afterwards the
    former ones are back. Ctrl-C after another signal (a second Ctrl-C, say) raises
    KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopSignals":
        self.previous = {}
        for number in handled(SIGNALS):
            self.previous[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: Any) -> None:
        """The signal handler."""
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        name = signal.Signals(number).name
        log.warning("%s: finishing the step, then saving. Ctrl-C stops at once.", name)


def handled(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """The signals without SIGHUP where it is ignored, as under nohup: that stays so."""
    hangup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in numbers if number != signal.SIGHUP or not hangup_ignored]
