"""Who is next: tasks that wait for a worker."""

from __future__ import annotations

import threading
from collections import OrderedDict

from .task import Task


class PriorityQueue:
    """Tasks in the order in which they are to run: by priority, then by arrival.

    Each priority in use has a level of its own, first in, first out. A task is in a
    queue at most once. All methods take constant time and may be called from any
    thread. They hold a lock of the queue, under which no code of others runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: dict[int, OrderedDict[Task, None]] = {0: OrderedDict()}
        self._highest_first: list[OrderedDict[Task, None]] = [*self._levels.values()]

    def put(self, task: Task, *, first: bool = False) -> None:
        """Add a task behind the others of its priority, or before them."""
        with self._lock:
            level = self._levels.get(task.options.priority)
            if level is None:
                level = self._new_level(task.options.priority)
            level[task] = None
            if first:
                level.move_to_end(task, last=False)

    def take(self) -> Task | None:
        """Remove the task that is next and return it; None if the queue is empty."""
        with self._lock:
            for level in self._highest_first:
                if level:
                    return level.popitem(last=False)[0]
            return None

    def remove(self, task: Task) -> bool:
        """Remove this task; return False if it is not in the queue (any more)."""
        with self._lock:
            level = self._levels.get(task.options.priority)
            if level is None or task not in level:
                return False
            del level[task]
            return True

    def copy(self) -> list[Task]:
        """Return the tasks now, the next one first."""
        with self._lock:
            return [task for level in self._highest_first for task in level]

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._highest_first))

    def _new_level(self, priority: int) -> OrderedDict[Task, None]:
        level = self._levels[priority] = OrderedDict()
        ordered = sorted(self._levels, reverse=True)
        self._highest_first = [self._levels[each] for each in ordered]
        return level
