"""The node: ties one dispatcher to a store that other processes share.

It is a source and a sink beside the dispatcher. A task that this process runs is an
ordinary task of the dispatcher, with a :class:`.SavedTask` that writes down what
becomes of it. All others are rows, which futures follow.
"""

from __future__ import annotations

import typing as t

from flask import Flask

from ..dispatch import Dispatcher
from ..errors import ExecutorShutDown, QueueFull
from ..futures import TaskFuture
from ..log import Log
from ..options import NoKey, Options
from ..store_errors import PayloadRefused
from ..stores.base import Store
from ..stores.keys import encode_key
from ..stores.payloads import Payloads, failure_of
from ..stores.records import Claimed, Fence, Finish, Record
from ..task import Task
from ..verbs.here import own_info
from ..verbs.pauses import Pauses
from .accepting import Accepting
from .committing import Committing
from .deliveries import Deliveries
from .feeding import Feeding
from .following import Following
from .futures import SharedFutures, StoredFuture
from .known import SharedTasks
from .leaving import Leaving
from .presence import Presence
from .remote import RemoteOwner
from .restoring import restored
from .saved import SavedTask
from .ticks import StoreTicks

_PAGE = 500
_AGAIN = 1.0
"""Seconds before a task begins again that could not begin because of the database."""


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
        self.following: Following = Following(self)
        self.presence: Presence = Presence(self, name)
        self.feeding: Feeding = Feeding(self, name)
        self.remote_owner: RemoteOwner = RemoteOwner(store.cancel)
        self.accepting: Accepting = Accepting(self)
        self.leaving: Leaving = Leaving(self, name)
        self.serves: bool = False
        """True if it serves requests, or is a worker: others do, too, or will."""
        self.verbs: SharedTasks = SharedTasks(self)
        self.committing: Committing = Committing(self)
        self.ticks: StoreTicks = StoreTicks(self)
        self.runs: bool = False
        """True if this process claims tasks of others."""
        self.label: str = ""
        """What people call this process."""
        self._mine: dict[int, SavedTask] = {}

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
        return SharedFutures(self, max_length, ttl=ttl, app=self.app)

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

    # What runs here

    def room(self) -> int:
        """Return how many more tasks would begin here at once."""
        pool, table = self.dispatcher.pool, self.dispatcher.table
        if pool.runs_in_caller:
            return 0
        room = pool.room(len(table.running))
        return 100 if room is None else room

    def info(self) -> dict[str, t.Any]:
        """Return what this worker shows of itself."""
        info = own_info(self.dispatcher, self.names)
        runs = self.runs and not self.is_leaving
        return {**info, "name": self.label, "runs": runs}

    def note_pauses(self) -> None:
        """Note which jobs are paused for everyone."""
        Pauses.of(self.dispatcher).set(self.store.paused)

    @property
    def is_reachable(self) -> bool:
        """False if the database was away when this process last needed it."""
        return self.store.away is None and not self.presence.is_away

    def mine(self) -> list[SavedTask]:
        """Return the saved tasks that this process has."""
        return [*self._mine.copy().values()]

    def mine_ids(self) -> list[int]:
        """Return the ids of the saved tasks that this process has."""
        return [*self._mine.copy()]

    def take_over(self, saved: SavedTask, future: StoredFuture[t.Any]) -> None:
        """Note that this process has a task."""
        self._mine[saved.fence.id] = saved
        self.following.add(saved.task.id, future)

    def forget(self, saved: SavedTask) -> None:
        """Note that this process has a task no longer."""
        self._mine.pop(saved.fence.id, None)
        self.feeding.wake()  # there is room for another one

    def withdraw(self, saved: SavedTask, key: t.Hashable | None) -> None:
        """Remove the traces of a task that was not accepted after all."""
        self.forget(saved)
        if key is not None:
            self.store.pop(encode_key(key))
        self.store.finish(Finish(fence=saved.fence, state="cancelled"))

    def begin_later(self, task: Task) -> None:
        """Let a task wait that could not begin: the database is away."""
        self.dispatcher.queueing.enqueue_later(task, _AGAIN, "waiting")

    def refused(self, saved: SavedTask) -> None:
        """Settle what becomes of a task that must not begin here."""
        record = self.store.get("id", saved.fence.id)
        if record is not None and record.cancel and record.finished is None:
            self.dispatcher.cancel(saved.task)
        elif self.dispatcher.table.take_pending(saved.task):
            self.go_on_elsewhere(saved, record)

    def hand_over(self, saved: SavedTask) -> None:
        """Let the next attempt of a task run anywhere."""
        self.go_on_elsewhere(saved, None)

    def give_back(self, saved: SavedTask) -> bool:
        """Let any process run a task that has not begun here; its job is paused."""
        if self.dispatcher.table.take_pending(saved.task):
            self.store.release(saved.fence)
            self.go_on_elsewhere(saved, None)
        return True

    def is_stale(self, saved: SavedTask) -> None:
        """Drop an end that the store has refused."""
        message = "The end of task %s came too late: this process was declared dead."
        self.log.write(30, message, saved.task._label)
        self.go_on_elsewhere(saved, self.store.get("id", saved.fence.id))

    def give_up(self, me: str) -> None:
        """Stop what an earlier life of this process had, which others run now."""
        for saved in [*self._mine.copy().values()]:
            if saved.fence.owner != me:
                continue
            if self.dispatcher.table.take_pending(saved.task):
                saved.task._pool.remove(saved.task)
                self.go_on_elsewhere(saved, None)
            else:
                self.dispatcher.request_cancel(saved.task)

    def stop_what_was_asked(self) -> None:
        """Stop the tasks that somebody elsewhere has asked to stop."""
        if self.presence.me is None or not self._mine:
            return
        for fence in self.store.asked(self.presence.me):
            saved = self._mine.get(fence.id)
            if saved is not None and saved.fence == fence:
                self.dispatcher.request_cancel(saved.task)

    def go_on_elsewhere(self, saved: SavedTask, record: Record | None) -> None:
        """Let the future of a task go on with what becomes of it elsewhere."""
        task = saved.task
        future = t.cast("StoredFuture[t.Any]", task.future)
        self._mine.pop(saved.fence.id, None)
        elsewhere = self.following.task_like(task, future)
        self.dispatcher.endings.hand_over(task)
        future.task = elsewhere
        if record is not None:
            self.following.update(future, record)
        self.feeding.start()
        self.feeding.wake()

    def accept_claimed(self, claimed: Claimed) -> None:
        """Run a task that was claimed."""
        try:
            call, options, job = restored(self, claimed)
        except PayloadRefused as error:
            self._fail(claimed.fence, error)
            return
        except LookupError:  # its job is not declared any more
            self.store.release(claimed.fence)
            return
        future = self.following.known(claimed.uid)
        if future is None or future.done():
            future = StoredFuture(self.app, options.key)
        try:
            task = self.dispatcher.register(future, call, options)
        except (ExecutorShutDown, QueueFull):
            self.store.release(claimed.fence)
            return
        task._id, task.attempt = claimed.uid, claimed.attempt
        task._submitted = claimed.submitted
        careful = claimed.lost > 0
        saved = SavedTask(self, task, claimed.fence, claimed.job, careful=careful)
        task._saved = saved
        self.take_over(saved, future)
        try:
            self.dispatcher.submit(task, job=job)
        except Exception as error:
            self._mine.pop(claimed.fence.id, None)
            self._fail(claimed.fence, error)

    def _fail(self, fence: Fence, error: Exception) -> None:
        failure = failure_of(error)
        finish = Finish(
            fence=fence,
            state="failed",
            error_class=failure.error_class,
            error_text=failure.text,
            traceback=failure.traceback,
        )
        self.log.write(40, "A saved task has failed", error=error)
        self.store.finish(finish)

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

    def wake(self) -> None:
        """Look at once for what has changed."""
        self.feeding.wake()
