"""The queue of tasks that wait for a worker."""

from __future__ import annotations

import threading
from collections import deque

from .task import Task


class PriorityQueue:
    """Tasks in the order in which they are to run: by priority, then by arrival.

    Each priority in use has a level of its own, first in, first out. A task is in a
    queue at most once. All methods may be called from any thread, and take constant
    time on average: a task that is removed leaves its entry behind, and the entries are
    sorted out when most of them are such. They hold a lock of the queue, under which no
    code of others runs.
    """

    __slots__ = ("_highest_first", "_levels", "_lock", "_removed")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._removed: dict[Task, None] = {}
        self._levels: dict[int, deque[Task]] = {0: deque()}
        self._highest_first: list[deque[Task]] = [*self._levels.values()]

    def put(self, task: Task, *, first: bool = False) -> None:
        """Add a task behind the others of its priority, or before them."""
        with self._lock:
            if self._removed and task in self._removed:
                self._sort_out()  # its old entry may come before the new one
            level = self._levels.get(task.options.priority)
            if level is None:
                level = self._new_level(task.options.priority)
            if first:
                level.appendleft(task)
            else:
                level.append(task)
            task._queue = self

    def take(self) -> Task | None:
        """Remove the task that is next and return it; None if the queue is empty."""
        with self._lock:
            for level in self._highest_first:
                while level:
                    task = level.popleft()
                    if task._queue is self:
                        task._queue = None
                        return task
                    del self._removed[task]
            return None

    def remove(self, task: Task) -> bool:
        """Remove this task; return False if it is not in the queue (any more)."""
        with self._lock:
            if task._queue is not self:
                return False
            task._queue = None
            self._removed[task] = None
            if len(self._removed) > len(self):
                self._sort_out()
            return True

    def copy(self) -> list[Task]:
        """Return the tasks now, the next one first."""
        with self._lock:
            self._sort_out()
            return [task for level in self._highest_first for task in level]

    def __len__(self) -> int:
        return sum(map(len, self._highest_first)) - len(self._removed)

    def _new_level(self, priority: int) -> deque[Task]:
        level = self._levels[priority] = deque()
        ordered = sorted(self._levels, reverse=True)
        self._highest_first = [self._levels[each] for each in ordered]
        return level

    def _sort_out(self) -> None:
        """Drop the entries of tasks that were removed."""
        for level in self._highest_first if self._removed else ():
            kept = [task for task in level if task._queue is self]
            level.clear()
            level.extend(kept)
        self._removed.clear()
