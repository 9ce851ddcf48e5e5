"""The row of a task that this process runs: what is written into it, and when.

The promises to users rest on three orders:

- A task that runs at most once begins in the database first, and then here.
- An end is in the database before the future has it. So nobody who has seen the end
  can find the task running in another process.
- Each write is fenced. If this process was declared dead, its writes are refused, and
  the future goes on with whatever becomes of the task elsewhere.
"""

from __future__ import annotations

import logging
import time
import typing as t
from concurrent.futures import Future

from ..calls import Outcome
from ..current import Progress, running
from ..dispatch.verdict import Verdict
from ..stores.errors import StoreUnavailable
from ..stores.payloads import Failure, failure_of
from ..stores.records import Fence, Finish, RetryLater, Sealed
from ..task import Task

_BETWEEN = 0.2
"""Seconds between two reports of progress that are written."""

Deliver = t.Callable[[Task, Verdict, t.Any], object]


class SavedTask:
    """Keeps the row of one task up to date.

    :param node: writes, and knows what to do with a task that was lost.
    :param task: the task, which runs in this process.
    :param fence: the right to write about it.
    :param job: the name under which its outcome is signed.
    :param careful: its begin must be committed before it runs.
    """

    def __init__(
        self, node: t.Any, task: Task, fence: Fence, job: str, *, careful: bool
    ) -> None:
        self.task: Task = task
        self.fence: Fence = fence
        self._node = node
        self._job = job
        self.parent: str | None = None if (by := running.get()) is None else by.id
        """The id of the task of this process that submitted it, or None."""
        self._careful = careful or task.options.guarantee == "at_most_once"
        self._reported = 0.0
        self._unwritten: Progress | None = None
        self._ended: list[tuple[Verdict, t.Any, Deliver]] = []
        self.is_left: bool = False
        """True if it was asked to stop because its process ends."""
        self.ended_at: float | None = None
        """When its end was decided; seconds of the monotonic clock."""

    @property
    def is_ephemeral(self) -> bool:
        """True if the task ends with its process."""
        return self.task.options.guarantee == "ephemeral"

    def begin(self) -> bool:
        """Note that an attempt begins; return False if it must not begin here."""
        store = self._node.store
        synced = self.task.options.guarantee == "at_most_once"
        begun = store.begin(self.fence, synced=synced)
        if not self._careful:
            return True
        try:
            if store.wait(begun) is not None:
                return True
        except StoreUnavailable:
            self._node.begin_later(self.task)
            return False
        self._node.refused(self)
        return False

    def give_back(self) -> bool:
        """Let any process run the task; False if nobody else can."""
        return not self.is_ephemeral and t.cast(bool, self._node.give_back(self))

    def retry(self, error: BaseException, pause: float) -> bool:
        """Note a failed attempt; return False if the next one may run anywhere."""
        kind: t.Any = "timed_out" if self.task._was_asked else "failed"
        failure = failure_of(error)
        store = self._node.store
        later = RetryLater(
            fence=self.fence,
            pause=pause,
            end=kind,
            error_class=failure.error_class,
            error_text=failure.text,
        )
        store.retry_later(later)
        if self.is_ephemeral:
            return True
        self._node.hand_over(self)
        return False

    def progressed(self, progress: Progress) -> None:
        """Note the progress of the current attempt, a few times per second."""
        self._unwritten = progress
        now = time.monotonic()
        if now - self._reported >= _BETWEEN:
            self._reported = now
            self._write_progress()

    def _write_progress(self) -> None:
        progress, self._unwritten = self._unwritten, None
        if progress is not None and (value := _as_json(progress)) is not None:
            self._node.store.progress(self.fence, value)

    def end(self, verdict: Verdict, value: t.Any, deliver: Deliver) -> None:
        """Write the end, then deliver it on another thread."""
        if self._goes_back(verdict):
            if not self.is_left:  # what has begun goes back with the end of the lease
                self._node.store.release(self.fence)
            self._node.forget(self)
            deliver(self.task, verdict, value)
            return
        self._write_progress()
        verdict, value, result, failure = self._sealed(verdict, value)
        state: t.Any = verdict.kind
        finish = Finish(
            fence=self.fence,
            state=state,
            result=result,
            error_class=failure and failure.error_class,
            error_text=failure and failure.text,
            traceback=failure and failure.traceback,
        )
        self._ended.append((verdict, value, deliver))
        self.ended_at = time.monotonic()
        written = self._node.store.finish(finish)
        if self.is_ephemeral and self._node.store.away is not None:
            self._deliver()
            return
        run = self._node.deliveries.run
        written.add_done_callback(lambda done: run(self._written, done))

    def _goes_back(self, verdict: Verdict) -> bool:
        """Return True if the process leaves, and another one can run the task."""
        if verdict.kind != "cancelled" or self.is_left:
            return verdict.kind == "cancelled"
        return (
            t.cast(bool, self._node.is_leaving)
            and not self.is_ephemeral
            and self.task.state == "waiting"
            and not self.task.cancel_requested
        )

    def _sealed(
        self, verdict: Verdict, value: t.Any
    ) -> tuple[Verdict, t.Any, Sealed | None, Failure | None]:
        if verdict.kind == "cancelled":
            return verdict, value, None, None
        outcome = Outcome(value, verdict.error)
        saved = self._node.payloads.seal_outcome(self.task.id, self._job, outcome)
        if saved.outcome is outcome:
            return verdict, value, saved.sealed, saved.failure
        if self.is_ephemeral:  # who asks here gets it as without a store
            return verdict, value, None, None
        failed = Verdict("failed", saved.outcome.error)
        return failed, None, saved.sealed, saved.failure

    def _written(self, done: Future[bool]) -> None:
        """End the future, once the end is committed."""
        error = done.exception()
        if error is not None:
            self.give_up_writing(error)
        elif done.result():
            self._deliver()
        elif self._ended:
            self._node.is_stale(self)

    def give_up_writing(self, reason: object) -> None:
        """End the future although the end is not written; the log says so."""
        label = self.task._label
        if (kind := self._deliver()) is not None:
            message = "Task %s has ended as %s, which could not be written: %s"
            self._node.log.write(logging.WARNING, message, label, kind, reason)

    def _deliver(self) -> str | None:
        """End the future, and return as what; None if somebody else has done that."""
        try:
            verdict, value, deliver = self._ended.pop()
        except IndexError:
            return None
        self._node.forget(self)
        deliver(self.task, verdict, value)
        return verdict.kind


def _as_json(progress: Progress) -> t.Any:
    """Return progress as a JSON value, or None: a task may report anything."""
    done, total, message = t.cast("tuple[t.Any, ...]", progress)
    for number in (done, total):
        if not (number is None or isinstance(number, int | float)):
            return None
    return [done, total, str(message)[:900]]
