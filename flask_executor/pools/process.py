"""Calls in worker processes, each with one worker thread here.

A worker thread is a thread of the standard library's pool with one worker process and
two pipes. It sends the process a call and waits for the reply, so at most one call is
with a process: if that is killed, only this call is lost.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import traceback
import typing as t
import weakref
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing.context import BaseContext

from flask import Flask

from ..attempt import Attempt
from ..calls import Call, Outcome
from ..errors import ChildrenNotAllowed
from ..log import Log
from ..payload import MainModule, check_declared, serialize_call
from ..settings import Settings
from ..task import Task, name_of
from .apps import AppSource
from .base import Pool, run_task, submit_bare
from .handles import WorkerHandle
from .thread import ThreadPool


def make(settings: Settings, name: str, app: Flask) -> ProcessPool:
    """Return the pool for an app."""
    return ProcessPool.of(settings, name, app)


class ProcessPool(ProcessPoolExecutor, Pool):
    """Runs calls in worker processes, with their contexts.

    :param max_workers: how many processes; None is the number of processors.
    :param name: for threads and processes.
    :param start_method: ``'fork'``, ``'forkserver'``, ``'spawn'``, or None.
    :param source: where a worker finds the app.
    :param warn: called once with the reason, if calls run without contexts.
    """

    kind: t.ClassVar[str] = "process"
    stdlib_class: t.ClassVar[type[Executor]] = ProcessPoolExecutor
    serializes: t.ClassVar[bool] = True
    submit = submit_bare

    def __init__(
        self,
        max_workers: int | None,
        name: str,
        *,
        start_method: str | None = None,
        source: AppSource | None = None,
        warn: t.Callable[[str], None] = lambda reason: None,
    ) -> None:
        # The base class's own queues, semaphores and manager thread are not made: with
        # them, a killed worker also ends its neighbours. The attributes that people
        # read from a ProcessPoolExecutor have the same values.
        self._max_workers = max_workers or os.cpu_count() or 1
        self._mp: BaseContext = multiprocessing.get_context(start_method or _default())
        self._processes: t.Any = {}
        self._shutdown_thread = False
        self._broken = False
        self._main = MainModule()
        make = partial(
            self._handle_class, self._mp, name, source, self._main, self._processes
        )
        self._workers = _Workers(make, warn)
        self._threads_pool = ThreadPool(
            self._max_workers, name, self._workers.run, self
        )

    @classmethod
    def of(cls, settings: Settings, name: str, app: Flask) -> t.Self:
        """Return the pool for an app."""
        log = Log(app)

        def warn(reason: str) -> None:
            log.write(
                logging.WARNING,
                "Calls on the %s pool run without contexts, since no worker finds the"
                " app (%s): set EXECUTOR_APP to 'module:app' or 'module:factory'.",
                cls.kind,
                reason,
            )

        return cls(
            settings.max_workers,
            name,
            start_method=settings.start_method,
            source=AppSource.of(app, settings.app),
            warn=warn,
        )

    @classmethod
    def check_declared(cls, fn: t.Any) -> None:
        """Refuse a job that no worker could import.

        :raises CallNotPicklable: with the reason.
        """
        check_declared(fn)

    def room(self, at_work: int) -> int:
        """Return how many more tasks would begin at once."""
        return self._threads_pool.room(at_work)

    def prepare(self, call: Call) -> None:
        """Serialize a call.

        :raises ChildrenNotAllowed: if this process may not start a worker.
        :raises CallNotPicklable: if no worker could import the callable.
        """
        here = multiprocessing.current_process()
        if here.daemon:
            raise ChildrenNotAllowed(name_of(call.fn), here.name)
        call.payload = serialize_call(call, self._main)
        # They are in the bytes. The callable's name and the context stay, for logs.
        call.args, call.kwargs = (), {}

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Put a task into the queue.

        :raises ExecutorShutDown: if the pool is shut down.
        """
        self._threads_pool.enqueue(task, first=first)

    def remove(self, task: Task) -> bool:
        """Take a task out of the queue; return False if its turn has come."""
        return self._threads_pool.remove(task)

    def interrupt(self, attempt: Attempt) -> None:
        """Tell the code of a task that it is asked to stop."""
        self._workers.interrupt(attempt)

    def lend_slot(self) -> t.Callable[[], None] | None:
        """Lend out the slot of this worker thread, whose code waits for a task."""
        return self._threads_pool.lend_slot()

    def expedite(self, task: Task) -> None:
        """Let a task that somebody waits for run in a slot that is lent out."""
        self._threads_pool.expedite(task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; run or cancel what waits, then release the workers."""
        self._shutdown_thread = True
        self._threads_pool.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._workers.retire()
            for process in list(self._processes.values()):
                process.join()

    _handle_class: t.ClassVar[type[WorkerHandle]] = WorkerHandle


class _Workers:
    """The workers of a pool: each of its threads has one.

    The threads refer to this and not to the pool. So when nobody else refers to the
    pool, it is deleted, and they end.

    :param make: makes a worker, for the thread that calls it.
    :param warn: called once with the reason, if calls run without contexts.
    """

    def __init__(
        self, make: t.Callable[[], WorkerHandle], warn: t.Callable[[str], None]
    ) -> None:
        self._make = make
        self._warn = warn
        self._warned = False
        self._local = threading.local()
        self._at_work: dict[Attempt, WorkerHandle] = {}
        self._handles: weakref.WeakSet[WorkerHandle] = weakref.WeakSet()

    def run(self, task: Task) -> None:
        """Run a task in the worker of this thread."""
        run_task(task, self._perform)

    def interrupt(self, attempt: Attempt) -> None:
        """Stop a run if the worker can; otherwise tell its code."""
        handle = self._at_work.get(attempt)
        if handle is not None:
            handle.ask_to_stop(attempt)

    def retire(self) -> None:
        """Release the processes; none runs a task any more."""
        for handle in list(self._handles):  # something may still refer to it
            handle.retire()

    def _perform(self, call: Call, attempt: Attempt) -> Outcome:
        # No variable for the worker: the traceback of a failure would refer to it, and
        # it must be deleted with its thread.
        self._at_work[attempt] = self._handle()
        outcome, without = self._at_work[attempt].run(call, attempt)
        self._at_work.pop(attempt).rest()
        if without:
            self._warn_once(without)
        return outcome

    def _handle(self) -> WorkerHandle:
        # It lives as long as its worker thread: a thread's end drops it, and its
        # process reads the end of the pipe.
        handle: WorkerHandle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = self._make()
            self._handles.add(handle)
        return handle

    def _warn_once(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            try:
                self._warn(reason)
            except Exception:  # a log handler of the app: the call has its outcome
                traceback.print_exc()


def _default() -> str:
    methods = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in methods else "spawn"


POOL = ProcessPool
