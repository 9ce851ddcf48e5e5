"""What is read: single tasks, pages of tasks, counts.

No query here looks at the whole table: each has an index whose order it follows, or
stops at a limit. Nothing is unpickled.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import fields

from sqlalchemy import Connection

from ..records import ENDS, OPEN, AttemptRecord, Record, Sealed, State
from .claims import loaded, sealed
from .schema import TROUBLED
from .statements import Statements

_JSON = frozenset({"meta", "source", "retry", "progress"})
_NAMES = tuple(field.name for field in fields(Record))
COLUMNS = ", ".join(_NAMES)
"""The columns of a record, in its order."""
_IN_TROUBLE = frozenset(ENDS) - {"succeeded"}
_STATES = {"waiting": ["waiting", "held"]}
"""Users see what is held as waiting."""
_FEW = ("retried_from", "request")
"""Filters that leave few tasks, whatever their states: nearly always."""
_MANY = 1000
"""So many are not few: then it depends on the state which index is the best."""
_SELECTIVE = ("parent", "group", "error")
"""Filters that leave fewer tasks than have succeeded."""
_FILTERS = {
    "job": "job = :job",
    "name": "name = :name",
    "error": "error_class = :error AND error_class IS NOT NULL",
    "group": "group_id = :group AND group_id IS NOT NULL",
    "parent": "parent = :parent AND parent IS NOT NULL",
    "request": "request = :request AND request IS NOT NULL",
    "retried_from": "retried_from = :retried_from AND retried_from IS NOT NULL",
    "before": "id < :before",
    "after": "id > :after",
}
# One index scan per state, each of which stops at the limit.
_COUNT = """
    SELECT '%s', (SELECT COUNT(*) FROM
        (SELECT 1 FROM {task} WHERE state = '%s' LIMIT :n) AS t)
"""
# No index has the tasks in the order of their waits; who was submitted first has waited
# longest, unless that one had a delay. So only the first of them are looked at.
_WAITS = """
    SELECT {now} - MIN(since) FROM (SELECT * FROM (%s) AS w UNION ALL
        SELECT * FROM (%s) AS h) AS t
"""
_WAIT = """
    SELECT CASE WHEN due > submitted THEN due ELSE submitted END AS since
    FROM {task} {by_state} WHERE state = '%s' ORDER BY id LIMIT :n
