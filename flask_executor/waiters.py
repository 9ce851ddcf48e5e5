"""How threads wait for futures, and what runs when a future has ended."""

from __future__ import annotations

import logging
import threading
import time
import traceback
import typing as t
from _thread import RLock  # that of threading is a function around it
from concurrent.futures import CancelledError, Future

from flask import Flask

from .contexts import Snapshot
from .log import Log
from .task import Task, Wait

Callback = t.Callable[[t.Any], object]


class Condition(threading.Condition):
    """A condition that makes and finds what it needs when it needs it.

    The one of the standard library makes a deque and binds five methods of its lock in
    advance. That is most of a future's memory and a third of the time to make one, and
    the garbage collector visits all of it.
    """

    _waiters: t.Any = ()

    def __init__(self) -> None:
        self._lock = RLock()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._waiters:
            self._waiters = []
        return super().wait(timeout)

    def acquire(self, *args: t.Any, **kwargs: t.Any) -> bool:
        return self._lock.acquire(*args, **kwargs)

    def release(self) -> None:
        self._lock.release()

    def _release_save(self) -> t.Any:
        return self._lock._release_save()  # type: ignore[attr-defined]

    def _acquire_restore(self, state: t.Any) -> None:
        self._lock._acquire_restore(state)  # type: ignore[attr-defined]

    def _is_owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]


class Waited(t.Protocol):
    """What :class:`Waiters` must know of a future."""

    task: Task | None
    _installed: tuple[t.Any, ...]


class Waiters:
    """The waiters that the standard library has installed in a future.

    Each waits for an event, which is replaced by a :class:`WaitEvent`. So a task that
    waits in this way lends its worker and gives up its place, as in any other wait.
    All methods are called under the future's lock.
    """

    def __init__(self, future: Waited) -> None:
        self._future = future

    def append(self, waiter: t.Any) -> None:
        """Install a waiter."""
        future = self._future
        if type(waiter.event) is threading.Event:
            waiter.event = WaitEvent()
        if type(waiter.event) is WaitEvent and future.task is not None:
            waiter.event.tasks.append(future.task)
        future._installed = (*future._installed, waiter)

    def remove(self, waiter: t.Any) -> None:
        """Remove a waiter."""
        installed = list(self._future._installed)
        installed.remove(waiter)
        self._future._installed = tuple(installed)

    def __iter__(self) -> t.Iterator[t.Any]:
        return iter(self._future._installed)

    def __len__(self) -> int:
        return len(self._future._installed)


class WaitEvent(threading.Event):
    """An event that one thread waits for until one of some tasks has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []
        """The tasks that are waited for."""
        self._of_owners: dict[t.Any, list[Task]] = {}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until one of the tasks has ended; see :meth:`threading.Event.wait`."""
        waits = [] if self.is_set() else self._start(has_timeout=timeout is not None)
        try:
            return super().wait(timeout)
        finally:
            for wait in waits:
                wait.end()

    def _start(self, *, has_timeout: bool) -> list[Wait]:
        # as_completed waits many times: each task is sorted, and reported, only once.
        new, self.tasks = self.tasks, []
        for task in new:
            self._of_owners.setdefault(task._owner, []).append(task)
        waits = []
        for owner, tasks in self._of_owners.items():
            while tasks and tasks[-1]._has_ended:
                tasks.pop()
            if tasks:
                also = tasks if new else ()
                wait = owner.start_awaiting(tasks[-1], also, has_timeout=has_timeout)
                waits += [] if wait is None else [wait]
        return waits


class DoneCallback:
    """A done-callback that runs once, in its context, and then refers to nothing."""

    __slots__ = ("_app", "_fn", "_snapshot")

    def __init__(self, fn: Callback, app: Flask, snapshot: Snapshot | None) -> None:
        self._fn: t.Any = fn
        self._app = app
        self._snapshot = snapshot

    def __call__(self, future: Future[t.Any]) -> None:
        fn, snapshot = self._fn, self._snapshot
        # A future keeps its callbacks as long as it lives.
        self._fn = self._snapshot = None
        try:
            if snapshot is None:
                fn(future)
            else:
                snapshot.run(fn, (future,), {})
        except BaseException as error:
            message = "The done-callback %r of %r failed"
            Log(self._app).write(logging.ERROR, message, fn, future, error=error)
            traceback.clear_frames(error.__traceback__)
        finally:
            # The error's traceback keeps this frame, and the future keeps the error.
            del fn, snapshot, future


def deadline_after(timeout: float | None) -> float | None:
    """Return when a timeout that begins now is over, in monotonic seconds."""
    return None if timeout is None else time.monotonic() + timeout


def remaining_until(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, 0 if it has passed."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def wait_for(future: Future[t.Any], deadline: float | None) -> bool:
    """Wait until a future has ended; return False if the deadline comes first.

    It calls the future's own ``exception``, which within a task can run the task of
    the future.
    """
    remaining = remaining_until(deadline)
    if future.done() or remaining == 0:
        return future.done()
    try:
        future.exception(remaining)
    except CancelledError:
        return True
    except TimeoutError:
        return future.done()
    return True
