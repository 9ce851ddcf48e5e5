"""Sessions of the app: a task as a row of somebody else's transaction."""

from __future__ import annotations

import os
import typing as t
import weakref

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, scoped_session

from ..errors import SessionRefused
from .database import Database
from .files import shown

Called = t.Callable[[], object]


def session_of(value: t.Any) -> Session:
    """Return the session that is meant by a session or a ``scoped_session``."""
    return t.cast(Session, value() if isinstance(value, scoped_session) else value)


def connection_of(session: Session, database: Database) -> Connection:
    """Return the connection of a session, in its transaction.

    :raises SessionRefused: if that is not in the database of the store.
    """
    bind = session.get_bind()
    url = bind.engine.url
    if _place_of(url) != _place_of(database.url):
        reason = "a task and your rows can be committed together only in one database"
        raise SessionRefused(database.shown, shown(url), reason)
    if database.dialect == "postgresql" and bind.dialect.driver != "psycopg":
        reason = f"its driver is {bind.dialect.driver}; use postgresql+psycopg://"
        raise SessionRefused(database.shown, shown(url), reason)
    return session.connection()


def has_write_lock(extension: t.Any, database: Database) -> bool:
    """Return True if this view's Flask-SQLAlchemy session has the lock of the file.

    :param extension: the ``SQLAlchemy`` of an app whose context is pushed.
    """
    scoped = getattr(extension, "session", None)
    if database.dialect != "sqlite" or not isinstance(scoped, scoped_session):
        return False
    if not (scoped.registry.has() and scoped().in_transaction()):
        return False
    place = _place_of(database.url)
    engines = [e for e in extension.engines.values() if _place_of(e.url) == place]
    return any(_has_written(scoped(), engine) for engine in engines)


def _has_written(session: Session, engine: t.Any) -> bool:
    # sqlite3 begins a transaction before the first statement that writes.
    connection = session.connection(bind_arguments={"bind": engine}).connection
    return bool(t.cast(t.Any, connection.dbapi_connection).in_transaction)


def at_end(session: Session, fn: Called) -> None:
    """Call a function once, when the transaction of a session has ended.

    It is called on the thread that ends it, however it ends; also if the session is
    dropped. The end of a savepoint is none.
    """
    watch = _watches.get(session)
    if watch is None:
        watch = _watches[session] = _Watch(session)
    watch.add(fn)


class _Watch:
    """Notices the ends of the transactions of a session."""

    def __init__(self, session: Session) -> None:
        self._called: list[Called] = []
        event.listen(session, "after_transaction_end", self._ended)
        weakref.finalize(session, self._call).atexit = False

    def add(self, fn: Called) -> None:
        self._called.append(fn)

    def _ended(self, session: Session, transaction: t.Any) -> None:
        if transaction.parent is None:  # neither a savepoint nor a flush
            self._call()

    def _call(self) -> None:
        called, self._called = self._called, []
        for fn in called:
            fn()


_watches: weakref.WeakKeyDictionary[Session, _Watch] = weakref.WeakKeyDictionary()

_LOOPBACK = frozenset({"", "127.0.0.1", "::1"})


def _place_of(url: URL) -> tuple[t.Any, ...]:
    """Return what tells two databases apart."""
    backend, name = url.get_backend_name(), url.database
    if backend == "sqlite":
        in_memory = not name or name == ":memory:"
        return backend, None if in_memory else os.path.realpath(t.cast(str, name))
    host = url.host or url.query.get("host") or ""
    place = "localhost" if host in _LOOPBACK else host
    return backend, place, url.port or 5432, name or url.username
