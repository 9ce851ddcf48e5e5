"""Futures by key: which are stored, which have finished, and which are removed."""

from __future__ import annotations

import logging
import threading
import time
import typing as t
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from itertools import islice

from flask import Flask

from .errors import DuplicateKey
from .log import Log

_ABSENT = object()
_LAST = 8
"""How many of the futures stored last are looked at first."""

Futures = t.MutableMapping[t.Hashable, "Future[t.Any]"]


class FuturesByKey(t.MutableMapping[t.Hashable, "Future[t.Any]"]):
    """A mapping that also knows which futures it holds, and when they finished.

    It can be used as the plain dictionary that it was in 1.0.0, from any thread: an
    iteration sees what was there when it began.

    Both dictionaries are ordered ones, because the oldest key is taken from the front.
    A plain dictionary would look at every key that was deleted there before.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._data: OrderedDict[t.Hashable, Future[t.Any]] = OrderedDict()
        # By identity: an object that people store need not be hashable.
        self._keys_of: dict[int, int] = {}
        self._finished: OrderedDict[t.Hashable, float] = OrderedDict()
        self._keeps_finished = True
        self._until_search = 0

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
        """Return the keys as they are now."""
        return self.copy().keys()

    def values(self) -> t.ValuesView[Future[t.Any]]:
        """Return the futures as they are now."""
        return self.copy().values()

    def items(self) -> t.ItemsView[t.Hashable, Future[t.Any]]:
        """Return keys and futures as they are now."""
        return self.copy().items()

    def pop(self, key: t.Hashable, *default: t.Any) -> t.Any:
        """Remove a future and return it, or the default if there is one."""
        with self._lock:
            return super().pop(key, *default)

    def popitem(self, last: bool = True) -> tuple[t.Hashable, Future[t.Any]]:
        """Remove the key stored last, or first, and return it with its future.

        :raises KeyError: if nothing is stored.
        """
        with self._lock:
            for key in reversed(self._data) if last else self._data:
                return key, self.pop(key)
            raise KeyError("executor.futures is empty")

    def setdefault(self, key: t.Hashable, default: t.Any = None) -> t.Any:
        """Return the future under a key; if there is none, store the default there."""
        with self._lock:
            return super().setdefault(key, default)

    def clear(self) -> None:
        """Remove all futures."""
        with self._lock:
            super().clear()

    def copy(self) -> dict[t.Hashable, Future[t.Any]]:
        """Return a plain dictionary of the same futures."""
        with self._lock:
            return dict(self._data)

    __copy__ = copy

    def holds(self, future: object) -> bool:
        """Return True if a future is stored under any key; O(1)."""
        return id(future) in self._keys_of

    def keep_finished(self, keep: bool) -> None:
        """Keep futures that have finished, or remove each when it finishes."""
        self._keeps_finished = keep
        for key in () if keep else [*self._finished]:
            del self[key]

    def any_finished(self) -> bool:
        """Return True if a future that has finished is stored."""
        return bool(self._finished)

    def oldest_finished(self) -> tuple[t.Hashable, float] | None:
        """Return the key that finished first, and when (monotonic seconds)."""
        return next(iter(self._finished.items()), None)

    def find_finished(self) -> bool:
        """Note futures that have finished and were not noted yet.

        A thread that waits for a future is woken before the callbacks run, and a future
        that it stores then must be able to replace that one. Most often that is one of
        the last. After a search through all n futures that found nothing, the next full
        search is n calls later. So the average cost of a call does not depend on n.

        :return: True if there is one.
        """
        if self._note_done(islice(reversed(self._data.items()), _LAST)):
            return True
        if self._until_search:
            self._until_search -= 1
        elif not self._note_done(self._data.items()):
            self._until_search = len(self._data)
        return bool(self._finished)

    def _note_done(self, futures: t.Iterable[tuple[t.Hashable, object]]) -> bool:
        for key, future in futures:
            if isinstance(future, Future) and future.done():
                self._finished[key] = time.monotonic()
        return bool(self._finished)

    def _forget(self, key: t.Hashable, future: Future[t.Any]) -> None:
        self._finished.pop(key, None)
        count = self._keys_of.pop(id(future)) - 1
        if count:
            self._keys_of[id(future)] = count

    def _note_finished(self, key: t.Hashable, future: Future[t.Any]) -> None:
        with self._lock:
            stored = self._data.get(key)
            # What is stored may be a FutureProxy of it.
            if stored is not future and getattr(stored, "_self", None) is not future:
                return
            if self._keeps_finished:
                self._finished[key] = time.monotonic()
            else:
                del self[key]

    def __repr__(self) -> str:
        return repr(self.copy())


def _when_done(future: t.Any, fn: t.Callable[[t.Any], object]) -> None:
    if issubclass(type(future), Future):
        # The base class's method: there is no context to copy.
        Future.add_done_callback(future, fn)
    elif hasattr(
        future, "add_done_callback"
    ):  # objects that people store may not have it
        future.add_done_callback(fn)


class Registry:
    """Stores futures under keys, and removes them when they are too many or too old.

    :class:`.FutureCollection` adds what is asked of a future by its key.
    """

    def __init__(
        self,
        max_length: int | None = None,
        *,
        ttl: float | None = None,
        app: Flask | None = None,
    ) -> None:
        self._ttl = ttl
        # Weak: the executor's map of apps must not keep its keys alive.
        self._app = None if app is None else weakref.ref(app)
        self._lock = threading.RLock()
        self._reserved: dict[t.Hashable, object] = {}
        self._max_length = max_length
        self._futures = {}  # the property converts it to the mapping

    @property
    def max_length(self) -> int | None:
        """How many futures are kept; None sets no limit."""
        return self._max_length

    @max_length.setter
    def max_length(self, max_length: int | None) -> None:
        with self._lock:
            self._max_length = max_length
            self._by_key.keep_finished(max_length != 0)

    @property
    def _futures(self) -> Futures:
        self._expire()
        return self._by_key

    @_futures.setter
    def _futures(self, futures: Futures) -> None:
        if not (isinstance(futures, FuturesByKey) and futures._lock is self._lock):
            futures, given = FuturesByKey(self._lock), futures
            futures.keep_finished(self._max_length != 0)
            futures.update(given)
        # mock.patch.object looks here for the value that it restores.
        vars(self)["_futures"] = futures

    @property
    def _by_key(self) -> FuturesByKey:
        return t.cast(FuturesByKey, vars(self)["_futures"])

    def reserve(
        self, future_key: t.Hashable, holder: object, *, instead_of: object = None
    ) -> None:
        """Keep a key free for the future that :meth:`add` will store under it.

        :param holder: the future, or the object that will have it.
        :param instead_of: the holder of the key until now, or None.
        :raises DuplicateKey: if the key is taken, or held by somebody else.
        """
        with self._lock:
            self._expire()
            held_by = self._reserved.get(future_key)
            if held_by is not instead_of or future_key in self._by_key:
                raise DuplicateKey(future_key)
            self._reserved[future_key] = holder

    def add(self, future_key: t.Hashable, future: Future[t.Any]) -> None:
        """Store a future.

        :raises DuplicateKey: a :exc:`ValueError` that holds the key, if it is taken.
        """
        with self._lock:
            held_by = self._reserved.pop(future_key, None)
            if held_by is None:
                self._expire()
            elif held_by is not future:
                self._reserved[future_key] = held_by
                raise DuplicateKey(future_key)
            if future_key in self._by_key:
                raise DuplicateKey(future_key)
            self._make_room()
            self._by_key[future_key] = future

    def pop(self, future_key: t.Hashable) -> Future[t.Any] | None:
        """Remove a future and return it; None if the key is unknown."""
        with self._lock:
            return self._futures.pop(future_key, None)

    def discard(self, future_key: t.Hashable, future: object) -> None:
        """Remove this future if it is stored under the key, or has reserved it."""
        with self._lock:
            for where in (self._reserved, self._by_key):
                if where.get(future_key, _ABSENT) is future:
                    del where[future_key]

    def get(self, future_key: t.Hashable, default: t.Any = None) -> t.Any:
        """Return the future stored under a key, or the default."""
        return self._futures.get(future_key, default)

    def keys(self) -> list[t.Hashable]:
        """Return the keys as they are now, oldest first."""
        with self._lock:
            return list(self._futures)

    def items(self) -> list[tuple[t.Hashable, Future[t.Any]]]:
        """Return keys and futures as they are now, oldest first."""
        with self._lock:
            return list(self._futures.items())

    def __getitem__(self, future_key: t.Hashable) -> Future[t.Any]:
        return self._futures[future_key]

    def __contains__(self, item: object) -> bool:
        self._expire()
        return self._by_key.holds(item) or item in self._by_key

    def __iter__(self) -> t.Iterator[t.Hashable]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._futures)

    def _expire(self) -> None:
        if self._ttl is None or not self._by_key.any_finished():
            return
        with self._lock:
            limit = time.monotonic() - self._ttl
            while oldest := self._by_key.oldest_finished():
                key, since = oldest
                if since >= limit:
                    return
                del self._by_key[key]

    def _make_room(self) -> None:
        limit, stored = self._max_length, self._by_key
        if not limit:  # no limit, or finished futures are removed at once
            return
        while len(stored) >= limit:
            if (oldest := stored.oldest_finished()) is not None:
                del stored[oldest[0]]
            elif not stored.find_finished():
                self._drop_unfinished()

    def _drop_unfinished(self) -> None:
        key, _ = self._by_key.popitem(last=False)
        app = None if self._app is None else self._app()
        if app is not None:
            message = (
                "executor.futures is full (%s): the future %r was dropped before it"
                " had finished; raise EXECUTOR_FUTURES_MAX_LENGTH."
            )
            Log(app).write(logging.WARNING, message, self.max_length, key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} futures>"
