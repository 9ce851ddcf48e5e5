"""The node: ties one dispatcher to a store that other processes share.

It is a source and a sink beside the dispatcher. A task that this process runs is an
ordinary task of the dispatcher, with a :class:`.SavedTask` that writes down what
becomes of it. All others are rows, which futures follow.
"""

from __future__ import annotations

import threading
import time
import typing as t
import weakref

from flask import Flask

from ..dispatch import Dispatcher
from ..futures import TaskFuture
from ..log import Log
from ..options import NoKey, Options
from ..stores.base import Store
from ..stores.payloads import Payloads
from ..stores.records import Record
from ..verbs.here import own_info
from ..verbs.pauses import Pauses
from .accepting import Accepting
from .claiming import Claiming
from .committing import Committing
from .deliveries import Deliveries
from .feeding import Feeding
from .following import Following
from .futures import SharedFutures
from .grouping import Grouping
from .holding import Holding
from .known import SharedTasks
from .leaving import Leaving, say_goodbye
from .presence import Presence
from .questions import Questions
from .remote import RemoteOwner
from .ticks import StoreTicks

_PAGE = 500
_PAUSES = 0.5
"""Seconds for which it is known which jobs are paused."""


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
        self.questions: Questions = Questions(self)
        self.feeding: Feeding = Feeding(self, name)
        self.grouping: Grouping = Grouping(self)
        self.accepting: Accepting = Accepting(self)
        self.committing: Committing = Committing(self)
        self.ticks: StoreTicks = StoreTicks(self)
        self.leaving: Leaving = Leaving(self, name)
        self.verbs: SharedTasks = SharedTasks(self)
        self._pauses_known_until = 0.0
        self._knowing_pauses = threading.Lock()
        self.futures: t.Any = None
        """``executor.futures``, once somebody has asked for it."""
        self.serves: bool = False
        """True if it serves requests, or is a worker: others do, too, or will."""
        self.runs: bool = False
        """True if this process claims tasks of others."""
        self.label: str = ""
        """What people call this process."""
        self.drain: t.Callable[[], object] | None = None
        """Lets this process end, if it only runs saved tasks."""
        self._rest_when_empty()
        left = store, self.presence.lease, self.deliveries, self.settings.store_max_lost
        self.farewell: t.Any = weakref.finalize(self, say_goodbye, *left)
        """Ends what is left of a node that nobody uses any more."""
        self.farewell.atexit = False  # the dispatcher leaves then

    def _rest_when_empty(self) -> None:
        """End the lease when the dispatcher has ended its last task."""
        table, mine, run = self.dispatcher.table, weakref.ref(self), self.deliveries.run
        before = table.on_empty

        def on_empty() -> None:
            before()
            if (node := mine()) is None:
                return
            if node.presence.me is None:  # nothing to wait for
                node.leaving.rest()
            else:
                run(node.leaving.rest)

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
        """Note that this process serves requests, and claim tasks if it may."""
        self.serves = True
        self.work_if_allowed()

    def work_if_allowed(self) -> None:
        """Claim tasks from now on, if the config lets this process run any.

        It does so from its first request on, or from the first submit with a guarantee.
        A process that only reads runs none.
        """
        if self.settings.store_run and not self.runs:
            self.work()

    def work(self) -> None:
        """Claim tasks from now on."""
        self.runs = True
        self.feeding.start()
        self.feeding.wake()

    def new_futures(self, max_length: int | None, ttl: float | None) -> SharedFutures:
        """Return ``executor.futures`` for this process."""
        made = self.futures = SharedFutures(self, max_length, ttl=ttl, app=self.app)
        return made

    def saves(self, options: Options, key: t.Any) -> bool:
        """Return True if a task with these options is kept in the store."""
        if options.session is not None:
            # In a test with 'sync' a call runs at once, in the session of its caller.
            return not self.dispatcher.pool.runs_in_caller
        if key is not NoKey or options.unique is not None:
            return True
        return options.guarantee != "ephemeral" or self.ticks.has_current

    def accepting_for(self, options: Options) -> Accepting:
        """Return what accepts a call with these options."""
        return self.accepting if options.session is None else self.committing

    def info(self) -> dict[str, t.Any]:
        """Return what this worker shows of itself."""
        info = own_info(self.dispatcher, self.names)
        runs = self.runs and not self.is_leaving
        return {**info, "name": self.label, "runs": runs}

    def know_pauses(self) -> None:
        """Note which jobs are paused for everyone, unless that was done just now."""
        with self._knowing_pauses:  # who comes while another thread reads needs it, too
            now = time.monotonic()
            if now >= self._pauses_known_until:
                Pauses.of(self.dispatcher).set(self.store.paused)
                self._pauses_known_until = now + _PAUSES

    @property
    def is_reachable(self) -> bool:
        """False if the database was away when this process last needed it."""
        return self.store.away is None and not self.presence.is_away

    # What is known

    def find(self, by: t.Any, value: int | str) -> Record | None:
        """Return the record of a task, or None."""
        return t.cast("Record | None", self.store.get(by, value))

    def state_elsewhere(self, key: str) -> str | None:
        """Return the state of a task by its key; None if its future is known here."""
        uid, state = self.store.state_of(key) or (None, None)
        return None if uid is None or self.following.known(uid) else state

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

    def wake(self) -> None:
        """Look at once for what has changed."""
        self.feeding.wake()
