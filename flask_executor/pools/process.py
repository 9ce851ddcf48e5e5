"""Calls in worker processes, each looked after by one thread.

A *minder* is a thread of the standard library's pool with one worker process and two
pipes. It sends the worker a call and waits for the reply, so at most one call is with
a worker: when a worker is killed, that call is lost and no other.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import typing as t
import weakref
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from traceback import format_exception

from ..context import PortableSnapshot
from ..errors import (
    AppNotFound,
    CallNotPicklable,
    ExecutorShutDown,
    ResultNotPicklable,
    WorkerLost,
)
from ..task import Task, name_of
from ..worker import Call, Outcome, run
from . import BareCalls
from ._apps import AppSource

_STARTS = 3
"""How many workers may die before they begin a call until it is given up."""

_starting = threading.Lock()


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
        packed_fn = _pack_callable(call.fn)
        if self._shutdown_thread:
            raise ExecutorShutDown(task.name)
        try:
            payload = _pack(call, packed_fn)
        except Exception as error:
            task.future.set_running_or_notify_cancel()
            reason = f"its arguments do not pickle ({_describe(error)})"
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
        while cancel_futures and self._line:
            self._line.popleft()[0].abandon()
        self._minders.shutdown(wait=wait)
        if wait:
            for process in list(self._processes.values()):
                process.join()

    def _run_next(self) -> None:
        try:
            task, payload = self._line.popleft()
        except IndexError:  # taken back, or abandoned by shutdown
            return
        if task.begin():
            outcome, reason = self._worker().run(task.name, payload)
            if reason:
                self._warn_once(reason)
            task.finish(outcome)

    def _worker(self) -> _Worker:
        # It lives as long as its minder: a thread's end drops it, and its process
        # reads the end of the pipe.
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(
                self._mp, self._name, self._source, self._processes
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
        processes: dict[int, BaseProcess],
    ) -> None:
        self._mp_context = mp_context
        self._name = name
        self._source = source
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
            except (EOFError, OSError):
                begun = self._begun.value if self._process is not None else 0
                lost = self._bury(name)
                if begun:
                    break
            else:
                return _unpack_reply(name, reply)
        return Outcome(error=lost), None

    def _ask(self, payload: bytes) -> bytes:
        if self._process is None or not self._process.is_alive():
            self._start()
        self._begun.value = 0
        self._calls.send_bytes(payload)
        # Under gevent this lets others run; reading alone would not.
        self._replies.poll(None)
        return self._replies.recv_bytes()

    def _start(self) -> None:
        self._bury_quietly()
        # One way each: a duplex pipe is a socket, which gevent makes non-blocking.
        their_calls, self._calls = self._mp_context.Pipe(duplex=False)
        self._replies, their_replies = self._mp_context.Pipe(duplex=False)
        self._begun = RawValue("b", 0)
        process = self._mp_context.Process(  # type: ignore[attr-defined]
            target=serve,
            args=(their_calls, their_replies, self._begun, self._source),
            name=self._name,
        )
        # multiprocessing keeps its children in a set that only one may change.
        with _starting:
            _near_ends.update((self._calls, self._replies))
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


def _start_anew_in_child() -> None:
    global _starting
    _starting = threading.Lock()  # the old one may be held, for ever
    # A forked worker inherits its siblings' pipes: with them open, none of them
    # would read the end of its own.
    for pipe in list(_near_ends):
        pipe.close()
    _near_ends.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)


def _default() -> str:
    methods = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in methods else "spawn"


class _Parcel(t.NamedTuple):
    """A call as it travels; the parts are packed apart, so that each can fail alone."""

    fn: bytes
    arguments: bytes
    snapshot: bytes | None
    name: str


def check_declared(fn: t.Any) -> None:
    """Refuse, where it is declared, a job that no worker could import.

    Its module does not hold it yet, so its name must tell.

    :raises CallNotPicklable: saying why.
    """
    name = getattr(fn, "__qualname__", "")
    if "<locals>" in name or "<lambda>" in name:
        raise CallNotPicklable(
            name_of(fn), "it is local to a function, or has no name of its own"
        )


def _pack_callable(fn: t.Any) -> bytes:
    main = sys.modules.get("__main__")
    if getattr(fn, "__module__", None) == "__main__" and not (
        hasattr(main, "__file__") or getattr(main, "__spec__", None)
    ):
        raise CallNotPicklable(
            name_of(fn), "it was defined at a prompt, which has no file to import"
        )
    try:
        return pickle.dumps(fn)
    except Exception as error:
        raise CallNotPicklable(name_of(fn), _describe(error)) from error


def _pack(call: Call, fn: bytes) -> bytes:
    snapshot = None if call.snapshot is None else call.snapshot.packed()
    arguments = pickle.dumps((call.args, call.kwargs))
    return pickle.dumps(tuple(_Parcel(fn, arguments, snapshot, name_of(call.fn))))


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _unpack_reply(name: str, reply: bytes) -> tuple[Outcome, str | None]:
    try:
        value, error, trace, reason = pickle.loads(reply)
    except Exception as failure:
        lost = ResultNotPicklable(name, "its result", _describe(failure))
        return Outcome(error=lost), None
    if error is not None and trace:
        error.__cause__ = WorkerTraceback(trace)
    return Outcome(value, error), reason


class WorkerTraceback(Exception):
    """The traceback of an exception, as the worker process saw it: the cause of the
    exception in this process.
    """

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


# From here on: what runs in the worker process.


def serve(
    calls: Connection[t.Any, bytes],
    replies: Connection[bytes, t.Any],
    begun: t.Any,
    source: AppSource | None,
) -> None:
    """The main loop of a worker process: until the other end of a pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            payload = calls.recv_bytes()
        except (EOFError, OSError):
            return
        begun.value = 1
        reply = _reply_to(payload, source)
        try:
            replies.send_bytes(reply)
        except OSError:
            return


def _reply_to(payload: bytes, source: AppSource | None) -> bytes:
    parcel = _Parcel(*pickle.loads(payload))
    reason = None
    try:
        call, reason = _open_parcel(parcel, source)
    except AppNotFound as error:
        outcome = Outcome(error=error)
    except Exception as error:
        reason_why = f"a worker could not load it ({_describe(error)})"
        outcome = Outcome(error=CallNotPicklable(parcel.name, reason_why))
    else:
        outcome = run(call)
    return _pack_outcome(parcel.name, outcome, reason)


def _open_parcel(parcel: _Parcel, source: AppSource | None) -> tuple[Call, str | None]:
    snapshot = reason = None
    if parcel.snapshot is not None and source is not None:
        app, reason = source.app()
        if app is not None:
            portable: PortableSnapshot = pickle.loads(parcel.snapshot)
            snapshot = portable.land(app)
    args, kwargs = pickle.loads(parcel.arguments)
    return Call(pickle.loads(parcel.fn), args, kwargs, snapshot), reason


def _pack_outcome(name: str, outcome: Outcome, reason: str | None) -> bytes:
    value, error = outcome.value, outcome.error
    trace = "" if error is None else "".join(format_exception(error))
    try:
        reply = pickle.dumps((value, error, trace, reason))
        if error is not None:
            pickle.loads(reply)  # many exceptions pickle but do not unpickle
        return reply
    except Exception as failure:
        what = "its result" if error is None else f"the {_describe(error)} it raised"
        refused = ResultNotPicklable(name, what, _describe(failure))
        return pickle.dumps((None, refused, trace, reason))
