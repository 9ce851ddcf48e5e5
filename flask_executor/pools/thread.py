"""Runs calls on threads: the standard library's pool, with our queue before it."""

from __future__ import annotations

import concurrent.futures.thread as stdlib
import contextvars
import os
import typing as t
import weakref
from concurrent.futures import Executor, ThreadPoolExecutor

from flask import Flask

from ..queues import PriorityQueue
from ..settings import Settings
from ..task import Task
from ..threads import here
from .base import Pool, refuse_after_shutdown, run_task
from .slots import LentSlots, Run


def make(settings: Settings, name: str, app: Flask) -> ThreadPool:
    """Return the pool for an app."""
    return ThreadPool(settings.max_workers, name)


class ThreadPool(ThreadPoolExecutor, Pool):
    """A :class:`~concurrent.futures.ThreadPoolExecutor` that takes tasks.

    Tasks wait in our own priority queue. For each task the standard library's queue
    gets a *work item*, the same object for all: it runs the task that is first then. So
    threads, shutdown and the rules at exit stay the standard library's own.

    Passing a function to its ``submit`` would need no private names, but a second
    future for each call: a third of the time of a call, and of the memory of a waiting
    one.

    :param max_workers: how many threads; None is the standard library's default.
    :param name: the prefix of the names of its threads.
    :param run: runs a task on a thread of the pool.
    :param pool: the pool that its threads belong to, if it is not this one.
    """

    kind: t.ClassVar[str] = "thread"
    stdlib_class: t.ClassVar[type[Executor]] = ThreadPoolExecutor
    runs_on_threads: t.ClassVar[bool] = True

    def __init__(
        self,
        max_workers: int | None,
        name: str,
        run: Run = run_task,
        pool: Pool | None = None,
    ) -> None:
        mine = weakref.ref(pool or self)
        super().__init__(max_workers, name, _note_pool, (mine,))
        self._queue = PriorityQueue()
        self._slots = LentSlots(self._queue, run, mine, f"{name}_helper")
        self._work_item: t.Any = _WorkItem(self._queue, self._slots, run)

    def room(self, at_work: int) -> int:
        """Return how many more tasks would begin at once."""
        return max(0, self._max_workers - at_work - len(self._queue))

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Put a task into the queue.

        :raises ExecutorShutDown: if the pool is shut down, or the interpreter ends.
        """
        # The code that ends the interpreter or forks holds the second lock.
        with self._shutdown_lock, stdlib._global_shutdown_lock:
            if self._shutdown or stdlib._shutdown:
                refuse_after_shutdown(task)
            self._queue.put(task, first=first)
            self._work_queue.put(self._work_item)
            if len(self._threads) < self._max_workers:  # asking costs a semaphore
                self._start_worker(task)
        if task._wanted or (task._place is not None and task._place.held):
            self._slots.expedite(task)

    def _start_worker(self, task: Task) -> None:
        try:
            # A thread must not inherit the context of its first task.
            contextvars.Context().run(self._adjust_thread_count)
            if len(self._threads) == self._max_workers:
                self._idle_semaphore = t.cast(t.Any, _NotCounted)
        except BaseException:  # no more threads: the existing ones may be enough
            if not self._threads:
                self._queue.remove(task)
                raise

    def remove(self, task: Task) -> bool:
        """Take a task out of the queue; return False if its turn has come."""
        self._slots.forget(task)
        return self._queue.remove(task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, as the standard library's pool does.

        :param wait: return only when all threads have ended, helper threads too.
        """
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._slots.join()

    def lend_slot(self) -> t.Callable[[], None] | None:
        """Lend out the slot of this thread, which is one of the pool's."""
        return self._slots.lend()

    def expedite(self, task: Task) -> None:
        """Let a task that somebody waits for run in a slot that is lent out."""
        self._slots.expedite(task)


def _note_pool(pool: weakref.ref[Pool]) -> None:
    here.pool = pool


class _NotCounted:
    """Replaces the count of idle threads, once there are as many threads as allowed.

    Each thread adds itself to that count after each task, which takes a tenth of the
    time of a task, and nothing depends on it any more.
    """

    @staticmethod
    def acquire(timeout: float) -> bool:
        """Return True: no further thread must be started."""
        return True

    release: t.ClassVar[t.Callable[[], object]] = bool


class _WorkItem:
    """A work item of the standard library's pool: it runs the task that is next."""

    def __init__(self, queue: PriorityQueue, slots: LentSlots, run: Run) -> None:
        self._queue = queue
        self._slots = slots
        self._run = run

    def run(self, _context: object = None) -> None:
        """Run the task that is next; it may have been taken out of the queue.

        :param _context: an argument that the threads of Python 3.14 pass.
        """
        task = self._queue.take()
        if task is not None:
            if task._wanted or task._place is not None:
                self._slots.forget(task)
            self._run(task)
        # The traceback of a failure refers to this frame.
        del task

    @property
    def future(self) -> _WorkItem:
        """The future of a work item: a shutdown that cancels futures cancels it."""
        return self

    def cancel(self) -> None:
        """Cancel the task that is next."""
        task = self._queue.take()
        if task is not None:
            task._owner.cancel(task)


if hasattr(os, "register_at_fork"):
    # A forked process has none of these threads except the one that forked. When it
    # ends, the standard library would join that one from itself, which fails: so the
    # exit code would be 1, and no other thread would be joined.
    os.register_at_fork(after_in_child=t.cast(t.Any, stdlib._threads_queues).clear)


POOL = ThreadPool
