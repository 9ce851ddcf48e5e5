"""Coroutines, thousands at a time, on one event loop thread."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import typing as t
import weakref
from contextvars import Context
from functools import partial

from ..calls import Call, Outcome, run_coroutine
from ..errors import ExecutorShutDown
from ..task import Task
from . import BareCalls, Line, Plain


class LoopPool(Plain, BareCalls):
    """Runs coroutine functions on an event loop of its own.

    The thread starts with the first task. Leaving the interpreter runs what was
    accepted, before the thread pools of the standard library are joined, so that a
    coroutine may still use :func:`asyncio.to_thread` by then.

    :param name: the name of the thread.
    """

    kind: t.ClassVar[str] = "event loop"
    stops_runs: t.ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._shutdown = False
        self._line = Line()
        self._running: dict[Task, asyncio.Task[None]] = {}
        self._woken = False
        self._pid = os.getpid()

    @property
    def is_own_thread(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    def start(self, task: Task, *, first: bool = False) -> None:
        """Accept a task; it starts in the loop's next round.

        :raises ExecutorShutDown: where the pool is shut down.
        """
        with self._lock:
            if self._shutdown or _leaving:
                raise ExecutorShutDown(task.name)
            if self._thread is None:
                self._start_thread()
            self._line.put(task, first=first)
            # One wake-up serves all that come before the loop has looked.
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._start_accepted)

    def interrupt(self, task: Task) -> None:
        """Cancel a coroutine."""
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            self._loop.call_soon_threadsafe(self._cancel, task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and end the thread when all accepted have run.

        :param wait: return only then; not when called on the loop's own thread.
        :param cancel_futures: cancel those that have not started.
        """
        with self._lock:
            first, self._shutdown = not self._shutdown, True
            thread = self._thread
            if first and thread is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
        while cancel_futures and (task := self._line.take()) is not None:
            # Not under the lock: their callbacks may submit.
            task.owner.cancel(task)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start_thread(self) -> None:
        ready = threading.Event()
        loop = _new_loop()  # here, so that a failure is the submitter's
        thread = threading.Thread(
            target=self._run_loop, args=(ready, loop), name=self._name, daemon=True
        )
        Context().run(thread.start)  # with nobody's context
        ready.wait()
        self._thread = thread
        _unfinished.add(self)

    def _run_loop(
        self, ready: threading.Event, loop: asyncio.AbstractEventLoop
    ) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        ready.set()
        await self._stopping.wait()
        self._start_accepted()
        while self._running:
            await asyncio.wait(self._running.values())

    def _start_accepted(self) -> None:
        self._woken = False  # before it looks: who comes now wakes it again
        while (task := self._line.take()) is not None:
            call: Call = task.call  # before it begins, as in Task.run
            if task.owner.begin(task):
                self._create(task, call)

    def _create(self, task: Task, call: Call) -> None:
        snapshot = call.snapshot
        context = None if snapshot is None else snapshot.variables()
        running = self._loop.create_task(self._run(task, call), context=context)
        # The loop itself keeps weak references only.
        self._running[task] = running
        running.add_done_callback(partial(self._ended, task))

    def _cancel(self, task: Task) -> None:
        running = self._running.get(task)
        # Not the next attempt, which nobody has asked to stop.
        if running is not None and task.cancel_requested:
            running.cancel()

    async def _run(self, task: Task, call: Call) -> None:
        running = run_coroutine(call, task)
        # The traceback of a failure refers to this frame, as in Task.run.
        del call
        outcome = await running
        del self._running[task]
        task.owner.finish(task, outcome)

    def _ended(self, task: Task, running: asyncio.Task[None]) -> None:
        # Not the next attempt's, which may have begun meanwhile.
        if self._running.get(task) is running:  # it was cancelled before its first step
            del self._running[task]
            task.owner.finish(task, Outcome(error=asyncio.CancelledError()))


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
"""Whether the interpreter ends: what comes now would not be waited for."""


def _finish_all() -> None:
    global _leaving
    _leaving = True
    for pool in list(_unfinished):
        if pool._pid == os.getpid():  # a forked child inherits the set, no threads
            pool.shutdown()


# atexit alone would be too late for a coroutine that needs a thread: see LoopPool.
getattr(threading, "_register_atexit", atexit.register)(_finish_all)


POOL = LoopPool
