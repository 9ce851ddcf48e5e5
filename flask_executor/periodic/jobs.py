"""What people hold: the periodic jobs of an executor for one app."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

from ..futures import TaskFuture
from ..jobs import ExecutorJob
from .plans import Plan
from .runner import Runner
from .ticks import Ticks


class PeriodicJob:
    """A job that runs at its times; :attr:`.Executor.periodic` has them.

    .. versionadded:: 2.0
    """

    def __init__(self, plan: Plan, runner: Runner) -> None:
        self._plan = plan
        self._runner = runner

    @property
    def name(self) -> str:
        """Its name: that of the job, or the one in the config."""
        return self._plan.name

    @property
    def job(self) -> ExecutorJob[..., t.Any]:
        """The job that runs."""
        return self._plan.job

    @property
    def schedule(self) -> str:
        """When it runs, as text for people."""
        return str(self._plan.schedule)

    @property
    def missed(self) -> str:
        """What happens to missed ticks: ``'latest'``, ``'all'`` or ``'skip'``."""
        return self._plan.missed

    @property
    def jitter(self) -> float:
        """The most seconds by which a task starts later than its tick."""
        return self._plan.jitter

    @property
    def last(self) -> datetime | None:
        """The last tick whose task was submitted, in UTC, or None.

        Without a store it is the last one of this process.
        """
        return _moment(self._ticks.last(self.name))

    @property
    def next(self) -> datetime | None:
        """The next tick, in UTC; None while the job is paused."""
        self._runner.ticks.refresh()
        return _moment(self._runner.next_of(self._plan))

    @property
    def paused(self) -> bool:
        """True if its ticks are left out."""
        return self._ticks.is_paused(self.name)

    @property
    def _ticks(self) -> Ticks:
        """What is known of its ticks, read anew."""
        ticks = self._runner.ticks
        ticks.refresh()
        return ticks

    def pause(self) -> None:
        """Leave out its ticks from now on; what was submitted still runs."""
        self._runner.ticks.pause(self.name, True)

    def resume(self) -> None:
        """Run it again from its next tick on; those that were left out do not come."""
        self._runner.ticks.pause(self.name, False)

    def run_now(self) -> TaskFuture[t.Any]:
        """Submit its task now, also while it is paused; its ticks stay as they are.

        :return: the future. It raises what :meth:`.Executor.submit` raises.
        """
        return t.cast("TaskFuture[t.Any]", self._runner.submit(self._plan, 0.0))

    def __repr__(self) -> str:
        paused = " paused" if self.paused else ""
        return f"<PeriodicJob {self.name} {self.schedule}{paused}>"


class PeriodicJobs:
    """The periodic jobs of an executor, for the current app.

    It has a length, yields its jobs in the order in which they were declared, and has
    each by its name or by the job: ``executor.periodic[tidy].pause()``.

    .. versionadded:: 2.0
    """

    def __init__(self, runner: Runner) -> None:
        self._jobs = {
            name: PeriodicJob(plan, runner) for name, plan in runner.plans().items()
        }
        self._runner = runner

    @property
    def running(self) -> bool:
        """True if this process runs the jobs at their times."""
        return self._runner.started

    def start(self) -> None:
        """Run the jobs at their times from now on, in this process.

        A process that serves starts by itself: with its first request, or its first
        submit. Call this where there are none, and in a test that moves the clock. A
        second call changes nothing.
        """
        self._runner.start()

    def __getitem__(self, name: str | ExecutorJob[..., t.Any]) -> PeriodicJob:
        for one in self:
            if one.name == name or one.job == name:
                return one
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(one.name == name or one.job == name for one in self)

    def __iter__(self) -> t.Iterator[PeriodicJob]:
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<PeriodicJobs {', '.join(self._jobs)}>"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
