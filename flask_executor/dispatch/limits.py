"""Concurrency limits: how many tasks of one job run at once.

A task of a limited job has a *place*. It runs, or goes on after a wait, only while it
has taken it. A task that finds no place free is *blocked*: it gives its worker back
and waits here. When a place is given up, it goes to the next task in the same step, so
it is never offered to a task that does not want it any more.

A task that waits for another one, in any way, gives up its place and takes one
again before it goes on. With a timeout to the wait it keeps its place, or it would come
back late; it lends it only to tasks that somebody waits for.
"""

from __future__ import annotations

import threading
import typing as t
import weakref
from collections import deque

from ..queues import PriorityQueue
from ..task import Task

Wake = t.Callable[[Task], object]


class Place:
    """The claim of one task to run under the limit of its job. Its limit writes it."""

    __slots__ = ("held", "is_over", "limit", "steps", "task", "waits", "wakers")

    def __init__(self, limit: Limit, task: Task) -> None:
        self.limit: Limit = limit
        self.task: Task = task
        self.held: bool = False
        """True if the task may run."""
        self.waits: int = 0
        """How many waits of the task are open."""
        self.steps: int = 0
        """How many coroutines of the task run on the event loop at this moment."""
        self.wakers: list[t.Callable[[], object]] = []
        """Called when code that comes back from a wait may go on; several coroutines of
        the task may come back at once."""
        self.is_over: bool = False
        """True if the attempt has ended: code that it has left running, an asyncio task
        that nobody awaits, needs no place and keeps none."""

    def renewed(self) -> Place:
        """Return a place for the next attempt: waits of this one do not count there."""
        return Place(self.limit, self.task)


class Limit:
    """Lets so many tasks of a job run at once, and blocks the others.

    Each method is one step under one lock. A blocked task whose turn has come is handed
    to ``wake`` after that, on the thread that made room.

    :param most: how many run at once.
    :param wake: puts a task into its queue, before the others of its priority.
    """

    def __init__(self, most: int, wake: Wake) -> None:
        self.most: int = most
        """How many run at once."""
        self._wake = wake
        self._lock = threading.Lock()
        self._taken = 0
        self._blocked = PriorityQueue()
        self._returning: deque[Place] = deque()
        self._lendable: dict[Place, None] = {}

    def enter(self, place: Place) -> bool:
        """Take a place for a task that has a worker; if False, the task is blocked."""
        with self._lock:
            if place.held or place.is_over or self._take(place):
                return True
            self._blocked.put(place.task)
            return False

    def blocks(self, task: Task) -> bool:
        """Return True if a task has found no place free, and waits for one."""
        return task._queue is self._blocked

    def is_full(self) -> bool:
        """Return True if tasks wait for a place."""
        return len(self._blocked) > 0

    def leave(self, place: Place) -> None:
        """Give up the place of a task that has ended, or be blocked no longer."""
        with self._lock:
            self._blocked.remove(place.task)
            self._lendable.pop(place, None)
            place.is_over = True
            if place.wakers:
                self._returning.remove(place)
                self._wake_code_of(place)
            woken = self._give_up(place)
        self._wake_all(woken)

    def claim(self, place: Place) -> None:
        """Let a blocked task use a place that is lent out: somebody waits for it."""
        with self._lock:
            granted = self._lendable and self._blocked.remove(place.task)
            if granted:
                self._take(place)
        if granted:
            self._wake(place.task)

    # Waiting on a thread

    def start_waiting(self, place: Place, *, has_timeout: bool) -> None:
        """Note that a task waits, and give up its place, or lend it out."""
        with self._lock:
            place.waits += 1
            woken: list[Task] = []
            if place.held and not place.steps and place.waits == 1:
                if has_timeout:
                    self._lendable[place] = None
                    woken = self._pass_on()
                else:
                    woken = self._give_up(place)
        self._wake_all(woken)

    def stop_waiting(self, place: Place) -> None:
        """Note that a wait is over."""
        with self._lock:
            place.waits -= 1
            if not place.waits:
                self._lendable.pop(place, None)

    def come_back(self, place: Place, on_granted: t.Callable[[], object]) -> bool:
        """Take a place again after a wait; if False, ``on_granted`` is called later.

        Tasks that come back go before those that have not begun.

        :param on_granted: runs on the thread that made room, and must be quick.
        """
        with self._lock:
            return self._come_back(place, on_granted)

    # Steps of a coroutine

    def start_step(self, place: Place, on_granted: t.Callable[[], object]) -> bool:
        """Take the place for the next step of a coroutine; see :meth:`come_back`."""
        with self._lock:
            if not self._come_back(place, on_granted):
                return False
            place.steps += 1
            return True

    def end_step(self, place: Place) -> None:
        """Note that a coroutine is suspended: give up the place if the task waits."""
        with self._lock:
            place.steps -= 1
            woken = self._give_up(place) if place.waits and not place.steps else []
        self._wake_all(woken)

    # Under the lock

    def _come_back(self, place: Place, on_granted: t.Callable[[], object]) -> bool:
        if place.held or place.is_over or self._take(place, comes_back=True):
            return True
        if not place.wakers:
            self._returning.append(place)
        place.wakers.append(on_granted)
        return False

    def _take(self, place: Place, *, comes_back: bool = False) -> bool:
        if self._taken < self.most and (comes_back or not self._returning):
            self._taken += 1
        elif self._lendable and (comes_back or place.task._wanted):
            lender, _ = self._lendable.popitem()
            lender.held = False
        else:
            return False
        place.held = True
        return True

    def _give_up(self, place: Place) -> list[Task]:
        if not place.held:
            return []
        place.held = False
        self._taken -= 1
        return self._pass_on()

    def _pass_on(self) -> list[Task]:
        """Give free places to tasks that wait for them; return the tasks to wake."""
        while self._returning and self._take(self._returning[0], comes_back=True):
            self._wake_code_of(self._returning.popleft())
        return self._grant_blocked()

    def _wake_code_of(self, place: Place) -> None:
        wakers, place.wakers = place.wakers, []
        for wake in wakers:
            wake()

    def _grant_blocked(self) -> list[Task]:
        woken = []
        while self._taken < self.most and not self._returning:
            task = self._blocked.take()
            if task is None:
                break
            self._take(task._place)
            woken.append(task)
        for task in self._blocked.copy() if self._lendable else ():
            if self._take(task._place):  # somebody waits for it
                self._blocked.remove(task)
                woken.append(task)
        return woken

    def _wake_all(self, tasks: list[Task]) -> None:
        for task in tasks:
            self._wake(task)


class Limits:
    """The limits of the jobs of one executor, each as long as its job lives.

    :param wake: see :class:`Limit`.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._of_jobs: weakref.WeakKeyDictionary[t.Any, Limit] = (
            weakref.WeakKeyDictionary()
        )

    def place_for(self, task: Task, job: t.Any) -> Place:
        """Return the place of a task of a limited job.

        The first task of a job sets how many run at once.
        """
        most = t.cast(int, task.options.max_concurrency)
        with self._lock:
            limit = self._of_jobs.get(job)
            if limit is None:
                limit = self._of_jobs[job] = Limit(most, self._wake)
        return Place(limit, task)

    def full_jobs(self) -> list[t.Any]:
        """Return the jobs whose tasks wait for a place."""
        with self._lock:
            limits = [*self._of_jobs.items()]
        return [job for job, limit in limits if limit.is_full()]
