"""Futures of tasks that run elsewhere: they are told of what happens there."""

from __future__ import annotations

import typing as t
import weakref

from ..stores.records import ENDS, Record
from ..task import Task
from . import remote
from .futures import StoredFuture

Ended = t.Callable[..., object]


class Following:
    """The futures of saved tasks that somebody in this process holds.

    :param node: reads the store.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node
        self._futures: weakref.WeakValueDictionary[str, StoredFuture[t.Any]] = (
            weakref.WeakValueDictionary()
        )

    def known(self, uid: str) -> StoredFuture[t.Any] | None:
        """Return the future of a task, if somebody holds it."""
        return self._futures.get(uid)

    def add(self, uid: str, future: StoredFuture[t.Any]) -> None:
        """Know a future by the id of its task from now on."""
        self._futures[uid] = future

    def open(self) -> dict[str, StoredFuture[t.Any]]:
        """Return the futures of tasks that have not ended, and do not run here."""
        return {
            uid: future
            for uid, future in self._futures.copy().items()
            if not future.done() and self.is_remote(future)
        }

    def is_remote(self, future: StoredFuture[t.Any]) -> bool:
        """Return True if its task does not run in this process."""
        return t.cast(Task, future.task)._owner is self._node.remote_owner

    def future_of(self, record: Record) -> StoredFuture[t.Any]:
        """Return the future of a task as it is now."""
        future = self._futures.get(record.uid)
        if future is None:
            made: StoredFuture[t.Any] = StoredFuture(
                self._node.app, remote.key_of(record)
            )
            made.task = self._task_of(record, made)
            # Of two threads that make one, both get the first.
            future = self._futures.setdefault(record.uid, made)
        self.update(future, record)
        return future

    def task_like(self, task: Task, future: StoredFuture[t.Any]) -> Task:
        """Return a task as one that no longer runs in this process."""
        owner = self._node.remote_owner
        other = Task(future, t.cast(t.Any, None), owner, task.options, task.key)
        other._id, other._name = task.id, task.name
        other._submitted, other._started = task._submitted, task._started
        other.state, other.attempt = task.state, task.attempt
        return other

    def follow(self, future: StoredFuture[t.Any], record: Record) -> None:
        """Let a future go on with what becomes of its task elsewhere."""
        future.task = self._task_of(record, future)
        self.update(future, record)

    def update_all(self) -> None:
        """Tell all futures of what has happened since; read in one query."""
        open_ones = self.open()
        if not open_ones:
            return
        records = self._node.store.get_many("uid", [*open_ones])
        for record in records:
            self.update(open_ones[record.uid], record)

    def update(self, future: StoredFuture[t.Any], record: Record) -> None:
        """Tell a future of what its record says, unless its task runs here."""
        if future.done() or not self.is_remote(future):
            return
        remote.note(t.cast(Task, future.task), record)
        if record.state in ENDS:
            self._end(future, record)
        else:
            future.show_running(record.state == "running")

    def _task_of(self, record: Record, future: StoredFuture[t.Any]) -> Task:
        holder = None if record.finished is not None else future
        return remote.remote_task(record, holder, self._node.remote_owner)

    def _end(self, future: StoredFuture[t.Any], record: Record) -> None:
        opened = self._node.payloads.open_outcome
        load = remote.loader(record, self._node.store.result, opened)
        is_cancelled, failed = record.state == "cancelled", record.state != "succeeded"
        if future.end_elsewhere(None if is_cancelled else load, failed=failed):
            t.cast(Task, future.task).future = None
            if future._done_callbacks:
                self._node.deliveries.run(future.run_callbacks)
