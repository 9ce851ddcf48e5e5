"""Threads that stop at one line, so that a test does something at that very moment.

A race between two threads has few outcomes that matter: one thread is somewhere on its
way while the other one goes all of its way. So a test stops the first one before every
line in turn, and needs no luck.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import typing as t

from control import until
from flask import Flask
from limits import LIMIT

from flask_executor import Executor

_PATIENCE = 0.1
"""Seconds that others get to come to an end, or to a lock of the one that stands."""


class Stop:
    """Stops the first thread that runs so many lines in some files.

    :param lines: how many lines it may run before.
    :param parts: what the paths of those files hold.
    """

    def __init__(self, lines: int, parts: tuple[str, ...]) -> None:
        self._left = lines
        self._parts = parts
        self._reached = threading.Event()
        self._may_go_on = threading.Event()
        self.at = ""
        """The function and the line at which it stands."""

    @property
    def is_reached(self) -> bool:
        """True if a thread has come there."""
        return self._reached.is_set()

    def wait(self, is_over: t.Callable[[], bool]) -> None:
        """Return when a thread has come there, or its way was over before.

        In that case no thread stops any more: it would with what the test does next.
        """
        until(lambda: self.is_reached or is_over())
        if not self.is_reached:
            self.go_on()

    def go_on(self) -> None:
        """Let the thread go on, and others not stop any more."""
        self._left = -1
        self._may_go_on.set()

    def __enter__(self) -> Stop:
        """Look at the threads that start in the block."""
        self._before = threading.gettrace()
        threading.settrace(self.trace)
        return self

    def __exit__(self, *exc: object) -> None:
        threading.settrace(t.cast(t.Any, self._before))

    def trace(self, frame: t.Any, event: str, arg: object) -> t.Any:
        """See :func:`sys.settrace`."""
        file = frame.f_code.co_filename
        if file.endswith("timer.py"):  # at most lines it holds a lock that all need
            return None
        return self._step if any(part in file for part in self._parts) else None

    def _step(self, frame: t.Any, event: str, arg: object) -> t.Any:
        if event in ("line", "return") and self._left >= 0:
            self._left -= 1
            if self._left < 0:
                self.at = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                self._reached.set()
                self._may_go_on.wait(LIMIT)
        return self._step


class Meanwhile:
    """Does something on a thread of its own.

    :param fn: what it does.
    :param stop: where it stops, if it does.
    """

    def __init__(self, fn: t.Callable[[], object], stop: Stop | None = None) -> None:
        self._error: BaseException | None = None
        self._is_waiting = False
        self._thread = threading.Thread(target=self._run, args=(fn, stop), daemon=True)
        self._thread.start()

    def _run(self, fn: t.Callable[[], object], stop: Stop | None) -> None:
        if stop is not None:
            sys.settrace(stop.trace)
        # sys._current_frames would tell it, too, but hangs now and then in Python 3.11.
        sys.setprofile(self._notice_wait)
        try:
            fn()
        except BaseException as error:
            self._error = error

    def _notice_wait(self, frame: t.Any, event: str, arg: object) -> None:
        if frame.f_code is threading.Condition.wait.__code__:
            self._is_waiting = event != "return"

    @property
    def is_over(self) -> bool:
        """True if it has come to its end."""
        return not self._thread.is_alive()

    def settle(self) -> None:
        """Return when it is over, or waits for a thread that stands."""
        deadline = time.monotonic() + _PATIENCE
        waits = 0  # more than once: to start a thread is a short wait, too
        while not self.is_over and waits < 5 and time.monotonic() < deadline:
            self._thread.join(0.0005)
            waits = waits + 1 if self._is_waiting else 0

    def result(self) -> None:
        """Return when it is over; raise what it has raised."""
        self._thread.join(LIMIT)
        assert self.is_over
        if self._error is not None:
            raise self._error


def at_every_line(
    app: Flask, scenario: t.Callable[[Stop, Executor], object], *parts: str
) -> int:
    """Play a scenario, with a stop one line later each time, until none is reached.

    :param scenario: it gets a new executor each time.
    :param parts: see :class:`Stop`.
    :return: how many lines there were.
    """
    for lines in itertools.count():
        stop, executor = Stop(lines, parts), Executor(app)
        try:
            scenario(stop, executor)
        except BaseException as error:
            error.add_note(f"The thread stood at {stop.at or 'no line'}.")
            raise
        finally:
            stop.go_on()
            executor.shutdown(wait=False)
        if not stop.is_reached:
            return lines
    raise AssertionError
