"""A store in which a million tasks have ended."""

from __future__ import annotations

import typing as t

COUNT = 1_000_000
_COPY = """
    WITH RECURSIVE number(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < :count)
    INSERT INTO executor_task ({columns})
    SELECT {values} FROM executor_task, number WHERE executor_task.uid = :uid
"""


def fill(one: t.Any) -> None:
    """Add a million copies of a task that has ended.

    :param one: submits a task to a store.
    """
    from sqlalchemy import inspect, text

    uid = one.submit().task.id
    one.executor.cancel(uid)
    database = one.executor._state().dispatcher.node.store.database
    columns = [one["name"] for one in inspect(database.engine).get_columns(TABLE)]
    columns.remove("id")
    own = {"uid": "'copy ' || i", "state": "'succeeded'"}
    own["request"] = f"'{REQUEST}' || (i / 500)"
    values = [own.get(column, column) for column in columns]
    copy = _COPY.format(columns=", ".join(columns), values=", ".join(values))
    with database.engine.begin() as db:
        db.execute(text(copy), {"count": COUNT, "uid": uid})
        db.execute(text("ANALYZE"))


TABLE = "executor_task"
REQUEST = "request-"
"""How the ids of requests begin; each has started 500 tasks."""
