"""Calls in worker processes that can be killed: the process pool, run by pebble.

Each worker has its own pebble pool. In a shared pool the workers share a pipe and its
locks. A worker that is killed at the wrong moment, for example by the system because
its result takes too much memory, would stop all the others.
"""

from __future__ import annotations

import os
import threading
import typing as t
import weakref
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray

from flask import Flask

from ..attempt import Attempt
from ..calls import Call, Outcome
from ..errors import PoolNotInstalled, TaskCancelled, WorkerLost
from ..settings import Settings
from ..threads import start_thread
from . import handles
from .apps import AppSource
from .gevent import blocking_sockets
from .handles import Answer, WorkerHandle, close_all
from .process import ProcessPool
from .worker import STOP, Answers, serve_one, unblock_signals

try:
    from pebble import ProcessPool as OfPebble
except ImportError as _missing:
    raise PoolNotInstalled("pebble") from _missing

_NOTICING = 2.0
"""Seconds that pebble has to notice that a process has ended; it takes 0.1, and before
5.2 does not always say so."""


def make(settings: Settings, name: str, app: Flask) -> PebblePool:
    """Return the pool for an app."""
    return PebblePool.of(settings, name, app)


class _Handle(WorkerHandle):
    """One pebble pool with one process; both are replaced when the process dies."""

    _end: t.Callable[[], object]
    _future: Future[t.Any] | None = None

    def run(self, call: Call, attempt: Attempt) -> Answer:
        """Run a call; one whose worker was killed on request is cancelled."""
        outcome, without = super().run(call, attempt)
        self.rest()  # now, so that a later request kills nothing
        if isinstance(outcome.error, WorkerLost) and (
            attempt.cancel_requested or self._is_asked_to_stop
        ):
            outcome = Outcome(error=TaskCancelled(attempt.name))
        if self._is_asked_to_stop:  # also if the reply was faster
            self._bury_quietly()
            self._flags[STOP] = 0
        return outcome, without

    def ask_to_stop(self, attempt: Attempt) -> None:
        """Tell pebble to kill the process, if the attempt still runs here."""
        with self._asking:
            if self._attempt is attempt:
                self._flags[STOP] = 1  # for a process that has not begun it
                self._end()

    @property
    def _is_asked_to_stop(self) -> bool:
        return self._flags is not None and bool(self._flags[STOP])

    def _send(self, request: bytes) -> None:
        self._future = self._pool.schedule(_run_here, (request,))

    def _launch(self) -> None:
        self._bury_quietly()
        self._future = None
        with handles.starting, handles.child_signal_unblocked(), blocking_sockets():
            self._replies, theirs = self._mp_context.Pipe(duplex=False)
            handles.near_ends.add(self._replies)
            self._flags = RawArray("b", 2)
            context = _OneProcess(self._mp_context)
            self._pool = OfPebble(
                max_workers=1,
                initializer=_settle,
                initargs=(theirs, self._flags, self._source),
                context=t.cast(t.Any, context),
            )
            self._end = _end_with_thread(self._pool, context.pipes, self._name)
            try:
                self._pool.active  # noqa: B018 - asking starts it
            except BaseException:
                self._end()
                raise
            theirs.close()
            # Its own worker has them now; other forks must not keep them open.
            handles.near_ends.update(context.pipes)
        self._process = made = t.cast(BaseProcess, context.process)
        self._processes[t.cast(int, made.pid)] = made

    def _bury(self, name: str) -> WorkerLost:
        if self._future is not None and not self._is_asked_to_stop:
            # Only then does multiprocessing know the exit code: it is asked once.
            wait_for([self._future], _NOTICING)
        return super()._bury(name)

    def _bury_quietly(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            close_all(self._replies)
            self._end()
            wait([process.sentinel])
            self._processes.pop(t.cast(int, process.pid), None)


class PebblePool(ProcessPool):
    """A process pool that stops a run: pebble kills its worker."""

    kind: t.ClassVar[str] = "pebble"
    stops_runs: t.ClassVar[bool] = True
    _handle_class: t.ClassVar[type[WorkerHandle]] = _Handle


class _OneProcess:
    """The ``multiprocessing`` context of a pebble pool whose process is not replaced.

    When a process has died, pebble starts another one with the same pipe and locks,
    in whatever state they are. Without a new process it gives up and says so.
    """

    def __init__(self, context: BaseContext) -> None:
        self._context = context
        self.pipes: list[Connection[t.Any, t.Any]] = []
        self.process: BaseProcess | None = None

    def Pipe(self, duplex: bool = True) -> tuple[t.Any, t.Any]:
        ends = self._context.Pipe(duplex)
        self.pipes += ends
        return ends

    def Process(self, **how: t.Any) -> BaseProcess:
        if self.process is not None:
            raise OSError("This pool of one process has had it.")
        made: BaseProcess = t.cast(t.Any, self._context).Process(**how)
        self.process = made
        handles.workers.add(made)
        return made

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._context, name)


class _Lease:
    """Ends with the thread that has it, even if a traceback keeps other objects."""


_leases = threading.local()


def _end_with_thread(
    pool: OfPebble, pipes: list[Connection[t.Any, t.Any]], name: str
) -> t.Callable[[], object]:
    """End a pool of pebble with this thread, or before, when this is called."""
    _leases.lease = _Lease()
    end = weakref.finalize(
        _leases.lease, _end_soon, partial(_end, pool, pipes), name, os.getpid()
    )
    end.atexit = False  # pebble does it in its own way
    return end


def _end_soon(end: t.Callable[[], None], name: str, pid: int) -> None:
    if pid == os.getpid():  # otherwise it would end threads of another process
        try:
            start_thread(end, name=f"{name}_end", daemon=True)
        except RuntimeError:  # the interpreter ends
            end()
        except AssertionError:
            # This is gevent's hub: it starts the thread, and refuses to wait for that.
            pass


def _end(pool: t.Any, pipes: list[Connection[t.Any, t.Any]]) -> None:
    """End pebble's threads and kill its process, in any state."""
    pool.stop()
    close_all(*pipes)  # pebble would do this even during a fork
    pool.join()


# The rest runs in the worker process.

_here: tuple[Connection[bytes, t.Any], Answers, t.Any, AppSource | None]


def _settle(
    replies: Connection[bytes, t.Any], flags: t.Any, source: AppSource | None
) -> None:
    global _here
    _here = replies, Answers(replies), flags, source
    unblock_signals()


def _run_here(request: bytes) -> None:
    replies, *rest = _here
    try:
        serve_one(request, *rest)
    except BaseException:
        replies.close()  # so that nobody waits at the other end
        raise


POOL = PebblePool
