"""The database of a store: its engine, and transactions in it.

SQLite and PostgreSQL differ here:

- SQLite has one writer at a time. Each transaction that writes takes its turn among all
  processes, and begins with ``BEGIN IMMEDIATE``, so that it never fails half-way
  because somebody else writes. PostgreSQL locks rows; READ COMMITTED is what the
  statements are made for.
- What need not be synced: SQLite switches ``synchronous`` for the transaction,
  PostgreSQL ``synchronous_commit``.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import typing as t

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ..errors import StoreRefused, StoreUnavailable
from . import files
from .faults import kind_of, lost_connection, reason_of
from .forks import Uses
from .turn import Turn

T = t.TypeVar("T")
Op = t.Callable[[Connection], T]

PATIENCE = 5.0
"""Seconds that a transaction waits for another one, or for a connection."""
_COLLISIONS = 20
"""How often a transaction is tried if others are in its way."""
_inherited: list[object] = []
"""Engines of parents of this process. Their connections must never be used or closed
here: that would end the parent's."""


class Database:
    """Connections and transactions, on any thread, in any child of a process.

    :param where: a SQLAlchemy URL, or an engine whose database is to be used.
    :param folder: where a relative path to an SQLite file begins.
    :raises StoreRefused: if it cannot be a store.
    """

    def __init__(
        self, where: str | URL | Engine, folder: str | os.PathLike[str] | None = None
    ) -> None:
        url = where.url if isinstance(where, Engine) else _parse(where)
        self.dialect: str = url.get_backend_name()
        """``sqlite`` or ``postgresql``."""
        _refuse_others(url)
        if self.dialect == "sqlite":
            url = files.resolve(url, folder)
        self.url: URL = url
        self.shown: str = files.shown(url)
        """The URL without its password, for messages."""
        # An SQLite engine of somebody else begins transactions in other ways.
        given = isinstance(where, Engine) and self.dialect != "sqlite"
        self._given: Engine | None = t.cast(Engine, where) if given else None
        self._turn = Turn(f"{url.database}-turn") if self.dialect == "sqlite" else None
        self.uses: Uses | None = None
        """Who uses an SQLite file, for forks."""
        if self.dialect == "sqlite":
            self.uses = Uses(self._close_idle)
        self._pid = 0
        self._engine: Engine
        self._locks: dict[int, threading.Lock] = {}
        """A lock for each process: after a fork, that of the parent may stay locked."""

    @property
    def engine(self) -> Engine:
        """The engine of this process; it is made at first use."""
        pid = os.getpid()
        if self._pid != pid:
            with self._locks.setdefault(pid, threading.Lock()):
                if self._pid != pid:  # otherwise another thread has just made it
                    self._leave_to_parent()
                    self._engine = self._make_engine()
                    self._pid = pid
        return self._engine

    def _leave_to_parent(self) -> None:
        """Let go of the connections of the process that this was forked from."""
        if self._pid:
            _inherited.append(self._engine.pool)
            if self._given is not None:
                self._given.dispose(close=False)

    def _make_engine(self) -> Engine:
        if self._given is None:
            return _make_engine(self.url, self.dialect)
        return self._given.execution_options(isolation_level="READ COMMITTED")

    def read(self, op: Op[T]) -> T:
        """Return what a function reads with a connection; each statement by itself.

        :raises StoreUnavailable: if the database is away.
        """
        for is_last in (False, True):
            try:
                with self.use(), self.engine.connect() as db:
                    if self.dialect != "sqlite":  # there it is always so
                        db.execution_options(isolation_level="AUTOCOMMIT")
                    return op(db)
            except Exception as error:
                # After a restart of the database, the connections in the pool are dead.
                if is_last or not lost_connection(error):
                    raise self.explained(error) from error
        raise AssertionError

    def write(self, op: Op[T], *, synced: bool = True) -> T:
        """Run a function of a connection in one transaction, on this thread.

        It runs again if other transactions are in its way.

        :raises StoreUnavailable: if the database is away. If that came while it
            committed, the transaction may be there nevertheless.
        """
        for number in range(_COLLISIONS):
            try:
                with self.transaction(synced=synced) as db:
                    return op(db)
            except Exception as error:
                if not _may_repeat(error, number):
                    raise self.explained(error) from error
                time.sleep(random.uniform(0, 0.002 * number))
        raise AssertionError

    def try_to_write(self) -> None:
        """Find out if this process may write; wait for nobody.

        On SQLite this thread may be the one for which we would wait.

        :raises StoreUnavailable: if it may not.
        """
        if self.dialect != "sqlite":
            self.write(lambda db: None, synced=False)
            return
        try:
            with self.use(), self.engine.connect() as db:
                db.exec_driver_sql("PRAGMA busy_timeout = 0")
                try:
                    db.exec_driver_sql("BEGIN IMMEDIATE")
                    db.exec_driver_sql("ROLLBACK")
                finally:
                    patience = int(PATIENCE * 1000)
                    db.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")
        except Exception as error:
            original = getattr(error, "orig", None)
            # Somebody writes, so the file can be written.
            if not getattr(original, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                raise self.explained(error) from error

    def turn(self, *, wait: bool = True) -> t.ContextManager[bool]:
        """Hold this process's turn to write, if the database needs turns.

        :param wait: see :meth:`.Turn.take`.
        """
        if self._turn is None:
            return contextlib.nullcontext(True)
        return self._turn.take(wait=wait)

    @contextlib.contextmanager
    def transaction(
        self, *, synced: bool = True, has_turn: bool = False
    ) -> t.Iterator[Connection]:
        """Give a connection whose transaction commits at the end of the block.

        :param has_turn: this thread is inside :meth:`turn`.
        """
        if self.dialect == "sqlite":
            with contextlib.nullcontext(True) if has_turn else self.turn():
                yield from self._sqlite_transaction(synced)
        else:
            yield from self._postgresql_transaction(synced)

    def use(self) -> t.ContextManager[None]:
        """Let no fork of this process begin within the block, where that matters."""
        return contextlib.nullcontext() if self.uses is None else self.uses.use()

    def _close_idle(self) -> None:
        if self._pid == os.getpid():
            self._engine.dispose()

    def _sqlite_transaction(self, synced: bool) -> t.Iterator[Connection]:
        with self.use(), self.engine.connect() as db:
            raw = t.cast(t.Any, db.connection.dbapi_connection)
            if db.info.get("synced") != synced:
                # It cannot be changed within a transaction.
                raw.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                db.info["synced"] = synced
            _begin(raw)
            try:
                yield db
                raw.execute("COMMIT")
            except BaseException:
                if raw.in_transaction:  # a full disk may have ended it already
                    raw.execute("ROLLBACK")
                raise

    def _postgresql_transaction(self, synced: bool) -> t.Iterator[Connection]:
        with self.engine.connect() as db, db.begin():
            if not synced:
                db.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield db

    def explained(self, error: Exception) -> Exception:
        """Return a StoreUnavailable if that is what an error means, or the error."""
        if kind_of(error) == "other":
            return error
        return StoreUnavailable(self.shown, reason_of(error))

    def dispose(self) -> None:
        """Close the connections that are our own, now or when they are given back."""
        if self._pid == os.getpid() and self._given is None:
            if not event.contains(self._engine, "checkin", _close_returned):
                event.listen(self._engine, "checkin", _close_returned)
            self._engine.dispose()

    def __repr__(self) -> str:
        return f"<Database {self.shown}>"


def _may_repeat(error: BaseException, number: int) -> bool:
    """Return True if a transaction may be repeated after ``number`` repetitions."""
    return kind_of(error) == "collision" and number < _COLLISIONS - 1


def _begin(connection: t.Any) -> None:
    """Begin to write to an SQLite file, as soon as nobody else does."""
    deadline = time.monotonic() + PATIENCE
    # SQLite itself would wait longer and longer, and let others pass.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while not _has_begun(connection, is_last=time.monotonic() > deadline):
            time.sleep(random.uniform(0.0002, 0.002))
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")


def _has_begun(connection: t.Any, *, is_last: bool) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if is_last or not error.sqlite_errorname.startswith("SQLITE_BUSY"):
            raise
        return False
    return True


def _parse(where: str | URL) -> URL:
    try:
        return make_url(where)
    except ArgumentError:
        raise StoreRefused(
            str(where),
            "it is not a URL; use 'sqlite:///tasks.db',"
            " 'postgresql+psycopg://user:password@host/database' or 'flask-sqlalchemy'",
        ) from None


def _refuse_others(url: URL) -> None:
    backend, driver = url.get_backend_name(), url.drivername.partition("+")[2]
    if backend not in ("sqlite", "postgresql"):
        raise StoreRefused(
            files.shown(url), f"{backend} is not supported; use SQLite or PostgreSQL"
        )
    if backend == "sqlite" and driver not in ("", "pysqlite"):
        raise StoreRefused(
            files.shown(url), "its driver is not sqlite3; use sqlite:///"
        )
    if backend == "postgresql" and driver not in ("", "psycopg"):
        raise StoreRefused(
            files.shown(url), "its driver is not psycopg 3; use postgresql+psycopg://"
        )
    if backend == "sqlite" and sqlite3.sqlite_version_info < (3, 35):
        raise StoreRefused(
            files.shown(url),
            f"SQLite {sqlite3.sqlite_version} has no RETURNING; install Python with"
            " SQLite 3.35 or newer, or use PostgreSQL",
        )


def _make_engine(url: URL, dialect: str) -> Engine:
    options: dict[str, t.Any] = {"pool_timeout": PATIENCE, "pool_size": 5}
    if dialect == "sqlite":
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",  # transactions are begun by hand
            connect_args={"timeout": PATIENCE, "check_same_thread": False},
            **options,
        )
        event.listen(engine, "connect", _open_sqlite)
        return engine
    asked = {key: value for key, value in _PATIENT.items() if key not in url.query}
    try:
        # In SQLAlchemy 2.0, a URL without a driver means psycopg2.
        url = url.set(drivername="postgresql+psycopg")
        options["isolation_level"] = "READ COMMITTED"
        engine = create_engine(url, connect_args=asked, **options)
    except (ImportError, NoSuchModuleError):
        raise StoreRefused(
            files.shown(url),
            "psycopg is missing: pip install 'Flask-Executor[postgresql]'",
        ) from None
    event.listen(engine, "connect", _open_postgresql)
    return engine


_PATIENT = {
    "connect_timeout": str(int(PATIENCE)),
    # A server that vanished is noticed within seconds, not within hours.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


def _open_sqlite(connection: t.Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")


def _close_returned(connection: t.Any, record: t.Any) -> None:
    """Close a connection that a thread gives back after its engine was disposed of."""
    if connection is not None:
        record.invalidate()


def _open_postgresql(connection: t.Any, _: object) -> None:
    # A process that was stopped within a transaction keeps nobody waiting for ever.
    try:
        before, connection.autocommit = connection.autocommit, True
        connection.execute(f"SET lock_timeout = {int(PATIENCE * 1000)}")
        connection.execute("SET idle_in_transaction_session_timeout = 20000")
        connection.autocommit = before
    except BaseException:  # it was lost just now, and nobody else has it
        connection.close()
        raise
