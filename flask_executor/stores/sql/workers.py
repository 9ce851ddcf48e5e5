"""Leases of workers, and what becomes of the tasks of the dead.

Death is a state, not a comparison: a worker is dead when a reaper has committed that,
and not when its lease is over. Every claim and every begin tests that state.

The reaper looks at all tasks without a living owner, not only at those of the workers
it has just declared dead: a process may have died between two commits.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import fields, replace

from sqlalchemy import Connection

from ..records import Orphan, Reaped, Renewed, WorkerRecord
from .claims import loaded
from .ends import ENDED, Ends
from .statements import Statements

_DEAD = """
    UPDATE {worker} SET state = 'dead', ask = NULL WHERE id IN (
        SELECT id FROM {worker} WHERE state = 'alive' AND lease_until < {now} %s
    ) RETURNING id
"""
_RENEW = """
    UPDATE {worker} SET lease_until = {now} + :lease, info = :info
    WHERE id = :me AND state = 'alive' RETURNING ask
"""
# Which tasks are orphans is read first, with the epoch they have then, and the update
# tests both again. Without the epoch, PostgreSQL could take a task from the living: it
# tests an updated row again, but looks for its owner among the workers of the moment at
# which the statement began, when the new owner may not have joined yet.
_ORPHANS = """
    WITH orphan AS MATERIALIZED (
        SELECT id AS task_id, owner AS had, epoch AS at_epoch FROM {task} AS t
        WHERE t.owner IS NOT NULL AND t.finished IS NULL AND %s
        LIMIT :n
    )
    UPDATE {task} AS t {by_id} SET epoch = t.epoch + 1, lost = %s,
        state = CASE WHEN %s THEN 'waiting'
                     WHEN %s THEN 'cancelled'
                     WHEN t.guarantee = 'at_least_once' THEN 'failed'
                     ELSE 'interrupted' END,
        finished = CASE WHEN %s THEN NULL ELSE {now} END, owner = CASE WHEN %s THEN NULL
        ELSE t.owner END, error_class = CASE WHEN t.cancel = 1 OR %s THEN t.error_class
        ELSE :why_class END, error_text = CASE WHEN t.cancel = 1 OR %s THEN t.error_text
        ELSE :why_text END
    FROM orphan
    WHERE t.id = orphan.task_id AND t.owner = orphan.had
        AND t.epoch = orphan.at_epoch
        AND t.finished IS NULL
    RETURNING {ended}, uid, name, key, lost
"""
_NO_OWNER = """
    NOT EXISTS (SELECT 1 FROM {worker} AS w WHERE w.id = t.owner AND w.state = 'alive')
"""
_MINE = "t.owner = :me"
_UNKNOWN = "t.owner = :me AND t.claimed < {now} - :older AND NOT (%s)"
# A claim sets begun to NULL; a begin may not have been written before its worker died.
_LOST = """
    CASE WHEN t.guarantee <> 'at_least_once' THEN t.lost
         WHEN t.state = 'running' THEN t.lost + 1
         WHEN t.lost = 0 THEN :if_unknown ELSE t.lost END
"""
_BACK = """
    t.cancel = 0 AND (
        (t.guarantee = 'at_least_once'
            AND (t.state <> 'running' OR t.lost + 1 < :max_lost))
        OR (t.guarantee = 'at_most_once' AND t.state <> 'running'))
"""
# It was asked to stop, so it is not run again. What runs at most once may have ended.
_STOPPED = """
    t.cancel = 1 AND (t.guarantee = 'at_least_once' OR t.state <> 'running')
