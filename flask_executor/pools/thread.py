"""Calls on threads: the standard library's pool, with our line before it."""

from __future__ import annotations

import concurrent.futures.thread as stdlib
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

from flask import Flask

from ..errors import ExecutorShutDown
from ..settings import Settings
from ..task import Task
from . import Line, Plain


def make(settings: Settings, name: str, app: Flask) -> ThreadPool:
    """The pool for an app."""
    return ThreadPool(settings.max_workers, name)


class ThreadPool(Plain, ThreadPoolExecutor):
    """A :class:`~concurrent.futures.ThreadPoolExecutor` that takes tasks.

    Tasks wait in a line of ours. For each of them the standard library's queue gets a
    *turn*, the same object for all: a work item that runs whichever task is first in
    line by then. So threads, shutdown and the rules at exit stay the standard
    library's own.

    Passing a function of ours to its ``submit`` would do without its private names,
    and cost a second future for every call, which is a third of the time of a call and
    of the memory of a waiting one.
    """

    kind: t.ClassVar[str] = "thread"
    runs_on_threads: t.ClassVar[bool] = True

    def __init__(self, max_workers: int | None, name: str) -> None:
        super().__init__(max_workers, thread_name_prefix=name)
        self._line = Line()
        self._turn: t.Any = _Turn(self._line, Task.run)

    @property
    def is_own_thread(self) -> bool:
        """Whether this is one of the pool's threads."""
        return threading.current_thread() in self._threads

    def start(self, task: Task, *, first: bool = False) -> None:
        """Put a task in line.

        :raises ExecutorShutDown: where the pool is shut down, or the interpreter
            ends.
        """
        self._put(task, first, self._turn)

    def start_with(
        self, run: t.Callable[[Task], object], task: Task, *, first: bool = False
    ) -> None:
        """Likewise, where a thread is to do something else with it."""
        # Not kept: the pool must not refer to who has it.
        self._put(task, first, _Turn(self._line, run))

    def _put(self, task: Task, first: bool, turn: t.Any) -> None:
        # The second lock is held by whoever ends the interpreter or forks.
        with self._shutdown_lock, stdlib._global_shutdown_lock:
            if self._shutdown or stdlib._shutdown:
                raise ExecutorShutDown(task.name)
            self._line.put(task, first=first)
            self._work_queue.put(turn)
            if len(self._threads) < self._max_workers:  # asking costs a semaphore
                # Threads may inherit contexts from Python 3.14 on: the submitter's
                # would live as long as its worker thread.
                Context().run(self._adjust_thread_count)


class _Turn:
    """A work item of the standard library's pool: the turn of who is first in line."""

    def __init__(self, line: Line, run: t.Callable[[Task], object]) -> None:
        self._line = line
        self._run = run

    def run(self, _context: object = None) -> None:
        """Run the first in line.

        :param _context: what the threads of Python 3.14 pass to their work items.
        """
        # Not kept in a variable: the traceback of a failure would refer to it.
        self._run(self._line.take())  # type: ignore[arg-type]

    @property
    def future(self) -> _Turn:
        """What the standard library cancels when it is shut down that way."""
        return self

    def cancel(self) -> None:
        """Cancel the first in line."""
        task = t.cast(Task, self._line.take())
        task.owner.cancel(task)


POOL = ThreadPool
