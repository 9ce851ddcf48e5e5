"""The verbs about tasks with a store: for those of all processes.

A task that runs in this process is asked here, and everything else in the store. Tasks
that are not saved are known to their process alone, which finds them by their id.
"""

from __future__ import annotations

import typing as t

from ..current import Progress
from ..errors import UnknownTask
from ..futures import TaskFuture
from ..groups import Group
from ..store_errors import KeyNotReadable, StoreUnavailable
from ..stores.keys import decode_key
from ..stores.records import Record, WorkerRecord
from ..task import Task
from ..verbs.base import Verbs, Wanted
from ..verbs.here import facts_of, live_task, worker_info
from ..verbs.own import OwnTasks
from ..verbs.pauses import Pauses
from ..verbs.reasons import Facts, Reason, explain
from ..verbs.records import TaskRecord, WorkerInfo, moment
from .again import run_again
from .asking import Asking


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
        group = wanted.group
        if group is not None and not isinstance(group, str):
            return self._members(group, wanted, before, after)
        found = None if group is None else self._node.store.group_named(group)
        if group is not None and found is None:
            return []
        records = self._node.store.tasks(
            state=wanted.state,
            job=wanted.job,
            name=wanted.name,
            error=wanted.error,
            group=None if found is None else found.id,
            parent=wanted.parent,
            before=before,
            after=after,
            limit=wanted.limit,
        )
        return [*map(record_of, records)]

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


def record_of(record: Record) -> TaskRecord:
    """Return what the store knows of a task, as people see it."""
    return TaskRecord(
        id=record.uid,
        name=record.name,
        state=record.state,
        submitted_at=t.cast(t.Any, moment(record.submitted)),
        job=record.job,
        key=_decoded(record.key),
        meta=record.meta,
        guarantee=record.guarantee,
        priority=record.priority,
        timeout=record.timeout,
        unique=_decoded(record.unique_key),
        attempt=record.attempt,
        lost=record.lost,
        progress=None if record.progress is None else Progress(*record.progress),
        due_at=moment(record.due),
        started_at=moment(record.begun),
        finished_at=moment(record.finished),
        cancel_requested=record.cancel,
        worker=record.owner,
        parent=record.parent,
        source=record.source,
        retried_from=record.retried_from,
        error_class=record.error_class,
        error=record.error_text,
        traceback=record.traceback,
        result_size=record.result_size,
    )


def worker_of(worker: WorkerRecord) -> WorkerInfo:
    """Return what the store knows of a process, as people see it."""
    times = {
        "started_at": moment(worker.started),
        "alive_until": moment(worker.lease_until),
    }
    return worker_info(worker.id, worker.host, worker.pid, worker.info, **times)


def _decoded(key: str | None) -> t.Hashable | None:
    if key is None:
        return None
    try:
        return decode_key(key)
    except KeyNotReadable:
        return key
