"""What an executor can be asked about its tasks: the contract.

Without a store, :class:`.OwnTasks` answers for this process. With one, :mod:`.sharing`
answers for all of them.
"""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod

from ..futures import TaskFuture
from ..groups import Group
from ..jobs import ExecutorJob
from .reasons import Reason
from .records import (
    AttemptInfo,
    GroupInfo,
    MinuteStatistics,
    TaskRecord,
    ThreadStack,
    WorkerInfo,
)

AnyJob = ExecutorJob[..., t.Any]


class TaskFilters(t.TypedDict, total=False):
    """Which tasks are meant; see :meth:`.Executor.tasks`."""

    state: str | None
    job: str | AnyJob | None
    name: str | None
    error: str | type[BaseException] | None
    group: t.Any
    parent: str | None
    request: str | None
    retried_from: str | None


class Wanted(t.NamedTuple):
    """Which tasks somebody wants to see; None: any."""

    state: str | None = None
    job: str | None = None
    name: str | None = None
    error: str | None = None
    group: t.Any = None
    parent: str | None = None
    request: str | None = None
    retried_from: str | None = None
    before: str | None = None
    after: str | None = None
    limit: int = 100

    def fits(self, record: TaskRecord) -> bool:
        """Return True if a task is one of these, as far as its record says so."""
        pairs = (
            (self.state, record.state),
            (self.job, record.job),
            (self.name, record.name),
            (self.error, record.error_class),
            (self.parent, record.parent),
            (self.request, record.request),
            (self.retried_from, record.retried_from),
        )
        return all(asked in (None, found) for asked, found in pairs)


class Verbs(ABC):
    """Answers for the tasks that are known; see :class:`.HasTasks`."""

    @abstractmethod
    def tasks(self, wanted: Wanted) -> list[TaskRecord]:
        """Return tasks, newest first."""

    @abstractmethod
    def task(self, id: str) -> TaskRecord | None:
        """Return one task, or None."""

    @abstractmethod
    def future(self, id: str) -> TaskFuture[t.Any] | None:
        """Return the future of one task, or None."""

    @abstractmethod
    def count(self, wanted: Wanted) -> int:
        """Return how many tasks these are, at most ``wanted.limit``."""

    @abstractmethod
    def counts(self, limit: int) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""

    @abstractmethod
    def workers(self) -> list[WorkerInfo]:
        """Return the processes that are alive, newest first."""

    @abstractmethod
    def cancel(self, id: str) -> bool:
        """Cancel a task, or ask it to stop; False if it is unknown or has ended."""

    @abstractmethod
    def pause(self, job: str) -> None:
        """Begin no task of a job."""

    @abstractmethod
    def resume(self, job: str) -> None:
        """Begin tasks of a job again."""

    @abstractmethod
    def paused(self) -> list[str]:
        """Return the names of the jobs that are paused."""

    @abstractmethod
    def why(self, id: str) -> Reason:
        """Return why a task does not run."""

    @abstractmethod
    def group_named(self, name: str, submitting: t.Any) -> Group | None:
        """Return the newest saved group of a name, or None.

        :param submitting: what submits new members.
        """

    @abstractmethod
    def retry(self, id: str) -> TaskFuture[t.Any]:
        """Run a task that has ended once more, as a new task."""

    @abstractmethod
    def attempts(self, id: str) -> list[AttemptInfo]:
        """Return the attempts of a task, in order."""

    @abstractmethod
    def statistics(self, minutes: int, job: str | None) -> list[MinuteStatistics]:
        """Return what has ended in the last minutes, oldest first."""

    @abstractmethod
    def groups(self, limit: int, before: int | None) -> list[GroupInfo]:
        """Return groups, newest first."""

    @abstractmethod
    def stacks(self, worker: str | None, timeout: float | None) -> list[ThreadStack]:
        """Return what the threads of a process do."""

    @abstractmethod
    def oldest_wait(self) -> float | None:
        """Return for how many seconds the task has waited that waits longest."""
