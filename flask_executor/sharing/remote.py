"""Tasks that run elsewhere, or nowhere yet, as futures and lists show them."""

from __future__ import annotations

import dataclasses
import typing as t
import weakref
from concurrent.futures import wait

from ..calls import Outcome
from ..current import Progress
from ..options import Options
from ..store_errors import KeyNotReadable, ResultNotStorable, TaskInterrupted
from ..stores.keys import decode_key
from ..stores.payloads import Failure
from ..stores.records import Record, Sealed
from ..task import State, Task, Wait

_MOMENT = 1.0
"""Seconds in which the worker that has claimed a task can cancel it."""


class RemoteTask(Task):
    """A task that this process does not run; see :class:`.Task`."""

    @property
    def future(self) -> t.Any:
        """Its future, until it has ended or nobody holds it; then None."""
        # Weak: nothing but its users may keep it, or it would be followed for ever.
        return None if self._has_ended else self._future()

    @future.setter
    def future(self, future: t.Any) -> None:
        self._future = _nothing if future is None else weakref.ref(future)


def _nothing() -> None:
    return None


class RemoteOwner:
    """The owner of tasks that this process does not run.

    :param node: has the store, and the futures of these tasks.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node

    def cancel(self, task: Task) -> bool:
        """Cancel the task unless it runs; wait a moment if a worker has claimed it."""
        following = self._node.following
        if following.refreshed(task) in ("running", None):
            return task.state == "cancelled"
        asked, future = self._node.store.cancel(task.id), task.future
        if asked not in ("cancelled", None) and future is not None:
            wait([future], _MOMENT)
        following.refreshed(task)
        return task.state == "cancelled"

    def request_cancel(self, task: Task) -> bool:
        """Cancel the task, or ask it to stop; return False if it has ended."""
        asked = self._node.store.cancel(task.id)
        self._node.following.refreshed(task)
        return asked is not None or task.state == "cancelled"

    def want(self, task: Task) -> None:
        """Let this process run the task if code that waits for it runs here, too."""
        nested = self._node.dispatcher.nested
        if nested.is_inside() and not task._wanted:
            task._wanted = True
            self._node.feeding.wake()

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait that blocks this thread; see :mod:`.dispatch.nested`."""
        self.want(task)
        nested = self._node.dispatcher.nested
        return t.cast("Wait | None", nested.start_waiting_elsewhere(task, timeout))

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> Wait | None:
        """Prepare a wait for any of several tasks; see :mod:`.dispatch.nested`."""
        for one in (task, *also):
            one._owner.want(one)
        nested = self._node.dispatcher.nested
        return t.cast("Wait | None", nested.start_awaiting_elsewhere(has_timeout))


class UncommittedOwner(RemoteOwner):
    """The owner of tasks whose transaction has not ended.

    They cannot be cancelled: their rows are locked, or nobody else sees them.
    """

    def cancel(self, task: Task) -> bool:
        """Return False."""
        return False

    def request_cancel(self, task: Task) -> bool:
        """Return False."""
        return False


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
    task = RemoteTask(future, t.cast(t.Any, None), owner, options, key_of(record))
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
    task.progress = _progress_of(record)


def _progress_of(record: Record) -> Progress | None:
    value = record.progress
    is_one = isinstance(value, list) and len(value) == len(Progress._fields)
    return Progress(*value) if is_one else None


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
