"""When a run ends, what time its steps take, and the signals that stop it."""

import signal
import time

import pytest

from gcnn.config.schema import TrainerConfig
from gcnn.training.progress import Bounds, Progress, StepTimer
from gcnn.training.signals import SIGNALS, StopSignals


def bounds(max_tokens: float | None = None, **settings) -> Bounds:
    unbounded = {"max_steps": None, "max_epochs": None, "max_minutes": None}
    return Bounds(TrainerConfig(**{**unbounded, **settings}), batches=8, max_tokens=max_tokens)


def test_the_nearest_bound_decides():
    progress = Progress(step=50, epoch=1, index=4, tokens=300, seconds=90.0)
    assert bounds(max_steps=100).fraction_done(progress) == 0.5
    assert bounds(max_epochs=2).fraction_done(progress) == 0.75
    assert bounds(max_minutes=2.0).fraction_done(progress) == 0.75
    assert bounds(max_tokens=400.0).fraction_done(progress) == 0.75
    assert bounds(max_steps=100, max_minutes=1.5).reached(progress)
    assert not bounds(max_steps=51, max_epochs=2).reached(progress)


def test_a_run_ends_when_patience_does():
    patient = bounds(max_steps=100, patience=3)
    assert not patient.reached(Progress(step=1, no_better=2))
    assert patient.reached(Progress(step=1, no_better=3))
    assert not bounds(max_steps=100).reached(Progress(step=1, no_better=1000))


def test_a_timer_counts_steps_and_not_what_lies_between_them(monkeypatch):
    """Steps of 3 and 1 seconds before and after the time is shared, 100 seconds between them."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    timer = StepTimer()
    shared = []
    for _ in range(4):
        timer.start()
        clock[0] += 3
        shared.append(timer.seconds_to_share())
        clock[0] += 1
        timer.stop()
        clock[0] += 100
    assert shared == [3, 4, 4, 4]


def test_signals_are_remembered_and_handlers_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    signals = StopSignals()
    with signals:
        assert signals.received is None
        signal.raise_signal(signal.SIGUSR1)
        assert signals.received == signal.SIGUSR1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before
