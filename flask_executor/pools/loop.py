"""Coroutines, thousands at a time, on one event loop thread."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import threading
import typing as t
import weakref
from functools import partial

from ..attempt import Attempt
from ..calls import Call, Outcome, run_coroutine
from ..current import running
from ..queues import PriorityQueue
from ..task import Task
from ..threads import here, start_thread
from .base import Pool, refuse_after_shutdown, submit_bare
from .steps import Driven


class LoopPool(Pool):
    """Runs coroutine functions on its own event loop.

    The thread starts with the first task, and ends when the pool is shut down or
    dropped. When the interpreter ends, accepted coroutines still run, before the thread
    pools of the standard library are joined. So a coroutine can still use
    :func:`asyncio.to_thread` then.

    :param name: the name of the thread.
    """

    kind: t.ClassVar[str] = "event loop"
    must_not_block: t.ClassVar[bool] = True
    stops_runs: t.ClassVar[bool] = True
    submit = submit_bare

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._shutdown = False
        self._queue = PriorityQueue()
        self._server: _Server | None = None
        self._is_awake = False
        self._pid = os.getpid()

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Accept a task; it starts in the loop's next round.

        :raises ExecutorShutDown: if the pool is shut down.
        """
        with self._lock:
            if self._shutdown or _leaving:
                refuse_after_shutdown(task)
            if self._server is None:
                self._server = self._start_server()
            self._queue.put(task, first=first)
            # One call is enough for all tasks that come before the loop has looked.
            if not self._is_awake:
                self._is_awake = True
                self._server.call(self._begin_all)

    def remove(self, task: Task) -> bool:
        """Take a task out of the queue; return False if its turn has come."""
        return self._queue.remove(task)

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel a coroutine at its next ``await``."""
        if self._server is not None:
            self._server.call(self._server.cancel, attempt)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and end the thread when all accepted have run.

        :param wait: return only then; not when called on the loop's own thread.
        :param cancel_futures: cancel those that have not started.
        """
        with self._lock:
            first, self._shutdown = not self._shutdown, True
            server = self._server
            if first and server is not None:
                server.call(self._begin_all)
                server.stop()
        while cancel_futures and (task := self._queue.take()) is not None:
            # Not under the lock: the callbacks of the futures may submit.
            task._owner.cancel(task)
        if wait and server is not None and not self.is_own_thread:
            server.thread.join()

    def _start_server(self) -> _Server:
        server = _Server(self._name, weakref.ref(self))
        # The thread refers only to the server, so it ends when the pool is deleted.
        weakref.finalize(self, server.stop).atexit = False
        _unfinished.add(self)
        return server

    def _begin_all(self) -> None:
        self._is_awake = False  # before it looks: a task that comes now calls again
        while (task := self._queue.take()) is not None:
            attempt = task._owner.begin(task)
            if attempt is not None:
                t.cast(_Server, self._server).create(attempt)


class _Server:
    """The event loop, its thread and the coroutines that run there."""

    def __init__(self, name: str, pool: weakref.ref[LoopPool]) -> None:
        self._pool = pool
        # Here, so that a failure is the submitter's, but not in his context: the loop
        # keeps the one in which it was made.
        self._loop = contextvars.Context().run(_new_loop)
        self._running: dict[Attempt, asyncio.Task[Outcome]] = {}
        self._stopping = asyncio.Event()
        try:
            self.thread = start_thread(self._serve, name=name, daemon=True)
        except BaseException:
            self._loop.close()
            raise

    def call(self, fn: t.Callable[..., object], *args: t.Any) -> None:
        """Call a function on the loop's thread, in an empty context.

        By default it would be a copy of the caller's, with its request.
        """
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            context = contextvars.Context()
            self._loop.call_soon_threadsafe(fn, *args, context=context)

    def stop(self) -> None:
        """End the thread when all that runs has ended."""
        self.call(self._stopping.set)

    def create(self, attempt: Attempt) -> None:
        """Run the coroutine of an attempt that has begun."""
        call = t.cast(Call, attempt.call)
        snapshot, place = call.snapshot, attempt.task._place
        context = contextvars.Context() if snapshot is None else snapshot.variables()
        coroutine: t.Any = run_coroutine(call, attempt)
        if place is not None:
            coroutine = Driven(coroutine, place)
        created = self._loop.create_task(coroutine, context=context)
        # The loop itself keeps weak references only.
        self._running[attempt] = created
        created.add_done_callback(
            partial(self._ended, attempt), context=contextvars.Context()
        )

    def cancel(self, attempt: Attempt) -> None:
        """Cancel a coroutine that still runs."""
        created = self._running.get(attempt)
        if created is not None and attempt.cancel_requested:
            created.cancel()

    def _ended(self, attempt: Attempt, created: asyncio.Task[Outcome]) -> None:
        # In an empty context: receivers and callbacks must not find the request of the
        # coroutine, which is closed.
        del self._running[attempt]
        attempt.task._owner.finish(attempt, _outcome_of(created))
        del attempt, created

    def _serve(self) -> None:
        here.pool = self._pool
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            self._loop.set_task_factory(_task_factory)
            runner.run(self._run(), context=contextvars.Context())

    async def _run(self) -> None:
        await self._stopping.wait()
        while self._running:
            await asyncio.wait(self._running.values())


def _outcome_of(created: asyncio.Task[Outcome]) -> Outcome:
    if created.cancelled():  # before its first step
        return Outcome(error=asyncio.CancelledError())
    error = created.exception()
    return created.result() if error is None else Outcome(error=error)


def _task_factory(
    loop: asyncio.AbstractEventLoop, coroutine: t.Any, **options: t.Any
) -> asyncio.Task[t.Any]:
    """Create an asyncio task; one that a limited task makes counts as part of it."""
    context: contextvars.Context | None = options.get("context")
    inside = running.get() if context is None else context.get(running)
    if isinstance(inside, Attempt) and inside.task._place is not None:
        coroutine = Driven(coroutine, inside.task._place)
    return asyncio.Task(coroutine, loop=loop, **options)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    # Closing it ends its threads, too. This would start one more to wait for them,
    # which Python 3.12.0 to 3.12.2 do not do while the interpreter ends.
    vars(loop)["shutdown_default_executor"] = _nothing
    return loop


async def _nothing(*args: object) -> None:
    """In place of what is not needed."""


_unfinished: weakref.WeakSet[LoopPool] = weakref.WeakSet()


_leaving = False
"""True when the interpreter ends: nothing would wait for a new task."""


def _finish_all() -> None:
    global _leaving
    _leaving = True
    for pool in list(_unfinished):
        if pool._pid == os.getpid():  # a forked child inherits the set, but no threads
            pool.shutdown()


# atexit alone would be too late for a coroutine that needs a thread: see LoopPool.
getattr(threading, "_register_atexit", atexit.register)(_finish_all)


POOL = LoopPool
