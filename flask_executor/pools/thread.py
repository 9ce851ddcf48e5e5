"""Calls on threads: the standard library's pool, with our tasks in its queue."""

from __future__ import annotations

import concurrent.futures.thread as stdlib
import typing as t
from concurrent.futures import ThreadPoolExecutor

from flask import Flask

from ..errors import ExecutorShutDown
from ..settings import Settings
from ..task import Task


def make(settings: Settings, name: str, app: Flask) -> ThreadPool:
    """The pool for an app."""
    return ThreadPool(settings.max_workers, name)


class ThreadPool(ThreadPoolExecutor):
    """A :class:`~concurrent.futures.ThreadPoolExecutor` that takes tasks.

    A task has what the standard library's own work items have, a ``future`` and a
    ``run``, so it goes into the same queue: threads, shutdown and the rules at exit
    stay the standard library's own. Passing a function of ours to its ``submit``
    would do without its private names, and cost a second future for every call,
    which is a third of the time of a call and of the memory of a waiting one.
    """

    runs_in_caller: t.ClassVar[bool] = False

    def __init__(self, max_workers: int | None, name: str) -> None:
        super().__init__(max_workers, thread_name_prefix=name)

    def start(self, task: Task) -> None:
        """Put a task in the queue.

        :raises ExecutorShutDown: where the pool is shut down, or the interpreter
            ends.
        """
        # The second lock is held by whoever ends the interpreter or forks.
        with self._shutdown_lock, stdlib._global_shutdown_lock:
            if self._shutdown or stdlib._shutdown:
                raise ExecutorShutDown(task.name)
            self._work_queue.put(task)  # type: ignore[arg-type]
            self._adjust_thread_count()
