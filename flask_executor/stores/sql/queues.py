"""What becomes due, what was asked to stop, who gets a key: one statement each.

One statement is safe beside others by itself: of two transactions that update a row,
the second tests its condition again on what the first has left.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import replace

from sqlalchemy import Connection

from ..records import Fence, Record
from .ends import ENDED, Ends
from .lists import COLUMNS, record
from .statements import Statements

_DUE = "owner IS NULL AND state IN ('delayed', 'retrying')"
# Other processes may know jobs that this one does not: then they claim some of them.
_FORSAKE = """
    UPDATE {task} SET state = 'failed', finished = {now}, error_class = 'UnknownJob',
        error_text = 'No process knows the job ' || job || ', so nobody has run it.'
    WHERE id IN (
        SELECT id FROM {task} AS o
        WHERE state = 'waiting' AND NOT (%s)
            AND COALESCE(due, submitted) < {now} - :older
            AND NOT EXISTS (SELECT 1 FROM {task} AS k
                            WHERE k.job = o.job AND k.claimed > {now} - :older)
        LIMIT 500 %s
    ) AND state = 'waiting' RETURNING {ended}
"""


class Queues:
    """Statements about tasks that nobody runs."""

    def __init__(self, sql: Statements, ends: Ends) -> None:
        self._sql = sql
        self._ends = ends
        # Several processes do this at the same moment: none waits for another.
        lock = "" if sql.is_sqlite else "FOR NO KEY UPDATE SKIP LOCKED"
        self._promote = sql.text(
            "WITH ready AS MATERIALIZED (SELECT id FROM {task}"
            f" {sql.indexed_by('task_due')} WHERE {_DUE} AND due <= {{now}}"
            f" ORDER BY due LIMIT :n {lock})"
            " UPDATE {task} SET state = 'waiting' WHERE id IN (SELECT id FROM ready)"
            " RETURNING id"
        )
        self._next = sql.text(
            f"SELECT MIN(due) - {{now}} FROM {{task}} {sql.indexed_by('task_due')}"
            f" WHERE {_DUE}"
        )
        self._asked = sql.text(
            "SELECT id, owner, epoch FROM {task} WHERE cancel = 1"
            " AND owner IS NOT NULL AND finished IS NULL AND owner = :me"
        )
        self._pop = sql.text(
            f"UPDATE {{task}} SET key = NULL WHERE key = :key RETURNING {COLUMNS}"
        )
        forsake = _FORSAKE % (sql.among("job", "known"), lock)
        self._forsake = sql.text(forsake, ended=ENDED)
        among = sql.among("uid", "uids")
        self._withdraw = sql.text(
            f"DELETE FROM {{task}} WHERE {among} AND begun IS NULL AND finished IS NULL"
            " RETURNING id, group_id"
        )
        self._payloads = sql.text(
            "DELETE FROM {payload} WHERE " + sql.among("task_id", "ids", "int")
        )
        self._gone = sql.text("UPDATE {grp} SET total = total - 1 WHERE id = :group_id")

    def promote(self, db: Connection, limit: int) -> int:
        """Let tasks wait that have become due; return how many."""
        return len(self._sql.run(db, self._promote, n=limit))

    def forsake(self, db: Connection, jobs: t.Collection[str], older: float) -> int:
        """End waiting tasks of jobs that nobody knows; return how many."""
        known = json.dumps([*jobs])
        rows = self._sql.run(db, self._forsake, known=known, older=older)
        self._ends.ended(db, rows)
        return len(rows)

    def next_due(self, db: Connection) -> float | None:
        """Return in how many seconds the next task becomes due, or None."""
        [[seconds]] = self._sql.run(db, self._next)
        return None if seconds is None else float(seconds)

    def asked(self, db: Connection, me: str) -> list[Fence]:
        """Return which tasks of a worker were asked to stop."""
        return [Fence(*row) for row in self._sql.run(db, self._asked, me=me)]

    def pop(self, db: Connection, keys: t.Sequence[str]) -> list[Record | None]:
        """Free keys; return their tasks."""
        popped: list[Record | None] = []
        for key in keys:
            rows = self._sql.run(db, self._pop, key=key)
            popped.append(replace(record(rows[0]), key=key) if rows else None)
        return popped

    def withdraw(self, db: Connection, values: t.Sequence[list[str]]) -> list[None]:
        """Remove tasks of which their submitters were told that they were refused."""
        uids = [uid for value in values for uid in value]
        rows = self._sql.run(db, self._withdraw, uids=json.dumps(uids))
        self._sql.run(db, self._payloads, ids=json.dumps([row.id for row in rows]))
        for group_id in sorted(
            row.group_id for row in rows if row.group_id is not None
        ):
            self._sql.run(db, self._gone, group_id=group_id)
        return [None] * len(values)
