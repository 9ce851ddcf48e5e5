"""What is known in this process of its own tasks."""

from __future__ import annotations

import os
import socket
import typing as t
from traceback import format_exception

from ..dispatch import Dispatcher
from ..job_names import JobNames, job_name
from ..payload import name_of_class
from ..task import Task, origin_of
from .pauses import job_of
from .reasons import Facts
from .records import AttemptInfo, TaskRecord, WorkerInfo, moment


def live_task(dispatcher: Dispatcher, id: str) -> Task | None:
    """Return the task that has this id and has not ended, or None.

    A task whose id nobody has asked for has none yet.
    """
    return next((task for task in dispatcher.table.live.copy() if task._id == id), None)


def record_of(dispatcher: Dispatcher, task: Task, names: JobNames) -> TaskRecord:
    """Return what is known of a task of this process."""
    call, options = task._call, task.options
    origin = task._origin if call is None else origin_of(call)
    job = job_of(task) if call is not None else _declared(task.name, names)
    unique = options.unique
    return TaskRecord(
        id=task.id,
        name=task.name,
        state=task.state,
        submitted_at=task.submitted_at,
        job=job,
        key=task.key,
        meta=options.meta,
        guarantee=options.guarantee,
        priority=options.priority,
        timeout=options.timeout,
        unique=unique,
        attempt=task.attempt,
        progress=task.progress,
        due_at=moment(_due(dispatcher, task)),
        started_at=task.started_at,
        finished_at=task.finished_at,
        cancel_requested=task.cancel_requested,
        source=None if origin is None else origin.source,
        request=None if origin is None else origin.id,
    )


def failure_in(future: t.Any) -> dict[str, str]:
    """Return how the task of a future has failed, for a record."""
    if not future.done() or future.cancelled() or future.exception() is None:
        return {}
    error = future.exception()
    try:
        text = str(error)
    except Exception:  # the app's own exceptions may fail here
        text = "(its text cannot be shown)"
    trace = "".join(format_exception(error))
    named = name_of_class(type(error))
    return {"error_class": named, "error": text, "traceback": trace}


def facts_of(dispatcher: Dispatcher, task: Task, **more: t.Any) -> Facts:
    """Return the facts about a task of this process that has not ended."""
    due = _due(dispatcher, task)
    job = job_of(task)
    paused = dispatcher.pauses is not None and job in dispatcher.pauses.names
    facts: dict[str, t.Any] = {
        "name": task.name,
        "state": task.state,
        "attempt": task.attempt,
        "cancel": task.cancel_requested,
        "due_in": None if due is None else due - dispatcher._time(),
        "job": job or task.name,
        "paused": paused,
    }
    return Facts(
        **facts, **_limit_of(dispatcher, task), **_queue_of(dispatcher, task), **more
    )


def last_attempt(record: TaskRecord) -> AttemptInfo:
    """Return the last attempt of a task, as its record tells it."""
    number, began = record.attempt, record.started_at
    if record.state == "running":  # an error is that of the attempt before
        return AttemptInfo(number=number, started_at=began)
    return AttemptInfo(
        number=number,
        started_at=began,
        finished_at=record.finished_at,
        # One that waits for its next attempt has failed before.
        end=record.state if record.has_ended else "failed",
        error_class=record.error_class,
        error=record.error,
    )


def longest_wait(dispatcher: Dispatcher) -> float | None:
    """Return for how many seconds the task has waited that waits longest, or None.

    It is not known when the pause before a second attempt ended, so these are left out.
    """
    waiting = [
        task._submitted + (task.options.wait(task._submitted) or 0.0)
        for task in dispatcher.table.pending.copy()
        if task.state == "waiting" and not task.attempt
    ]
    return max(0.0, dispatcher._time() - min(waiting)) if waiting else None


def own_info(dispatcher: Dispatcher, names: JobNames) -> dict[str, t.Any]:
    """Return what this process shows of itself, as a JSON value."""
    table = dispatcher.table
    jobs = names.known()
    full = [job_name(job) for job in dispatcher.queueing.full_jobs()]
    return {
        "executor": dispatcher.pool.kind,
        "slots": _slots(dispatcher.pool),
        "busy": len(table.running),
        "queue": len(table.pending),
        "jobs": sorted(jobs),
        "full": sorted(filter(None, full)),
    }


def worker_info(id: str, host: str, pid: int, info: t.Any, **more: t.Any) -> WorkerInfo:
    """Return a process, with what it shows of itself."""
    info = info or {}
    return WorkerInfo(
        id=id,
        host=host,
        pid=pid,
        name=info.get("name") or "",
        pool=info.get("executor"),
        slots=info.get("slots"),
        busy=info.get("busy", 0),
        queue=info.get("queue", 0),
        runs=info.get("runs", True),
        jobs=tuple(info.get("jobs", ())),
        full=tuple(info.get("full", ())),
        **more,
    )


def this_worker(dispatcher: Dispatcher, names: JobNames) -> WorkerInfo:
    """Return this process."""
    host, pid = socket.gethostname(), os.getpid()
    return worker_info(f"{host}:{pid}", host, pid, own_info(dispatcher, names))


def _declared(name: str, names: JobNames) -> str | None:
    return name if names.find(name) is not None else None


def _due(dispatcher: Dispatcher, task: Task) -> float | None:
    """Return when a task is due, in seconds since the epoch, or None."""
    handle = task._timer
    if handle is None or task.state not in ("delayed", "retrying"):
        return None
    return t.cast(float, dispatcher._time() + handle.due - dispatcher.now())


def _limit_of(dispatcher: Dispatcher, task: Task) -> dict[str, t.Any]:
    """Return who holds the places under the limit that blocks a task."""
    place = task._place
    if place is None or not place.limit.blocks(task):
        return {}
    running = [attempt.task for attempt in dispatcher.table.running.copy()]
    mates = [one for one in running if _is_under(one, place.limit)]
    names = [one.name for one in mates]
    return {"limit_reached": True, "limit": place.limit.most, "limited_by": names}


def _is_under(task: Task, limit: t.Any) -> bool:
    return task._place is not None and task._place.limit is limit


def _queue_of(dispatcher: Dispatcher, task: Task) -> dict[str, t.Any]:
    """Return what a task in the queue of a pool waits for."""
    queue, pool = task._queue, task._pool
    if queue is None or (task._place is not None and task._place.limit.blocks(task)):
        return {}
    waiting = queue.copy()
    ahead = waiting.index(task) if task in waiting else 0
    running = [attempt.task for attempt in dispatcher.table.running.copy()]
    names = [one.name for one in running if one._pool is pool]
    slots = _slots(pool)
    is_busy = slots is not None and len(names) >= slots
    return {"ahead": ahead, "slots": slots, "is_busy": is_busy, "busy_with": names}


def _slots(pool: t.Any) -> int | None:
    return t.cast("int | None", getattr(pool, "_max_workers", None))
