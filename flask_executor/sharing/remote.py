"""Tasks that run elsewhere, or nowhere yet, as futures and lists show them."""

from __future__ import annotations

import dataclasses
import typing as t

from ..calls import Outcome
from ..current import Progress
from ..options import Options
from ..store_errors import KeyNotReadable, ResultNotStorable, TaskInterrupted
from ..stores.keys import decode_key
from ..stores.payloads import Failure
from ..stores.records import Record, Sealed
from ..task import State, Task


class RemoteOwner:
    """The owner of tasks that this process does not run.

    :param cancel: asks the store to cancel a task; returns the state it has then.
    """

    def __init__(self, cancel: t.Callable[[str], str | None]) -> None:
        self._cancel = cancel

    def cancel(self, task: Task) -> bool:
        """Cancel the task if nobody has claimed it; otherwise it is asked to stop."""
        return self._cancel(task.id) == "cancelled" or task.state == "cancelled"

    def request_cancel(self, task: Task) -> bool:
        """Cancel the task, or ask it to stop; return False if it has ended."""
        return self._cancel(task.id) is not None or task.state == "cancelled"

    def want(self, task: Task) -> None:
        """Do nothing: it has no queue here."""

    def start_waiting(self, task: Task, timeout: float | None) -> None:
        """Do nothing: waiting for it lends out nothing."""

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> None:
        """Do nothing: waiting for it lends out nothing."""


def key_of(record: Record) -> t.Hashable | None:
    """Return the key of a task; None if it has none, or none that is known here."""
    if record.key is None:
        return None
    try:
        return decode_key(record.key)
    except KeyNotReadable:
        return None


def remote_task(record: Record, future: t.Any, owner: t.Any) -> Task:
    """Return what a record says as a task."""
    guarantee = record.guarantee
    options = Options(name=record.name, priority=record.priority, guarantee=guarantee)
    options = dataclasses.replace(options, meta=record.meta, timeout=record.timeout)
    task = Task(future, t.cast(t.Any, None), owner, options, key_of(record))
    task._id = record.uid
    task._submitted = record.submitted
    note(task, record)
    return task


def note(task: Task, record: Record) -> None:
    """Write into a task what a newer record says."""
    task.state = t.cast(State, record.state)
    task.attempt = record.attempt
    task._started = record.begun
    task._finished = record.finished
    task._was_asked = record.cancel
    if record.progress is not None:
        task.progress = Progress(*record.progress)


def loader(
    record: Record,
    read: t.Callable[[int], Sealed | None],
    opened: t.Callable[..., Outcome],
) -> t.Callable[[], Outcome]:
    """Return a function that reads the outcome of a task that has ended.

    :param read: reads the bytes of its result.
    :param opened: checks and unpickles them; see :meth:`.Payloads.open_outcome`.
    """
    job = record.job or record.name

    def load() -> Outcome:
        if record.state == "interrupted":
            return Outcome(error=TaskInterrupted(record.name))
        sealed = read(record.id)
        if record.state == "succeeded":
            if sealed is None:
                why = "it is known only to the process that ran the task"
                error = ResultNotStorable(record.name, "its result", why)
                return Outcome(error=error)
            return opened(record.uid, job, sealed, None)
        failure = Failure(
            record.error_class or "", record.error_text or "", record.traceback or ""
        )
        return opened(record.uid, job, sealed, failure)

    return load
