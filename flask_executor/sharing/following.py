"""Futures of tasks that run elsewhere: they are told of what happens there."""

from __future__ import annotations

import threading
import typing as t
import weakref

from ..calls import Outcome
from ..store_errors import TaskForgotten
from ..stores.errors import StoreUnavailable
from ..stores.records import ENDS, Record
from ..task import Task
from . import remote
from .futures import StoredFuture

_SEVERAL = 1000
"""How many records are read at once."""


class Following:
    """The futures of saved tasks that somebody in this process holds.

    :param node: reads the store.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node
        # Two threads that tell one future of different moments take turns.
        self._lock = threading.RLock()
        self._futures: weakref.WeakValueDictionary[str, StoredFuture[t.Any]] = (
            weakref.WeakValueDictionary()
        )
        self._kept: set[StoredFuture[t.Any]] = set()
        self._loading: set[str] = set()

    def known(self, uid: str) -> StoredFuture[t.Any] | None:
        """Return the future of a task, if somebody holds it."""
        return self._futures.get(uid)

    def add(self, uid: str, future: StoredFuture[t.Any]) -> None:
        """Know a future by the id of its task from now on."""
        with self._lock:
            self._futures[uid] = future

    def open(self) -> dict[str, StoredFuture[t.Any]]:
        """Return the futures of tasks that have not ended, and do not run here."""
        with self._lock:
            futures = [*self._futures.items()]
        return {
            uid: future
            for uid, future in futures
            if not future.done() and self.is_remote(future)
        }

    def is_remote(self, future: StoredFuture[t.Any]) -> bool:
        """Return True if its task does not run in this process."""
        return t.cast(Task, future.task)._owner is self._node.remote_owner

    def future_of(self, record: Record) -> StoredFuture[t.Any]:
        """Return the future of a task as it is now; the same for all who ask."""
        with self._lock:
            future = self._futures.get(record.uid)
            if future is None:
                future = StoredFuture(self._node.app, remote.key_of(record))
                future.task = self._task_of(record, future)
                future.kept_in = self._kept
                self._futures[record.uid] = future
        self.update(future, record)
        return future

    def follow(self, future: StoredFuture[t.Any], like: Task) -> None:
        """Let a future go on with what becomes of its task in the store.

        :param like: what is known of the task so far.
        """
        owner = self._node.remote_owner
        other = remote.RemoteTask(
            future, t.cast(t.Any, None), owner, like.options, like.key
        )
        copy(like, other)
        with self._lock:
            future.task, future.kept_in = other, self._kept
            self._futures[like.id] = future
        future.keep()
        self._node.feeding.start()

    def refreshed(self, task: Task) -> str | None:
        """Return the state of a task as it is now, and tell its future; None: gone."""
        record = self._node.find("uid", task.id)
        if record is None:
            return None
        if (future := self.known(task.id)) is not None:
            self.update(future, record)
        else:
            remote.note(task, record)
        return t.cast(str, record.state)

    def update_all(self) -> dict[str, Record]:
        """Tell all futures of what has happened since; return their records."""
        open_ones = self.open()
        found: dict[str, Record] = {}
        uids = [*open_ones]
        for start in range(0, len(uids), _SEVERAL):
            some = uids[start : start + _SEVERAL]
            read = self._node.store.get_many("uid", some)
            found |= {record.uid: record for record in read}
        for uid, future in open_ones.items():
            if uid in found:
                self.update(future, found[uid])
            else:
                self._end_forgotten(future)
        return found

    def update(self, future: StoredFuture[t.Any], record: Record) -> None:
        """Tell a future of what its record says, unless its task runs here."""
        with self._lock:
            if future.done() or not self.is_remote(future):
                return
            if record.state not in ENDS:
                remote.note(t.cast(Task, future.task), record)
                future.show_running(record.state == "running")
                return
        if not future._done_callbacks or record.state == "cancelled":
            self._end(future, record, self._loader(record))
        elif record.uid not in self._loading:
            # What the callbacks ask for must be there: on an event loop, an error
            # where a result is expected would let it wait for ever.
            self._loading.add(record.uid)
            self._node.deliveries.run(self._load_and_end, future, record)

    def _load_and_end(self, future: StoredFuture[t.Any], record: Record) -> None:
        load = self._loader(record)
        try:
            outcome = load()
        except StoreUnavailable:
            return  # it is told again when that is back
        finally:
            self._loading.discard(record.uid)
        self._end(future, record, lambda: outcome)

    def _loader(self, record: Record) -> t.Callable[[], Outcome]:
        opened = self._node.payloads.open_outcome
        return remote.loader(record, self._node.store.result, opened)

    def _end_forgotten(self, future: StoredFuture[t.Any]) -> None:
        if not self.is_remote(future):  # it was claimed just now
            return
        task = t.cast(Task, future.task)
        error = TaskForgotten(task.name, task.id)
        with self._lock:
            task.state, task._finished = "failed", self._node.dispatcher._time()
        if future.end_elsewhere(lambda: Outcome(error=error), failed=True):
            self._run_callbacks(future)

    def _end(
        self,
        future: StoredFuture[t.Any],
        record: Record,
        load: t.Callable[[], Outcome],
    ) -> None:
        is_cancelled, failed = record.state == "cancelled", record.state != "succeeded"
        with self._lock:
            if future.done() or not self.is_remote(future):
                return
            remote.note(t.cast(Task, future.task), record)
            future.end_elsewhere(None if is_cancelled else load, failed=failed)
        self._run_callbacks(future)

    def _run_callbacks(self, future: StoredFuture[t.Any]) -> None:
        if future._done_callbacks:
            self._node.deliveries.run(future.run_callbacks)

    def _task_of(self, record: Record, future: StoredFuture[t.Any]) -> Task:
        return remote.remote_task(record, future, self._node.remote_owner)


def copy(task: Task, other: Task) -> None:
    """Copy what is known of a task to another object for it."""
    other._id, other._name = task.id, task.name
    other._submitted, other._started = task._submitted, task._started
    other.state, other.attempt = task.state, task.attempt
    other._wanted = task._wanted
