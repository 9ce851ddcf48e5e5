"""The end of a process that shares tasks: what it hands back, and how long it waits.

A database that is away, or that does not answer, keeps no process.
"""

from __future__ import annotations

import contextlib
import logging
import threading
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
        self._lock = threading.Lock()
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

    def is_due(self) -> bool:
        """Return True after a shutdown whose last task has ended, here or elsewhere."""
        node = self._node
        table = node.dispatcher.table
        return table.closed and not table.live and not node.following.open()

    def after_shutdown(self) -> None:
        """Leave if nothing is left to do; otherwise the thread that feeds does it."""
        self._node.feeding.wake()
        if self.is_due():
            self.close()

    def close(self, *, wait: bool = True) -> None:
        """Write what is left, and disconnect.

        It is called when the process ends, and after a shutdown. It takes some seconds
        at most, also if the database is away.

        :param wait: if another thread does it already, return when it has done it.
        """
        if self._lock.acquire(blocking=wait):
            try:
                self._close_once()
            finally:
                self._lock.release()

    def _close_once(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def _close(self) -> None:
        node, deadline = self._node, time.monotonic() + _PATIENCE
        node.feeding.stop(_PATIENCE / 3)
        written = node.store.settle(_PATIENCE / 2)
        node.presence.leave(max(deadline - time.monotonic(), _LOOK))
        if not (node.store.close(_PATIENCE if written else 0.0) and written):
            message = "Executor %s could not write all that it has to write: %s"
            node.log.write(logging.WARNING, message, self._name, self._reason)
        node.deliveries.close()
