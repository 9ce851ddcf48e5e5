"""Groups: their members are counted where members are inserted and end."""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection

from ..records import GroupRecord
from .statements import Statements

_ABOVE_ALL = 2**63 - 1


class Groups:
    """The statements about groups."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        self._open = sql.text(
            "INSERT INTO {grp} (name, opened) VALUES (:name, {now}) RETURNING id"
        )
        self._close = sql.text("UPDATE {grp} SET closed = 1 WHERE id = :id")
        columns = "id, name, total, done, failed, closed, opened"
        select = f"SELECT {columns} FROM {{grp}} WHERE "
        self._by_id = sql.text(f"{select} id = :value")
        self._by_name = sql.text(f"{select} name = :value ORDER BY id DESC LIMIT 1")
        self._page = sql.text(f"{select} id < :before ORDER BY id DESC LIMIT :n")

    def open(self, db: Connection, names: t.Sequence[str]) -> list[int]:
        """Make groups; return their ids."""
        return [self._sql.run(db, self._open, name=name)[0].id for name in names]

    def close(self, db: Connection, ids: t.Sequence[int]) -> list[None]:
        """Note that no more members come."""
        for id in ids:
            self._sql.run(db, self._close, id=id)
        return [None] * len(ids)

    def get(self, db: Connection, value: int | str) -> GroupRecord | None:
        """Return a group by its id, or the newest of a name."""
        statement = self._by_name if isinstance(value, str) else self._by_id
        rows = self._sql.run(db, statement, value=value)
        return _record(rows[0]) if rows else None

    def page(self, db: Connection, before: int | None, limit: int) -> list[GroupRecord]:
        """Return groups, newest first."""
        values = {"before": _ABOVE_ALL if before is None else before, "n": limit}
        return [*map(_record, self._sql.run(db, self._page, None, **values))]


def _record(row: t.Any) -> GroupRecord:
    found = GroupRecord(*row)
    return found._replace(closed=bool(found.closed))
