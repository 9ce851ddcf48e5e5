"""Periodic jobs: each tick once; and jobs that are paused.

A tick is a row with a unique key. Only the transaction that inserts it makes the task
of the tick, and both commit together: whatever is killed, there are both or neither.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection

from ..base import Outcome
from ..records import Inserted, NewTask, Schedule
from .inserts import Inserts
from .statements import Statements

TICK = """
    INSERT INTO {tick} (job, at) VALUES (:job, :at) ON CONFLICT DO NOTHING
    RETURNING job
"""
_SCHEDULE = """
    INSERT INTO {schedule} (job, spec, timezone, next, paused)
    VALUES (:job, :spec, :timezone, :next, FALSE)
    ON CONFLICT (job) DO UPDATE SET spec = excluded.spec,
        timezone = excluded.timezone, next = excluded.next
"""
_LIST = """
    SELECT job, spec, timezone, paused, next,
        (SELECT MAX(at) FROM {tick} AS k WHERE k.job = s.job) AS last
    FROM {schedule} AS s WHERE spec IS NOT NULL OR paused ORDER BY job
"""


class Tick(t.NamedTuple):
    """A tick of a job, and its task."""

    job: str
    at: float
    task: NewTask | None


class Schedules:
    """The statements about periodic and paused jobs."""

    def __init__(self, sql: Statements, inserts: Inserts) -> None:
        self._sql = sql
        self._inserts = inserts
        self._tick = sql.text(TICK)
        self._ticked = sql.text(
            "UPDATE {tick} SET task_id = :task_id WHERE job = :job AND at = :at"
        )
        self._pause = sql.text(
            "INSERT INTO {schedule} (job, paused) VALUES (:job, TRUE)"
            " ON CONFLICT (job) DO UPDATE SET paused = TRUE"
        )
        self._resume = sql.text("UPDATE {schedule} SET paused = FALSE WHERE job = :job")
        self._schedule = sql.text(_SCHEDULE)
        self._list = sql.text(_LIST)
        self._paused = sql.text("SELECT job FROM {schedule} WHERE paused ORDER BY job")

    def tick(self, db: Connection, ticks: t.Sequence[Tick]) -> list[Outcome | None]:
        """Note ticks, and insert their tasks; None for those noted before."""
        return [self._tick_once(db, tick) for tick in ticks]

    def _tick_once(self, db: Connection, tick: Tick) -> Outcome | None:
        if not self._sql.run(db, self._tick, job=tick.job, at=tick.at):
            return None
        if tick.task is None:
            return None
        [outcome] = self._inserts.insert(db, [tick.task])
        if isinstance(outcome, Inserted):
            values = {"task_id": outcome.id, "job": tick.job, "at": tick.at}
            self._sql.run(db, self._ticked, None, **values)
        return outcome

    def pause(self, db: Connection, job: str) -> None:
        """Let nobody claim tasks of this job."""
        self._sql.run(db, self._pause, job=job)

    def resume(self, db: Connection, job: str) -> None:
        """Let tasks of this job be claimed again."""
        self._sql.run(db, self._resume, job=job)

    def paused(self, db: Connection) -> list[str]:
        """Return the jobs that are paused."""
        return [row.job for row in self._sql.run(db, self._paused)]

    def schedule(self, db: Connection, **facts: t.Any) -> None:
        """Store what a periodic job is."""
        self._sql.run(db, self._schedule, **facts)

    def list(self, db: Connection) -> list[Schedule]:
        """Return the jobs that are periodic or paused."""
        rows = self._sql.run(db, self._list)
        return [Schedule(r[0], r[1], r[2], bool(r[3]), r[4], r[5]) for r in rows]
