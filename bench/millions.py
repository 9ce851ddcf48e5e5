"""A store in which a million tasks have ended."""

from __future__ import annotations

import typing as t
from concurrent.futures import wait

COUNT = 1_000_000
STEP = 50_000
"""How many are added in one transaction: the leases of workers must be renewed."""
TABLE = "executor_task"
REQUEST = "request-"
"""How the ids of requests begin; each has started 500 tasks."""
_COPY = """
    WITH RECURSIVE number(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < :step)
    INSERT INTO executor_task ({columns})
    SELECT {values} FROM executor_task, number WHERE executor_task.uid = :uid
"""


def fill(one: t.Any) -> None:
    """Add a million copies of a task that has ended.

    :param one: submits a task to a store.
    """
    from sqlalchemy import text

    future = one.submit()
    one.executor.cancel(future.task.id)
    wait([future])  # what has no end yet could be taken up again
    engine = one.executor._state().dispatcher.node.store.database.engine
    copy = text(_copy_of(engine))
    for there in range(0, COUNT, STEP):
        given = {"uid": future.task.id, "step": STEP, "there": there}
        with engine.begin() as db:
            db.execute(copy, given)
    with engine.begin() as db:
        db.execute(text("ANALYZE"))


def _copy_of(engine: t.Any) -> str:
    from sqlalchemy import inspect

    columns = [one["name"] for one in inspect(engine).get_columns(TABLE)]
    columns.remove("id")
    own = {"uid": "'copy ' || (i + :there)", "state": "'succeeded'"}
    own["request"] = f"'{REQUEST}' || ((i + :there) / 500)"
    values = [own.get(column, column) for column in columns]
    return _COPY.format(columns=", ".join(columns), values=", ".join(values))
