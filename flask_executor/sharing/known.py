"""The verbs about tasks with a store: for those of all processes.

A task that runs in this process is asked here, and everything else in the store. Tasks
that are not saved are known to their process alone, which finds them by their id.
"""

from __future__ import annotations

import typing as t

from ..errors import UnknownTask
from ..futures import TaskFuture
from ..groups import Group
from ..store_errors import StoreUnavailable
from ..stores.records import Record
from ..task import Task
from ..verbs.base import Verbs, Wanted
from ..verbs.here import facts_of, live_task
from ..verbs.own import OwnTasks
from ..verbs.pauses import Pauses
from ..verbs.reasons import Facts, Reason, explain
from ..verbs.records import (
    AttemptInfo,
    GroupInfo,
    MinuteStatistics,
    TaskRecord,
    ThreadStack,
    WorkerInfo,
)
from ..verbs.stacks import own_stacks
from .again import run_again
from .asking import Asking
from .shown import attempts_of, group_of, record_of, statistics_of, worker_of


class SharedTasks(Verbs):
    """Answers for the tasks of all processes that share a store.

    :param node: ties this process to it.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node
        self._asking = Asking(node)

    def tasks(self, wanted: Wanted) -> list[TaskRecord]:
        """Return tasks, newest first."""
        before, after = self._row_of(wanted.before), self._row_of(wanted.after)
        if _is_of_this_process(wanted.group):
            return self._members(wanted.group, wanted, before, after)
        if (filters := self._filters(wanted)) is None:
            return []
        records = self._node.store.tasks(before=before, after=after, **filters)
        return [*map(record_of, records)]

    def count(self, wanted: Wanted) -> int:
        """Return how many tasks these are, at most ``wanted.limit``."""
        if _is_of_this_process(wanted.group):
            return len(self.tasks(wanted))
        if (filters := self._filters(wanted)) is None:
            return 0
        return t.cast(int, self._node.store.count(**filters))

    def _filters(self, wanted: Wanted) -> dict[str, t.Any] | None:
        """Return filters for the store; None: there is no such group."""
        group = wanted.group
        if isinstance(group, str):
            group = self._node.store.group_named(group)
            if group is None:
                return None
        return {
            "state": wanted.state,
            "job": wanted.job,
            "name": wanted.name,
            "error": wanted.error,
            "group": None if group is None else group.id,
            "parent": wanted.parent,
            "request": wanted.request,
            "retried_from": wanted.retried_from,
            "limit": wanted.limit,
        }

    def task(self, id: str) -> TaskRecord | None:
        """Return one task, or None."""
        record = self._node.find("uid", id)
        return self._own().task(id) if record is None else record_of(record)

    def future(self, id: str) -> TaskFuture[t.Any] | None:
        """Return the future of one task, or None."""
        record = self._node.find("uid", id)
        if record is None:
            return self._own().future(id)
        return t.cast("TaskFuture[t.Any]", self._node.future_of(record))

    def counts(self, limit: int) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""
        return t.cast("dict[str, int]", self._node.store.counts(limit))

    def workers(self) -> list[WorkerInfo]:
        """Return the processes that are alive, newest first."""
        return [*map(worker_of, self._asking.alive())]

    def cancel(self, id: str) -> bool:
        """Cancel a task, or ask it to stop; False if it is unknown or has ended."""
        dispatcher = self._node.dispatcher
        if (task := live_task(dispatcher, id)) is not None:
            return t.cast(bool, dispatcher.request_cancel(task))
        if self._node.store.cancel(id) is None:
            return False
        self._node.wake()  # for its future, if somebody here has it
        return True

    def pause(self, job: str) -> None:
        """Begin no task of a job, in any process."""
        store = self._node.store

        def pause() -> list[str]:
            store.pause(job)
            return t.cast("list[str]", store.paused())

        Pauses.of(self._node.dispatcher).set(pause)

    def resume(self, job: str) -> None:
        """Begin tasks of a job again."""
        store = self._node.store

        def resume() -> list[str]:
            store.resume(job)
            return t.cast("list[str]", store.paused())

        Pauses.of(self._node.dispatcher).set(resume)
        self._node.wake()

    def paused(self) -> list[str]:
        """Return the names of the jobs that are paused."""
        return t.cast("list[str]", self._node.store.paused())

    def why(self, id: str) -> Reason:
        """Return why a task does not run."""
        task = live_task(self._node.dispatcher, id)
        if task is not None:
            away = self._away(task)
            return explain(facts_of(self._node.dispatcher, task, away=away))
        try:
            return explain(self._facts(id))
        except StoreUnavailable as error:
            return explain(Facts(name=id, state="waiting", away=error.reason))

    def group_named(self, name: str, submitting: t.Any) -> Group | None:
        """Return the newest saved group of a name, or None."""
        return t.cast("Group | None", self._node.grouping.named(name, submitting))

    def retry(self, id: str) -> TaskFuture[t.Any]:
        """Run a task that has ended once more, as a new task."""
        record = self._node.find("uid", id)
        if record is None:
            return self._own().retry(id)
        return run_again(self._node, record)

    def attempts(self, id: str) -> list[AttemptInfo]:
        """Return the attempts of a task, in order."""
        record = self._node.find("uid", id)
        if record is None:
            return self._own().attempts(id)
        return attempts_of(record, self._node.store.attempts(record.id))

    def statistics(self, minutes: int, job: str | None) -> list[MinuteStatistics]:
        """Return what has ended in the last minutes, oldest first."""
        store = self._node.store
        since = store.now() - 60.0 * (minutes - 1)
        return [*map(statistics_of, store.stats(since, job))]

    def groups(self, limit: int, before: int | None) -> list[GroupInfo]:
        """Return groups, newest first."""
        found = self._node.store.groups(before=before, limit=limit)
        return [*map(group_of, found)]

    def stacks(self, worker: str | None, timeout: float | None) -> list[ThreadStack]:
        """Return what the threads of a process do."""
        if worker is None or worker == self._node.presence.me:
            return own_stacks(self._node.dispatcher)
        return t.cast("list[ThreadStack]", self._node.questions.stacks(worker, timeout))

    def oldest_wait(self) -> float | None:
        """Return for how many seconds the task has waited that waits longest."""
        return t.cast("float | None", self._node.store.oldest_wait())

    def _own(self) -> OwnTasks:
        return OwnTasks(self._node.dispatcher, dict, self._node.names)

    def _row_of(self, id: str | None) -> int | None:
        """Return the id of a task within the store."""
        if id is None:
            return None
        record = self._node.find("uid", id)
        if record is None:
            raise UnknownTask(id)
        return t.cast(int, record.id)

    def _members(
        self, group: t.Any, wanted: Wanted, before: int | None, after: int | None
    ) -> list[TaskRecord]:
        """Return those members of a group of this process that are saved."""
        ids = [one.task.id for one in group.futures if one.task is not None]
        rows: list[Record] = self._node.store.get_many("uid", ids)
        rows = sorted(rows, key=lambda row: row.id, reverse=True)
        rows = [row for row in rows if before is None or row.id < before]
        rows = [row for row in rows if after is None or row.id > after]
        found = [record for record in map(record_of, rows) if wanted.fits(record)]
        nearest_first = after is not None and before is None
        return found[-wanted.limit :] if nearest_first else found[: wanted.limit]

    def _away(self, task: Task) -> str | None:
        """Return why a task that is to begin cannot note that in the store."""
        away: StoreUnavailable | None = self._node.store.away
        is_held_up = task._saved is not None and task._timer is not None
        return away.reason if away is not None and is_held_up else None

    def _facts(self, id: str) -> Facts:
        record = self._node.find("uid", id)
        if record is not None:
            return self._asking.facts(record)
        if (future := self._node.committing.pending(id)) is None:
            raise UnknownTask(id)
        return Facts(name=future.task.name, state="waiting", uncommitted=True)


def _is_of_this_process(group: t.Any) -> bool:
    return not isinstance(group, str | GroupInfo | None)
