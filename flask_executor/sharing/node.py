"""The node: ties one dispatcher to a store that other processes share.

It is a source and a sink beside the dispatcher. A task that this process runs is an
ordinary task of the dispatcher, with a :class:`.SavedTask` that writes down what
becomes of it. All others are rows, which futures follow.
"""

from __future__ import annotations

import logging
import os
import typing as t
import weakref
from concurrent.futures import Future, wait

from flask import Flask

from ..dispatch import Dispatcher
from ..futures import TaskFuture
from ..log import Log
from ..stores.base import Store
from ..stores.errors import StoreUnavailable
from ..stores.payloads import Payloads
from ..stores.records import Record
from ..threads import start_thread
from .accepting import Accepting
from .claiming import Claiming
from .deliveries import Deliveries
from .feeding import Feeding
from .following import Following
from .futures import SharedFutures
from .holding import Holding
from .presence import Lease, Presence
from .remote import RemoteOwner

_PAGE = 500
_GOODBYE = 10.0
"""Seconds for which the end of a process waits for the database, twice at most."""


class Node:
    """One executor in one process, as a part of all that share its store.

    :param dispatcher: runs the tasks of this process.
    :param store: where tasks are remembered.
    :param names: finds the jobs of saved tasks.
    :param name: for threads and messages.
    """

    def __init__(
        self, dispatcher: Dispatcher, store: Store, names: t.Any, name: str
    ) -> None:
        self.dispatcher: Dispatcher = dispatcher
        self.settings: t.Any = dispatcher.settings
        self.store: t.Any = store
        self.names: t.Any = names
        self.log: Log = dispatcher.events.log
        self.payloads: Payloads = Payloads(dispatcher.app, dispatcher.settings)
        self.deliveries: Deliveries = Deliveries(f"{name}_delivery")
        self.remote_owner: RemoteOwner = RemoteOwner(self)
        self.following: Following = Following(self)
        self.holding: Holding = Holding(self)
        self.claiming: Claiming = Claiming(self)
        self.presence: Presence = Presence(self, name)
        self.feeding: Feeding = Feeding(self, name)
        self.accepting: Accepting = Accepting(self)
        self.futures: SharedFutures | None = None
        """``executor.futures``, once somebody has asked for it."""
        self.runs: bool = False
        """True if this process claims tasks of others."""
        self._rest_when_empty()
        self._farewell = weakref.finalize(
            self, _forget, store, self.presence.lease, self.settings.store_max_lost
        )
        self._farewell.atexit = False  # the dispatcher leaves then

    def _rest_when_empty(self) -> None:
        """End the lease when the dispatcher has ended its last task."""
        table, mine, run = self.dispatcher.table, weakref.ref(self), self.deliveries.run
        before = table.on_empty

        def on_empty() -> None:
            before()
            if (node := mine()) is not None:
                run(node.rest)

        table.on_empty = on_empty

    @property
    def app(self) -> Flask:
        """The app whose tasks these are."""
        return self.dispatcher.app

    @property
    def is_leaving(self) -> bool:
        """True if the process begins nothing more."""
        return self.dispatcher.table.leaving

    def serve(self) -> None:
        """Claim tasks from now on, if the config lets this process run any."""
        if self.settings.store_run and not self.runs:
            self.work()

    def work(self) -> None:
        """Claim tasks from now on."""
        self.runs = True
        self.feeding.start()
        self.feeding.wake()

    def rest(self) -> None:
        """Run no tasks any more: nothing is left that was accepted."""
        self.runs = False
        try:
            self.presence.leave()
        except StoreUnavailable as error:  # the lease runs out
            self.log.write(logging.WARNING, "%s", error)

    def close(self) -> None:
        """Write what is left, and disconnect, in a limited time.

        The process ends, so everything that can wait for the database is done on other
        threads.
        """
        self._farewell.detach()
        self.runs = False
        self.feeding.stop(_GOODBYE)
        left: Future[None] = Future()
        self.deliveries.run(self._rest_then, left)
        wait([left], _GOODBYE)
        self.presence.stop(1.0)
        self.deliveries.close()
        self.store.close(_GOODBYE)

    def _rest_then(self, left: Future[None]) -> None:
        try:
            self.rest()
        finally:
            left.set_result(None)

    def new_futures(self, max_length: int | None, ttl: float | None) -> SharedFutures:
        """Return ``executor.futures`` for this process."""
        self.futures = SharedFutures(self, max_length, ttl=ttl, app=self.app)
        return self.futures

    def info(self) -> dict[str, t.Any]:
        """Return what this worker shows of itself."""
        table = self.dispatcher.table
        return {
            "executor": self.dispatcher.pool.kind,
            "busy": len(table.running),
            "queue": len(table.pending),
        }

    # What is known

    def find(self, by: t.Any, value: int | str) -> Record | None:
        """Return the record of a task, or None."""
        return t.cast("Record | None", self.store.get(by, value))

    def future_of(self, record: Record) -> TaskFuture[t.Any]:
        """Return the future of a task, wherever it runs."""
        future = self.following.future_of(record)
        if record.finished is None:
            self.feeding.start()
        return future

    def pop(self, key: str) -> Record | None:
        """Free a key; return its task for one caller among all processes."""
        return t.cast("Record | None", self.store.pop(key))

    def count_keys(self) -> int:
        """Return how many tasks have a key."""
        return t.cast(int, self.store.count_keys())

    def keyed(self) -> t.Iterator[Record]:
        """Yield the records of all tasks that have a key, oldest first."""
        after = 0
        while page := self.store.tasks(keyed=True, after=after, limit=_PAGE):
            yield from sorted(page, key=lambda record: record.id)
            after = max(record.id for record in page)


def _forget(store: t.Any, lease: Lease, max_lost: int) -> None:
    """End the connections and the lease of a node that nobody uses any more."""

    def leave() -> None:
        try:
            if lease.me is not None:
                store.leave(lease.me, max_lost=max_lost)
        except StoreUnavailable:  # it runs out
            pass
        finally:
            lease.ended.set()
            store.close(_GOODBYE)

    if lease.pid == os.getpid():  # not in a forked child, whose parent goes on
        start_thread(leave, name="farewell", daemon=True)
