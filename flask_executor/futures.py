"""The caller's handle on a task, and the collection of those that have a key."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t
from concurrent.futures import Future as Future
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from functools import partial

from flask import Flask

from .contexts import Snapshot, current_app
from .options import MISSING, by_keyword
from .registry import Registry
from .task import Task, Wait
from .waiters import Callback as Callback
from .waiters import Condition, DoneCallback, Waiters

T = t.TypeVar("T")


_NOT_DONE = (PENDING, RUNNING)


class TaskFuture(Future[T]):
    """A :class:`concurrent.futures.Future` that knows its key and its app.

    It can also be awaited.

    .. versionchanged:: 2.0
        It is a real future; 1.0.0 handed out a proxy of one.
    """

    key: t.Hashable | None
    """The key under which it is stored, or None; set before the task can start."""

    app: Flask
    """The app for which it was submitted."""

    _installed: tuple[t.Any, ...] = ()
    _callbacks_run: bool = False

    task: Task | None = None
    """What is known of the task: its id, its state, its progress, and more. None only
    in a future that no executor made."""

    def __init__(self, app: Flask, key: t.Hashable | None = None) -> None:
        # As the base class does, with another condition.
        self._condition = Condition()
        self._state = PENDING
        self._result = None
        self._exception = None
        self._done_callbacks: list[t.Any] = []
        self.key = key
        self.app = app

    # Only the dispatcher calls these, once for each future. So they leave out the
    # checks of the base class, which took a third of the time to end a task.

    def end_with(self, value: T) -> None:
        """End with a value; :meth:`run_callbacks` must follow."""
        condition = self._condition
        with condition._lock:  # type: ignore[attr-defined]
            self._result = value
            self._state = FINISHED
            for waiter in self._installed:
                waiter.add_result(self)
            if condition._waiters:  # type: ignore[attr-defined]
                condition.notify_all()

    def end_failed(self, error: BaseException) -> None:
        """End with an exception; :meth:`run_callbacks` must follow."""
        with self._condition:
            self._exception = error
            self._state = FINISHED
            for waiter in self._installed:
                waiter.add_exception(self)
            self._condition.notify_all()

    def end_cancelled(self) -> None:
        """End as cancelled; :meth:`run_callbacks` must follow."""
        with self._condition:
            if self._state == CANCELLED:  # as it was submitted: they have run
                self._callbacks_run = True
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._installed:
                waiter.add_cancelled(self)
            self._condition.notify_all()

    def run_callbacks(self) -> None:
        """Run the done-callbacks, on this thread."""
        if not self._callbacks_run:
            self._invoke_callbacks()  # type: ignore[attr-defined]

    def cancel(self) -> bool:
        """Cancel the task if it waits: for a worker, for its time, or between attempts.

        :return: True if it is cancelled now; what runs is not, see
            :meth:`request_cancel`.
        """
        task = self.task
        return super().cancel() if task is None else task._owner.cancel(task)

    def request_cancel(self) -> bool:
        """Cancel the task if it waits, or ask it to stop if it runs.

        A coroutine is cancelled at its next ``await``, a pebble worker killed. A thread
        or process goes on until its code asks ``current_task.cancel_requested``, or
        calls ``raise_if_cancelled`` or ``track``. The future is cancelled when the run
        has stopped; if it returns all the same, the future has its result.

        :return: False if the task has ended other than cancelled.
        """
        task = self.task
        return super().cancel() if task is None else task._owner.request_cancel(task)

    def result(self, timeout: float | None = None) -> T:
        """Return what the task returned, waiting for it.

        Within a task of the same executor, one that has not begun runs on this thread,
        so a task can wait for others in a pool of any size.

        :param timeout: seconds to wait at most, or None.
        :raises TimeoutError: if it is over; a task that ran into its own timeout raises
            :exc:`.TaskTimeout`.
        :raises concurrent.futures.CancelledError: if it was cancelled.
        """
        wait = self._start_waiting(timeout)
        if wait is None:
            return super().result(timeout)
        try:
            return super().result(timeout)
        finally:
            wait.end()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, or None, waiting for it as :meth:`result`."""
        wait = self._start_waiting(timeout)
        if wait is None:
            return super().exception(timeout)
        try:
            return super().exception(timeout)
        finally:
            wait.end()

    @property
    def _waiters(self) -> Waiters:  # type: ignore[override]
        """Where ``wait`` and ``as_completed`` of the standard library add waiters."""
        return Waiters(self)

    def _start_waiting(self, timeout: float | None) -> Wait | None:
        task = self.task
        # Not whether the task has ended: receivers that hear of that come first, and
        # may wait for tasks themselves.
        if task is None or self._state not in _NOT_DONE:
            return None
        return task._owner.start_waiting(task, timeout)

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn(future)`` once the task has ended.

        It runs in a copy of the app and request context in which it was added, or in
        an app context if there was none: on the thread that ended the task, or at once
        if the task has ended already. What it raises is logged and stops no other
        callback.

        :param fn: a callable that takes this future.
        """
        if getattr(fn, "__module__", None) == "asyncio.futures":
            # It wakes an event loop that awaits this future: it is no code of the app.
            self._wake_loop(fn)
        elif self.done() and current_app() is not None:
            DoneCallback(fn, self.app, None)(self)
        else:
            self.add_callback_in(Snapshot.take(self.app), fn)

    def add_callback_in(self, snapshot: Snapshot | None, fn: Callback) -> None:
        """Add a done-callback that runs in a snapshot that was already taken.

        :param snapshot: None if it runs in the context of the thread that calls it.
        """
        super().add_done_callback(DoneCallback(fn, self.app, snapshot))

    def _wake_loop(self, fn: Callback) -> None:
        wait = self._start_awaiting()
        if wait is None:
            super().add_done_callback(fn)
        else:
            wake = partial(wait.end_then, partial(fn, self))
            super().add_done_callback(lambda future: wake())

    def _start_awaiting(self) -> Wait | None:
        task = self.task
        if task is None or self._state not in _NOT_DONE:
            return None
        return task._owner.start_awaiting(task)

    def __await__(self) -> t.Generator[t.Any, None, T]:
        if not self.done():
            yield from self._until_done()
        if self.cancelled():
            raise asyncio.CancelledError
        return super().result()

    def _until_done(self) -> t.Generator[t.Any, None, None]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        wait = self._start_awaiting()
        super().add_done_callback(partial(_wake, loop, done))
        try:
            yield from done
        except asyncio.CancelledError:
            self.cancel()  # as asyncio.wrap_future does
            raise
        finally:
            if wait is not None:
                wait.end()

    def __repr__(self) -> str:
        task = self.task
        key = "" if self.key is None else f" (key {self.key!r})"
        if task is None:
            return f"<TaskFuture{key} {self._state.lower()}>"
        return f"<TaskFuture of {task.name}{key} {task.state}>"


def _wake(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], future: object
) -> None:
    """Wake what awaits a future on an event loop."""
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_set_done, done)


def _set_done(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


class _ProxyType(type):
    """Makes every future of ours an instance of the class that 1.0.0 gave out."""

    def __instancecheck__(cls, instance: object) -> bool:
        ours = cls is FutureProxy and isinstance(instance, TaskFuture)
        return ours or type.__instancecheck__(cls, instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        ours = cls is FutureProxy and issubclass(subclass, TaskFuture)
        return ours or type.__subclasscheck__(cls, subclass)


class FutureProxy(Future[t.Any], metaclass=_ProxyType):
    """A future, wrapped as in 1.0.0: its callbacks run in the context of an app.

    Every attribute is that of the future. An executor returns :class:`TaskFuture`,
    which needs no wrapping; each of them is an instance of this class.

    :param future: a :class:`concurrent.futures.Future` from anywhere.
    :param executor: the executor for whose app callbacks run.
    """

    def __init__(self, future: Future[t.Any], executor: t.Any) -> None:
        vars_of = object.__getattribute__(self, "__dict__")
        vars_of.update(_self=future, _executor=executor)

    def __getattribute__(self, name: str) -> t.Any:
        if name in ("_self", "_executor", "add_done_callback"):
            return object.__getattribute__(self, name)
        return getattr(self._self, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._self, name, value)

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn(future)`` when the future ends, in a copy of this context.

        See :meth:`TaskFuture.add_done_callback`.
        """
        app = current_app() or self._executor._app_here()
        if isinstance(self._self, TaskFuture) or app is None:
            self._self.add_done_callback(fn)
        else:
            callback = DoneCallback(fn, app, Snapshot.take(app))
            self._self.add_done_callback(callback)

    def __await__(self) -> t.Generator[t.Any, None, t.Any]:
        if isinstance(self._self, TaskFuture):
            return self._self.__await__()
        return asyncio.wrap_future(self._self).__await__()

    def __repr__(self) -> str:
        return f"<FutureProxy of {self._self!r}>"


