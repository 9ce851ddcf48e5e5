"""The futures of saved tasks, and ``executor.futures`` where there is a store."""

from __future__ import annotations

import typing as t
import weakref
from concurrent.futures import Future, wait
from concurrent.futures._base import (
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)

from flask import Flask

from ..calls import Outcome
from ..errors import DuplicateKey
from ..futures import FutureCollection, TaskFuture
from ..store_errors import KeyNotReadable, KeyNotStorable
from ..stores.keys import decode_key, encode_key
from ..stores.records import ENDS, Record

T = t.TypeVar("T")
_ABSENT = object()
_PATIENCE = 5.0
"""Seconds that a cancellation waits for the database."""


class _Callbacks(list[t.Any]):
    """The callbacks of a future, which is kept for as long as it has any.

    They are added in several ways, also by methods of the standard library's class.
    """

    def __init__(self, future: StoredFuture[t.Any]) -> None:
        self._future = weakref.ref(future)

    def append(self, fn: t.Any) -> None:
        super().append(fn)
        if (future := self._future()) is not None:
            future.keep()


class StoredFuture(TaskFuture[T]):
    """The future of a task that is in a store, whichever process runs it.

    If it ended elsewhere, its result is read when it is first asked for, on the thread
    that asks.
    """

    kept_in: set[StoredFuture[t.Any]] | None = None
    """Where it is kept until its callbacks have run, if nothing else may hold it."""
    _load: t.Callable[[], Outcome] | None = None
    _value: t.Any = None
    _error: BaseException | None = None

    def __init__(self, app: Flask, key: t.Hashable | None = None) -> None:
        super().__init__(app, key)
        self._done_callbacks = _Callbacks(self)

    def cancel(self) -> bool:
        """Cancel the task if it waits, and return once that is in the database.

        If the database does not answer within five seconds, that is written later.

        :return: True if it is cancelled.
        """
        if not super().cancel():
            return False
        wait([self], _PATIENCE)
        # Another process may have declared this one dead, and run the task.
        return self.cancelled() or not self.done()

    def keep(self) -> None:
        """Stay until the end if there are callbacks."""
        if self.kept_in is not None and self._done_callbacks:
            self.kept_in.add(self)

    @property
    def _result(self) -> t.Any:
        self.ensure_loaded()
        return self._value

    @_result.setter
    def _result(self, value: t.Any) -> None:
        self._value = value

    @property
    def _exception(self) -> BaseException | None:
        self.ensure_loaded()
        return self._error

    @_exception.setter
    def _exception(self, error: BaseException | None) -> None:
        self._error = error

    def _wake_loop(self, fn: t.Any) -> None:
        if self.done():  # asyncio would read the result where an error means a hang
            self.ensure_loaded()
        super()._wake_loop(fn)

    def ensure_loaded(self) -> None:
        """Read the result.

        :raises StoreUnavailable: if the database is away.
        """
        load = self._load
        if load is not None:
            outcome = load()  # of two threads that load, both get the same
            self._value, self._error = outcome.value, outcome.error
            self._load = None

    def show_running(self, running: bool) -> None:
        """Note that its task runs elsewhere, or waits."""
        with self._condition:
            if self._state in (PENDING, RUNNING):
                self._state = RUNNING if running else PENDING

    def end_elsewhere(
        self, load: t.Callable[[], Outcome] | None, *, failed: bool
    ) -> bool:
        """End like its task; return False if it had ended.

        :meth:`run_callbacks` must follow.

        :param load: reads the outcome when somebody asks for it; None: it is cancelled.
        :param failed: True if the outcome is an exception.
        """
        with self._condition:
            if self._state not in (PENDING, RUNNING):
                return False
            self._load = load
            self._state = CANCELLED_AND_NOTIFIED if load is None else FINISHED
            if self.kept_in is not None:
                self.kept_in.discard(self)
            for waiter in self._installed:
                if load is None:
                    waiter.add_cancelled(self)
                elif failed:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()
            return True


class KnownTasks(t.Protocol):
    """What :class:`SharedFutures` asks of the store; see :class:`.Node`."""

    def find(self, by: t.Any, value: int | str) -> Record | None: ...
    def future_of(self, record: Record) -> TaskFuture[t.Any]: ...
    def state_elsewhere(self, key: str) -> str | None: ...
    def pop(self, key: str) -> Record | None: ...
    def count_keys(self) -> int: ...
    def keyed(self) -> t.Iterator[Record]: ...