"""
_LIMIT = 500
_WHY = "WorkerLost", "Its worker died before the task had ended."


class Leases:
    """The statements about workers."""

    def __init__(self, sql: Statements, ends: Ends) -> None:
        self._sql = sql
        self._ends = ends
        self._join = sql.text(
            "INSERT INTO {worker} (id, state, lease_until, started, host, pid,"
            " code_version, info) VALUES (:me, 'alive', {now} + :lease, {now}, :host,"
            " :pid, :code_version, :info)"
        )
        self._renew = sql.text(_RENEW)
        # FOR NO KEY UPDATE excludes the FOR SHARE of a claim; see claims. A worker
        # whose row is locked is claiming or renewing, so it is not dead.
        lock = "" if sql.is_sqlite else "FOR NO KEY UPDATE SKIP LOCKED"
        self._dead = sql.text(_DEAD % lock)
        self._left = sql.text(
            "UPDATE {worker} SET state = 'left', lease_until = {now}, ask = NULL"
            " WHERE id = :me AND state = 'alive' RETURNING id"
        )
        self._orphans = self._settling(_NO_OWNER)
        self._mine = self._settling(_MINE)
        self._unknown = self._settling(_UNKNOWN % sql.among("t.id", "known", "int"))
        self._ask = sql.text(
            "UPDATE {worker} SET ask = :what, answer = NULL"
            " WHERE id = :worker AND state = 'alive' RETURNING id"
        )
        columns = ", ".join(field.name for field in fields(WorkerRecord))
        self._one = sql.text(f"SELECT {columns} FROM {{worker}} WHERE id = :id")
        # An answer may be long, and a list is read often.
        columns = columns.replace("answer", "NULL AS answer")
        listed = f"SELECT {columns} FROM {{worker}} %s ORDER BY started DESC LIMIT :n"
        self._alive = sql.text(listed % "WHERE state = 'alive'")
        self._all = sql.text(listed % "")
        self._answer = sql.text(
            "UPDATE {worker} SET answer = :answer, ask = NULL WHERE id = :me"
        )

    def _settling(self, which: str) -> t.Any:
        parts = (which, _LOST, _BACK, _STOPPED, _BACK, _BACK, _BACK, _BACK)
        return self._sql.text(_ORPHANS % parts, ended=ENDED)

    def join(self, db: Connection, me: str, lease: float, **facts: t.Any) -> None:
        """Register a worker."""
        facts["info"] = json.dumps(facts["info"])
        self._sql.run(db, self._join, me=me, lease=lease, **facts)

    def renew(
        self, db: Connection, me: str, lease: float, info: t.Any
    ) -> Renewed | None:
        """Renew a lease; None if the worker is dead."""
        rows = self._sql.run(db, self._renew, me=me, lease=lease, info=json.dumps(info))
        return Renewed(rows[0].ask) if rows else None

    def leave(self, db: Connection, me: str, max_lost: int) -> list[Orphan]:
        """End a lease, and hand back what the worker has."""
        if not self._sql.run(db, self._left, me=me):
            return []  # it was declared dead, which has handed back everything
        found: list[Orphan] = []
        # The worker itself says so: what is held has not begun.
        known: dict[str, t.Any] = {"me": me, "if_unknown": 0}
        while orphans := self._settle(db, self._mine, max_lost, **known):
            found += orphans
        return found

    def reap(self, db: Connection, max_lost: int) -> Reaped:
        """Declare workers dead whose lease is over, and take up what they had."""
        dead = [row.id for row in self._sql.run(db, self._dead)]
        return Reaped(dead, self._settle(db, self._orphans, max_lost))

    def reconcile(
        self,
        db: Connection,
        me: str,
        known: t.Iterable[int],
        older: float,
        max_lost: int,
    ) -> list[Orphan]:
        """Give up what is mine in the store, and unknown to me."""
        values: dict[str, t.Any] = {"me": me, "older": older}
        values["known"] = json.dumps([*known])
        return self._settle(db, self._unknown, max_lost, **values)

    def ask(self, db: Connection, worker: str, what: str) -> bool:
        """Ask a worker; False if it is not alive."""
        return bool(self._sql.run(db, self._ask, worker=worker, what=what))

    def answer(self, db: Connection, me: str, answer: str) -> None:
        """Answer."""
        self._sql.run(db, self._answer, me=me, answer=answer)

    def worker(self, db: Connection, id: str) -> WorkerRecord | None:
        """Return one worker, with its answer, or None."""
        rows = self._sql.run(db, self._one, id=id)
        return _worker(rows[0]) if rows else None

    def workers(self, db: Connection, alive: bool, limit: int) -> list[WorkerRecord]:
        """Return the workers, newest first, without their answers."""
        rows = self._sql.run(db, self._alive if alive else self._all, n=limit)
        return [*map(_worker, rows)]

    def _settle(
        self,
        db: Connection,
        statement: t.Any,
        max_lost: int,
        *,
        if_unknown: int = 1,
        **values: t.Any,
    ) -> list[Orphan]:
        why = {"why_class": _WHY[0], "why_text": _WHY[1]}
        values |= {"n": _LIMIT, "max_lost": max_lost, "if_unknown": if_unknown, **why}
        rows = self._sql.run(db, statement, **values)
        for row in rows:
            if row.begun is not None:
                self._ends.note_attempt(db, row, "lost", *_WHY)
        self._ends.ended(db, [row for row in rows if row.finished is not None])
        return [Orphan(row.uid, row.name, row.key, row.state, row.lost) for row in rows]


def _worker(row: t.Any) -> WorkerRecord:
    found = WorkerRecord(**row._mapping)
    return replace(found, info=loaded(found.info))
