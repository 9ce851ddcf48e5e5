"""Calls at once, on the caller's thread: for tests and for debugging."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import typing as t

from flask import Flask

from ..calls import Call, Outcome, run
from ..current import Inside, running
from ..errors import ExecutorShutDown
from ..settings import Settings
from ..task import Task
from . import BareCalls, Plain


def make(settings: Settings, name: str, app: Flask) -> SyncPool:
    """The pool for an app."""
    return SyncPool()


class SyncPool(Plain, BareCalls):
    """Runs each call before ``submit`` returns."""

    kind: t.ClassVar[str] = "sync"
    runs_in_caller: t.ClassVar[bool] = True
    _max_workers = 1

    def __init__(self) -> None:
        self._shutdown = False
        self._turns: dict[Task, int] = {}

    def start(self, task: Task, *, first: bool = False) -> None:
        """Run a task now.

        :raises ExecutorShutDown: where the pool is shut down.
        """
        if self._shutdown:
            raise ExecutorShutDown(task.name)
        if task in self._turns:  # tried again, by its own end: not deeper in the stack
            self._turns[task] += 1
            return
        self._turns[task] = 1
        while self._turns[task]:
            self._turns[task] -= 1
            task.run()
        del self._turns[task]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; nothing waits here."""
        self._shutdown = True


def run_to_end(fn: t.Callable[..., t.Coroutine[t.Any, t.Any, t.Any]]) -> t.Any:
    """A plain function that runs a coroutine function to its end.

    On a thread of its own where this thread runs an event loop already.
    """

    def call(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(fn(*args, **kwargs))
        return _on_a_thread(lambda: asyncio.run(fn(*args, **kwargs)))

    call.__qualname__ = getattr(fn, "__qualname__", repr(fn))
    call.__module__ = getattr(fn, "__module__", __name__)
    return call


def _on_a_thread(fn: t.Callable[[], t.Any]) -> t.Any:
    outcomes: list[Outcome] = []
    context = contextvars.copy_context()
    call = Call(context.run, (fn,), {}, None)
    inside = t.cast(Inside, running.get())
    thread = threading.Thread(target=lambda: outcomes.append(run(call, inside)))
    thread.start()
    thread.join()
    (outcome,) = outcomes
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


POOL = SyncPool
