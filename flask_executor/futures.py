"""The caller's handle on a task, and the registry of those that have a key."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
import typing as t
import weakref
from collections import deque
from concurrent.futures import Future as Future
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
)
from functools import partial

from flask import Flask

from .contexts import Snapshot, current_app
from .errors import DuplicateKey
from .task import Task, Wait

T = t.TypeVar("T")
Callback = t.Callable[[t.Any], object]


class _Condition(threading.Condition):
    """A condition that finds the methods of its lock when it needs them.

    The standard library's binds them beforehand: five objects for each future, which
    take a fifth of its memory, and a third of the time to make one; and the garbage
    collector walks them all.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiters: deque[t.Any] = deque()

    def acquire(self, *args: t.Any, **kwargs: t.Any) -> bool:
        return self._lock.acquire(*args, **kwargs)

    def release(self) -> None:
        self._lock.release()

    def _release_save(self) -> t.Any:
        return self._lock._release_save()  # type: ignore[attr-defined]

    def _acquire_restore(self, state: t.Any) -> None:
        self._lock._acquire_restore(state)  # type: ignore[attr-defined]

    def _is_owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]


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
        self._condition = _Condition()
        self._state = PENDING
        self._result = None
        self._exception = None
        self._done_callbacks: list[t.Any] = []
        self.key = key
        self.app = app

    # How the dispatcher ends it. Nobody else does, so nothing is asked that is known
    # here: a third of the time of a task's end.

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
        if self._done_callbacks and not self._callbacks_run:
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
    def _waiters(self) -> _Waiters:  # type: ignore[override]
        """Where the standard library's ``wait`` and ``as_completed`` put themselves."""
        return _Waiters(self)

    def _start_waiting(self, timeout: float | None) -> Wait | None:
        task = self.task
        if task is None or task._finished is not None:
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
            # It wakes an event loop that awaits this: no code of the app.
            self._wake_loop(fn)
        elif self.done() and current_app() is not None:
            _Callback(fn, self.app, None)(self)
        else:
            self.add_callback_in(Snapshot.take(self.app), fn)

    def add_callback_in(self, snapshot: Snapshot | None, fn: Callback) -> None:
        """Same as :meth:`add_done_callback`, in a snapshot that is there already; None:
        in whatever context it runs.
        """
        super().add_done_callback(_Callback(fn, self.app, snapshot))

    def _wake_loop(self, fn: Callback) -> None:
        wait = self._start_awaiting()
        if wait is None:
            super().add_done_callback(fn)
        else:
            wake = partial(wait.end_then, partial(fn, self))
            super().add_done_callback(lambda future: wake())

    def _start_awaiting(self) -> Wait | None:
        task = self.task
        if task is None or task._finished is not None:
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
        if self.task is None:
            return super().__repr__()
        state = self._state.lower()
        return f"<{type(self).__name__} {state} of {self.task!r}>"


FutureProxy = TaskFuture
"""The name of :class:`TaskFuture` in 1.0.0."""


def _wake(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], future: object
) -> None:
    """Wake what awaits a future on an event loop."""
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_set_done, done)


