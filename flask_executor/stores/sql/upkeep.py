"""Groups, periodic jobs, statistics, and keeping the tables small."""

from __future__ import annotations

import typing as t

from ..base import Outcome, Upkeep
from ..records import GroupRecord, NewTask, Schedule, Stat
from .groups import Groups
from .pruning import Pruning
from .schedules import Schedules, Tick
from .work import SqlWork


class SqlUpkeep(SqlWork, Upkeep):
    """What is not about single tasks."""

    def _prepare(self) -> None:
        super()._prepare()
        self._groups = Groups(self.sql)
        self._schedules = Schedules(self.sql, self._inserts)
        self._pruning = Pruning(self.sql)

    def open_group(self, name: str) -> int:
        """Make a group, and return its id."""
        return t.cast(int, self.wait(self._queue(self._groups.open, name, synced=True)))

    def close_group(self, id: int) -> None:
        """Note that no more members come."""
        self.wait(self._queue(self._groups.close, id, announced=True))

    def group(self, id: int) -> GroupRecord | None:
        """Return a group."""
        return self._read(lambda db: self._groups.get(db, id))

    def group_named(self, name: str) -> GroupRecord | None:
        """Return the newest group of this name."""
        return self._read(lambda db: self._groups.get(db, name))

    def groups(
        self, *, before: int | None = None, limit: int = 100
    ) -> list[GroupRecord]:
        """Return groups, newest first."""
        return self._read(lambda db: self._groups.page(db, before, limit))

    def pause(self, job: str) -> None:
        """Let nobody claim tasks of this job."""
        self._write_here(lambda db: self._schedules.pause(db, job))
        self.announce()

    def resume(self, job: str) -> None:
        """Let tasks of this job be claimed again."""
        self._write_here(lambda db: self._schedules.resume(db, job))
        self.announce()

    def schedule(
        self, job: str, spec: str, timezone: str | None, next: float | None
    ) -> None:
        """Store what a periodic job is, and when it is next due."""
        facts = {"job": job, "spec": spec, "timezone": timezone, "next": next}
        self._write_here(lambda db: self._schedules.schedule(db, **facts))

    def schedules(self) -> list[Schedule]:
        """Return the jobs that are periodic or paused, by name."""
        return self._read(self._schedules.list)

    def paused(self) -> list[str]:
        """Return the jobs that are paused, by name."""
        return self._read(self._schedules.paused)

    def tick(self, job: str, at: float, task: NewTask | None) -> Outcome | None:
        """Note a tick of a periodic job, and insert its task."""
        ticked = self._queue(
            self._schedules.tick, Tick(job, at, task), synced=True, announced=True
        )
        return t.cast("Outcome | None", self.wait(ticked))

    def forsake(self, jobs: t.Collection[str], *, older: float) -> int:
        """End waiting tasks of unknown jobs as failed; return how many."""
        forsaken = self._write_here(lambda db: self._queues.forsake(db, jobs, older))
        if forsaken:
            self.announce()
        return forsaken

    def prune(self, keep: t.Mapping[str, float | None], limit: int = 500) -> int:
        """Remove what has ended long ago; return how many tasks."""
        return self._write_here(lambda db: self._pruning.prune(db, keep, limit))

    def flush(self) -> None:
        """Write the statistics collected so far."""
        if rows := self._stats.take():
            self._queue(self._stats.add, rows)

    def stats(self, since: float, job: str | None = None) -> list[Stat]:
        """Return the statistics of the minutes since then, oldest first."""
        return self._read(lambda db: self._stats.read(db, since, job))

    def close(self, timeout: float | None = None) -> bool:
        """Write what is queued, and disconnect."""
        if self._is_ready:
            self.flush()
        return super().close(timeout)
