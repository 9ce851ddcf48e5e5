"""If the transaction of somebody else keeps a task from being claimed.

**PostgreSQL.** Claims pass over rows that are locked, so a row that somebody has locked
and forgotten in a shell waits for ever. A row that cannot be locked here is locked
there; the lock that succeeds is given back with the end of the statement.

**SQLite.** One transaction writes at a time, in any program. If we cannot begin one,
somebody else has not ended theirs.

Transactions of ours are short, so it is asked a few times.
"""

from __future__ import annotations

import time
import typing as t

from sqlalchemy.exc import OperationalError

from .database import PATIENCE, Database
from .statements import Statements

_TIMES = 3
_PAUSE = 0.05
"""Seconds."""


class Locks:
    """Asks if others hold a task."""

    def __init__(self, database: Database, sql: Statements) -> None:
        self._database = database
        self._sql = sql
        self._there = sql.text("SELECT id FROM {task} WHERE id = :id")
        self._lock = sql.text(
            "SELECT id FROM {task} WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED"
        )

    def is_locked(self, id: int) -> bool:
        """Return True if the transaction of somebody else holds a task, for a while."""
        ask = self._is_file_locked if self._sql.is_sqlite else self._is_row_locked
        for number in range(_TIMES):
            if number:
                time.sleep(_PAUSE)
            if not ask(id):
                return False
        return True

    def _is_row_locked(self, id: int) -> bool:
        def op(db: t.Any) -> bool:
            locked = not self._sql.run(db, self._lock, id=id)
            return locked and bool(self._sql.run(db, self._there, id=id))

        return self._database.read(op)

    def _is_file_locked(self, id: int) -> bool:
        def op(db: t.Any) -> bool:
            db.exec_driver_sql(f"PRAGMA busy_timeout = {int(_PAUSE * 1000)}")
            try:
                db.exec_driver_sql("BEGIN IMMEDIATE")
                db.exec_driver_sql("ROLLBACK")
            except OperationalError as error:
                name = getattr(error.orig, "sqlite_errorname", "")
                if not name.startswith("SQLITE_BUSY"):
                    raise
                return True
            finally:
                db.exec_driver_sql(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
            return False

        return self._database.read(op)
