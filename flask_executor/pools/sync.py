"""Runs calls at once, on the caller's thread: for tests and for debugging."""

from __future__ import annotations

import asyncio
import contextvars
import typing as t

from flask import Flask

from ..calls import Call, Outcome, run
from ..current import Inside, running
from ..settings import Settings
from ..task import Task
from ..threads import start_thread
from .base import Pool, refuse_after_shutdown, run_task, submit_bare


def make(settings: Settings, name: str, app: Flask) -> SyncPool:
    """Return the pool for an app."""
    return SyncPool()


class SyncPool(Pool):
    """Runs each call before ``submit`` returns."""

    kind: t.ClassVar[str] = "sync"
    runs_in_caller: t.ClassVar[bool] = True
    submit = submit_bare
    _max_workers = 1

    def __init__(self) -> None:
        self._shutdown = False
        self._rounds: dict[Task, int] = {}

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Run a task now.

        :raises ExecutorShutDown: if the pool is shut down.
        """
        if self._shutdown:
            refuse_after_shutdown(task)
        if task in self._rounds:  # retried, by its own end: not deeper in the stack
            self._rounds[task] += 1
            return
        self._rounds[task] = 1
        while self._rounds[task]:
            self._rounds[task] -= 1
            run_task(task)
        del self._rounds[task]

    def adapt_coroutine_function(self, fn: t.Any) -> t.Any:
        """Return a plain function that runs a coroutine function to its end."""
        return run_to_end(fn)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; nothing waits here."""
        self._shutdown = True


def run_to_end(fn: t.Callable[..., t.Coroutine[t.Any, t.Any, t.Any]]) -> t.Any:
    """Return a plain function that runs a coroutine function to its end.

    If this thread already runs an event loop, it runs on a new thread.
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


class _Quiet:
    """The object behind an inner run: it notes nothing, because the outer run does."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def raised(self, error: BaseException) -> None:
        """Do nothing: the outer run notes it."""

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._inside, name)


def _on_a_thread(fn: t.Callable[[], t.Any]) -> t.Any:
    outcomes: list[Outcome] = []
    call = Call(contextvars.copy_context().run, (fn,), {})
    inside = t.cast(Inside, _Quiet(t.cast(Inside, running.get())))
    start_thread(lambda: outcomes.append(run(call, inside)), name="sync_loop").join()
    (outcome,) = outcomes
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


POOL = SyncPool
