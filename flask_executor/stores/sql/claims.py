"""Claiming waiting tasks, and beginning them.

Two promises: no task is claimed by two, and no task goes to a worker that is dead.

**PostgreSQL.** The worker's own row is locked first, ``FOR SHARE``. The reaper locks
the rows of those it declares dead ``FOR NO KEY UPDATE``, which excludes that: either
the reaper passes over this worker, or the claim waits, and then finds it dead. With
``FOR KEY SHARE`` neither waits for the other, and a task ends up with a dead owner.
Then tasks are locked, passing over those that others are claiming. Both are
``MATERIALIZED``: a plain subquery may run again for each row, and exceed the limit.

**SQLite.** A transaction that writes is alone; one statement is enough.

**Begin.** If its worker is declared dead at the same moment, one of the two is first
for the row of the task. If the reaper is first, the epoch has changed and nothing
begins. If the begin is first, the reaper finds that it has begun.
"""

from __future__ import annotations

import json
import typing as t

from sqlalchemy import Connection

from ..records import Begun, Claimed, Fence, Sealed
from .statements import Statements

_READY = """
    SELECT id FROM {task} {ready}
    WHERE state = 'waiting' AND %s AND %s AND %s
        AND job NOT IN (SELECT job FROM {schedule} WHERE paused)
    ORDER BY priority DESC, id LIMIT :n
"""
_CLAIMED = (
    "state = 'held', owner = :me, epoch = epoch + 1, claimed = {now}, begun = NULL"
)
POSTGRESQL = """
    WITH me AS MATERIALIZED (
        SELECT id FROM {worker} WHERE id = :me AND state = 'alive' FOR SHARE
    ), ready AS MATERIALIZED (
        %s FOR NO KEY UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE {task} AS t SET %s FROM ready WHERE t.id = ready.id RETURNING t.*
    )
    SELECT c.*, p.format, p.data, p.signature
    FROM claimed AS c LEFT JOIN {payload} AS p ON p.task_id = c.id
    ORDER BY c.priority DESC, c.id
"""
SQLITE = "UPDATE {task} SET %s WHERE id IN (%s) RETURNING id"
_SQLITE_ROWS = """
    SELECT t.*, p.format, p.data, p.signature
    FROM {task} AS t LEFT JOIN {payload} AS p ON p.task_id = t.id
    WHERE %s ORDER BY t.priority DESC, t.id
"""
# What has an owner and has not begun; an ephemeral task stays with its owner when it is
# delayed, or waits for its next attempt.
_BEGIN = """
    UPDATE {task} AS t {by_id} SET state = 'running', begun = {now}, attempt = t.attempt
    + 1,
        progress = NULL
    FROM %s
    WHERE t.id = g.task_id AND t.owner = g.held_by AND t.epoch = g.at_epoch
        AND t.state IN ('held', 'delayed', 'retrying') AND t.cancel = 0
        AND EXISTS (SELECT 1 FROM {worker} AS w
                    WHERE w.id = g.held_by AND w.state = 'alive')
    RETURNING id, attempt, begun
"""
FENCE = {"task_id": "int", "held_by": "text", "at_epoch": "int"}
"""The columns of a fence in ``{given}``."""


class ClaimRequest(t.NamedTuple):
    """Who wants to claim what."""

    me: str
    jobs: tuple[str, ...]
    limit: int
    only: tuple[str, ...] | None = None


class Claims:
    """The statements that give tasks to workers."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        self._rows = sql.text(_SQLITE_ROWS % sql.among("t.id", "ids", "int"))
        self._claim = self._claiming("TRUE", sql.indexed_by("task_ready"))
        self._claim_only = self._claiming(sql.among("uid", "only"), "")
        self._begin = sql.text(_BEGIN % sql.given(**FENCE))

    def _claiming(self, which: str, index: str) -> t.Any:
        """Return the statement that claims some of the waiting tasks."""
        known = self._sql.among("job", "known")
        if self._sql.is_sqlite:
            is_alive = (
                "EXISTS (SELECT 1 FROM {worker} WHERE id = :me AND state = 'alive')"
            )
            statement = SQLITE % (_CLAIMED, _READY % (known, which, is_alive))
        else:
            ready = _READY % (known, which, "EXISTS (SELECT 1 FROM me)")
            claimed = _CLAIMED.replace("= epoch", "= t.epoch")
            statement = POSTGRESQL % (ready, claimed)
        return self._sql.text(statement, ready=index)

    def claim(
        self, db: Connection, requests: t.Sequence[ClaimRequest]
    ) -> list[list[Claimed]]:
        """Claim tasks for each request in turn."""
        return [self._claim_one(db, request) for request in requests]

    def _claim_one(self, db: Connection, request: ClaimRequest) -> list[Claimed]:
        values: dict[str, t.Any] = {"me": request.me, "n": request.limit}
        values["known"] = json.dumps(request.jobs)
        statement = self._claim
        if request.only is not None:
            statement, values["only"] = self._claim_only, json.dumps(request.only)
        rows = self._sql.run(db, statement, **values)
        if self._sql.is_sqlite and rows:
            ids = json.dumps([row.id for row in rows])
            rows = self._sql.run(db, self._rows, ids=ids)
        return [_claimed(row) for row in rows]

    def begin(self, db: Connection, fences: t.Sequence[Fence]) -> list[Begun | None]:
        """Begin attempts; None for each that must not begin."""
        begun = self._sql.run(db, self._begin, [fence_row(fence) for fence in fences])
        by_id = {row.id: Begun(row.attempt, row.begun) for row in begun}
        return [by_id.get(fence.id) for fence in fences]


def fence_row(fence: Fence, **more: t.Any) -> dict[str, t.Any]:
    """Return a fence as a row of ``{given}``."""
    return {
        "task_id": fence.id,
        "held_by": fence.owner,
        "at_epoch": fence.epoch,
        **more,
    }


def _claimed(row: t.Any) -> Claimed:
    return Claimed(
        fence=Fence(row.id, row.owner, row.epoch),
        uid=row.uid,
        name=row.name,
        job=row.job,
        key=row.key,
        guarantee=row.guarantee,
        meta=loaded(row.meta),
        priority=row.priority,
        attempt=row.attempt,
        lost=row.lost,
        timeout=row.timeout,
        retry=loaded(row.retry),
        submitted=row.submitted,
        due=row.due,
        parent=row.parent,
        source=loaded(row.source),
        request=row.request,
        group_id=row.group_id,
        code_version=row.code_version,
        payload=sealed(row),
    )


def loaded(text: str | None) -> t.Any:
    """Return the JSON value of a column; None if it is damaged.

    One row that somebody has damaged must not be in the way of all others.
    """
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def sealed(row: t.Any) -> Sealed | None:
    """Return the payload or the result that a row has, or None."""
    if row.format is None:
        return None
    return Sealed(row.format, bytes(row.data), bytes(row.signature))
