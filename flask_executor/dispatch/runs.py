"""The runs of tasks: how an attempt begins, and what its outcome causes."""

from __future__ import annotations

import typing as t

from ..attempt import Attempt
from ..calls import Outcome
from ..task import Task
from .endings import Endings
from .events import Events, clear_locals
from .queueing import Queueing
from .table import TaskTable
from .timer import Timer
from .verdict import SUCCEEDED, Verdict, timeout_of, verdict


class Runs:
    """Begins attempts, and performs the verdict on each."""

    def __init__(
        self,
        table: TaskTable,
        timer: Timer,
        events: Events,
        endings: Endings,
        queueing: Queueing,
    ) -> None:
        self._table = table
        self._timer = timer
        self._events = events
        self._endings = endings
        self._queueing = queueing

    def begin(self, task: Task) -> Attempt | None:
        """Begin an attempt on this thread; return None if the task must not run."""
        try:
            keeps = self._queueing.keeps
            if keeps is not None and keeps(task):
                return None
            place = task._place
            if place is not None and not place.limit.enter(place):
                if task not in self._table.pending:
                    # What took it has looked for it there before it was there.
                    place.limit.leave(place)
                return None
            may_begin = task._saved is None or task._saved.begin()
            attempt = self._table.start(task) if may_begin else None
            if attempt is not None:
                self._events.started(attempt)
                if task.options.timeout is not None:
                    self._watch(attempt, task.options.timeout)
            elif place is not None:
                place.limit.leave(place)
            return attempt
        except BaseException as error:  # a fault in here: it must not cost a worker
            self._endings.break_off(task, error)
            return None

    def settle(self, attempt: Attempt, error: BaseException) -> None:
        """Decide what a failure means, in the context in which it was raised."""
        if self._table.take_running(attempt):
            made = attempt.decided = self._decide(attempt, Outcome(error=error))
            if made.error is not None:
                self._events.decided(attempt, made)

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take the outcome of an attempt, on any thread."""
        task = attempt.task
        try:
            if attempt.timer is not None:
                self._timer.cancel(attempt.timer)
            if task._place is not None:
                task._place.limit.leave(task._place)
            made: Verdict | None = SUCCEEDED  # as most are
            if not self._table.take_running(attempt):
                made, attempt.decided = attempt.decided, None
            elif outcome.error is not None:
                made = self._conclude(attempt, outcome)
            attempt.call = None
            if made is None:
                self._returned_late(attempt)
            elif made.kind == "retrying":
                self._try_again(task, made)
            else:
                self._endings.end(task, made, outcome.value)
        except BaseException as error:  # a fault in here: it must not cost a worker
            self._endings.break_off(task, error)

    def _conclude(self, attempt: Attempt, outcome: Outcome) -> Verdict:
        """Decide, and tell the sinks of a failure in a restore of its context."""
        made = self._decide(attempt, outcome)
        if made.error is not None:
            self._log_decided(attempt, made)
        return made

    def _decide(self, attempt: Attempt, outcome: Outcome) -> Verdict:
        if attempt.planned is not None and attempt.timed_out:
            return t.cast(Verdict, attempt.planned)
        saved = attempt.task._saved
        # The next attempt of a saved task can run in another process.
        goes_on = saved is not None and not saved.is_ephemeral
        leaving = self._table.leaving and not goes_on
        return verdict(attempt, outcome, leaving=leaving)

    def _log_decided(self, attempt: Attempt, made: Verdict) -> None:
        call, tell = attempt.call, self._events.decided
        if not self._events.is_logged(made):
            return  # to restore a context takes time, and runs teardown functions
        if call is None or call.snapshot is None:
            tell(attempt, made)
        else:
            run = call.snapshot.run
            self._events.log.guard(run, tell, (attempt, made), {}, attempt)

    def _returned_late(self, attempt: Attempt) -> None:
        if self._table.take_late(attempt) and attempt.overrun:
            attempt.overrun = False
            attempt.task._was_asked, attempt.task._run = True, None
            self._events.returned_late(attempt, -t.cast(float, attempt.remaining()))

    def _try_again(self, task: Task, made: Verdict) -> None:
        attempt, error = t.cast(Attempt, task._run), t.cast(BaseException, made.error)
        clear_locals(error)
        self._table.note_failed(task, error)
        self._events.retrying(task, made)
        if task._saved is not None and not task._saved.retry(error, made.pause or 0.0):
            return  # it is the store's now
        if task._place is not None:
            task._place = task._place.renewed()
        self._table.admit_again(task)
        if attempt.stop_requested:  # since it failed
            self._endings.cancel(task)
        elif self._table.leaving:
            self._endings.give_up(task)
        elif made.pause:
            self._queueing.enqueue_later(task, made.pause, "retrying")
        else:
            self._queueing.enqueue_again(task)

    # Stopping a run

    def request_cancel(self, task: Task) -> bool:
        """Cancel a waiting task, or ask a running one to stop; False if it ended."""
        if self._endings.cancel(task):
            return True
        attempt = self._table.attempt_of(task)
        if task._has_ended or attempt is None:
            return False
        attempt.stop_requested, attempt.timed_out = True, False
        if self._table.is_running(attempt):
            self._stop(attempt)
        else:  # what performs its verdict may not have seen that
            self._endings.cancel(task)
        return True

    def _watch(self, attempt: Attempt, timeout: float) -> None:
        attempt.deadline = self._timer.clock.monotonic() + timeout
        attempt.timer = self._timer.at(attempt.deadline, self._became_late, attempt)

    def _became_late(self, attempt: Attempt) -> None:
        self._timer.aside(self._overdue, attempt)

    def _overdue(self, attempt: Attempt) -> None:
        """Stop an attempt whose timeout is over, or end its task without it."""
        attempt.timed_out = True
        made = verdict(attempt, Outcome(error=timeout_of(attempt)))
        overruns = not attempt.task._pool.stops_runs
        if made.kind == "retrying":
            # The next attempt waits until this one has really ended.
            attempt.planned = made
            if self._table.is_running(attempt):
                self._stop(attempt)
        elif self._table.take_overdue(attempt, overruns=overruns):
            # Before its call is released: some pools find it by its call.
            self._stop(attempt)
            self._log_decided(attempt, made)
            self._endings.end(attempt.task, made)

    def _stop(self, attempt: Attempt) -> None:
        attempt.task._pool.interrupt(attempt)
        for fn in attempt.on_stop:
            fn()
