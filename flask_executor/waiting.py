"""Tasks that wait for tasks: whoever waits has the worker that the other one needs."""

from __future__ import annotations

import threading
from collections import deque
from contextvars import Context

from .current import running
from .task import Task

_DEEPEST = 16
"""How many tasks may run on one thread, each waiting for the next: then comes a thread
more, for a stack has an end."""


def fellow(task: Task) -> Task | None:
    """The task whose code this is, if it has the same owner."""
    inside = running.get()
    return inside if isinstance(inside, Task) and inside.owner is task.owner else None


def waiter(task: Task) -> Task | None:
    """The task whose code this is, if the other one may need its worker to run: both
    have the same owner, and run on threads.
    """
    inside = fellow(task)
    if inside is None or not inside.pool.runs_on_threads:
        return None
    return inside if task.pool.runs_on_threads else None


def run_for(inside: Task, task: Task, *, here: bool, name: str) -> None:
    """Have a task run that another one is about to wait for, unless it runs already.

    One that cannot begin yet runs when it can: it knows then by whom it is wanted.

    :param here: on this thread if possible: where nothing ends the wait but its end.
    :param name: of the thread, where it takes another one.
    """
    task.wanted_by = inside  # first: what is due or let go on just now looks there
    if task.state != "waiting":
        return
    if here and inside.depth < _DEEPEST:
        task.depth = inside.depth + 1
        task.run()
    else:
        stand_in_for(inside, task, name)


def stand_in_for(inside: Task, task: Task, name: str) -> None:
    """Have a task run on the thread that stands in for another one, which waits."""
    if inside.stand_in is None:
        inside.stand_in = _StandIn(name)
    inside.stand_in.take(task)


class _StandIn:
    """Runs tasks one after another, on a thread that lives while there are any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._serves = False

    def take(self, task: Task) -> None:
        """Run a task, after those that were taken before."""
        with self._lock:
            self._tasks.append(task)
            if self._serves:
                return
            self._serves = True
        try:
            thread = threading.Thread(target=self._serve, name=self._name)
            Context().run(thread.start)  # with nobody's context
        except RuntimeError:  # the interpreter ends, or there are too many
            self._serve()

    def _serve(self) -> None:
        while (task := self._next()) is not None:
            task.run()
            del task

    def _next(self) -> Task | None:
        with self._lock:
            if self._tasks:
                return self._tasks.popleft()
            self._serves = False
            return None
