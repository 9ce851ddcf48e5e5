"""The caller's handle on a task, and the registry of those that have a key."""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t
import weakref
from collections import UserDict
from concurrent.futures import Future as Future
from functools import partial

from flask import Flask

from .context import Snapshot, current_app
from .errors import DuplicateKey

T = t.TypeVar("T")
Callback = t.Callable[[t.Any], object]


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

    def __init__(self, app: Flask, key: t.Hashable | None = None) -> None:
        super().__init__()
        self.key = key
        self.app = app

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn(future)`` once the task has ended.

        It runs in a copy of the app and request context in which it was added, or in
        an app context where there was none: on the thread that ended the task, or at
        once where the task has ended already. What it raises is logged and stops no
        other callback.

        :param fn: a callable that takes this future.
        """
        if self.done() and current_app() is not None:
            _Callback(fn, self.app, None)(self)
        else:
            self.add_callback_in(Snapshot.take(self.app), fn)

    def add_callback_in(self, snapshot: Snapshot | None, fn: Callback) -> None:
        """Likewise, in a snapshot that is there already; None: wherever it runs."""
        super().add_done_callback(_Callback(fn, self.app, snapshot))

    def __await__(self) -> t.Generator[t.Any, None, T]:
        return asyncio.wrap_future(self).__await__()


FutureProxy = TaskFuture
"""The name of :class:`TaskFuture` in 1.0.0."""


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


class _Registry(UserDict[t.Hashable, "Future[t.Any]"]):
    """Futures by key, which also knows how many keys a future has, and since when
    those that have finished are there.

    Every change goes through ``__setitem__`` and ``__delitem__``, so that people may
    treat it as the plain dictionary it was in 1.0.0.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._keys_of: dict[Future[t.Any], int] = {}
        self._finished: dict[t.Hashable, float] = {}
        super().__init__()

    def __setitem__(self, key: t.Hashable, future: Future[t.Any]) -> None:
        with self._lock:
            self.pop(key, None)
            self.data[key] = future
            self._keys_of[future] = self._keys_of.get(future, 0) + 1
        # The base class's: no context to copy. May run at once, so outside the lock.
        Future.add_done_callback(future, partial(self._note_finished, key))

    def __delitem__(self, key: t.Hashable) -> None:
        with self._lock:
            future = self.data.pop(key)
            self._finished.pop(key, None)
            count = self._keys_of.pop(future) - 1
            if count:
                self._keys_of[future] = count

    def _note_finished(self, key: t.Hashable, future: Future[t.Any]) -> None:
        with self._lock:
            if self.data.get(key) is future:
                self._finished[key] = time.monotonic()

    def copy(self) -> t.Any:
        """A plain dictionary of the same futures."""
        return dict(self.data)

    def holds(self, future: object) -> bool:
        """Whether a future is stored under any key; O(1)."""
        return future in self._keys_of

    def oldest_finished(self) -> tuple[t.Hashable, float] | None:
        """The key that finished first, and when (monotonic seconds)."""
        return next(iter(self._finished.items()), None)


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
        self._registry = _Registry(self._lock)

    @property
    def _futures(self) -> t.MutableMapping[t.Hashable, Future[t.Any]]:
        self._expire()
        return self._registry

    @_futures.setter
    def _futures(self, futures: t.Mapping[t.Hashable, Future[t.Any]]) -> None:
        registry = _Registry(self._lock)
        registry.update(futures)
        self._registry = registry

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
        if isinstance(item, Future) or self._registry.holds(item):
            return self._registry.holds(item)
        return item in self._registry

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
        return attribute(*args, **kwargs) if callable(attribute) else attribute

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
        while self.max_length is not None and len(self._registry) >= self.max_length:
            oldest = self._registry.oldest_finished()
            if oldest is None:
                self._drop_unfinished()
            else:
                del self._registry[oldest[0]]

    def _drop_unfinished(self) -> None:
        key = next(iter(self._registry))
        del self._registry[key]
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
