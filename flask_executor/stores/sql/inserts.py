"""Inserting tasks: each key and each unique task once.

An insert never looks first. The unique indexes decide: ``ON CONFLICT DO NOTHING`` waits
for a transaction that is inserting the same, and inserts nothing if that commits. Only
then do we read who was first. That one may have ended meanwhile, so it is tried again.
"""

from __future__ import annotations

import json
import typing as t

from sqlalchemy import Connection

from ..records import Fence, Inserted, NewTask, Taken
from .ends import ENDED, Ends
from .statements import Statements

_COLUMNS = {
    "uid": "text",
    "key": "text",
    "job": "text",
    "name": "text",
    "meta": "text",
    "guarantee": "text",
    "priority": "int",
    "owner": "text",
    "parent": "text",
    "source": "text",
    "request": "text",
    "timeout": "real",
    "retry": "text",
    "unique_key": "text",
    "group_id": "int",
    "code_version": "text",
    "retried_from": "text",
}
_JSON = ("meta", "source", "retry")
_TRIES = 10
"""How often an insert is tried while those in its way end."""

_SELECT = """
    SELECT {columns}, COALESCE(g.due, {now} + g.delay),
        CASE WHEN COALESCE(g.due, {now} + g.delay) > {now} THEN 'delayed'
             WHEN g.owner IS NOT NULL THEN 'held' ELSE 'waiting' END,
        CASE WHEN g.owner IS NULL THEN 0 ELSE 1 END,
        CASE WHEN g.owner IS NULL THEN NULL ELSE {now} END, {now}
    FROM {given} {order}
"""
_TASK = """
    INSERT INTO {task} ({names}, due, state, epoch, claimed, submitted)
    {select}
    ON CONFLICT DO NOTHING RETURNING id, uid
"""
# One statement, so that it is one trip to the server.
_POSTGRESQL = """
    WITH added AS (%s),
    kept AS (
        INSERT INTO {payload} (task_id, format, data, signature)
        SELECT a.id, p.format, p.data, p.signature FROM added AS a
        JOIN unnest(CAST(:uids AS text[]), CAST(:formats AS text[]),
                    CAST(:datas AS bytea[]), CAST(:signatures AS bytea[]))
            AS p(uid, format, data, signature) ON p.uid = a.uid
    )
    SELECT id, uid FROM added
"""