class SharedFutures(FutureCollection):
    """Futures by key, the same in every process of the app and after a restart.

    A finished one is kept for ``EXECUTOR_STORE_KEEP``. Futures that the store does not
    know, because somebody added them here, are known to this process alone.

    :raises StoreUnavailable: from every method, if the database is away.
    """

    def __init__(
        self, node: KnownTasks, max_length: int | None, *, ttl: float | None, app: Flask
    ) -> None:
        super().__init__(max_length, ttl=ttl, app=app)
        self._node = node

    def add(self, future_key: t.Hashable, future: Future[t.Any]) -> None:
        """Store a future that the store does not know, for this process alone.

        :raises DuplicateKey: if the key is taken in any process.
        """
        if self._record(future_key) is not None:
            raise DuplicateKey(future_key)
        super().add(future_key, future)

    def add_here(self, future_key: t.Hashable, future: Future[t.Any]) -> None:
        """Store a future that has reserved its key, without asking the store."""
        super().add(future_key, future)

    def reserve_here(
        self, future_key: t.Hashable, holder: object, *, instead_of: object = None
    ) -> None:
        """Keep a key free in this process, without asking the store."""
        super().reserve(future_key, holder, instead_of=instead_of)

    def discard_reserved(self, future_key: t.Hashable, holder: object) -> None:
        """Give up the reservation of a key."""
        with self._lock:
            if self._reserved.get(future_key) is holder:
                del self._reserved[future_key]

    def reserve(
        self, future_key: t.Hashable, holder: object, *, instead_of: object = None
    ) -> None:
        """Keep a key free; see :meth:`.Registry.reserve`."""
        if self._record(future_key) is not None:
            raise DuplicateKey(future_key)
        super().reserve(future_key, holder, instead_of=instead_of)

    def pop(self, future_key: t.Hashable) -> Future[t.Any] | None:
        """Free a key and return its future; None for all processes except one."""
        text = _text_of(future_key)
        record = None if text is None else self._node.pop(text)
        if record is not None:
            return self._node.future_of(record)
        return super().pop(future_key)

    def get(self, future_key: t.Hashable, default: t.Any = None) -> t.Any:
        """Return the future of a key, or the default."""
        record = self._record(future_key)
        if record is not None:
            return self._node.future_of(record)
        return super().get(future_key, default)

    def keys(self) -> list[t.Hashable]:
        """Return the keys as they are now, oldest first."""
        return [key for key, _ in self._pairs()] + super().keys()

    def items(self) -> list[tuple[t.Hashable, Future[t.Any]]]:
        """Return keys and futures as they are now, oldest first."""
        found = [(key, self._node.future_of(record)) for key, record in self._pairs()]
        return [*found, *super().items()]

    def _answer(
        self, name: str, future_key: t.Any, args: t.Any, kwargs: t.Any
    ) -> t.Any:
        # What pollers ask all the time needs no future. (Arguments are refused by it.)
        is_plain = name in _BY_STATE and not (args or kwargs)
        if is_plain and (text := _text_of(future_key)) is not None:
            state = self._node.state_elsewhere(text)
            if state is not None:
                return _BY_STATE[name](_state_of_future(state))
        return super()._answer(name, future_key, args, kwargs)

    def __getitem__(self, future_key: t.Hashable) -> Future[t.Any]:
        future = self.get(future_key, _ABSENT)
        if future is _ABSENT:
            raise KeyError(future_key)
        return t.cast("Future[t.Any]", future)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, StoredFuture):
            record = self._record(item.key)
            return record is not None and record.uid == item.task.id  # type: ignore[union-attr]
        return self._record(item) is not None or super().__contains__(item)

    def __len__(self) -> int:
        return self._node.count_keys() + super().__len__()

    def _record(self, key: t.Any) -> Record | None:
        text = _text_of(key)
        return None if text is None else self._node.find("key", text)

    def _pairs(self) -> t.Iterator[tuple[t.Hashable, Record]]:
        for record in self._node.keyed():
            try:
                yield decode_key(t.cast(str, record.key)), record
            except KeyNotReadable:  # a member of an Enum that is not imported here
                continue


_BY_STATE: dict[str, t.Callable[[str], t.Any]] = {
    "_state": lambda state: state,
    "cancelled": lambda state: state == CANCELLED_AND_NOTIFIED,
    "done": lambda state: state in (CANCELLED_AND_NOTIFIED, FINISHED),
    "running": lambda state: state == RUNNING,
}
"""What a future tells of its state alone."""


def _state_of_future(state: str) -> str:
    """Return the state of a future whose task has this one."""
    if state in ENDS:
        return CANCELLED_AND_NOTIFIED if state == "cancelled" else FINISHED
    return RUNNING if state == "running" else PENDING


def _text_of(key: t.Any) -> str | None:
    try:
        return encode_key(key)
    except KeyNotStorable:
        return None
