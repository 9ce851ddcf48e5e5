"""What the store knows, as people see it."""

from __future__ import annotations

import typing as t

from ..current import Progress
from ..store_errors import KeyNotReadable
from ..stores.keys import decode_key
from ..stores.records import AttemptRecord, GroupRecord, Record, Stat, WorkerRecord
from ..verbs.here import last_attempt, worker_info
from ..verbs.records import (
    AttemptInfo,
    GroupInfo,
    MinuteStatistics,
    TaskRecord,
    WorkerInfo,
    moment,
)


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
        request=record.request,
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


def attempts_of(
    record: Record, troubled: t.Sequence[AttemptRecord]
) -> list[AttemptInfo]:
    """Return the attempts of a task, in order.

    :param troubled: those that did not succeed.
    """
    found = {one.number: _attempt(one) for one in troubled}
    if record.attempt and record.attempt not in found:
        found[record.attempt] = last_attempt(record_of(record))
    return [found[number] for number in sorted(found)]


def _attempt(one: AttemptRecord) -> AttemptInfo:
    return AttemptInfo(
        number=one.number,
        started_at=moment(one.begun),
        finished_at=moment(one.ended),
        end=one.end,
        error_class=one.error_class,
        error=one.error_text,
    )


def statistics_of(stat: Stat) -> MinuteStatistics:
    """Return the ends of one job in one minute."""
    return MinuteStatistics(
        minute=t.cast(t.Any, moment(60.0 * stat.minute)),
        job=stat.job or None,
        end=stat.end,
        count=stat.n,
        wait_sum=stat.wait_sum,
        run_sum=stat.run_sum,
        waits=stat.wait,
        runs=stat.run,
    )


def group_of(group: GroupRecord) -> GroupInfo:
    """Return what the store knows of a group."""
    return GroupInfo(
        id=group.id,
        name=group.name,
        total=group.total,
        done=group.done,
        failed=group.failed,
        closed=group.closed,
        created_at=moment(group.opened),
    )