class Inserts:
    """The statements that insert tasks."""

    def __init__(self, sql: Statements, ends: Ends) -> None:
        self._sql = sql
        self._ends = ends
        given = sql.given(n="int", delay="real", due="real", **_COLUMNS)
        # In the order in which they came: the id says who was first. (SQLite needs a
        # clause between a table and ON CONFLICT; a JSON list has its order.)
        order = "WHERE true" if sql.is_sqlite else "ORDER BY g.n"
        columns = ", ".join(f"g.{name}" for name in _COLUMNS)
        select = _SELECT.format(columns=columns, given=given, order=order, now="{now}")
        names = ", ".join(_COLUMNS)
        whole = _TASK.replace("{select}", select).replace("{names}", names)
        self._insert = sql.text(whole if sql.is_sqlite else _POSTGRESQL % whole)
        self._payload = sql.text(
            "INSERT INTO {payload} (task_id, format, data, signature)"
            " VALUES (:task_id, :format, :data, :signature)"
        )
        columns = "id, uid, key, state, owner, epoch"
        find = f"SELECT {columns} FROM {{task}} WHERE "
        self._by_uid = sql.text(find + "uid = :uid")
        self._by_key = sql.text(find + "key = :key")
        open_one = "unique_key = :unique_key AND finished IS NULL"
        self._by_unique = sql.text(find + open_one)
        # Nobody has it. Who claims it now waits for this, and finds it cancelled.
        self._replace = sql.text(
            "UPDATE {task} SET state = 'cancelled', finished = {now}, cancel = 1"
            f" WHERE {open_one} AND owner IS NULL RETURNING {ENDED}"
        )
        self._free_key = sql.text(
            "UPDATE {task} SET key = NULL WHERE uid = :retried_from AND key = :key"
            " AND finished IS NOT NULL RETURNING id"
        )
        self._give_back_key = sql.text("UPDATE {task} SET key = :key WHERE uid = :uid")
        self._joined = sql.text(
            "UPDATE {grp} SET total = total + :n WHERE id = :group_id"
        )

    def insert(
        self, db: Connection, tasks: t.Sequence[NewTask]
    ) -> list[Inserted | Taken]:
        """Insert tasks; return for each what became of it, in order."""
        freed = [task for task in tasks if task.retried_from and self._frees(db, task)]
        found = self._insert_all(db, tasks)
        for task in freed:
            if isinstance(found[task.uid], Taken):
                values = {"key": task.key, "uid": task.retried_from}
                self._sql.run(db, self._give_back_key, None, **values)
        return [found[task.uid] for task in tasks]

    def _frees(self, db: Connection, task: NewTask) -> bool:
        """Return True if the task that is run again had its key until now."""
        # Of two that do so at once, the second waits, and finds that key taken.
        values = {"key": task.key, "retried_from": task.retried_from}
        return bool(self._sql.run(db, self._free_key, None, **values))

    def _insert_all(
        self, db: Connection, tasks: t.Sequence[NewTask]
    ) -> dict[str, Inserted | Taken]:
        found: dict[str, Inserted | Taken] = {}
        for _ in range(_TRIES):
            left = [task for task in tasks if task.uid not in found]
            if not left:
                return found
            ids = self._try(db, left)
            for task in left:
                if task.uid in ids:
                    found[task.uid] = _inserted(ids[task.uid], task)
                elif (holder := self._holder(db, task)) is not None:
                    found[task.uid] = holder
        raise RuntimeError(
            f"{left[0].name} could not be inserted: who has its key or its place is not"
            " visible in this transaction; use READ COMMITTED."
        )

    def _try(self, db: Connection, tasks: t.Sequence[NewTask]) -> dict[str, int]:
        """Insert what nothing prevents; return the ids by uid."""
        rows = [_row(number, task) for number, task in enumerate(tasks)]
        values = {} if self._sql.is_sqlite else _payload_columns(tasks)
        inserted = self._sql.run(db, self._insert, rows, **values)
        ids: dict[str, int] = {row.uid: row.id for row in inserted}
        there = [task for task in tasks if task.uid in ids]
        if self._sql.is_sqlite:
            payloads = [
                {"task_id": ids[task.uid], **task.payload._asdict()}
                for task in there
                if task.payload is not None
            ]
            if payloads:
                self._sql.run_for_each(db, self._payload, payloads)
        self._count(db, there)
        return ids

    def _count(self, db: Connection, tasks: t.Iterable[NewTask]) -> None:
        totals: dict[int, int] = {}
        for task in tasks:
            if task.group_id is not None:
                totals[task.group_id] = totals.get(task.group_id, 0) + 1
        # In one order everywhere: two transactions must not wait for each other.
        for group_id in sorted(totals):
            self._sql.run(db, self._joined, n=totals[group_id], group_id=group_id)

    def _holder(self, db: Connection, task: NewTask) -> Inserted | Taken | None:
        """Return what is there instead of a task; None if that has ended meanwhile."""
        for row in self._sql.run(db, self._by_uid, uid=task.uid):
            owner = row.owner if row.owner == task.owner else None
            return Inserted(row.id, owner and Fence(row.id, owner, row.epoch))
        if task.key is not None:
            for row in self._sql.run(db, self._by_key, key=task.key):
                return Taken("key", row.uid, row.key, row.state)
        if task.unique_key is not None:
            return self._unique_holder(db, task)
        return None

    def _unique_holder(self, db: Connection, task: NewTask) -> Taken | None:
        which: dict[str, t.Any] = {"unique_key": task.unique_key}
        if task.replace and (replaced := self._sql.run(db, self._replace, **which)):
            self._ends.ended(db, replaced)
            return None
        for row in self._sql.run(db, self._by_unique, **which):
            return Taken("unique", row.uid, row.key, row.state)
        return None


def _row(number: int, task: NewTask) -> dict[str, t.Any]:
    row = {name: getattr(task, name) for name in _COLUMNS}
    for name in _JSON:
        if row[name] is not None:
            row[name] = json.dumps(row[name])
    return row | {"n": number, "delay": task.delay, "due": task.due}


def _payload_columns(tasks: t.Iterable[NewTask]) -> dict[str, list[t.Any]]:
    """Return the payloads as PostgreSQL takes them: a list for each column."""
    sealed = [(task.uid, *task.payload) for task in tasks if task.payload is not None]
    names = "uids", "formats", "datas", "signatures"
    return {name: [row[n] for row in sealed] for n, name in enumerate(names)}


def _inserted(id: int, task: NewTask) -> Inserted:
    return Inserted(id, None if task.owner is None else Fence(id, task.owner, 1))
