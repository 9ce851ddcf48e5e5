"""The saved tasks that this process has: held, running, or being ended."""

from __future__ import annotations

import contextlib
import logging
import typing as t

from ..dispatch import Dispatcher
from ..options import NoKey
from ..stores.errors import StoreUnavailable
from ..stores.keys import encode_key
from ..stores.records import Finish
from ..task import Task
from .futures import StoredFuture
from .saved import SavedTask

_AGAIN = 1.0
"""Seconds before a task begins again that could not begin because of the database."""
_MOST_COROUTINES = 1000
"""How many saved coroutines this process has at once."""
_SEVERAL = 100
"""How many tasks are claimed at once where there is no limit."""


class Holding:
    """Knows the saved tasks of this process, and lets go of them.

    :param node: has the store, the dispatcher and the futures.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node
        self._dispatcher: Dispatcher = node.dispatcher
        self._mine: dict[int, SavedTask] = {}

    def __iter__(self) -> t.Iterator[int]:
        """Return the ids of the saved tasks that this process has now."""
        return iter([*self._mine.copy()])

    def mine(self) -> list[SavedTask]:
        """Return the saved tasks of this process."""
        return [*self._mine.copy().values()]

    def __bool__(self) -> bool:
        return bool(self._mine)

    def room(self) -> int:
        """Return how many more tasks would begin on a worker at once."""
        pool, table = self._dispatcher.pool, self._dispatcher.table
        if pool.runs_in_caller or table.closed:
            return 0
        attempts = [*table.running.copy(), *table.late.copy()]
        room = pool.room(sum(attempt.task._pool is pool for attempt in attempts))
        # Those that wait for a place of their job are in no queue.
        waiting = sum(
            saved.task.state == "waiting" and saved.task._pool is pool
            for saved in self.mine()
        )
        return self._allowed(_SEVERAL if room is None else room - waiting)

    def room_for_coroutines(self) -> int:
        """Return how many more coroutines this process takes now."""
        if self._dispatcher.pool.runs_in_caller or self._dispatcher.table.closed:
            return 0
        room = _MOST_COROUTINES - len(self._mine)
        return self._allowed(min(room, _SEVERAL))

    def _allowed(self, room: int) -> int:
        most = self._dispatcher.settings.max_pending
        if most is not None:
            room = min(room, most - self._dispatcher.table.count_waiting())
        return max(0, room)

    def take(self, saved: SavedTask, future: StoredFuture[t.Any]) -> None:
        """Note that this process has a task."""
        self._mine[saved.fence.id] = saved
        self._node.following.add(saved.task.id, future)

    def forget(self, saved: SavedTask) -> None:
        """Note that this process has a task no longer."""
        if self._mine.get(saved.fence.id) is saved:  # it may have claimed it again
            self._mine.pop(saved.fence.id, None)
        self._node.feeding.note_room()

    def withdraw(self, saved: SavedTask, key: t.Any) -> None:
        """Remove the traces of a task that was not accepted after all."""
        finish = Finish(fence=saved.fence, state="cancelled")
        self._node.store.finish(finish)
        self.forget(saved)
        if key is not NoKey:
            with contextlib.suppress(StoreUnavailable):  # the submit has failed already
                self._node.store.pop(encode_key(key))

    def begin_later(self, task: Task) -> None:
        """Let a task wait that could not begin: the database is away."""
        if task._place is not None:
            task._place = task._place.renewed()
        self._dispatcher.queueing.enqueue_later(task, _AGAIN, "waiting")

    def settle_refused(self, saved: SavedTask) -> bool:
        """Settle what becomes of a task whose begin was refused.

        :return: True if it has begun after all: the reply to the commit was lost.
        :raises StoreUnavailable: if the database is away.
        """
        record = self._node.find("id", saved.fence.id)
        if saved.has_begun_as(record):
            return True
        is_mine = record is not None and record.owner == saved.fence.owner
        if is_mine and record.cancel and record.finished is None:
            self._dispatcher.cancel(saved.task)
        elif self._dispatcher.table.take_pending(saved.task):
            self.go_on_elsewhere(saved)
        return False

    def give_back(self, saved: SavedTask) -> bool:
        """Let any process run a task that has not begun here; its job is paused."""
        if self._dispatcher.table.take_pending(saved.task):
            self._node.store.release(saved.fence)
            self.go_on_elsewhere(saved)
        return True

    def stop(self, saved: SavedTask) -> None:
        """Ask a run to stop that ought not to have begun."""
        self._dispatcher.request_cancel(saved.task)

    def settle_stale(self, saved: SavedTask) -> None:
        """Drop an end that the store has refused; the future goes on."""
        message = (
            "The end of task %s was not written: this process was declared dead, or the"
            " task was taken from it, so another one decides how it ends."
        )
        self._node.log.write(logging.WARNING, message, saved.task._label)
        self.go_on_elsewhere(saved)

    def give_up(self, me: str) -> None:
        """Stop what an earlier life of this process had, which others run now."""
        for saved in self.mine():
            if saved.fence.owner != me:
                continue
            if self._dispatcher.table.take_pending(saved.task):
                saved.task._pool.remove(saved.task)
                self.go_on_elsewhere(saved)
            else:
                self._dispatcher.request_cancel(saved.task)

    def stop_what_was_asked(self) -> None:
        """Stop the tasks that somebody elsewhere has asked to stop."""
        me = self._node.presence.me
        for fence in self._node.store.asked(me) if me and self._mine else ():
            saved = self._mine.get(fence.id)
            if saved is not None and saved.fence == fence:
                self._dispatcher.request_cancel(saved.task)

    def end_without_store(self) -> None:
        """End the ephemeral tasks whose ends cannot be written now."""
        for saved in self.mine() if self._node.store.away is not None else ():
            if saved.is_ephemeral and saved.ended_at is not None:
                # Not here: callbacks may take long, and the lease must not wait.
                self._node.deliveries.run(saved.deliver)

    def go_on_elsewhere(self, saved: SavedTask, *, keep: bool = False) -> None:
        """Let go of a task that is neither pending nor running here any more.

        :param keep: something about it is still to be written.
        """
        task = saved.task
        future = t.cast("StoredFuture[t.Any]", task.future)
        if task._timer is not None:
            self._dispatcher.timer.cancel(task._timer)
        if not keep:
            self.forget(saved)
        self._node.following.follow(future, task)
        self._dispatcher.endings.hand_over(task)
        self._node.deliveries.run(self._tell, future)

    def _tell(self, future: StoredFuture[t.Any]) -> None:
        try:
            self._node.following.refreshed(future.task)
        except StoreUnavailable:
            self._node.feeding.wake()
