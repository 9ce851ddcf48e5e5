"""The store of one test: the real statements, on a database in memory.

It has no file and no thread: each write is committed on the thread that asks for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t
from concurrent.futures import Future

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import StaticPool

from ..stores.records import NewTask, Taken
from ..stores.sql import SqlStore
from ..stores.sql.batches import Item
from ..stores.sql.database import Database
from ..stores.sql.forks import Uses
from ..stores.sql.writer import Writer


class MemoryDatabase(Database):
    """An SQLite database in memory: one connection, which threads use in turn.

    :param where: is not opened; nor is the folder.
    """

    def __init__(self, where: object = None, folder: object = None) -> None:
        self.url: URL = make_url("sqlite://")
        self.shown = "the store of this test"
        self.dialect = "sqlite"
        self.uses: Uses | None = None
        self._turn = self._given = None
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._engine = self._make_engine()

    @contextlib.contextmanager
    def use(self) -> t.Iterator[None]:
        """Let no other thread use the connection within the block."""
        with self._lock:
            yield

    def _make_engine(self) -> Engine:
        engine = create_engine(
            self.url,
            isolation_level="AUTOCOMMIT",  # transactions are begun by hand
            connect_args={"check_same_thread": False},
            poolclass=StaticPool,
        )
        event.listen(engine, "connect", _do_not_sync)
        return engine


def _do_not_sync(connection: t.Any, _: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


class PromptWriter(Writer):
    """Writes each item on the thread that brings it."""

    def submit(self, item: Item) -> Future[t.Any]:
        """Write an item; the future that is returned has ended."""
        item.future.set_running_or_notify_cancel()
        self._conclude([item], self._outcomes(item))
        return item.future

    def _outcomes(self, item: Item) -> t.Any:
        if self._closed:
            return self._away("that test has ended")
        return self._write([item])


class MemoryStore(SqlStore):
    """A store that ends with its test.

    :param clock: tells the time.
    """

    _new_database = MemoryDatabase
    _new_writer = PromptWriter

    def __init__(self, prefix: str, clock: t.Callable[[], float]) -> None:
        super().__init__("sqlite://", prefix=prefix, clock=clock)

    def refusal(self, new: NewTask) -> Taken | None:
        """Return what would be in the way of a task, and leave all as it is."""
        with self.database.use(), self.database.engine.connect() as db:
            db.exec_driver_sql("BEGIN")
            try:
                [outcome] = self.insert_with(db, [new])
            finally:
                db.exec_driver_sql("ROLLBACK")
        return outcome if isinstance(outcome, Taken) else None
