"""Coroutines, thousands at a time, on one event loop thread."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import typing as t
import weakref

from ..errors import ExecutorShutDown
from ..task import Task
from ..worker import Call, run_coroutine
from . import BareCalls


class LoopPool(BareCalls):
    """Runs coroutine functions on an event loop of its own.

    The thread starts with the first task. Leaving the interpreter runs what was
    accepted, before the thread pools of the standard library are joined, so that a
    coroutine may still use :func:`asyncio.to_thread` by then.

    :param name: the name of the thread.
    """

    runs_in_caller: t.ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._shutdown = False
        self._accepted: list[Task] = []
        self._running: set[asyncio.Task[None]] = set()
        self._woken = False
        self._pid = os.getpid()

    def start(self, task: Task) -> None:
        """Accept a task; it starts in the loop's next round.

        :raises ExecutorShutDown: where the pool is shut down.
        """
        with self._lock:
            if self._shutdown or _leaving:
                raise ExecutorShutDown(task.name)
            if self._thread is None:
                self._start_thread()
            self._accepted.append(task)
            # One wake-up serves all that come before the loop has looked.
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._start_accepted)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and end the thread when all accepted have run.

        :param wait: return only then; not when called on the loop's own thread.
        :param cancel_futures: cancel those that have not started.
        """
        with self._lock:
            first, self._shutdown = not self._shutdown, True
            cancelled = self._accepted if cancel_futures else []
            if cancel_futures:
                self._accepted = []
            thread = self._thread
            if first and thread is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
        for task in cancelled:  # not under the lock: their callbacks may submit
            task.abandon()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start_thread(self) -> None:
        ready = threading.Event()
        loop = _new_loop()  # here, so that a failure is the submitter's
        thread = threading.Thread(
            target=self._run_loop, args=(ready, loop), name=self._name, daemon=True
        )
        thread.start()
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
            await asyncio.wait(self._running)

    def _start_accepted(self) -> None:
        with self._lock:
            self._woken = False
            accepted, self._accepted = self._accepted, []
        for task in accepted:
            if task.begin():
                self._create(task)

    def _create(self, task: Task) -> None:
        snapshot = t.cast(Call, task.call).snapshot
        context = None if snapshot is None else snapshot.variables()
        running = self._loop.create_task(_run(task), context=context)
        # The loop itself keeps weak references only.
        self._running.add(running)
        running.add_done_callback(self._running.discard)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    # Closing it ends its threads, too. This would start one more to wait for them,
    # which Python 3.12.0 to 3.12.2 do not do while the interpreter ends.
    vars(loop)["shutdown_default_executor"] = _nothing
    return loop


async def _nothing(*args: object) -> None:
    """In place of what is not needed."""


async def _run(task: Task) -> None:
    task.finish(await run_coroutine(t.cast(Call, task.call)))


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
