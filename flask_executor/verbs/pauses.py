"""Jobs that are paused: their tasks are accepted, and do not begin.

A worker that takes such a task puts it aside for a while, and goes on with the next.
So cancelling, draining and shutting down treat it as any task that waits for its time:
nothing waits for the end of a pause for ever. Nothing of this is asked while no job is
paused.
"""

from __future__ import annotations

import threading
import typing as t

from ..dispatch import Dispatcher
from ..job_names import job_name
from ..jobs import ExecutorJob
from ..task import Task

_ASIDE = 0.5
"""Seconds for which a task is put aside."""
_SHARE = 20_000
"""For so many waiting tasks it is a second more."""


class Pauses:
    """The jobs that are paused in one dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.names: frozenset[str] = frozenset()
        """The names of the jobs."""
        self._lock = threading.Lock()
        self._table = dispatcher.table
        self._queueing = dispatcher.queueing
        self._endings = dispatcher.endings

    @classmethod
    def of(cls, dispatcher: Dispatcher) -> Pauses:
        """Return those of a dispatcher; they are made at first use."""
        if dispatcher.pauses is None:
            # Of two threads that make them, both get the first.
            vars(dispatcher).setdefault("pauses", cls(dispatcher))
        return t.cast(Pauses, dispatcher.pauses)

    def add(self, job: str) -> None:
        """Pause a job."""
        with self._lock:
            self._set(self.names | {job})

    def remove(self, job: str) -> None:
        """Pause a job no longer."""
        with self._lock:
            self._set(self.names - {job})

    def set(self, read: t.Callable[[], t.Iterable[str]]) -> None:
        """Pause these jobs, and no others.

        :param read: returns them; no other change happens meanwhile.
        """
        with self._lock:
            self._set(frozenset(read()))

    def _set(self, names: frozenset[str]) -> None:
        self.names = names
        self._queueing.keeps = self._keeps if names else None

    def _keeps(self, task: Task) -> bool:
        """Put a task aside if its job is paused; called when it is to begin."""
        if task._pool.runs_in_caller or job_of(task) not in self.names:
            return False
        if self._table.closed:
            self._endings.give_up(task)
        elif task._saved is None or not task._saved.give_back():
            wait = _ASIDE + len(self._table.pending) / _SHARE
            self._queueing.enqueue_later(task, wait, "waiting")
        return True


def job_of(task: Task) -> str | None:
    """Return the name of the job of a task that has not ended, or None."""
    fn = None if task._call is None else task._call.fn
    return job_name(fn) if type(fn) is ExecutorJob else None
