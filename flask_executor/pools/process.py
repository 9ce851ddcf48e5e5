"""Calls in worker processes, each looked after by one thread.

A *minder* is a thread of the standard library's pool with one worker process and two
pipes. It sends the worker a call and waits for the reply, so at most one call is with
a worker: when a worker is killed, that call is lost and no other.
"""

from __future__ import annotations

import concurrent.futures.thread as stdlib
import multiprocessing
import multiprocessing.process
import os
import sys
import threading
import typing as t
import weakref
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue

from flask import Flask

from ..errors import CallNotPicklable, ExecutorShutDown, WorkerLost
from ..settings import Settings
from ..task import Task, name_of
from ..worker import Call, Outcome
from . import BareCalls
from ._apps import AppSource
from ._parcels import MainModule, describe, pack, pack_callable, serve, unpack_reply

_STARTS = 3
"""How many workers may die before they begin a call until it is given up."""

_starting = threading.Lock()


def make(settings: Settings, name: str, app: Flask) -> ProcessPool:
    """The pool for an app."""
    logger = app.logger

    def warn(reason: str) -> None:
        logger.warning(
            "Calls on the process pool run without contexts, for no worker finds the"
            " app (%s): set EXECUTOR_APP to 'module:app' or 'module:factory'.",
            reason,
        )

    return ProcessPool(
        settings.max_workers,
        name,
        start_method=settings.start_method,
        source=AppSource.of(app, settings.app),
        warn=warn,
    )


