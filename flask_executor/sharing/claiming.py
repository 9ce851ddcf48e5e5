"""Running the tasks that this process has claimed."""

from __future__ import annotations

import logging
import typing as t

from ..calls import Call
from ..errors import ExecutorShutDown, QueueFull
from ..options import Options
from ..stores.payloads import failure_of
from ..stores.records import Claimed, Finish
from .futures import StoredFuture
from .restoring import restored
from .saved import SavedTask


class Claiming:
    """Makes tasks of the dispatcher from what was claimed.

    Whatever is wrong with one of them ends that one, and none of the others.

    :param node: has the store, the dispatcher and the futures.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node

    def accept(self, claimed: Claimed) -> None:
        """Run a task that was claimed."""
        job = self._node.names.find(claimed.job)
        if job is None:  # its declaration is gone since
            self._node.store.release(claimed.fence)
            return
        try:
            call, options = restored(self._node, claimed, job)
        except Exception as error:
            self._fail(claimed, error)
            return
        self._run(claimed, call, options, job.declared)

    def _run(self, claimed: Claimed, call: Call, options: Options, job: t.Any) -> None:
        node, known = self._node, self._node.following.known(claimed.uid)
        if known is None or known.done():
            known = StoredFuture(node.app, options.key)
        before, kept_in, known.kept_in = known.task, known.kept_in, None
        try:
            saved = self._saved(claimed, call, options, known)
        except (ExecutorShutDown, QueueFull):
            known.task, known.kept_in = before, kept_in
            node.store.release(claimed.fence)
            return
        saved.task._wanted = before is not None and before._wanted
        if kept_in is not None:
            kept_in.discard(known)
        try:
            node.dispatcher.submit(saved.task, job=job, again=True)
        except Exception as error:
            self._refused(claimed, saved, error)
        else:
            saved.is_new = False

    def _saved(
        self,
        claimed: Claimed,
        call: Call,
        options: Options,
        future: StoredFuture[t.Any],
    ) -> SavedTask:
        task = self._node.dispatcher.register(future, call, options)
        task._id, task.attempt = claimed.uid, claimed.attempt
        task._submitted = claimed.submitted
        careful = claimed.lost > 0
        saved = SavedTask(self._node, task, claimed.fence, claimed.job, careful=careful)
        task._saved, saved.is_new = saved, True
        saved.source, saved.request = claimed.source or {}, claimed.request
        saved.due = claimed.due
        self._node.holding.take(saved, future)
        return saved

    def _refused(self, claimed: Claimed, saved: SavedTask, error: Exception) -> None:
        node, task = self._node, saved.task
        node.dispatcher.table.take_pending(task)
        node.dispatcher.table.forget(task)
        if isinstance(error, ExecutorShutDown):
            node.store.release(claimed.fence)
        else:
            self._fail(claimed, error)
        if task.future is not None:  # otherwise it has ended
            node.holding.go_on_elsewhere(saved)

    def _fail(self, claimed: Claimed, error: Exception) -> None:
        failure = failure_of(error)
        finish = Finish(
            fence=claimed.fence,
            state="failed",
            error_class=failure.error_class,
            error_text=failure.text,
            traceback=failure.traceback,
        )
        message = "Task %s (%s) cannot run, and has failed"
        self._node.log.write(
            logging.ERROR, message, claimed.name, claimed.uid, error=error
        )
        self._node.store.finish(finish)