def _set_done(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


class _Waiters:
    """The waiters that the standard library has installed in a future.

    They wait for an event, which gets one of ours in its place: so a task that waits
    in this way lends its worker and gives up its place, as in any other. All methods
    are called under the future's lock.
    """

    def __init__(self, future: TaskFuture[t.Any]) -> None:
        self._future = future

    def append(self, waiter: t.Any) -> None:
        """Install a waiter."""
        future = self._future
        if type(waiter.event) is threading.Event:
            waiter.event = _WaitEvent()
        if type(waiter.event) is _WaitEvent and future.task is not None:
            waiter.event.tasks.append(future.task)
        future._installed = (*future._installed, waiter)

    def remove(self, waiter: t.Any) -> None:
        """Take a waiter away."""
        installed = list(self._future._installed)
        installed.remove(waiter)
        self._future._installed = tuple(installed)

    def __iter__(self) -> t.Iterator[t.Any]:
        return iter(self._future._installed)

    def __len__(self) -> int:
        return len(self._future._installed)


class _WaitEvent(threading.Event):
    """An event that one thread waits for until one of some tasks has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []
        """The tasks that are waited for."""
        self._of_owners: dict[t.Any, list[Task]] = {}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a future has ended."""
        waits = [] if self.is_set() else self._start(has_timeout=timeout is not None)
        try:
            return super().wait(timeout)
        finally:
            for wait in waits:
                wait.end()

    def _start(self, *, has_timeout: bool) -> list[Wait]:
        # as_completed waits many times: the tasks are told apart, and told, once.
        new, self.tasks = self.tasks, []
        for task in new:
            self._of_owners.setdefault(task._owner, []).append(task)
        waits = []
        for owner, tasks in self._of_owners.items():
            while tasks and tasks[-1]._has_ended:
                tasks.pop()
            if tasks:
                also = tasks if new else ()
                wait = owner.start_awaiting(tasks[-1], also, has_timeout=has_timeout)
                waits += [] if wait is None else [wait]
        return waits


class _Callback:
    """A done-callback that runs once, in its context, and then refers to nothing."""

    __slots__ = ("_app", "_fn", "_snapshot")

    def __init__(self, fn: Callback, app: Flask, snapshot: Snapshot | None) -> None:
        self._fn: Callback | None = fn
        self._app = app
        self._snapshot = snapshot

    def __call__(self, future: Future[t.Any]) -> None:
        fn, snapshot = t.cast(Callback, self._fn), self._snapshot
        # A future keeps its callbacks for as long as it lives.
        self._fn = self._snapshot = None
        try:
            if snapshot is None:
                fn(future)
            else:
                snapshot.run(fn, (future,), {})
        except BaseException as error:
            self._app.logger.exception(
                "The done-callback %r of %r failed", fn, future, exc_info=error
            )
            traceback.clear_frames(error.__traceback__)
        finally:
            # An error's traceback keeps this frame, and the future its error.
            del fn, snapshot, future


class _Registry(t.MutableMapping[t.Hashable, "Future[t.Any]"]):
    """Futures by key, which also knows which futures those are, and since when those
    that have finished are there.

    People may treat it as the plain dictionary it was in 1.0.0, from any thread: what
    they iterate over is as it was when they began.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._data: dict[t.Hashable, Future[t.Any]] = {}
        # By identity: what people patch in need not be hashable.
        self._keys_of: dict[int, int] = {}
        self._finished: dict[t.Hashable, float] = {}

    def __setitem__(self, key: t.Hashable, future: Future[t.Any]) -> None:
        with self._lock:
            if key in self._data:
                self._forget(key, self._data[key])
            self._data[key] = future
            self._keys_of[id(future)] = self._keys_of.get(id(future), 0) + 1
        _when_done(future, partial(self._note_finished, key))

    def __delitem__(self, key: t.Hashable) -> None:
        with self._lock:
            self._forget(key, self._data.pop(key))

    def __getitem__(self, key: t.Hashable) -> Future[t.Any]:
        return self._data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> t.Iterator[t.Hashable]:
        return iter(self.copy())

    def __reversed__(self) -> t.Iterator[t.Hashable]:
        return iter([*self.copy()][::-1])

    def __or__(
        self, other: t.Mapping[t.Hashable, Future[t.Any]]
    ) -> dict[t.Hashable, Future[t.Any]]:
        return {**self.copy(), **other}

    def keys(self) -> t.KeysView[t.Hashable]:
        """The keys now."""
        return self.copy().keys()

    def values(self) -> t.ValuesView[Future[t.Any]]:
        """The futures now."""
        return self.copy().values()

    def items(self) -> t.ItemsView[t.Hashable, Future[t.Any]]:
        """Keys and futures now."""
        return self.copy().items()

    def pop(self, key: t.Hashable, *default: t.Any) -> t.Any:
        """Remove a future and return it, or the default where there is one."""
        with self._lock:
            return super().pop(key, *default)

    def popitem(self, last: bool = True) -> tuple[t.Hashable, Future[t.Any]]:
        """Remove the key stored last, or first, and return it with its future.

        :raises KeyError: where there is none.
        """
        with self._lock:
            for key in reversed(self) if last else self:
                return key, self.pop(key)
            raise KeyError("executor.futures is empty")

    def setdefault(self, key: t.Hashable, default: t.Any = None) -> t.Any:
        """The future under a key; the default, stored there, where there was none."""
        with self._lock:
            return super().setdefault(key, default)

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            super().clear()

    def copy(self) -> dict[t.Hashable, Future[t.Any]]:
        """A plain dictionary of the same futures."""
        with self._lock:
            return self._data.copy()

    __copy__ = copy

    def holds(self, future: object) -> bool:
        """Whether a future is stored under any key; O(1)."""
        return id(future) in self._keys_of

    def oldest_finished(self) -> tuple[t.Hashable, float] | None:
        """The key that finished first, and when (monotonic seconds)."""
        return next(iter(self._finished.items()), None)

    def _forget(self, key: t.Hashable, future: Future[t.Any]) -> None:
        self._finished.pop(key, None)
        count = self._keys_of.pop(id(future)) - 1
        if count:
            self._keys_of[id(future)] = count

    def _note_finished(self, key: t.Hashable, future: Future[t.Any]) -> None:
        with self._lock:
            if self._data.get(key) is future:
                self._finished[key] = time.monotonic()

    def __repr__(self) -> str:
        return repr(self.copy())


def _when_done(future: t.Any, fn: t.Callable[[t.Any], object]) -> None:
    if issubclass(type(future), TaskFuture):
        # The base class's: no context to copy.
        Future.add_done_callback(future, fn)
    elif hasattr(future, "add_done_callback"):  # people's stand-ins may have none
        future.add_done_callback(fn)


_ABSENT = object()


class FutureCollection:
    """Futures by key; safe under any number of threads.

    Every attribute and method of a future can be asked here by key:
    ``futures.done('report')`` is ``futures['report'].done()``, and None where the key
    is unknown.

    :param max_length: how many to keep, or None. Beyond it the oldest finished ones
        go first, and an unfinished one only with a logged warning.
    :param ttl: seconds for which a finished future stays, or None.
    :param app: whose logger is warned.
    """

    max_length: int | None
    """How many futures are kept; None is no bound."""

    def __init__(
        self,
        max_length: int | None = None,
        *,
        ttl: float | None = None,
        app: Flask | None = None,
    ) -> None:
        self.max_length = max_length
        self._ttl = ttl
        # Weak: the executor's map of apps must not keep its keys alive.
        self._app = None if app is None else weakref.ref(app)
        self._lock = threading.RLock()
        self._futures = {}

    @property
    def _futures(self) -> t.MutableMapping[t.Hashable, Future[t.Any]]:
        self._expire()
        return self._registry

    @_futures.setter
    def _futures(self, futures: t.MutableMapping[t.Hashable, Future[t.Any]]) -> None:
        if not (isinstance(futures, _Registry) and futures._lock is self._lock):
            futures, given = _Registry(self._lock), futures
            futures.update(given)
        # Where mock.patch.object looks for what it is to put back.
        vars(self)["_futures"] = futures

    @property
    def _registry(self) -> _Registry:
        return t.cast(_Registry, vars(self)["_futures"])

    def add(self, future_key: t.Hashable, future: Future[t.Any]) -> None:
        """Store a future.

        :raises DuplicateKey: where the key is taken; a :exc:`ValueError` that holds
            it.
        """
        with self._lock:
            if future_key in self._futures:
                raise DuplicateKey(future_key)
            self._make_room()
            self._registry[future_key] = future

    def pop(self, future_key: t.Hashable) -> Future[t.Any] | None:
        """Remove a future and return it; None where the key is unknown."""
        with self._lock:
            return self._futures.pop(future_key, None)

    def discard(self, future_key: t.Hashable, future: Future[t.Any]) -> None:
        """Remove this very future, where it is still stored under the key."""
        with self._lock:
            if self._futures.get(future_key) is future:
                del self._futures[future_key]

    def get(self, future_key: t.Hashable, default: t.Any = None) -> t.Any:
        """The future stored under a key, or the default."""
        return self._futures.get(future_key, default)

    def keys(self) -> list[t.Hashable]:
        """The keys now, oldest first."""
        with self._lock:
            return list(self._futures)

    def items(self) -> list[tuple[t.Hashable, Future[t.Any]]]:
        """Keys and futures now, oldest first."""
        with self._lock:
            return list(self._futures.items())

    def __getitem__(self, future_key: t.Hashable) -> Future[t.Any]:
        return self._futures[future_key]

    def __contains__(self, item: object) -> bool:
        self._expire()
        return self._registry.holds(item) or item in self._registry

    def __iter__(self) -> t.Iterator[t.Hashable]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._futures)

    def __getattr__(self, name: str) -> t.Callable[..., t.Any]:
        if name.startswith("__") or not hasattr(_probe, name):
            raise AttributeError(
                f"{name!r} is no attribute of a future, nor of executor.futures."
            )
        return partial(self._ask, name)

    def _ask(
        self, name: str, future_key: t.Hashable, /, *args: t.Any, **kwargs: t.Any
    ) -> t.Any:
        future = self.get(future_key, _ABSENT)
        if future is _ABSENT:
            return None
        attribute = getattr(future, name)
        # Not callable(attribute): a key, an app or a result may be callable, too.
        is_method = callable(getattr(TaskFuture, name, None))
        return attribute(*args, **kwargs) if is_method else attribute

    def _expire(self) -> None:
        if self._ttl is None:
            return
        with self._lock:
            limit = time.monotonic() - self._ttl
            while oldest := self._registry.oldest_finished():
                key, since = oldest
                if since >= limit:
                    return
                del self._registry[key]

    def _make_room(self) -> None:
        registry = self._registry
        while registry and self.max_length is not None:
            if len(registry) < self.max_length:
                return
            oldest = registry.oldest_finished()
            if oldest is None:
                self._drop_unnoted()
            else:
                del registry[oldest[0]]

    def _drop_unnoted(self) -> None:
        # Who waits for a future is woken before its callbacks run: one that is not
        # noted as finished may have finished all the same.
        futures: dict[t.Hashable, t.Any] = self._registry.copy()
        for key, future in futures.items():
            if isinstance(future, Future) and future.done():
                del self._registry[key]
                return
        self._drop_unfinished()

    def _drop_unfinished(self) -> None:
        key, _ = self._registry.popitem(last=False)
        app = None if self._app is None else self._app()
        if app is not None:
            app.logger.warning(
                "executor.futures is full (%s): the future %r was dropped before it"
                " had finished; raise EXECUTOR_FUTURES_MAX_LENGTH.",
                self.max_length,
                key,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} futures>"


_probe: TaskFuture[t.Any] = TaskFuture(t.cast(Flask, None))
