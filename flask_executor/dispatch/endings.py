"""How tasks end: the sinks are told of it, then the future gets the result.

The caller has taken the task out of the table, so nobody else decides about it.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import Future

from ..futures import TaskFuture
from ..task import Task
from .events import Events, clear_locals
from .table import TaskTable
from .timer import Timer
from .verdict import CANCELLED, SUCCEEDED, Verdict, is_own_timeout


class Endings:
    """Ends tasks.

    :param table: has the tasks until then.
    :param timer: holds the handles of those that wait for their time.
    :param events: is told of each end.
    """

    def __init__(self, table: TaskTable, timer: Timer, events: Events) -> None:
        self._table = table
        self._timer = timer
        self._events = events

    def end(self, task: Task, verdict: Verdict, value: t.Any = None) -> None:
        """End a task as decided.

        :param value: what the call returned.
        """
        if verdict.error is not None:
            clear_locals(verdict.error)
        if task._saved is None:
            self.end_now(task, verdict, value)
        else:
            task._saved.end(verdict, value, self.end_now)

    def end_now(self, task: Task, verdict: Verdict, value: t.Any = None) -> None:
        """End a task whose end is written, if it is saved at all."""
        future = self._table.end(task, verdict.kind)
        try:
            self._events.ended(task, verdict, value)
        finally:
            self.deliver(task, future, verdict, value)

    def deliver(
        self, task: Task, future: TaskFuture[t.Any], verdict: Verdict, value: t.Any
    ) -> None:
        """End the future of a task, and run its callbacks on this thread."""
        if verdict is SUCCEEDED:
            future.end_with(value)
        elif verdict.kind == "cancelled":
            future.end_cancelled()
        else:
            future.end_failed(t.cast(BaseException, verdict.error))
        # Its future has ended, so the task is not alive; callbacks may wait for that.
        self._table.remove(task)
        if future._done_callbacks:
            future.run_callbacks()

    def end_pending(self, task: Task, verdict: Verdict) -> bool:
        """End a pending task, wherever it waits; return False if it is not pending."""
        if not self._table.take_pending(task):
            return False
        self.end_taken(task, verdict)
        return True

    def end_taken(self, task: Task, verdict: Verdict) -> None:
        """Same as :meth:`end_pending`, for who has taken the task out of the table."""
        task._ended_as = t.cast("t.Any", verdict.kind)
        if task._timer is not None:
            self._timer.cancel(task._timer)
            task._timer = None
        task._pool.remove(task)
        if task._place is not None:
            task._place.limit.leave(task._place)
        if verdict.error is not None:
            self._events.failed(task, verdict)
        self.end(task, verdict)

    def cancel(self, task: Task) -> bool:
        """Cancel a task that waits; return True if it is cancelled now."""
        future = task.future
        if self.end_pending(task, CANCELLED) or task.state == "cancelled":
            return True
        if self._table.take_reserved(task):
            # Its submitter, who has not accepted it yet, finds it taken and ends it,
            # maybe before the next step here.
            return Future.cancel(future)
        return future is not None and future.cancelled()  # that way, before this call

    def hand_over(self, task: Task) -> TaskFuture[t.Any]:
        """Forget a task that another process may run; its future goes on.

        The caller has taken it out of the pending and the running tasks.
        """
        future: TaskFuture[t.Any] = task.future
        if task._place is not None:
            task._place.limit.leave(task._place)
        task._release()
        self._table.remove(task)
        return future

    def give_up(self, task: Task) -> None:
        """End a task that cannot wait: with its last failure, or as cancelled."""
        error = task._error
        if error is None:
            self.cancel(task)
            return
        # Its timeout may have been over only after it had failed.
        timed_out = task._run is not None and is_own_timeout(task._run, error)
        kind: t.Any = "timed_out" if timed_out else "failed"
        self.end_pending(task, Verdict(kind, error, given_up=True))

    def abandon(self, task: Task, error: BaseException) -> None:
        """End a pending task that nothing can run."""
        self.end_pending(task, Verdict("failed", error))

    def break_off(self, task: Task, error: BaseException) -> None:
        """End a task in any state that a fault of ours has left."""
        self._events.broke(task, error)
        self._table.take_pending(task)
        if task._run is not None:
            self._table.take_running(task._run)
        if task._place is not None:
            task._place.limit.leave(task._place)
        if not task._has_ended:
            self.end(task, Verdict("failed", error))
