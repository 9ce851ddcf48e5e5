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

from ..attempt import Attempt
from ..calls import Outcome
from ..current import Progress, running
from ..dispatch.verdict import Verdict
from ..stores.errors import StoreUnavailable
from ..stores.payloads import Failure, failure_of
from ..stores.records import Fence, Finish, Record, RetryLater, Sealed
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
        self.job: str = job
        """The name under which its outcome is signed."""
        self.parent: str | None = None if (by := running.get()) is None else by.id
        """The id of the task of this process that submitted it, or None."""
        self._careful = careful or task.options.guarantee == "at_most_once"
        self._is_unsure = False
        self._reported = 0.0
        self._unwritten: Progress | None = None
        self._ended: list[tuple[Verdict, t.Any, Deliver]] = []
        self.ended_at: float | None = None
        """When its end was decided; seconds of the monotonic clock."""
        self.is_new: bool = False
        """True until the dispatcher has accepted it."""
        self.source: t.Mapping[str, str] = {}
        """Where it comes from, as the row says."""
        self.request: str | None = None
        """The id of the request that it comes from, as the row says."""
        self.due: float | None = None
        """When it was due after a delay, if it waited for that as a row."""
        self.is_left: bool = False
        """True if it was asked to stop because its process ends."""

    @property
    def is_ephemeral(self) -> bool:
        """True if the task ends with its process."""
        return self.task.options.guarantee == "ephemeral"

    def begin(self) -> bool:
        """Note that an attempt begins; return False if it must not begin here."""
        store = self._node.store
        if not self._careful:
            store.begin(self.fence, synced=False).add_done_callback(self._begun)
            return True
        try:
            begun = store.wait(store.begin(self.fence, synced=True))
            return begun is not None or self._settle_refused()
        except StoreUnavailable:
            self._is_unsure = True
            self._node.holding.begin_later(self.task)
            return False

    def _settle_refused(self) -> bool:
        return t.cast(bool, self._node.holding.settle_refused(self))

    def has_begun_as(self, record: Record | None) -> bool:
        """Return True if a record shows our own begin, whose reply was lost."""
        return (
            self._is_unsure
            and record is not None
            and record.state == "running"
            and record.owner == self.fence.owner
            and record.attempt == self.task.attempt + 1
        )

    def _begun(self, done: Future[t.Any]) -> None:
        """Stop a run that began before its begin was refused."""
        if done.exception() is None and done.result() is None:
            self._node.deliveries.run(self._node.holding.stop, self)

    def give_back(self) -> bool:
        """Let any process run the task; False if nobody else can."""
        return not self.is_ephemeral and t.cast(
            bool, self._node.holding.give_back(self)
        )

    def retry(self, error: BaseException, pause: float) -> bool:
        """Note a failed attempt; return False if the next one may run anywhere."""
        run = t.cast(Attempt, self.task._run)
        failure = failure_of(error)
        later = RetryLater(
            fence=self.fence,
            pause=pause,
            end="timed_out" if run.timed_out else "failed",
            error_class=failure.error_class,
            error_text=failure.text,
        )
        written = self._node.store.retry_later(later)
        if self.is_ephemeral:
            return True
        node, id = self._node, self.task.id
        # Known as mine until then: otherwise it looks as if it was lost.
        written.add_done_callback(lambda done: node.holding.forget(self))
        node.holding.go_on_elsewhere(self, keep=True)
        if run.stop_requested:  # since it failed
            node.deliveries.run(node.store.cancel, id)
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
            self._go_back(verdict, value, deliver)
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
        run = self._node.deliveries.run
        written.add_done_callback(lambda done: run(self._written, done))
        if self.is_ephemeral and self._node.store.away is not None:
            self.deliver()

    def _goes_back(self, verdict: Verdict) -> bool:
        """Return True if the process leaves, and another one can run the task."""
        if verdict.kind != "cancelled" or self.is_ephemeral:
            return False
        if self.task.state == "running":
            return self.is_left and self.task.options.guarantee == "at_least_once"
        is_leaving = self.is_new or self._node.is_leaving
        return is_leaving and not self.task.cancel_requested

    def _go_back(self, verdict: Verdict, value: t.Any, deliver: Deliver) -> None:
        # What was running is handed back at the end of the lease, as after a death.
        if self.task.state != "running":
            self._node.store.release(self.fence)
        self._node.holding.forget(self)
        deliver(self.task, verdict, value)

    def _sealed(
        self, verdict: Verdict, value: t.Any
    ) -> tuple[Verdict, t.Any, Sealed | None, Failure | None]:
        if verdict.kind == "cancelled":
            return verdict, value, None, None
        outcome = Outcome(value, verdict.error)
        saved = self._node.payloads.seal_outcome(self.task.id, self.job, outcome)
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
        elif not done.result() and self._take_end() is not None:
            self._node.holding.settle_stale(self)
        self.deliver()
        self._node.holding.forget(self)

    def give_up_writing(self, reason: object) -> None:
        """End the future although the end is not written; the log says so."""
        label = self.task._label
        if (kind := self.deliver()) is not None:
            message = "Task %s has ended as %s, which could not be written: %s"
            self._node.log.write(logging.WARNING, message, label, kind, reason)

    def deliver(self) -> str | None:
        """End the future, and return as what; None if somebody else has done that."""
        if (end := self._take_end()) is None:
            return None
        verdict, value, deliver = end
        deliver(self.task, verdict, value)
        return verdict.kind

    def _take_end(self) -> tuple[Verdict, t.Any, Deliver] | None:
        """Return the end for the one caller that does something about it."""
        try:
            end = self._ended.pop()
        except IndexError:
            return None
        self.ended_at = None
        return end


def _as_json(progress: Progress) -> t.Any:
    """Return progress as a JSON value, or None: a task may report anything."""
    done, total, message = t.cast("tuple[t.Any, ...]", progress)
    for number in (done, total):
        if not (number is None or isinstance(number, int | float)):
            return None
    return [done, total, str(message)[:900]]
