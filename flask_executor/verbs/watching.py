"""The verbs of an executor about what has happened, and what its threads do."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .base import AnyJob, Verbs
from .records import AttemptInfo, GroupInfo, MinuteStatistics, ThreadStack


class Watched(ABC):
    """An executor that tells operators what it does."""

    def attempts(self, id: str) -> list[AttemptInfo]:
        """Return the attempts of a task, in order; one that runs is the last.

        With a store these are all that have begun. Without one only the last is known.

        :raises UnknownTask: a :exc:`LookupError`, if there is no such task.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().attempts(id)

    def statistics(
        self, minutes: int = 60, job: str | AnyJob | None = None
    ) -> list[MinuteStatistics]:
        """Return how many tasks have ended in each minute, and how long they took.

        Each process adds what it has ended every few seconds. No task is looked at, so
        this takes no longer beside a million. Without a store the list is empty.

        :param minutes: how many minutes back; 1 is the minute that is not over.
        :param job: only those of this job, or of the job with this name.
        :return: the oldest minute first; a minute in which nothing ended is left out.
        :raises StoreUnavailable: if the database is away.
        """
        named = None if job is None else self._name_of_job(job)
        return self._verbs().statistics(minutes, named)

    def groups(self, limit: int = 100, before: int | None = None) -> list[GroupInfo]:
        """Return the groups that have saved members, newest first.

        ``executor.tasks(group=...)`` takes one of them. Without a store the list is
        empty.

        :param limit: how many at most.
        :param before: only groups older than the one with this id: the next page.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().groups(limit, before)

    def stacks(
        self, worker: str | None = None, timeout: float | None = None
    ) -> list[ThreadStack]:
        """Return what the threads of a process do; first those that run tasks.

        There are names of files and lines of code in it, and no values. Another process
        is asked through the store, and answers when it renews its lease: at a sixth of
        ``EXECUTOR_STORE_LEASE``, which is 5 seconds by default. It starts no task for
        that, so it answers also if all its workers hang.

        :param worker: the :attr:`.WorkerInfo.id` of a process; None: this one.
        :param timeout: for how many seconds to wait for another process; by default a
            third of ``EXECUTOR_STORE_LEASE``.
        :raises UnknownWorker: a :exc:`LookupError`, if no such process is alive.
        :raises NoAnswer: a :exc:`TimeoutError`, if it does not answer in time.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().stacks(worker, timeout)

    def oldest_wait(self) -> float | None:
        """Return for how many seconds the task has waited that waits longest, or None.

        A task waits from when it was submitted, or later became due, until it begins.
        With a store, those 1,000 tasks are looked at that were submitted first. Without
        one, tasks that wait for a second attempt are left out.

        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().oldest_wait()

    @abstractmethod
    def _verbs(self) -> Verbs:
        """Return what answers for the current app."""

    @abstractmethod
    def _name_of_job(self, job: str | AnyJob) -> str:
        """Return the name under which the tasks of a job are saved."""
