"""The end of a process that shares tasks: what it hands back, and how long it waits.

A database that is away, or that does not answer, keeps no process.
"""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t

_PATIENCE = 5.0
"""Seconds that the end of a process waits for the database: first for the ends of its
tasks, then for the end of its lease."""
_LOOK = 0.5
"""Seconds between two looks for ends that cannot be written."""


class Leaving:
    """Lets a node leave.

    :param node: the node.
    :param name: the name of the executor, for the log.
    """

    def __init__(self, node: t.Any, name: str) -> None:
        self._node = node
        self._name = name
        self._is_closed = False

    def hand_back(self) -> None:
        """Let other processes run what has not begun here; called before a drain.

        A script keeps them: maybe there is no other process. Tasks that were submitted
        by a task of this process, or that one waits for, are kept, too.
        """
        node = self._node
        table = node.dispatcher.table
        alive = {task.id for task in table.live.copy()}
        for saved in node.mine() if node.serves else ():
            task = saved.task
            if saved.is_ephemeral or task._wanted or saved.parent in alive:
                continue
            if table.take_pending(task):
                task._pool.remove(task)
                node.store.release(saved.fence)
                node.go_on_elsewhere(saved, None)

    def stop(self, task: t.Any) -> None:
        """Ask a task to stop because the process ends; it does not end with that.

        If it stops, it is like one whose process has died. If somebody has asked it
        before, it is cancelled.
        """
        saved = task._saved
        if saved is not None and not task.cancel_requested:
            saved.is_left = not saved.is_ephemeral
        self._node.dispatcher.request_cancel(task)

    def limit_wait_for_ends(self, _: object = None) -> None:
        """End tasks whose ends cannot be written; called when a drain begins.

        Otherwise a drain would wait for as long as the database is away. It looks again
        and again, on the thread of the timer: that of the lease may stand in a query
        that gets no answer.
        """
        node, mine = self._node, self._node.mine()
        for saved in mine:
            since = saved.ended_at
            if since is not None and time.monotonic() - since > _PATIENCE:
                node.deliveries.run(saved.give_up_writing, self._reason)
        if mine and not self._is_closed:
            timer = node.dispatcher.timer
            with contextlib.suppress(RuntimeError):  # there are no more threads
                due = timer.clock.monotonic() + _LOOK
                timer.at(due, self.limit_wait_for_ends, None)

    @property
    def _reason(self) -> object:
        return self._node.store.away or "the database does not answer"

    def close(self) -> None:
        """Write what is left, and disconnect; called when the process ends.

        It takes some seconds at most, also if the database is away.
        """
        if self._is_closed:
            return
        self._is_closed = True
        node, deadline = self._node, time.monotonic() + _PATIENCE
        node.feeding.stop(_PATIENCE / 3)
        written = node.store.settle(_PATIENCE / 2)
        node.presence.leave(max(deadline - time.monotonic(), _LOOK))
        if not (node.store.close(_PATIENCE if written else 0.0) and written):
            message = "Executor %s could not write all that it has to write: %s"
            node.log.write(logging.WARNING, message, self._name, self._reason)
