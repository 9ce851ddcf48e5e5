"""Calls in worker processes, each looked after by one thread.

A *minder* is a thread of the standard library's pool with one worker process and two
pipes. It sends the worker a call and waits for the reply, so at most one call is with
a worker: when a worker is killed, that call is lost and no other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import select
import sys
import threading
import typing as t
import weakref
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray

from flask import Flask

from ..calls import Outcome
from ..errors import TaskCancelled, WorkerLost
from ..settings import Settings
from ..task import Task
from . import BareCalls, Plain
from ._apps import AppSource
from ._gevent import blocking_sockets
from ._parcels import (
    ASKED,
    BEGUN,
    MainModule,
    pack,
    payload_of,
    progress_in,
    serve,
    unpack_reply,
)
from .thread import ThreadPool

_STARTS = 3
"""How many workers may die before they begin a call until it is given up."""

_starting = threading.RLock()


def make(settings: Settings, name: str, app: Flask) -> ProcessPool:
    """The pool for an app."""
    return ProcessPool.of(settings, name, app)


class ProcessPool(Plain, ProcessPoolExecutor):
    """Runs calls in worker processes, with their contexts.

    :param max_workers: how many; None is the number of processors.
    :param name: for threads and processes.
    :param start_method: ``'fork'``, ``'forkserver'``, ``'spawn'``, or None.
    :param source: where a worker finds the app.
    :param warn: called once with why calls run without contexts, if they do.
    """

    kind: t.ClassVar[str] = "process"
    packs: t.ClassVar[bool] = True
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
        self._at_work: dict[Task, _Worker] = {}
        self._workers: weakref.WeakSet[_Worker] = weakref.WeakSet()
        self._minders = ThreadPool(self._max_workers, name)
        self._local = threading.local()
        self._main = MainModule()
        self._name = name
        self._source = source
        self._warn = warn
        self._warned = False

    @classmethod
    def of(cls, settings: Settings, name: str, app: Flask) -> t.Self:
        """The pool for an app."""
        logger = app.logger

        def warn(reason: str) -> None:
            logger.warning(
                "Calls on the %s pool run without contexts, for no worker finds the"
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

    @property
    def is_own_thread(self) -> bool:
        """Whether this is one of the minders."""
        return self._minders.is_own_thread

    def pack(self, task: Task) -> None:
        """Pack a call for its journey.

        :raises CallNotPicklable: where no worker could import the callable.
        """
        task.send_away(pack(task.call, self._main))

    def start(self, task: Task, *, first: bool = False) -> None:
        """Put a task in line.

        :raises ExecutorShutDown: where the pool is shut down.
        """
        self._minders.start_with(self._run, task, first=first)

    def interrupt(self, task: Task) -> None:
        """Have the code of a task see that it is asked to stop."""
        worker = self._at_work.get(task)
        if worker is not None:
            worker.ask_to_stop(task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; run or cancel what waits, then let the workers go."""
        self._shutdown_thread = True
        self._minders.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            for worker in list(self._workers):  # whoever may still refer to it
                worker.retire()
            for process in list(self._processes.values()):
                process.join()

    def _run(self, task: Task) -> None:
        if task.owner.begin(task):
            # No variable for the worker, which must go with its thread: the traceback
            # of a failure would refer to it.
            self._at_work[task] = self._worker()
            outcome, reason = self._at_work[task].run(task)
            self._at_work.pop(task).rest()
            task.owner.finish(task, outcome)
            if reason:  # last: a log handler that raises must keep nobody waiting
                self._warn_once(reason)

    def _worker(self) -> _Worker:
        # It lives as long as its minder: a thread's end drops it, and its process
        # reads the end of the pipe.
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = self._worker_type(
                self._mp, self._name, self._source, self._main, self._processes
            )
            self._workers.add(worker)
        return worker

    @property
    def _worker_type(self) -> type[_Worker]:
        return _Worker

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
        self._flags: t.Any = None
        self._task: Task | None = None
        self._asking = threading.Lock()

    def run(self, task: Task) -> tuple[Outcome, str | None]:
        """Have the call run; the outcome, and why it ran without contexts if so.

        A worker that is gone before it has begun the call costs nothing: the next one
        gets it.
        """
        lost: WorkerLost | None = None
        for _ in range(_STARTS):
            try:
                reply = self._ask(task)
            except Exception as error:  # also what no process could be started for
                begun = self._process is not None and self._flags[BEGUN]
                lost = self._bury(task.name)
                # A traceback would keep these frames, and so this worker.
                lost.__cause__ = error.with_traceback(None)
                if begun:
                    break
            else:
                if reply is None:
                    return Outcome(error=TaskCancelled(task.name)), None
                return unpack_reply(task.name, reply)
        return Outcome(error=lost), None

    def retire(self) -> None:
        """Let the process go; none runs a task any more."""
        self._bury_quietly()

    def rest(self) -> None:
        """Have no task any more."""
        with self._asking:
            self._task = None

    def ask_to_stop(self, task: Task) -> None:
        """Have the code of a task see that it is to stop, if it still runs here."""
        with self._asking:
            if self._task is task:
                self._flags[ASKED] = 1

    def _ask(self, task: Task) -> bytes | None:
        """The worker's reply; None where the task is not to begin any more."""
        if self._process is None or not self._process.is_alive():
            self._start()
        with self._asking:
            if task.cancel_requested:  # while the worker was started, say
                return None
            self._task = task
            self._flags[BEGUN] = self._flags[ASKED] = 0
        self._send(task)
        while (progress := progress_in(message := self._receive())) is not None:
            task.report(progress)
        return message

    def _send(self, task: Task) -> None:
        self._calls.send_bytes(payload_of(task))

    def _receive(self) -> bytes:
        if not self._ear.hears():
            raise EOFError
        return self._replies.recv_bytes()

    def _start(self) -> None:
        self._main.recall()
        self._launch()
        if self._main.is_forgotten:  # the script ended just then; the worker lacks it
            self._main.recall()
            self._launch()
        self._ear = _Ear(self._replies, t.cast(BaseProcess, self._process).sentinel)

    def _launch(self) -> None:
        self._bury_quietly()
        # One way each: a duplex pipe is a socket, which gevent makes non-blocking.
        # multiprocessing keeps its children in a set that only one may change; and a
        # worker that is forked meanwhile would inherit these pipes.
        with _starting, blocking_sockets():
            their_calls, self._calls = self._mp_context.Pipe(duplex=False)
            self._replies, their_replies = self._mp_context.Pipe(duplex=False)
            self._flags = RawArray("b", 2)
            process = self._mp_context.Process(  # type: ignore[attr-defined]
                target=serve,
                args=(their_calls, their_replies, self._flags, self._source),
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
            close_all(self._calls, self._replies)
            process.join()
            self._processes.pop(t.cast(int, process.pid), None)


class _Ear:
    """Waits until a worker has sent something, or has ended: what it has forked may
    keep its pipe open. Under gevent others run meanwhile; reading alone lets none.
    """

    def __init__(self, pipe: Connection[bytes, t.Any], sentinel: int) -> None:
        self._pipe = pipe
        self._sentinel = sentinel
        # Made once: wait() makes one for each call, which takes longer than the wait.
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(pipe.fileno(), select.POLLIN)
            self._poll.register(sentinel, select.POLLIN)

    def hears(self) -> bool:
        """Wait; whether there is something to read."""
        if self._poll is None:  # Windows
            wait([self._pipe, self._sentinel])
            return self._pipe.poll(0)
        heard = self._poll.poll()
        return any(number == self._pipe.fileno() for number, _ in heard)


def close_all(*pipes: Connection[t.Any, t.Any]) -> None:
    """Close pipes while no worker is being forked: in it they would be half closed,
    with the number of a pipe that was made meanwhile.
    """
    with _starting:
        for pipe in pipes:
            pipe.close()


_near_ends: weakref.WeakSet[Connection[t.Any, t.Any]] = weakref.WeakSet()
_workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def _start_anew_in_child() -> None:
    global _starting
    _starting = threading.RLock()  # the old one may be held, for ever
    # A forked worker inherits its siblings' pipes: with them open, none of them
    # would read the end of its own.
    for pipe in list(_near_ends):
        with contextlib.suppress(OSError):  # a thread was about to close it
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


POOL = ProcessPool
