"""Who is next: tasks that wait for a worker."""

from __future__ import annotations

import threading
from collections import deque

from .task import Task

_ABSENT = object()


class PriorityQueue:
    """Tasks in the order in which they are to run: by priority, then by arrival.

    Each priority in use has a level of its own, first in, first out. A task is in a
    queue at most once. All methods may be called from any thread, and take constant
    time on average: a task that is removed leaves its entry behind, and the entries are
    sorted out when most of them are such. They hold a lock of the queue, under which no
    code of others runs.
    """

    __slots__ = ("_entries", "_highest_first", "_levels", "_lock", "_tasks")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[Task, None] = {}
        self._entries = 0
        self._levels: dict[int, deque[Task]] = {0: deque()}
        self._highest_first: list[deque[Task]] = [*self._levels.values()]

    def put(self, task: Task, *, first: bool = False) -> None:
        """Add a task behind the others of its priority, or before them."""
        with self._lock:
            level = self._levels.get(task.options.priority)
            if level is None:
                level = self._new_level(task.options.priority)
            if first:
                level.appendleft(task)
            else:
                level.append(task)
            self._entries += 1
            self._tasks[task] = None

    def take(self) -> Task | None:
        """Remove the task that is next and return it; None if the queue is empty."""
        with self._lock:
            for level in self._highest_first:
                while level:
                    task = level.popleft()
                    self._entries -= 1
                    if self._tasks.pop(task, _ABSENT) is None:
                        return task
            return None

    def remove(self, task: Task) -> bool:
        """Remove this task; return False if it is not in the queue (any more)."""
        with self._lock:
            if self._tasks.pop(task, _ABSENT) is not None:
                return False
            if self._entries > 2 * len(self._tasks):
                self._sort_out()
            return True

    def copy(self) -> list[Task]:
        """Return the tasks now, the next one first."""
        with self._lock:
            self._sort_out()
            return [task for level in self._highest_first for task in level]

    def __len__(self) -> int:
        return len(self._tasks)

    def _new_level(self, priority: int) -> deque[Task]:
        level = self._levels[priority] = deque()
        ordered = sorted(self._levels, reverse=True)
        self._highest_first = [self._levels[each] for each in ordered]
        return level

    def _sort_out(self) -> None:
        """Drop the entries of tasks that were removed, and double ones."""
        seen: dict[Task, None] = {}
        for level in self._highest_first:
            kept = [task for task in dict.fromkeys(level) if task in self._tasks]
            level.clear()
            level.extend(task for task in kept if task not in seen)
            seen.update(dict.fromkeys(kept))
        self._entries = len(seen)
