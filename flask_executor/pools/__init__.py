"""How calls run: the contract of a pool, and what each can do.

A pool is a real :class:`concurrent.futures.Executor` that also takes tasks. It has a
task run by :meth:`.Task.run`, or asks the owner's ``begin`` and ``finish`` itself; it
never raises what a call raised.
"""

from __future__ import annotations

import threading
import typing as t
from collections import deque
from concurrent.futures import Executor, Future
from importlib import import_module

from ..calls import Call, Outcome
from ..options import OPTIONS
from ..task import Task


class Pool(t.Protocol):
    """What the dispatcher asks of a pool."""

    kind: t.ClassVar[str]
    """Its name in messages: what ``EXECUTOR_TYPE`` says."""
    runs_in_caller: t.ClassVar[bool]
    """It runs each call at once, in the context of who submits it."""
    packs: t.ClassVar[bool]
    """:meth:`pack` makes of a call what it needs."""
    runs_on_threads: t.ClassVar[bool]
    """A call runs on whichever thread calls :meth:`.Task.run`."""
    stops_runs: t.ClassVar[bool]
    """:meth:`interrupt` ends a run."""
    honours: t.ClassVar[t.Collection[str]]
    """The options that tasks may have here."""

    stdlib_class: t.ClassVar[type | None]
    """The standard library's class for which an executor on this pool answers."""

    @property
    def is_own_thread(self) -> bool:
        """Whether the current thread is one of the pool's."""

    @classmethod
    def check_declared(cls, fn: t.Any) -> None:
        """Refuse a function that could never run here as a job; it is asked where the
        job is declared.

        :raises CallNotPicklable: where no worker process could import it.
        """

    def pack(self, task: Task) -> None:
        """Pack a task's call, on the submitter's thread, where :attr:`packs` says so.

        :raises CallNotPicklable: where the pool can never run it.
        """

    def start(self, task: Task, *, first: bool = False) -> None:
        """Put a task in line.

        :param first: before all others of its priority.
        :raises ExecutorShutDown: where the pool is shut down; the task is untouched.
        """

    def interrupt(self, task: Task) -> None:
        """Stop the run of a task where the pool can; else have the task know, where
        its code cannot see ``task.cancel_requested`` itself.
        """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, as :meth:`concurrent.futures.Executor.shutdown`."""


POOLS = ("thread", "process", "pebble", "sync")
"""What ``EXECUTOR_TYPE`` may be: each names a module of this package."""

FOR_COROUTINES = "loop"
"""The module of the pool that coroutine functions run on, whatever the type is."""


class Plain:
    """The part of the contract that most pools have in common."""

    stdlib_class: t.ClassVar[type | None] = None
    """The standard library's class for which an executor on this pool answers."""
    runs_in_caller: t.ClassVar[bool] = False
    packs: t.ClassVar[bool] = False
    runs_on_threads: t.ClassVar[bool] = False
    stops_runs: t.ClassVar[bool] = False
    honours: t.ClassVar[t.Collection[str]] = frozenset(OPTIONS)

    @property
    def is_own_thread(self) -> bool:
        """It has no threads."""
        return False

    @classmethod
    def check_declared(cls, fn: t.Any) -> None:
        """Any function may be a job here."""

    def pack(self, task: Task) -> None:
        """A call is run as it is."""

    def interrupt(self, task: Task) -> None:
        """The code of the task sees by itself that it is to stop."""


def pool_module(kind: str) -> t.Any:
    """The module of a pool, imported when a type names it.

    It has a function ``make(settings, name, app)``, which gives a :class:`Pool` whose
    workers start with the first task, and the class itself as ``POOL``.
    """
    return import_module(f".{kind}", __name__)


class Line:
    """Tasks that wait for a worker: by priority, then by arrival.

    It has a row for each priority there has been. Putting and taking need no lock, for
    each is one step of a deque; and who puts a task in before it calls for a taker may
    rely on each taker finding one: a taker that reads the rows from the top passes a
    row by only when it is empty.
    """

    def __init__(self) -> None:
        self._rows: dict[int, deque[Task]] = {0: deque()}
        self._in_order: tuple[deque[Task], ...] = tuple(self._rows.values())
        self._adding = threading.Lock()

    def put(self, task: Task, *, first: bool = False) -> None:
        """Put a task in: behind the others of its priority, or before them."""
        row = self._rows.get(task.options.priority)
        if row is None:
            row = self._new_row(task.options.priority)
        if first:
            row.appendleft(task)
        else:
            row.append(task)

    def take(self) -> Task | None:
        """The task whose turn it is, or None."""
        looked_at: tuple[deque[Task], ...] = ()
        # A row that is new since it began to look may have what it is to take.
        while looked_at is not self._in_order:
            looked_at = self._in_order
            for row in looked_at:
                if not row:  # an exception for each would take far longer
                    continue
                try:
                    return row.popleft()
                except IndexError:  # another thread was faster
                    continue
        return None

    def take_back(self, task: Task) -> bool:
        """Take out a task that was put in; False where it was taken already."""
        try:
            self._rows[task.options.priority].remove(task)
        except ValueError:
            return False
        return True

    def __len__(self) -> int:
        return sum(map(len, self._in_order))

    def _new_row(self, priority: int) -> deque[Task]:
        with self._adding:
            if priority not in self._rows:
                rows = {**self._rows, priority: deque[Task]()}
                self._in_order = tuple(rows[key] for key in sorted(rows, reverse=True))
                # Last: what others put there is to be found.
                self._rows = rows
            return self._rows[priority]


class _Deliver:
    """Owns the tasks of whoever uses a pool itself: what came of the call is what the
    future gets.
    """

    def begin(self, task: Task) -> bool:
        return t.cast("Future[t.Any]", task.future).set_running_or_notify_cancel()

    def finish(self, task: Task, outcome: Outcome) -> None:
        future = t.cast("Future[t.Any]", task.future)
        task.let_go()
        if outcome.error is None:
            future.set_result(outcome.value)
        else:
            future.set_exception(outcome.error)

    def cancel(self, task: Task) -> bool:
        future = t.cast("Future[t.Any]", task.future)
        if cancelled := future.cancel():
            future.set_running_or_notify_cancel()
            task.let_go()
        return cancelled

    def reported(self, task: Task) -> None:
        pass


deliver: _Deliver = _Deliver()


class BareCalls(Executor):
    """``submit`` for whoever uses the pool itself: the call alone, no context."""

    def submit(
        self, fn: t.Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any
    ) -> Future[t.Any]:
        """Run a call without a context, as the standard library's pools do."""
        future: Future[t.Any] = Future()
        task = Task(future, Call(fn, args, kwargs, None), t.cast(t.Any, deliver))
        pool = t.cast(Pool, self)
        if pool.packs:
            pool.pack(task)
        pool.start(task)
        return future
