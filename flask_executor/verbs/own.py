"""The verbs without a store: for the tasks of this process.

Known are the tasks that have not ended, and those whose futures are stored under a key.
Nothing is kept for this when a task is submitted or ends.
"""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ..dispatch import Dispatcher
from ..errors import UnknownTask, UnknownWorker
from ..futures import TaskFuture
from ..job_names import JobNames
from ..store_errors import RetryRefused
from ..task import Task
from .base import Verbs, Wanted
from .here import (
    facts_of,
    failure_in,
    last_attempt,
    live_task,
    longest_wait,
    record_of,
    this_worker,
)
from .pauses import Pauses
from .reasons import Facts, Reason, explain
from .records import (
    STATES,
    AttemptInfo,
    GroupInfo,
    MinuteStatistics,
    TaskRecord,
    ThreadStack,
    WorkerInfo,
)
from .stacks import own_stacks


class OwnTasks(Verbs):
    """Answers for the tasks of one dispatcher.

    :param futures: returns the stored futures.
    :param names: finds the jobs.
    """

    def __init__(
        self, dispatcher: Dispatcher, futures: t.Callable[[], t.Any], names: JobNames
    ) -> None:
        self._dispatcher = dispatcher
        self._futures = futures
        self._names = names

    def tasks(self, wanted: Wanted) -> list[TaskRecord]:
        """Return tasks, newest first."""
        known = self._known()
        found = (
            [*known] if wanted.group is None else self._of_group(known, wanted.group)
        )
        tasks = self._page_of(found, wanted)
        records: list[TaskRecord] = []
        nearest_first = wanted.after is not None and wanted.before is None
        for task in reversed(tasks) if nearest_first else tasks:
            if len(records) >= wanted.limit:
                break
            if wanted.state in (None, task.state):
                record = self._record(task, known[task])
                records += [record] if wanted.fits(record) else []
        return records[::-1] if nearest_first else records

    def task(self, id: str) -> TaskRecord | None:
        """Return one task, or None."""
        found = self._find(id)
        return None if found is None else self._record(*found)

    def future(self, id: str) -> TaskFuture[t.Any] | None:
        """Return the future of one task, or None."""
        found = self._find(id)
        return None if found is None else found[1] or found[0].future

    def count(self, wanted: Wanted) -> int:
        """Return how many tasks these are, at most ``wanted.limit``."""
        return len(self.tasks(wanted))

    def counts(self, limit: int) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""
        found = dict.fromkeys(STATES, 0)
        for task in self._known():
            found[task.state] = min(limit, found[task.state] + 1)
        return found

    def workers(self) -> list[WorkerInfo]:
        """Return this process."""
        return [this_worker(self._dispatcher, self._names)]

    def cancel(self, id: str) -> bool:
        """Cancel a task, or ask it to stop; False if it is unknown or has ended."""
        found = self._find(id)
        return found is not None and self._dispatcher.request_cancel(found[0])

    def pause(self, job: str) -> None:
        """Begin no task of a job."""
        Pauses.of(self._dispatcher).add(job)

    def resume(self, job: str) -> None:
        """Begin tasks of a job again."""
        Pauses.of(self._dispatcher).remove(job)

    def paused(self) -> list[str]:
        """Return the names of the jobs that are paused."""
        pauses = self._dispatcher.pauses
        return [] if pauses is None else sorted(pauses.names)

    def why(self, id: str) -> Reason:
        """Return why a task does not run."""
        task = live_task(self._dispatcher, id)
        if task is not None:
            return explain(facts_of(self._dispatcher, task))
        record = self.task(id)
        if record is None:
            raise UnknownTask(id)
        error = record.error_class
        return explain(Facts(name=record.name, state=record.state, error_class=error))

    def group_named(self, name: str, submitting: t.Any) -> None:
        """Return None: groups are known by their names in a store."""

    def retry(self, id: str) -> TaskFuture[t.Any]:
        """Refuse it: nothing is kept of a call that has ended."""
        record = self.task(id)
        if record is None:
            raise UnknownTask(id)
        reason = "it is not saved, so nothing is kept of its call. Submit it again"
        raise RetryRefused(id, record.name, reason)

    def attempts(self, id: str) -> list[AttemptInfo]:
        """Return the last attempt of a task: of those before nothing is kept."""
        record = self.task(id)
        if record is None:
            raise UnknownTask(id)
        return [last_attempt(record)] if record.attempt else []

    def statistics(self, minutes: int, job: str | None) -> list[MinuteStatistics]:
        """Return nothing: ends are counted in a store."""
        return []

    def groups(self, limit: int, before: int | None) -> list[GroupInfo]:
        """Return nothing: groups are known in a store."""
        return []

    def stacks(self, worker: str | None, timeout: float | None) -> list[ThreadStack]:
        """Return what the threads of this process do."""
        if worker is not None and worker != self.workers()[0].id:
            raise UnknownWorker(worker)
        return own_stacks(self._dispatcher)

    def oldest_wait(self) -> float | None:
        """Return for how many seconds the task has waited that waits longest."""
        return longest_wait(self._dispatcher)

    def _known(self) -> dict[Task, t.Any]:
        """Return the tasks that are known and their futures, newest first."""
        known: dict[Task, t.Any] = {}
        for _, future in self._futures().items():
            if isinstance(future, TaskFuture) and future.task is not None:
                known[future.task] = future
        known.update(self._dispatcher.table.live.copy())
        newest = sorted(known, key=lambda task: task._submitted)[::-1]
        return {task: known[task] for task in newest}

    def _find(self, id: str) -> tuple[Task, t.Any] | None:
        for task, future in self._known().items():
            if task._id == id:
                return task, future
        return None

    def _of_group(self, known: dict[Task, t.Any], group: t.Any) -> list[Task]:
        futures = {*getattr(group, "futures", ())}
        return [task for task, future in known.items() if future in futures]

    def _page_of(self, tasks: list[Task], wanted: Wanted) -> list[Task]:
        """Return the tasks between ``before`` and ``after``."""
        ids = [task._id for task in tasks]
        start, end = 0, len(tasks)
        if wanted.before is not None:
            start = _place(ids, wanted.before) + 1
        if wanted.after is not None:
            end = _place(ids, wanted.after)
        return tasks[start:end]

    def _record(self, task: Task, future: t.Any) -> TaskRecord:
        record = record_of(self._dispatcher, task, self._names)
        failure: dict[str, t.Any] = failure_in(future) if record.has_ended else {}
        return replace(record, **failure)


def _place(ids: list[str | None], id: str) -> int:
    if id not in ids:
        raise UnknownTask(id)
    return ids.index(id)