_ABSENT = object()


class FutureCollection(Registry):
    """Futures by key; safe under any number of threads.

    Every attribute and method of a future can be asked here by key:
    ``futures.done('report')`` is ``futures['report'].done()``, and None if the key is
    unknown. The key may be a keyword, too: ``futures.done(future_key='report')``.

    :param max_length: how many to keep, or None. Beyond it the oldest finished ones
        go first, and an unfinished one only with a logged warning. 0 keeps the
        unfinished ones, and no others.
    :param ttl: seconds for which a finished future stays, or None.
    :param app: the app whose logger is warned.
    """

    def __getattr__(self, name: str) -> t.Callable[..., t.Any]:
        if name.startswith("__") or not hasattr(_probe, name):
            raise AttributeError(
                f"{name!r} is not an attribute of a future, nor of executor.futures."
            )
        return partial(self._ask, name)

    def _ask(
        self, name: str, future_key: t.Any = MISSING, /, *args: t.Any, **kwargs: t.Any
    ) -> t.Any:
        if future_key is MISSING:
            future_key = by_keyword("future_key", kwargs, f"futures.{name}")
        return self._answer(name, future_key, args, kwargs)

    def _answer(
        self, name: str, future_key: t.Any, args: t.Any, kwargs: t.Any
    ) -> t.Any:
        future = self.get(future_key, _ABSENT)
        if future is _ABSENT:
            return None
        attribute = getattr(future, name)
        # Not callable(attribute): a key, an app or a result may be callable, too.
        is_method = callable(getattr(TaskFuture, name, None))
        return attribute(*args, **kwargs) if is_method else attribute


_probe: TaskFuture[t.Any] = TaskFuture(t.cast(Flask, None))
