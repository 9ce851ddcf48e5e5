"""Tasks that wait for a process that runs them: for the command line and for pages."""

from __future__ import annotations

import typing as t

from .verbs.records import TaskRecord, WorkerInfo

LOOKED_AT = 100
"""How many of the newest tasks that wait are looked at."""


class Unclaimed(t.NamedTuple):
    """What waits, and no process has it."""

    tasks: int
    """How many tasks these are."""
    runners: int
    """How many processes run saved tasks."""
    unknown: list[str]
    """Their jobs that none of these processes knows."""

    @classmethod
    def of(cls, executor: t.Any, workers: t.Sequence[WorkerInfo]) -> Unclaimed:
        """Look for it.

        :param executor: one with a store.
        :param workers: the processes that are alive.
        :raises StoreUnavailable: if the database is away.
        """
        waiting: list[TaskRecord] = executor.tasks(state="waiting", limit=LOOKED_AT)
        loose = [task for task in waiting if task.worker is None]
        runners = [worker for worker in workers if worker.runs]
        known = {job for worker in runners for job in worker.jobs}
        unknown = {task.job or task.name for task in loose} - known
        return cls(len(loose), len(runners), sorted(unknown))
