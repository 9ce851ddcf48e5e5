"""What the outcome of an attempt means: a pure function from facts to a decision."""

from __future__ import annotations

import asyncio
import math
import typing as t
from concurrent.futures import CancelledError
from datetime import timedelta

from ..attempt import Attempt
from ..calls import Outcome
from ..errors import TaskCancelled, TaskTimeout

Kind = t.Literal["succeeded", "failed", "timed_out", "cancelled", "retrying"]


class Verdict(t.NamedTuple):
    """The decision about a task after an attempt."""

    kind: Kind
    """An end, or ``retrying``."""
    error: BaseException | None = None
    """What the future raises, or the error of the attempt."""
    pause: float = 0.0
    """Seconds before the next attempt, if there is one."""
    fault: Exception | None = None
    """What the retry policy raised, if it did."""
    given_up: bool = False
    """True if only the end of the process prevents another attempt."""


SUCCEEDED = Verdict("succeeded")
CANCELLED = Verdict("cancelled")


def verdict(attempt: Attempt, outcome: Outcome, *, leaving: bool = False) -> Verdict:
    """Decide what happens to a task after an attempt.

    It changes nothing, and asks the retry policy, so it is called once per attempt.

    :param leaving: no attempt begins any more, since the process ends.
    """
    error = outcome.error
    if error is None:
        return SUCCEEDED
    if attempt.timed_out:  # any error that it raised when it was stopped
        error = timeout_of(attempt)
    elif _is_cancelling(attempt, error):
        return CANCELLED
    end: Kind = "timed_out" if is_own_timeout(attempt, error) else "failed"
    pause, fault = _pause(attempt, error)
    if pause is None:
        return Verdict(end, error=error, fault=fault)
    if leaving:
        return Verdict(end, error=error, given_up=True)
    return Verdict("retrying", error=error, pause=pause)


def timeout_of(attempt: Attempt) -> TaskTimeout:
    """Return the error of an attempt whose timeout is over."""
    task = attempt.task
    return TaskTimeout(task.name, t.cast(float, task.options.timeout))


def is_own_timeout(attempt: Attempt, error: BaseException) -> bool:
    """Return True if the error is the attempt's own timeout, not that of another."""
    return attempt.timed_out and isinstance(error, TaskTimeout)


def _is_cancelling(attempt: Attempt, error: BaseException) -> bool:
    """Return True if this is the error of a task that was asked to stop, and did."""
    if isinstance(error, CancelledError | asyncio.CancelledError):
        return attempt.cancel_requested or isinstance(error, TaskCancelled)
    return False


def _pause(
    attempt: Attempt, error: BaseException
) -> tuple[float | None, Exception | None]:
    """Return the seconds until the next attempt, and what the policy raised."""
    retry, pool = attempt.task.options.retry, attempt.task._pool
    if retry is None or (attempt.stop_requested and not attempt.timed_out):
        return None, None
    if isinstance(error, TaskTimeout) and not pool.stops_runs:
        return None, None
    try:
        pause = retry.pause_after(attempt.number, error)
        if isinstance(pause, timedelta):  # the app's own policy may return it so
            pause = pause.total_seconds()
        if pause is None:
            return None, None
        if not math.isfinite(pause):  # it would wait for ever, or not at all
            raise ValueError(
                f"A retry policy said {pause!r}: pause_after must return a finite"
                " number of seconds, a timedelta, or None."
            )
        return (0.0 if pool.runs_in_caller else max(0.0, float(pause))), None
    except Exception as fault:
        return None, fault
