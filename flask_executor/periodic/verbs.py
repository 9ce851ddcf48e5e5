"""The verbs of an executor that has periodic jobs."""

from __future__ import annotations

import typing as t
from datetime import timedelta
from zoneinfo import ZoneInfo

from ..jobs import ExecutorJob
from ..overrides import SeenBySubmit
from .cron import Cron
from .jobs import PeriodicJobs
from .planning import Planning
from .schedules import Every, Missed, Schedule

P = t.ParamSpec("P")
T = t.TypeVar("T")


class HasPeriodicJobs(SeenBySubmit):
    """An executor that also submits jobs by itself, when they are due."""

    _planning: Planning

    def cron(
        self,
        expression: str,
        *,
        timezone: str | ZoneInfo = "UTC",
        missed: Missed = "latest",
        jitter: float | timedelta = 0.0,
    ) -> t.Callable[[t.Callable[P, T]], ExecutorJob[P, T]]:
        """Declare a job, or a function, that runs at the times of a cron expression.

        It needs no arguments. Each process that serves submits it at its times, in an
        app context without a request. It can be declared before :meth:`init_app`.

        :param expression: minute, hour, day of month, month and day of week, as in
            ``'*/5 * * * *'``, or a name such as ``'@daily'``.
        :param timezone: the zone whose clock counts, by name or as a ZoneInfo.
        :param missed: what to do about ticks that are noticed too late: run for the
            ``'latest'`` of them, for ``'all'``, or ``'skip'`` them.
        :param jitter: seconds or a timedelta; each task starts up to so much later.
        :return: the job.
        :raises InvalidSchedule: a :exc:`ValueError`, if a value is not understood.
        :raises PeriodicNotInstalled: an :exc:`ImportError`, if croniter is missing.
        """
        return self._at(Cron(expression, timezone), missed, jitter)

    def every(
        self,
        interval: float | timedelta,
        *,
        missed: Missed = "latest",
        jitter: float | timedelta = 0.0,
    ) -> t.Callable[[t.Callable[P, T]], ExecutorJob[P, T]]:
        """Declare a job, or a function, that runs every so many seconds.

        The seconds count from 1970 on, in UTC: ``every(3600)`` runs at each full hour,
        in all processes. For the rest see :meth:`cron`.

        :param interval: seconds above 0, or a timedelta.
        :raises InvalidSchedule: a :exc:`ValueError`, if a value is not understood.
        """
        return self._at(Every.of(interval), missed, jitter)

    @property
    def periodic(self) -> PeriodicJobs:
        """The periodic jobs of the current app."""
        return self._planning.jobs(t.cast(t.Any, self)._state().dispatcher)

    def _at(
        self, schedule: Schedule, missed: object, jitter: object
    ) -> t.Callable[[t.Callable[P, T]], ExecutorJob[P, T]]:
        def declare(fn: t.Callable[P, T]) -> ExecutorJob[P, T]:
            given: t.Any = fn
            is_job = type(given) is ExecutorJob
            job = given if is_job else t.cast(t.Any, self).job(given)
            self._planning.declare(job, schedule, missed, jitter)
            return t.cast("ExecutorJob[P, T]", job)

        return declare
