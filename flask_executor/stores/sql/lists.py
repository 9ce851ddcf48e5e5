"""What is read: single tasks, pages of tasks, counts.

No query here looks at the whole table: each has an index whose order it follows, or
stops at a limit. Nothing is unpickled.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import fields

from sqlalchemy import Connection

from ..records import OPEN, AttemptRecord, Record, Sealed
from .claims import loaded, sealed
from .schema import TROUBLED
from .statements import Statements

_JSON = frozenset({"meta", "source", "retry", "progress"})
_NAMES = tuple(field.name for field in fields(Record))
COLUMNS = ", ".join(_NAMES)
"""The columns of a record, in its order."""
_IN_TROUBLE = frozenset({"failed", "timed_out", "interrupted", "cancelled"})
_STATES = {"waiting": "('waiting', 'held')"}
"""Users see what is held as waiting."""
_FILTERS = {
    "job": "job = :job",
    "name": "name = :name",
    "error": "error_class = :error AND error_class IS NOT NULL",
    "group": "group_id = :group AND group_id IS NOT NULL",
    "parent": "parent = :parent AND parent IS NOT NULL",
    "before": "id < :before",
    "after": "id > :after",
}
# One index scan per state, each of which stops at the limit.
_COUNT = """
    SELECT '%s', (SELECT COUNT(*) FROM
        (SELECT 1 FROM {task} WHERE state = '%s' LIMIT :n) AS t)
"""
_ENDED = "'succeeded', 'failed', 'timed_out', 'cancelled', 'interrupted'"


class Lists:
    """The statements that read tasks."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        select = f"SELECT {COLUMNS} FROM {{task}} WHERE "
        self._select = select
        self._one = {by: sql.text(f"{select}{by} = :value") for by in _BY}
        self._many = {
            by: sql.text(select + sql.among(by, "values", kind))
            for by, kind in _BY.items()
        }
        sealed = "SELECT format, data, signature FROM {%s} WHERE task_id = :id"
        self._sealed = {one: sql.text(sealed % one) for one in ("result", "payload")}
        states = OPEN + tuple(_ENDED.replace("'", "").split(", "))
        counts = " UNION ALL ".join(_COUNT % (state, state) for state in states)
        self._counts = sql.text(counts)
        self._keys = sql.text("SELECT COUNT(*) FROM {task} WHERE key IS NOT NULL")
        self._ahead = sql.text(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {task} WHERE state = 'waiting' AND"
            " (priority > :priority OR (priority = :priority AND id < :id)) LIMIT :n)"
            " AS t"
        )
        self._attempts = sql.text(
            'SELECT number, begun, ended, "end", error_class FROM {attempt}'
            " WHERE task_id = :id ORDER BY number, ended"
        )

    def get(self, db: Connection, by: str, value: t.Any) -> Record | None:
        """Return one task, or None."""
        rows = self._sql.run(db, self._one[by], value=value)
        return record(rows[0]) if rows else None

    def get_many(
        self, db: Connection, by: str, values: t.Collection[t.Any]
    ) -> list[Record]:
        """Return those of these tasks that are there."""
        rows = self._sql.run(db, self._many[by], values=json.dumps([*values]))
        return [record(row) for row in rows]

    def sealed(self, db: Connection, which: str, id: int) -> Sealed | None:
        """Return the payload or the result of a task, or None."""
        rows = self._sql.run(db, self._sealed[which], id=id)
        return sealed(rows[0]) if rows else None

    def tasks(
        self,
        db: Connection,
        state: str | None,
        keyed: bool,
        limit: int,
        filters: dict[str, t.Any],
    ) -> list[Record]:
        """Return a page of tasks, newest first."""
        given = {name: value for name, value in filters.items() if value is not None}
        wanted = [_FILTERS[name] for name in given]
        wanted += ["key IS NOT NULL"] if keyed else []
        if state is not None:
            wanted.append(f"state IN {_STATES.get(state, '(:state)')}")
            given["state"] = state
            # For the index of failures, which SQLite recognizes by these words alone.
            wanted += [TROUBLED] if state in _IN_TROUBLE and "job" in given else []
        order = "" if "after" in given and "before" not in given else " DESC"
        text = self._select + (" AND ".join(wanted) or "true")
        statement = self._sql.text(f"{text} ORDER BY id{order} LIMIT :limit")
        rows = self._sql.run(db, statement, limit=limit, **given)
        found = [record(row) for row in rows]
        return found if order else found[::-1]

    def counts(self, db: Connection, limit: int) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""
        rows = self._sql.run(db, self._counts, n=limit)
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        found["waiting"] = min(limit, found["waiting"] + found.pop("held"))
        return found

    def count_keys(self, db: Connection) -> int:
        """Return how many tasks have a key."""
        return t.cast(int, self._sql.run(db, self._keys)[0][0])

    def ahead(self, db: Connection, id: int, limit: int) -> int:
        """Return how many waiting tasks come before this one."""
        task = self.get(db, "id", id)
        if task is None:
            return 0
        values = {"priority": task.priority, "id": id, "n": limit}
        return t.cast(int, self._sql.run(db, self._ahead, None, **values)[0][0])

    def attempts(self, db: Connection, id: int) -> list[AttemptRecord]:
        """Return the attempts of a task that did not succeed."""
        return [AttemptRecord(*row) for row in self._sql.run(db, self._attempts, id=id)]


_BY = {"id": "int", "uid": "text", "key": "text"}


def record(row: t.Any) -> Record:
    """Return a row of :data:`COLUMNS` as a record."""
    values = dict(zip(_NAMES, row, strict=True))
    for name in _JSON:
        values[name] = loaded(values[name])
    if values["state"] == "held":
        values["state"] = "waiting"
    values["cancel"] = bool(values["cancel"])
    return Record(**values)