class ProcessPool(ProcessPoolExecutor):
    """Runs calls in worker processes, with their contexts.

    :param max_workers: how many; None is the number of processors.
    :param name: for threads and processes.
    :param start_method: ``'fork'``, ``'forkserver'``, ``'spawn'``, or None.
    :param source: where a worker finds the app.
    :param warn: called once with why calls run without contexts, if they do.
    """

    runs_in_caller: t.ClassVar[bool] = False
    submit: t.Callable[..., Future[t.Any]] = BareCalls.submit

    def __init__(
        self,
        max_workers: int | None,
        name: str,
        *,
        start_method: str | None = None,
        source: AppSource | None = None,
        warn: t.Callable[[str], None] = lambda reason: None,
    ) -> None:
        # The base class's own machinery (queues, semaphores, a manager thread) is not
        # built: it takes a killed worker's neighbours along. What people ask of a
        # ProcessPoolExecutor answers as it would there.
        self._max_workers = max_workers or os.cpu_count() or 1
        self._mp: BaseContext = multiprocessing.get_context(start_method or _default())
        self._processes: t.Any = {}
        self._shutdown_thread = False
        self._broken = False
        self._line: deque[tuple[Task, bytes]] = deque()
        self._putting = threading.Lock()
        self._minders = ThreadPoolExecutor(self._max_workers, thread_name_prefix=name)
        self._local = threading.local()
        self._main = MainModule()
        self._name = name
        self._source = source
        self._warn = warn
        self._warned = False

    def start(self, task: Task) -> None:
        """Put a task in line, packed for its journey.

        :raises ExecutorShutDown: where the pool is shut down.
        :raises CallNotPicklable: where no worker could import the callable.
        """
        call = t.cast(Call, task.call)
        if self._shutdown_thread or stdlib._shutdown:
            raise ExecutorShutDown(task.name)
        packed_fn = pack_callable(call.fn, self._main)
        try:
            payload = pack(call, packed_fn)
        except Exception as error:
            task.future.set_running_or_notify_cancel()
            reason = f"its arguments do not pickle ({describe(error)})"
            task.finish(Outcome(error=CallNotPicklable(name_of(call.fn), reason)))
            return
        if not self._put_in_line(task, payload):
            raise ExecutorShutDown(task.name)
        task.drop_call(remember=task.name)

    def _put_in_line(self, task: Task, payload: bytes) -> bool:
        with self._putting:  # so that the last in line is this one
            self._line.append((task, payload))
            try:
                self._minders.submit(self._run_next)
            except RuntimeError:  # the pool was shut down, or the interpreter ends
                # Where nothing is left, this one was taken: it runs, or was cancelled.
                if self._line:
                    self._line.pop()
                    return False
            return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; run or cancel what waits, then let the workers go."""
        self._shutdown_thread = True
        self._minders.shutdown(wait=False)
        if cancel_futures:
            self._abandon_waiting()
        self._minders.shutdown(wait=wait)
        if wait:
            for process in list(self._processes.values()):
                process.join()

    def _abandon_waiting(self) -> None:
        while True:
            try:
                task, _ = self._line.popleft()
            except IndexError:  # not asked first: minders take from it, too
                return
            task.abandon()

    def _run_next(self) -> None:
        try:
            task, payload = self._line.popleft()
        except IndexError:  # taken back, or abandoned by shutdown
            return
        if task.begin():
            outcome, reason = self._worker().run(task.name, payload)
            task.finish(outcome)
            if reason:  # last: a log handler that raises must keep nobody waiting
                self._warn_once(reason)

    def _worker(self) -> _Worker:
        # It lives as long as its minder: a thread's end drops it, and its process
        # reads the end of the pipe.
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(
                self._mp, self._name, self._source, self._main, self._processes
            )
        return worker

    def _warn_once(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(reason)


class _Worker:
    """One worker process and the near ends of its pipes; replaced when it dies."""

    def __init__(
        self,
        mp_context: BaseContext,
        name: str,
        source: AppSource | None,
        main: MainModule,
        processes: dict[int, BaseProcess],
    ) -> None:
        self._mp_context = mp_context
        self._name = name
        self._source = source
        self._main = main
        self._processes = processes
        self._process: BaseProcess | None = None

    def run(self, name: str, payload: bytes) -> tuple[Outcome, str | None]:
        """Have the call run; the outcome, and why it ran without contexts if so.

        A worker that is gone before it has begun the call costs nothing: the next one
        gets it.
        """
        lost: WorkerLost | None = None
        for _ in range(_STARTS):
            try:
                reply = self._ask(payload)
            except Exception as error:  # also what no process could be started for
                begun = self._begun.value if self._process is not None else 0
                lost = self._bury(name)
                lost.__cause__ = error
                if begun:
                    break
            else:
                return unpack_reply(name, reply)
        return Outcome(error=lost), None

    def _ask(self, payload: bytes) -> bytes:
        if self._process is None or not self._process.is_alive():
            self._start()
        self._begun.value = 0
        self._calls.send_bytes(payload)
        # Under gevent this lets others run; reading alone would not.
        # The sentinel, too: what the worker has forked may keep the pipe open.
        process = t.cast(BaseProcess, self._process)
        wait([self._replies, process.sentinel])
        if not self._replies.poll(0):
            raise EOFError
        return self._replies.recv_bytes()

    def _start(self) -> None:
        self._main.recall()
        self._launch()
        if self._main.is_forgotten:  # the script ended just then; the worker lacks it
            self._main.recall()
            self._launch()

    def _launch(self) -> None:
        self._bury_quietly()
        # One way each: a duplex pipe is a socket, which gevent makes non-blocking.
        # multiprocessing keeps its children in a set that only one may change; and a
        # worker that is forked meanwhile would inherit these pipes.
        with _starting:
            their_calls, self._calls = self._mp_context.Pipe(duplex=False)
            self._replies, their_replies = self._mp_context.Pipe(duplex=False)
            self._begun = RawValue("b", 0)
            process = self._mp_context.Process(  # type: ignore[attr-defined]
                target=serve,
                args=(their_calls, their_replies, self._begun, self._source),
                name=self._name,
            )
            _near_ends.update((self._calls, self._replies))
            _workers.add(process)
            process.start()
            their_calls.close()
            their_replies.close()
        self._process = process
        self._processes[process.pid] = process

    def _bury(self, name: str) -> WorkerLost:
        process = self._process
        if process is None:
            return WorkerLost(name, None, None)
        pid = process.pid
        self._bury_quietly()
        return WorkerLost(name, pid, process.exitcode)

    def _bury_quietly(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._calls.close()
            self._replies.close()
            process.join()
            self._processes.pop(t.cast(int, process.pid), None)


_near_ends: weakref.WeakSet[Connection[t.Any, t.Any]] = weakref.WeakSet()
_workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def _start_anew_in_child() -> None:
    global _starting
    _starting = threading.Lock()  # the old one may be held, for ever
    # A forked worker inherits its siblings' pipes: with them open, none of them
    # would read the end of its own.
    for pipe in list(_near_ends):
        pipe.close()
    _near_ends.clear()
    _disown_workers()


def _disown_workers() -> None:
    """Have multiprocessing know that neither the workers nor the fork server that it
    has started are children of this process: it would wait for them, in vain.
    """
    known: set[BaseProcess] = getattr(multiprocessing.process, "_children", set())
    known.difference_update(_workers)
    _workers.clear()
    module = sys.modules.get("multiprocessing.forkserver")
    server: t.Any = getattr(module, "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        os.close(server._forkserver_alive_fd)
        type(server).__init__(server)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)


def _default() -> str:
    methods = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in methods else "spawn"
