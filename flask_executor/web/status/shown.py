"""What is shown of a task: the values, before they are JSON or HTML."""

from __future__ import annotations

import math
import time
import typing as t
from dataclasses import dataclass
from datetime import datetime

from ...current import Progress
from ...verbs.records import TaskRecord
from .messages import sentence_for

_STEPS = (1, 2, 5, 15, 30)
"""Seconds until the next poll. Steps, so that an ETag does not change with the time."""
_NOTHING: t.Any = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A task as its owner sees it: no name, no key, no argument."""

    record: TaskRecord
    location: str
    """The URL of this status."""
    retry_after: int | None
    """In how many seconds to ask again; None if there is no reason to."""
    error: str | None = None
    """A sentence about a failure."""
    result: t.Any = _NOTHING
    """What the app makes of the result, if it does."""

    @property
    def done(self) -> bool:
        """True if nothing more happens to the task."""
        return self.record.has_ended

    @property
    def progress(self) -> dict[str, t.Any] | None:
        """What the task has reported, as a JSON value, whatever it was."""
        return None if self.record.progress is None else _values(self.record.progress)

    @property
    def has_result(self) -> bool:
        """True if there is something to show of the result."""
        return self.result not in (_NOTHING, None)

    def as_json(self) -> dict[str, t.Any]:
        """Return all of it as a JSON value."""
        record, found = self.record, self.result
        return {
            "state": record.state,
            "done": self.done,
            "progress": self.progress,
            "attempt": record.attempt,
            "cancel_requested": record.cancel_requested,
            "times": _times(record),
            "retry_after": self.retry_after,
            "error": self.error,
            "location": self.location,
        } | ({} if found is _NOTHING else {"result": found})


def shown(
    record: TaskRecord, location: str, message: str | None, result: t.Any = _NOTHING
) -> Shown:
    """Return what is shown of a task.

    :param message: what users may read of its failure, or None.
    """
    return Shown(
        record=record,
        location=location,
        retry_after=None if record.has_ended else _next_poll(record, time.time()),
        error=message or sentence_for(record.state),
        result=result,
    )


def _next_poll(record: TaskRecord, now: float) -> int:
    if record.state in ("delayed", "retrying") and record.due_at is not None:
        left = record.due_at.timestamp() - now
        return _step_below(left, 30)
    began = record.started_at or record.submitted_at
    return _step_below((now - began.timestamp()) / 5, 5)


def _step_below(seconds: float, most: int) -> int:
    return max(step for step in _STEPS if step == 1 or step <= min(seconds, most))


def _values(progress: Progress) -> dict[str, t.Any]:
    message: object = progress.message  # whatever the task has given
    return {
        "done": _number(progress.done),
        "total": _number(progress.total),
        "message": message if isinstance(message, str) else "",
        "fraction": _number(progress.fraction),
    }


def _number(value: object) -> int | float | None:
    """Return a number that JSON has, or None."""
    is_one = isinstance(value, int | float) and math.isfinite(value)
    return t.cast("int | float", value) if is_one else None


def _times(record: TaskRecord) -> dict[str, str | None]:
    return {
        "submitted": _text(record.submitted_at),
        "due": _text(record.due_at),
        "started": _text(record.started_at),
        "finished": _text(record.finished_at),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
