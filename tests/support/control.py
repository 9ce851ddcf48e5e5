"""What the tests of options, timeouts, retries and the rest have in common."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import typing as t

from flask import Flask
from internals import Clock, Dispatcher, Timer
from limits import LIMIT

from flask_executor import Executor, Task, signals

SIGNALS = (
    signals.task_submitted,
    signals.task_started,
    signals.task_progressed,
    signals.task_retrying,
    signals.task_succeeded,
    signals.task_failed,
    signals.task_timed_out,
    signals.task_cancelled,
)
TERMINAL = ("succeeded", "failed", "timed-out", "cancelled")


class HandClock(Clock):
    """A clock that a test moves; it drives the timer of one executor."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self._timers: list[Timer] = []

    def monotonic(self) -> float:  # type: ignore[override]
        return self.elapsed

    def time(self) -> float:  # type: ignore[override]
        return 1_800_000_000 + self.elapsed

    def drives(self, timer: Timer) -> bool:
        self._timers.append(timer)
        return True

    @property
    def timer(self) -> Timer:
        (timer,) = self._timers
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, and call what is due on the way, each at its time."""
        end = self.elapsed + seconds
        while (due := self.timer.next_due()) is not None and due <= end:
            self.elapsed = max(self.elapsed, due)
            self.timer.run_due()
        self.elapsed = end

    def armed(self) -> float:
        """Wait until something is to happen; the seconds until then."""
        changed = self.timer._changed
        with changed:
            assert changed.wait_for(lambda: self.timer._next_due() is not None, LIMIT)
            return t.cast(float, self.timer._next_due()) - self.elapsed

    def to_next(self) -> float:
        """Wait until something is to happen, and move to its time; the way there."""
        way = self.armed()
        self.advance(way)
        return way

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to happen."""
        return self.timer.next_due() is None


def with_clock(executor: Executor) -> HandClock:
    """Have an executor that has not begun yet use a clock moved by hand."""
    clock = HandClock()
    state = executor._state()
    assert state.ready is None
    app = t.cast(Flask, state.app())
    dispatcher = Dispatcher(state.settings, state._thread_name(), app, clock)
    state.ready = dispatcher
    return clock


class Journal:
    """The signals of an app, in the order in which they came."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.entries: list[tuple[str, Task, dict[str, t.Any]]] = []
        self._came = threading.Condition()
        self._receivers: list[t.Any] = []

    def __enter__(self) -> Journal:
        for signal in SIGNALS:
            receiver = self._receiver(signal.name.removeprefix("task-"))
            signal.connect(receiver, sender=self.app)
            self._receivers.append((signal, receiver))
        return self

    def __exit__(self, *exc: object) -> None:
        for signal, receiver in self._receivers:
            signal.disconnect(receiver)

    def of(self, task: Task | None) -> list[str]:
        """What was sent for a task."""
        return [name for name, its, _ in [*self.entries] if its is task]

    def facts(self, name: str) -> list[dict[str, t.Any]]:
        """What came with a signal, each time."""
        return [facts for its, _, facts in [*self.entries] if its == name]

    def wait(self, name: str, count: int = 1) -> None:
        """Return once a signal has come so many times."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.facts(name)) >= count, LIMIT), (
                self.entries
            )

    def _receiver(self, name: str) -> t.Callable[..., None]:
        def receive(sender: Flask, task: Task, **facts: t.Any) -> None:
            with self._came:
                self.entries.append((name, task, {"sender": sender, **facts}))
                self._came.notify_all()

        return receive


class Door:
    """A listening socket that tasks in any thread, loop or process connect to, and
    wait at.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LIMIT)
        self.port: int = self._listener.getsockname()[1]
        self._waiting: list[socket.socket] = []

    def reached(self) -> None:
        """Return once one more waits there."""
        self._waiting.append(self._listener.accept()[0])

    def process(self) -> int:
        """Return once one more waits there: the process it is in, which it tells."""
        self.reached()
        return int(self._waiting[-1].makefile().readline())

    def open(self) -> None:
        """Let those go on that wait."""
        for waiting in self._waiting:
            with contextlib.suppress(OSError):  # its process was killed
                waiting.sendall(b"x")
            waiting.close()
        self._waiting.clear()

    def close(self) -> None:
        self.open()
        self._listener.close()


def until(holds: t.Callable[[], object]) -> None:
    """Return once something holds that nobody announces."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline
        os.sched_yield()


def occupy(executor: Executor, gate: threading.Event, workers: int = 1) -> list[t.Any]:
    """Have the workers of a thread pool wait for a gate."""
    started = threading.Barrier(workers + 1)

    def wait() -> None:
        started.wait(LIMIT)
        gate.wait(LIMIT)

    futures = [executor.submit(wait) for _ in range(workers)]
    started.wait(LIMIT)
    return futures
