"""How many tasks of one job run at once."""

from __future__ import annotations

import threading

from .pools import Line
from .task import Task


class Gate:
    """Lets so many tasks of a job run at once, and holds the others.

    A task comes here when it is its turn, with a worker at hand. One that is held
    gives its worker back, and is first in its row of the line when it may go on.

    :param limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._returning = 0
        self._held = Line()
        self._changed = threading.Condition(threading.Lock())

    def enter(self, task: Task) -> bool:
        """Whether a task may run now; it must :meth:`leave`, then. Else it is held."""
        with self._changed:
            # Those who come back from a wait go first.
            if self._inside + self._returning < self._limit:
                self._inside += 1
                return True
            # Who was let go on and finds the gate full again has waited longest.
            self._held.put(task, first=task.was_held)
            task.was_held = True
            return False

    def leave(self) -> Task | None:
        """Make room; the task that is to be put in line again, if one is held."""
        with self._changed:
            self._inside -= 1
            self._changed.notify()
            return self._held.take()

    def next_held(self) -> Task | None:
        """The task that is to be put in line in place of the one before."""
        with self._changed:
            return self._held.take()

    def come_back(self) -> None:
        """Go on at once after a wait, on an event loop, which must not be blocked: for
        that moment there may be one more than the limit.
        """
        with self._changed:
            self._inside += 1

    def enter_again(self) -> None:
        """Wait for room, on the thread of a task that left while it had to wait for
        another one. Whoever is inside runs, so room there will be.
        """
        with self._changed:
            self._returning += 1
            self._changed.wait_for(lambda: self._inside < self._limit)
            self._returning -= 1
            self._inside += 1
