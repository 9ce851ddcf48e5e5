"""The table of tasks: the only writer of a task's state.

Guarantees
----------

*Alive.* A task is in ``live`` from the moment it is accepted until its future has
ended; its callbacks run after that. Nothing takes it out and puts it back, so
``live.copy()`` has all tasks that are alive at one moment, whatever others do. It has
their futures, too: a task drops its own before that has ended.

*One decision at a time.* A task that may begin or be cancelled is in ``pending``; an
attempt whose end is not decided is in ``running``. The code that takes it out decides
what comes next, alone: if a worker, ``cancel``, a deadline, an outcome and a drain come
at the same moment, one of them gets it. The others change nothing.

*No gap.* A task that begins is in ``running`` before any other thread can find it gone
from ``pending``: the attempt is put in first and taken out again if somebody else was
faster. No other attempt has that key.

*No lock.* All of this rests on three operations of a dict whose keys compare by
identity, ``d[k] = v``, ``d.pop(k, default)`` and ``d.copy()``, each of which happens as
one step, in free-threaded builds too. No dict here is iterated over. So a thread that
is stopped at any point, by a fork or a signal, holds nothing that others wait for.

*Plain writes.* ``state``, ``attempt`` and the times of a task are written by the
thread that has just taken it out, or put it in for the first time. So there is one
writer at a time, and readers may see one of these change before another.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import Future
from concurrent.futures._base import PENDING, RUNNING

from ..attempt import Attempt
from ..task import State, Task

_ABSENT = object()


class TaskTable:
    """The tasks of one dispatcher that have not ended.

    :param time: seconds since the epoch, for the times of tasks.
    """

    def __init__(self, time: t.Callable[[], float]) -> None:
        self._time = time
        self.closed: bool = False
        """True if nothing more is accepted."""
        self.leaving: bool = False
        """True if no pending task becomes due any more, and none is tried again."""
        self.on_empty: t.Callable[[], object] = bool
        """Called when the last task has gone and nothing more is accepted."""
        self.live: dict[Task, Future[t.Any]] = {}
        """The tasks that were accepted and have not ended, with their futures."""
        self.pending: dict[Task, None] = {}
        """The tasks that may begin or be cancelled."""
        self.running: dict[Attempt, None] = {}
        """The attempts whose end is not decided."""
        self.late: dict[Attempt, None] = {}
        """The attempts that go on after their task has ended with a timeout."""
        self.reserved: dict[Task, None] = {}
        """The tasks that are being submitted, whose futures others may find already."""

    # Coming

    def reserve(self, task: Task) -> None:
        """Let a task that is being submitted be counted and cancelled."""
        task._is_reserved = True
        self.reserved[task] = None

    def take_reserved(self, task: Task) -> bool:
        """Return True for the first caller: the submitter, or code that cancels it."""
        return self.reserved.pop(task, _ABSENT) is None

    def admit(self, task: Task) -> None:
        """Accept a task: it is alive and pending from now on."""
        self.live[task] = task.future
        self.pending[task] = None

    def count_waiting(self) -> int:
        """Return how many tasks wait, or are being submitted."""
        return len(self.pending) + len(self.reserved)

    # Running

    def take_pending(self, task: Task) -> bool:
        """Return True for the one caller that decides what becomes of the task."""
        return self.pending.pop(task, _ABSENT) is None

    def start(self, task: Task) -> Attempt | None:
        """Begin an attempt, unless the task is not pending any more."""
        attempt = Attempt(task, task.attempt + 1, task._call)
        self.running[attempt] = None
        if self.pending.pop(task, _ABSENT) is _ABSENT:
            del self.running[attempt]
            return None
        task._run = attempt
        task.attempt = attempt.number
        task.state = "running"
        task._started = self._time()
        if task.progress is not None:
            task.progress = None
        # No other thread may change the future now, so its lock is not needed.
        task.future._state = RUNNING
        return attempt

    def attempt_of(self, task: Task) -> Attempt | None:
        """Return the attempt of a task that is not pending, or its last one."""
        attempt = task._run
        if attempt is None or attempt not in self.running:
            for begun in self.running.copy():
                if begun.task is task:  # which does not know of it yet
                    return begun
        return attempt

    def take_running(self, attempt: Attempt) -> bool:
        """Return True for the one caller that decides how the attempt ends."""
        return self.running.pop(attempt, _ABSENT) is None

    def is_running(self, attempt: Attempt) -> bool:
        """Return True if the end of the attempt is not decided."""
        return attempt in self.running

    def take_overdue(self, attempt: Attempt, *, overruns: bool) -> bool:
        """Same as :meth:`take_running`, for who ends a task whose run goes on.

        :param overruns: nothing stops the run.
        """
        # First: what takes the outcome looks there when it comes too late.
        self.late[attempt] = None
        attempt.overrun = overruns
        if self.take_running(attempt):
            return True
        self.late.pop(attempt, None)
        attempt.overrun = False
        return False

    def take_late(self, attempt: Attempt) -> bool:
        """Return True once if the attempt went on after the end of its task."""
        return self.late.pop(attempt, _ABSENT) is None

    # Going

    def note_failed(self, task: Task, error: BaseException) -> None:
        """Note that an attempt has failed and another follows.

        :param error: what the task ends with if there is no further attempt after all.
        """
        task._error = error
        task.state = "retrying"
        with task.future._condition:
            task.future._state = PENDING

    def admit_again(self, task: Task) -> None:
        """Make a task pending again after a failed attempt."""
        self.pending[task] = None

    def move(self, task: Task, state: State) -> None:
        """Note for what a pending task waits."""
        task.state = state
        if task._ended_as is not None:  # by somebody else, just now
            task.state = task._ended_as

    def end(self, task: Task, state: t.Any) -> t.Any:
        """Note the end that was decided, and drop what the task no longer needs.

        :return: the future, which is to end now.
        """
        future = task.future
        task._finished = self._time()
        task.state = state
        task._release()
        return future

    def remove(self, task: Task) -> None:
        """Remove a task whose future has ended."""
        self.live.pop(task, None)
        if self.closed:
            self.note_empty()

    def note_empty(self) -> None:
        """Say so if nothing more is accepted and nothing is left."""
        if self.closed and not self.live:
            self.on_empty()

    def forget(self, task: Task) -> None:
        """Remove a task that is not accepted after all."""
        self.reserved.pop(task, None)
        self.pending.pop(task, None)
        self.remove(task)
