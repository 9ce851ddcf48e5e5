"""Removing what has ended long ago, in small transactions.

Nobody writes about a task that has ended, so removing one needs no fence. Two processes
that prune at the same moment pass over each other's rows.
"""

from __future__ import annotations

import json
import typing as t

from sqlalchemy import Connection

from .statements import Statements

# As a plain subquery, PostgreSQL might read the rows several times, each time passing
# over those that are locked already, and so remove more than the limit.
_TASKS = """
    WITH old AS MATERIALIZED (
        SELECT id FROM {task}
        WHERE state = :state AND finished IS NOT NULL AND finished < {now} - :keep
        ORDER BY finished LIMIT :n %s
    )
    DELETE FROM {task} WHERE id IN (SELECT id FROM old) RETURNING id
"""
_DAY = 86_400.0
# The last tick of a job stays: from it the missed ones are counted.
_OLD = {
    "worker": ("id", "state <> 'alive' AND lease_until < {now} - :age", _DAY),
    "tick": (
        "job, at",
        "at < {now} - :age AND at < (SELECT MAX(at) FROM {tick} AS k"
        " WHERE k.job = o.job)",
        30 * _DAY,
    ),
    "stat": ('minute, job, "end"', "minute < ({now} - :age) / 60", 90 * _DAY),
    "grp": ("id", "done >= total AND opened < {now} - :age", 90 * _DAY),
}


class Pruning:
    """The statements that remove what is old."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        self._tasks = sql.text(
            _TASKS % ("" if sql.is_sqlite else "FOR UPDATE SKIP LOCKED")
        )
        among = sql.among("task_id", "ids", "int")
        self._details = [
            sql.text(f"DELETE FROM {{{table}}} WHERE {among}")
            for table in ("payload", "result", "attempt")
        ]
        self._old = [
            (sql.text(_old(table, key, where)), age)
            for table, (key, where, age) in _OLD.items()
        ]

    def prune(
        self, db: Connection, keep: t.Mapping[str, float | None], limit: int
    ) -> int:
        """Remove up to ``limit`` tasks; return how many."""
        left = limit
        for state, seconds in keep.items():
            if seconds is not None and left:
                left -= self._prune_state(db, state, seconds, left)
        for statement, age in self._old:
            self._sql.run(db, statement, age=age, n=limit)
        return limit - left

    def _prune_state(self, db: Connection, state: str, keep: float, n: int) -> int:
        rows = self._sql.run(db, self._tasks, state=state, keep=keep, n=n)
        if rows:
            ids = json.dumps([row.id for row in rows])
            for statement in self._details:
                self._sql.run(db, statement, ids=ids)
        return len(rows)


def _old(table: str, key: str, where: str) -> str:
    which = f"SELECT {key} FROM {{{table}}} AS o WHERE {where} LIMIT :n"
    return f"DELETE FROM {{{table}}} WHERE ({key}) IN ({which})"
