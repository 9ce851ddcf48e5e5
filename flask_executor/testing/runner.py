"""Runs the tasks of a test on the thread that calls it, or holds them."""

from __future__ import annotations

import threading
import typing as t
from collections import deque
from contextlib import contextmanager

from ..pools.base import run_task
from ..queues import PriorityQueue
from ..task import Task


class NotReleased(RuntimeError):
    """A test was about to wait for tasks that only the test itself can run."""

    def __init__(self, tasks: t.Sequence[Task]) -> None:
        self.tasks: tuple[Task, ...] = tuple(tasks)
        """The tasks for which the test would have waited."""
        super().__init__(
            f"This wait would never end, for it is up to the test to run"
            f" {listed(tasks)}: call release() or clock.advance() before."
        )


def listed(tasks: t.Sequence[Task]) -> str:
    """Return the tasks as text, separated by commas."""
    return ", ".join(map(repr, tasks))


class _Here(threading.local):
    """What a thread does at the moment."""

    later: deque[Task] | None = None
    """The tasks that it runs next; None outside of tasks."""
    deciding: bool = False
    """True while it is decided what happens to a task that has just run."""


class Runner:
    """Runs tasks on the thread that calls it, or holds them.

    :param hold: True if it holds tasks that are submitted.
    """

    def __init__(self, hold: bool) -> None:
        self.hold = hold
        self._held = PriorityQueue()
        self._here = _Here()
        self._thread = threading.get_ident()

    @property
    def is_test_thread(self) -> bool:
        """True on the thread on which the test runs."""
        return threading.get_ident() == self._thread

    def start(self, task: Task, *, first: bool) -> None:
        """Run a task, or hold it."""
        if self.hold:
            self._held.put(task, first=first)
        elif self._here.deciding:
            # A retry, or a task that a done-callback has submitted. It runs when the
            # task before it is finished: otherwise a long chain of such tasks would
            # exceed the depth of the stack.
            t.cast("deque[Task]", self._here.later).append(task)
        else:
            self.run(task)

    def take(self) -> Task | None:
        """Remove the next held task and return it, or None if none is held."""
        while (task := self._held.take()) is not None:
            if task.state == "waiting":  # not cancelled, nor run by a wait
                return task
        return None

    def run(self, task: Task) -> None:
        """Run a task, and then its retries and what was submitted at its end."""
        here = self._here
        outer = here.later, here.deciding
        here.later, here.deciding = deque([task]), False
        try:
            while here.later:
                run_task(here.later.popleft())
        finally:
            here.later, here.deciding = outer

    @contextmanager
    def deciding(self) -> t.Iterator[None]:
        """Decide in this block what happens to a task that has run on this thread."""
        here = self._here
        before, here.deciding = here.deciding, here.later is not None
        try:
            yield
        finally:
            here.deciding = before

    def refuse_wait(self, task: Task, timeout: float | None) -> None:
        """Refuse a wait for a task that runs only when the test goes on.

        :raises TimeoutError: at once, if the wait has a timeout.
        :raises NotReleased: if it has none.
        """
        if self.is_test_thread and not task._has_ended:
            raise NotReleased([task]) if timeout is None else TimeoutError

    def check_wait(self, task: Task, timeout: float | None) -> None:
        """Refuse a wait of the test for a task that does not run meanwhile.

        :raises TimeoutError: at once, if the wait has a timeout.
        :raises NotReleased: if it has none.
        """
        if not self.is_test_thread or task.state == "running":
            return
        if task.state == "waiting" and self._here.deciding and not self.hold:
            self.run(task)
        self.refuse_wait(task, timeout)
