"""The clock, and the timer that calls functions when they are due."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import traceback
import typing as t

from ..threads import start_thread

_IDLE = 10.0
"""Seconds for which a timer's thread stays alive with nothing to wait for."""

Action = tuple[t.Callable[[t.Any], object], t.Any]


class Clock:
    """The time of this machine; :mod:`flask_executor.testing` has one moved by hand."""

    monotonic: t.Callable[[], float] = staticmethod(time.monotonic)
    """Seconds that never go back, for waits."""
    time: t.Callable[[], float] = staticmethod(time.time)
    """Seconds since the epoch, for people."""

    is_manual: bool = False
    """True if only a test moves it: it neither sleeps nor is set."""

    def drives(self, timer: Timer) -> bool:
        """Return True if this clock calls :meth:`Timer.run_due` itself from now on."""
        return False


class TimerHandle:
    """A call that is to happen once, unless it is cancelled."""

    __slots__ = ("argument", "due", "fn")

    def __init__(
        self, fn: t.Callable[[t.Any], object], argument: t.Any, due: float
    ) -> None:
        self.fn: t.Callable[[t.Any], object] | None = fn
        self.argument: t.Any = argument
        self.due: float = due

    def take(self) -> Action | None:
        """Return what to call and with what; None if it was taken before."""
        if self.fn is None:
            return None
        taken = self.fn, self.argument
        self.fn, self.argument = None, None
        return taken


class _Here(threading.local):
    """What a thread knows about itself."""

    is_aside: bool = False


class Timer:
    """Calls functions when they are due, one after another, on one thread.

    The functions must be quick and must not run code of the app: that would delay what
    else is due. Use :meth:`aside` for such functions.

    The thread starts with the first call, and ends when there was nothing to wait for
    for some seconds, or after :meth:`close`.

    :param clock: tells the time.
    :param name: the name of the thread.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self._name = name
        self._heap: list[tuple[float, int, TimerHandle]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        # Reentrant: the garbage collector may call close() on a thread that is in here.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._driven = clock.drives(self)
        self._closed = False
        self.on_close: t.Callable[[], object] = bool
        """Called by :meth:`close`, to cancel calls that nobody waits for."""
        self._here = _Here()

    @property
    def is_own_thread(self) -> bool:
        """True on the timer's own thread, and on those of :meth:`aside`."""
        return self._here.is_aside or threading.current_thread() is self._thread

    def at(
        self, due: float, fn: t.Callable[[t.Any], object], argument: t.Any
    ) -> TimerHandle:
        """Call ``fn(argument)`` once the clock's monotonic time has reached ``due``.

        :raises RuntimeError: if the thread cannot be started; nothing happens then, and
            the next call tries again.
        """
        handle = TimerHandle(fn, argument, due)
        with self._changed:
            entry = due, next(self._numbers), handle
            heapq.heappush(self._heap, entry)
            if self._thread is None and not self._driven:
                self._start_thread(entry)
            elif self._heap[0][2] is handle:
                self._changed.notify()
        return handle

    def cancel(self, handle: TimerHandle) -> None:
        """Cancel a call; nothing refers to its argument any more."""
        with self._changed:
            if handle.take() is None:  # it happens already
                return
            # As asyncio does with its handles: what is cancelled stays where it is
            # until it is the greater part.
            self._cancelled += 1
            if self._cancelled > 100 and self._cancelled > len(self._heap) / 2:
                self._heap = [entry for entry in self._heap if entry[2].fn is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def aside(self, fn: t.Callable[..., object], *args: t.Any) -> None:
        """Call a function that may take long, on a new thread.

        If no thread can be started, it runs here. A clock moved by hand runs it here
        too, so that a test sees what has happened.
        """
        try:
            if not self._driven:
                start_thread(self._run_aside, fn, args, name=f"{self._name}_aside")
                return
        except RuntimeError:  # there are no more threads, or the interpreter ends
            pass
        self._run_aside(fn, args)

    def _run_aside(self, fn: t.Callable[..., object], args: tuple[t.Any, ...]) -> None:
        was_aside, self._here.is_aside = self._here.is_aside, True
        try:
            fn(*args)
        except BaseException:  # no code of the app is to blame
            traceback.print_exc()
        finally:
            self._here.is_aside = was_aside

    def next_due(self) -> float | None:
        """Return when the next call is due; None if there is none."""
        with self._changed:
            return self._next_due()

    def run_due(self) -> None:
        """Call what is due now, on this thread."""
        while (due := self._take_due()) is not None:
            fn, argument = due
            try:
                fn(argument)
            except BaseException:
                # A failure of one must not prevent the others.
                traceback.print_exc()
            del due, fn, argument

    def close(self, *, wait: bool) -> None:
        """End the thread as soon as no call is left.

        :param wait: return only when it has ended; not on the thread itself.
        """
        self.on_close()
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _take_due(self) -> Action | None:
        with self._changed:
            due = self._next_due()
            if due is None or due > self.clock.monotonic():
                return None
            return heapq.heappop(self._heap)[2].take()

    def _next_due(self) -> float | None:
        while self._heap and self._heap[0][2].fn is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def _start_thread(self, entry: tuple[float, int, TimerHandle]) -> None:
        try:
            self._thread = start_thread(self._serve, name=self._name, daemon=True)
        except RuntimeError:
            self._heap.remove(entry)
            heapq.heapify(self._heap)
            raise

    def _serve(self) -> None:
        while self._wait():
            self.run_due()

    def _wait(self) -> bool:
        """Wait for the next call; return False if this thread must end."""
        with self._changed:
            while (due := self._next_due()) is not None:
                wait = due - self.clock.monotonic()
                if wait <= 0:
                    return True
                self._changed.wait(min(wait, threading.TIMEOUT_MAX))
            if not self._closed and self._changed.wait(_IDLE):
                return True  # there is something new
            if self._heap:
                return True
            self._thread = None
            return False
