"""Slots of worker threads that wait: helper threads use them meanwhile.

A worker thread whose code waits for a task does nothing, and that task may need a
worker: in a pool that is full of such threads nothing would ever run. So the thread
lends out its slot, and a *helper thread* uses it to run what somebody waits for. There
are never more helper threads at work than slots lent, so no more calls run at once than
the pool has workers. (The compensation of Java's ``ForkJoinPool.managedBlock`` is the
same idea. A helper here runs only what is waited for, or holds a place of a limit that
others wait for, so threads do not grow with the queue.)
"""

from __future__ import annotations

import threading
import typing as t
import weakref
from collections import OrderedDict

from ..queues import PriorityQueue
from ..task import Task
from ..threads import here, start_thread

Run = t.Callable[[Task], object]


class _Local(threading.local):
    """The slot of this thread."""

    slot: _Slot | None = None


class _Slot:
    """The slot of one thread, and how many of its waits are open."""

    def __init__(self) -> None:
        self.waits = 0


class LentSlots:
    """The slots that are lent out, and the helper threads that use them.

    :param queue: where the tasks are.
    :param run: runs a task on this thread; raises nothing.
    :param pool: a reference to the pool that the threads belong to.
    :param name: the name of the helper threads.
    """

    def __init__(
        self,
        queue: PriorityQueue,
        run: Run,
        pool: weakref.ref[t.Any],
        name: str,
    ) -> None:
        self._queue = queue
        self._run = run
        self._pool = pool
        self._name = name
        self._local = _Local()
        self._lock = threading.Lock()
        self._lent = 0
        self._helpers = 0
        self._wanted: OrderedDict[Task, None] = OrderedDict()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def lend(self) -> t.Callable[[], None]:
        """Lend out the slot of this thread; call the result to take it back."""
        slot = self._local.slot = self._local.slot or _Slot()
        with self._lock:
            slot.waits += 1
            if slot.waits == 1:
                self._lent += 1
        if not self._help():  # this thread does nothing else meanwhile
            self._serve()
        return lambda: self._take_back(slot)

    def expedite(self, task: Task) -> None:
        """Let a queued task run in a slot that is lent out, now or later."""
        with self._lock:
            self._wanted[task] = None
        if not self._help():
            self._serve_nobody(task)

    def forget(self, task: Task) -> None:
        """Note that a task has begun, or will not: no helper has to look for it."""
        with self._lock:
            self._wanted.pop(task, None)

    def join(self) -> None:
        """Wait for the helper threads, except the one that asks."""
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join()

    def _take_back(self, slot: _Slot) -> None:
        with self._lock:
            slot.waits -= 1
            if not slot.waits:
                self._lent -= 1

    def _help(self) -> bool:
        """Start a helper thread if one has something to do; False if none starts.

        It counts as at work then: what calls this serves in its place.
        """
        with self._lock:
            if not self._wanted or self._helpers >= self._lent:
                return True
            self._helpers += 1
        try:
            self._threads.add(start_thread(self._serve, name=self._name))
        except RuntimeError:  # there are no more threads, or the interpreter ends
            return False
        return True

    def _serve(self) -> None:
        here.pool = self._pool
        while (task := self._next()) is not None:
            if self._queue.remove(task):
                self._run(task)
            del task

    def _serve_nobody(self, task: Task) -> None:
        """Fail a task for which no thread can start: all workers may wait for it."""
        with self._lock:
            self._helpers -= 1
        if self._queue.remove(task):
            task._owner.abandon(task, RuntimeError("can't start new thread"))

    def _next(self) -> Task | None:
        with self._lock:
            if self._wanted and self._helpers <= self._lent:
                return self._wanted.popitem(last=False)[0]
            self._helpers -= 1
            return None
