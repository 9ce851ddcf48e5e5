"""The dispatcher: hands tasks to pools, and judges what comes of them."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
import typing as t
import weakref
from inspect import CO_COROUTINE
from types import FunctionType

from flask import Flask

from .errors import ExecutorShutDown, NotCallable
from .futures import Callback, TaskFuture
from .pools import Pool, pool_module
from .pools.loop import LoopPool
from .settings import Settings
from .task import Task
from .worker import Call, Outcome


class Dispatcher:
    """Takes tasks in, hands them to a pool, and ends their futures.

    :param settings: what the config said at first use.
    :param name: for threads, processes and messages.
    :param app: for which the pools are made.
    """

    def __init__(self, settings: Settings, name: str, app: Flask) -> None:
        self.settings: Settings = settings
        """What the config said at first use."""
        # Weak: the executor's map of apps must not keep its keys alive.
        self._app = weakref.ref(app)
        self._name = name
        self.pool: Pool = pool_module(settings.type).make(settings, name, app)
        """The pool that the type names."""
        self._loop: LoopPool | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def app(self) -> Flask:
        """The app for which the pools were made."""
        return t.cast(Flask, self._app())

    def submit(
        self,
        future: TaskFuture[t.Any],
        call: Call,
        callbacks: t.Iterable[Callback] = (),
    ) -> None:
        """Accept a call; its future ends when it has run.

        :param callbacks: called with the future, in the call's own context.
        :raises ExecutorShutDown: after :meth:`shutdown`.
        :raises CallNotPicklable: where no worker process could import the callable.
        """
        task = Task(future, call, self._judge)
        for callback in callbacks:
            future.add_callback_in(call.snapshot, callback)
        if callable(call.fn):
            self._pool_for(call).start(task)
        elif self._closed:
            raise ExecutorShutDown(task.name)
        else:
            self._refuse(task, NotCallable(call.fn))

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more, and end the pools."""
        with self._lock:
            self._closed = True
            pools = [self.pool] if self._loop is None else [self.pool, self._loop]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=cancel_futures)
        for pool in pools if wait else ():
            pool.shutdown(wait=True)

    def _pool_for(self, call: Call) -> Pool:
        if not is_coroutine_function(call.fn):
            return self.pool
        if self.pool.runs_in_caller:
            from .pools.sync import run_to_end

            call.fn = run_to_end(call.fn)
            return self.pool
        return self._loop_pool()

    def _loop_pool(self) -> LoopPool:
        with self._lock:
            if self._loop is None:
                self._loop = LoopPool(f"{self._name}_loop")
                if self._closed:
                    self._loop.shutdown()
            return self._loop

    def _refuse(self, task: Task, error: Exception) -> None:
        task.future.set_running_or_notify_cancel()
        task.finish(Outcome(error=error))

    def _judge(self, task: Task, outcome: Outcome) -> None:
        error = outcome.error
        if error is None:
            task.future.set_result(outcome.value)
            return
        if self.settings.log_exceptions and not self.settings.propagate_exceptions:
            _log_failure(task, error)
        clear_locals(error)
        task.future.set_exception(error)


def _log_failure(task: Task, error: BaseException) -> None:
    future = t.cast("TaskFuture[t.Any]", task.future)
    try:
        future.app.logger.exception(
            "Task %s (key %r) failed", task.name, future.key, exc_info=error
        )
    except BaseException:
        # A broken handler must neither keep those waiting who wait for the task, nor
        # end the worker. As logging does for its own faults, tell the standard error.
        traceback.print_exc()


def is_coroutine_function(fn: t.Any) -> bool:
    """Whether calling it gives a coroutine: partials and callable objects too."""
    if type(fn) is FunctionType and not fn.__dict__:  # most often, and ten times faster
        return bool(fn.__code__.co_flags & CO_COROUTINE)
    return asyncio.iscoroutinefunction(fn) or asyncio.iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004
    )


def clear_locals(error: BaseException) -> None:
    """Empty the frames of an exception's traceback, and of those it came from.

    The traceback still prints; it no longer keeps the task's objects alive.
    """
    pending: list[BaseException | None] = [error]
    # What the caller of a 'sync' task is handling is not the task's.
    cleared = {id(sys.exception())}
    while pending:
        current = pending.pop()
        if current is None or id(current) in cleared:
            continue
        cleared.add(id(current))
        traceback.clear_frames(current.__traceback__)
        pending += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions
