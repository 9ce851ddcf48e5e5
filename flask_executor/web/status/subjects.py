"""A task that somebody asks for: one of this process alone, or one in the store."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future, wait

from ...executor import Executor
from ...verbs.here import record_of
from ...verbs.records import TaskRecord
from .kept import Kept
from .messages import class_named, fixed_message, has_message, message_of

_MOMENT = 1.0
"""Seconds from the end of a task to that of its future, at most: receivers of signals
run in between."""
_LONG = 10.0
"""Seconds after which a result that is there has still not been read."""


class Subject(t.Protocol):
    """A task whose status is asked for. All methods need an app context."""

    def record(self) -> TaskRecord | None:
        """Return what is known of the task now; None if it is gone."""

    def message(self, record: TaskRecord) -> str | None:
        """Return what users may read of its failure, or None."""

    def result(self) -> t.Any:
        """Return what the task has returned."""

    def future(self) -> Future[t.Any] | None:
        """Return what ends with the task, or None."""

    def cancel(self) -> bool:
        """Cancel the task, or ask it to stop; False if it has ended."""


class OwnTask:
    """A task that only this process knows."""

    def __init__(self, executor: Executor, kept: Kept) -> None:
        self._executor = executor
        self._kept = kept

    def record(self) -> TaskRecord:
        """Return what is known of the task now."""
        if self._kept.task.state not in ("waiting", "running", "delayed", "retrying"):
            wait([self._kept], _MOMENT)  # so that its message and its result are there
        dispatcher = self._executor._state().dispatcher
        return record_of(dispatcher, self._kept.task, self._executor._job_names)

    def message(self, record: TaskRecord) -> str | None:
        """Return what users may read of its failure, or None."""
        return self._kept.message

    def result(self) -> t.Any:
        """Return what the task has returned."""
        return t.cast("Future[t.Any]", self._kept.future).result(_LONG)

    def future(self) -> Future[t.Any]:
        """Return what ends with the task."""
        return self._kept

    def cancel(self) -> bool:
        """Cancel the task, or ask it to stop; False if it has ended."""
        future = None if self._kept.done() else self._kept.future
        return future is not None and future.request_cancel()


class SavedTask:
    """A task in the store, which every process can ask.

    Nothing is unpickled, except results where ``result`` wants them, and exceptions
    whose class computes its ``public_message``.
    """

    def __init__(self, executor: Executor, id: str) -> None:
        self._executor = executor
        self._id = id

    def record(self) -> TaskRecord | None:
        """Return what is known of the task now; None if it is gone."""
        return self._executor.task(self._id)

    def message(self, record: TaskRecord) -> str | None:
        """Return what users may read of its failure, or None."""
        kind = class_named(record.error_class)
        if not has_message(kind):
            return None
        return fixed_message(kind) or message_of(self._error())

    def _error(self) -> BaseException | None:
        future = self.future()
        return None if future is None else future.exception(_LONG)

    def result(self) -> t.Any:
        """Return what the task has returned, which is read from the store."""
        return t.cast("Future[t.Any]", self.future()).result(_LONG)

    def future(self) -> Future[t.Any] | None:
        """Return what ends with the task, or None."""
        return self._executor.future(self._id)

    def cancel(self) -> bool:
        """Cancel the task, or ask it to stop; False if it has ended."""
        return self._executor.cancel(self._id)