"""


class Lists:
    """The statements that read tasks."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        select = f"SELECT {COLUMNS} FROM {{task}} WHERE "
        self._one = {by: sql.text(f"{select}{by} = :value", _NAMES) for by in _BY}
        self._state = sql.text(
            "SELECT uid, state FROM {task} WHERE key = :value", ("uid", "state")
        )
        self._many = {
            by: sql.text(select + sql.among(by, "values", kind), _NAMES)
            for by, kind in _BY.items()
        }
        sealed = "SELECT format, data, signature FROM {%s} WHERE task_id = :id"
        self._sealed = {one: sql.text(sealed % one) for one in ("result", "payload")}
        each = (_COUNT % (state, state) for state in OPEN + ENDS)
        counts = " UNION ALL ".join(each)
        self._counts = sql.text(counts)
        self._count_ended = sql.text(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {task} {index} WHERE state = :state"
            " AND finished IS NOT NULL AND finished <= {now} - :older LIMIT :n) AS t",
            index=sql.indexed_by("task_ended"),
        )
        self._keys = sql.text("SELECT COUNT(*) FROM {task} WHERE key IS NOT NULL")
        self._ahead = sql.text(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {task} {ready} WHERE state = 'waiting'"
            " AND (priority > :priority OR (priority = :priority AND id < :id))"
            " LIMIT :n) AS t",
            ready=sql.indexed_by("task_ready"),
        )
        waits = _WAITS % (_WAIT % "waiting", _WAIT % "held")
        self._waits = sql.text(waits, by_state=sql.indexed_by("task_state"))
        self._attempts = sql.text(
            'SELECT number, begun, ended, "end", error_class, error_text FROM {attempt}'
            " WHERE task_id = :id ORDER BY number, ended"
        )

    def get(self, db: Connection, by: str, value: t.Any) -> Record | None:
        """Return one task, or None."""
        rows = self._sql.run(db, self._one[by], value=value)
        return record(rows[0]) if rows else None

    def state_of(self, db: Connection, key: str) -> tuple[str, State] | None:
        """Return the public id and the state of the task with that key, or None."""
        rows = self._sql.run(db, self._state, value=key)
        return (rows[0].uid, rows[0].state) if rows else None

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
        order = "" if "after" in given and "before" not in given else " DESC"
        hints = self._hints(db, state, given)
        text, values = self._pages(state, keyed, given, hints, order, COLUMNS)
        rows = self._sql.run(db, self._sql.text(text, _NAMES), limit=limit, **values)
        found = [record(row) for row in rows]
        return found if order else found[::-1]

    def count(
        self, db: Connection, state: str | None, limit: int, filters: dict[str, t.Any]
    ) -> int:
        """Return how many tasks a list would have, at most ``limit``."""
        given = {name: value for name, value in filters.items() if value is not None}
        hints = self._hints(db, state, given)
        text, values = self._pages(state, False, given, hints, " DESC", "id")
        statement = self._sql.text(f"SELECT COUNT(*) FROM ({text}) AS t")
        return t.cast(int, self._sql.run(db, statement, limit=limit, **values)[0][0])

    def _hints(
        self, db: Connection, state: str | None, given: dict[str, t.Any]
    ) -> set[str]:
        """Return the filters whose indexes may be used."""
        names = set(given)
        if state in (None, "succeeded") or not self._sql.is_sqlite:
            return names
        for name in names.intersection(_FEW):
            if self.count(db, None, _MANY, {name: given[name]}) >= _MANY:
                names.remove(name)
        return names

    def _pages(
        self,
        state: str | None,
        keyed: bool,
        given: dict[str, t.Any],
        hints: set[str],
        order: str,
        columns: str,
    ) -> tuple[str, dict[str, t.Any]]:
        """Return a statement for a page, and its values without the limit."""
        wanted = [_FILTERS[name] for name in given]
        wanted += ["key IS NOT NULL"] if keyed else []
        states = [] if state is None else _STATES.get(state, [state])
        # Each state by itself has its tasks in order; several would have to be sorted.
        pages = [
            self._page([*wanted, f"state = :state{number}"], hints, one, order)
            for number, one in enumerate(states)
        ] or [self._page(wanted, hints, None, order)]
        pages = [f"SELECT {columns} {page}" for page in pages]
        values = given | {f"state{number}": one for number, one in enumerate(states)}
        if len(pages) == 1:
            return pages[0], values
        both = " UNION ALL ".join(f"SELECT * FROM ({p}) AS p" for p in pages)
        text = f"SELECT * FROM ({both}) AS t ORDER BY id{order} LIMIT :limit"
        return text, values

    def _page(
        self, wanted: list[str], hints: set[str], state: str | None, order: str
    ) -> str:
        """Return what follows the columns, for a page of one state or of all."""
        index = _index(hints, state)
        wanted = [*wanted, TROUBLED] if index == "task_troubled" else wanted
        hint = self._sql.indexed_by(index) if index else ""
        where = " AND ".join(wanted) or "true"
        return f"FROM {{task}} {hint} WHERE {where} ORDER BY id{order} LIMIT :limit"

    def counts(self, db: Connection, limit: int) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""
        rows = self._sql.run(db, self._counts, n=limit)
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        found["waiting"] = min(limit, found["waiting"] + found.pop("held"))
        return found

    def count_ended(self, db: Connection, state: str, older: float, limit: int) -> int:
        """Return how many tasks ended in a state so many seconds ago, or earlier."""
        values = {"state": state, "older": older, "n": limit}
        return t.cast(int, self._sql.run(db, self._count_ended, None, **values)[0][0])

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

    def oldest_wait(self, db: Connection, limit: int) -> float | None:
        """Return the seconds for which the task has waited that waits longest."""
        found: float | None = self._sql.run(db, self._waits, n=limit)[0][0]
        return None if found is None else max(0.0, found)

    def attempts(self, db: Connection, id: int) -> list[AttemptRecord]:
        """Return the attempts of a task that did not succeed."""
        return [AttemptRecord(*row) for row in self._sql.run(db, self._attempts, id=id)]


def _index(given: set[str], state: str | None) -> str | None:
    """Return the index that leaves the fewest tasks to look at, or None if it is clear.

    Most tasks have succeeded, and few have any other state.
    """
    if few := [name for name in _FEW if name in given]:
        return f"task_{few[0]}"
    selective = [name for name in _SELECTIVE if name in given]
    if state is None or (selective and state != "succeeded"):
        return None
    if selective:
        return f"task_{selective[0]}"
    if state != "succeeded":
        is_troubled = state in _IN_TROUBLE and "job" in given
        return "task_troubled" if is_troubled else "task_state"
    return next((f"task_{name}" for name in ("job", "name") if name in given), None)


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
