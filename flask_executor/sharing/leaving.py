"""The end of a process that shares tasks: what it hands back, and how long it waits.

A database that is away, or that does not answer, keeps no process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import typing as t

from ..task import Task
from ..threads import start_thread
from .deliveries import Deliveries
from .presence import Lease

_PATIENCE = 5.0
"""Seconds that the end of a process waits for the database: first for the ends of its
tasks, then for the end of its lease."""
_MOMENT = 0.5
"""Seconds that it waits for what should take none."""


class Leaving:
    """Lets a node leave.

    :param node: the node.
    :param name: the name of the executor, for the log.
    """

    def __init__(self, node: t.Any, name: str) -> None:
        self._node = node
        self._name = name
        self._is_closed = False
        node.dispatcher.closing.while_draining = self.give_up_ends

    def hand_back(self) -> None:
        """Let other processes run what has not begun here; called before a drain.

        A script keeps them: maybe there is no other process. Tasks that were submitted
        by a task of this process, or that one waits for, are kept, too.
        """
        node = self._node
        table = node.dispatcher.table
        alive = {task.id for task in table.live.copy()}
        for saved in node.holding.mine() if node.serves else ():
            task = saved.task
            if saved.is_ephemeral or task._wanted or saved.parent in alive:
                continue
            if table.take_pending(task):
                task._pool.remove(task)
                node.store.release(saved.fence)
                node.holding.go_on_elsewhere(saved)

    def give_up_ends(self) -> None:
        """End tasks whose ends cannot be written; called while a drain waits.

        Otherwise a drain would wait for as long as the database is away.
        """
        for saved in self._node.holding.mine():
            since = saved.ended_at
            if since is not None and time.monotonic() - since > _PATIENCE:
                self._node.deliveries.run(saved.give_up_writing, self._reason)

    @property
    def _reason(self) -> object:
        return self._node.store.away or "the database does not answer"

    def ask(self, task: Task) -> None:
        """Ask a task to stop because its process ends."""
        if task._saved is not None:
            task._saved.is_left = True  # so it is not cancelled for everybody
        self._node.dispatcher.request_cancel(task)

    def rest(self) -> None:
        """End the lease: nothing is left that was accepted, and nothing more is."""
        self._node.runs = False
        self._node.presence.leave(_PATIENCE)
        self._node.deliveries.close()

    def close(self) -> None:
        """Write what is left, and disconnect; called when the process ends.

        It takes some seconds at most, also if the database is away.
        """
        if self._is_closed:
            return
        self._is_closed = True
        node, deadline = self._node, time.monotonic() + _PATIENCE
        node.farewell.detach()
        node.feeding.stop(_PATIENCE / 3)
        written = node.store.settle(_PATIENCE / 2)
        node.presence.leave(max(deadline - time.monotonic(), _MOMENT))
        node.deliveries.close(_MOMENT)
        if not (node.store.close(_PATIENCE if written else 0.0) and written):
            message = "Executor %s could not write all that it has to write: %s"
            node.log.write(logging.WARNING, message, self._name, self._reason)


def say_goodbye(
    store: t.Any, lease: Lease, deliveries: Deliveries, max_lost: int
) -> None:
    """End the connections and the lease of a node that nobody uses any more.

    It is called by the garbage collector, on any thread: it must not wait.
    """

    def leave() -> None:
        lease.ended.set()
        with contextlib.suppress(Exception):  # the lease runs out
            if lease.me is not None:
                store.leave(lease.me, max_lost=max_lost)
        deliveries.close(_MOMENT)
        store.close(_PATIENCE)

    if lease.pid == os.getpid():  # not in a forked child, whose parent goes on
        start_thread(leave, name="farewell", daemon=True)
