"""Where a pending task waits: in the queue of its pool, or for its time."""

from __future__ import annotations

import typing as t

from ..options import Options
from ..task import State, Task
from .endings import Endings
from .limits import Limits
from .table import TaskTable
from .timer import Timer


class Queueing:
    """Puts pending tasks where they wait.

    :param defaults: the options of a task without options.
    """

    keeps: t.Callable[[Task], bool] | None = None
    """Called with a task that is to begin, while jobs are paused: True if it must not,
    and was put somewhere else."""

    def __init__(
        self, table: TaskTable, timer: Timer, endings: Endings, defaults: Options
    ) -> None:
        self._table = table
        self._timer = timer
        self._endings = endings
        self._defaults = defaults
        self._limits = Limits(self.enqueue_first)

    def full_jobs(self) -> list[t.Any]:
        """Return the jobs whose tasks wait because of ``max_concurrency``."""
        return self._limits.full_jobs()

    def enqueue_new(self, task: Task, job: t.Any) -> None:
        """Put a task that was just accepted where it must wait.

        :param job: the job whose limit applies, if its options have one.
        :raises Exception: if there is no thread for it, or the interpreter ends; the
            task is cancelled then.
        """
        try:
            if task.options is self._defaults or not self._waits(task, job):
                task._pool.enqueue(task)
        except BaseException:
            self._endings.cancel(task)
            raise

    def _waits(self, task: Task, job: t.Any) -> bool:
        """Apply the options of a task; return True if it is not due yet."""
        if task._pool.runs_in_caller:
            return False
        if task.options.max_concurrency is not None:
            task._place = self._limits.place_for(task, job)
        wait = task.options.wait(self._timer.clock.time())
        if wait:
            self.enqueue_later(task, wait, "delayed")
        return bool(wait)

    def enqueue_later(self, task: Task, wait: float, state: State) -> None:
        """Put a task into its queue after some seconds."""
        self._table.move(task, state)
        due = self._timer.clock.monotonic() + wait
        handle = task._timer = self._timer.at(due, self._became_due, task)
        # Code that ends pending tasks may have looked for its timer before it had one.
        if self._table.leaving or task not in self._table.pending:
            self._timer.cancel(handle)
            self._endings.give_up(task)

    def _became_due(self, task: Task) -> None:
        if task in self._table.pending:
            task._timer = None
            self.enqueue_again(task)

    def enqueue_first(self, task: Task) -> None:
        """Put a task into its queue before the others of its priority."""
        self.enqueue_again(task, first=True)

    def enqueue_again(self, task: Task, *, first: bool = False) -> None:
        """Put a task into its queue that was waiting for something else."""
        self._table.move(task, "waiting")
        try:
            task._pool.enqueue(task, first=first)
        except Exception:  # the interpreter ends, or there are no more threads
            self._timer.aside(self._endings.give_up, task)
