"""What ties the dispatcher of a test to a store that ends with the test.

It is the node of an app with ``EXECUTOR_STORE``, except that nothing happens on other
threads: what a thread of a node would do soon is done here before the call returns, or
when the clock is moved.
"""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t
from functools import partial

from ..calls import Call
from ..dispatch.timer import TimerHandle
from ..options import Options
from ..sharing.accepting import Accepting
from ..sharing.committing import Committing
from ..sharing.deliveries import Deliveries
from ..sharing.feeding import Feeding
from ..sharing.futures import StoredFuture
from ..sharing.leaving import Leaving
from ..sharing.node import Node
from ..sharing.opening import prefix_of_tables
from ..sharing.presence import Presence
from ..sharing.remote import RemoteOwner, UncommittedOwner
from ..stores.records import NewTask, Taken
from ..task import Task
from .commits import Commit
from .memory import MemoryStore
from .runner import Runner

_MOST = 1000
"""How many tasks are claimed at once."""
_FOREVER = 1e10
"""Seconds: the process of a test never counts as dead."""


class CaptureNode(Node):
    """A node without threads.

    :param dispatcher: the dispatcher of the test.
    :param runner: knows which waits would never end.
    :param executor: the name of the executor.
    """

    def __init__(
        self, dispatcher: t.Any, runner: Runner, names: t.Any, name: str, executor: str
    ) -> None:
        clock = dispatcher.timer.clock
        store = MemoryStore(prefix_of_tables(executor), clock.time)
        super().__init__(dispatcher, store, names, name)
        store.setup()  # not before: without a SECRET_KEY there is no node to close it
        self.deliveries: Deliveries = PromptDeliveries(name)
        self.presence: Presence = LastingPresence(self, name)
        self.feeding: Feeding = PromptFeeding(self, name)
        self.remote_owner: RemoteOwner = PromptOwner(self, runner)
        self.accepting: Accepting = PromptAccepting(self)
        self.committing: CaptureCommitting = CaptureCommitting(self, runner)
        self.leaving: Leaving = QuietLeaving(self, name)

    def _rest_when_empty(self) -> None:
        """Do nothing: there is no lease to end."""

    def close(self) -> None:
        """End the store."""
        self.farewell.detach()
        self.feeding.stop(0)
        self.store.close()

    def unfinished(self) -> list[Task]:
        """Return the tasks that wait in the store: for their time, or a commit."""
        futures = [*self.following.open().values(), *self.committing.uncommitted()]
        return [t.cast(Task, future.task) for future in futures]


class PromptDeliveries(Deliveries):
    """Calls each function at once, on the thread of the test."""

    def run(self, fn: t.Callable[..., object], *args: t.Any) -> None:
        """Call a function."""
        fn(*args)


class LastingPresence(Presence):
    """A lease that does not end."""

    def join(self) -> str:
        """Return the id of this worker."""
        with self._lock:
            if self.lease.me is None:
                me = os.urandom(16).hex()
                self._node.store.join(me, lease=_FOREVER, pid=os.getpid())
                self.lease.me = me
            return self.lease.me


class _Here(threading.local):
    """What a thread does at the moment."""

    is_later: bool = False


class PromptFeeding(Feeding):
    """Claims what waits whenever something has changed."""

    def __init__(self, node: t.Any, name: str) -> None:
        super().__init__(node, name)
        self._looking = threading.Lock()
        self._here = _Here()
        self._must_look = False
        self._alarm: TimerHandle | None = None

    def start(self) -> None:
        """Do nothing: there is no thread."""

    def stop(self, timeout: float) -> None:
        """Take no more."""
        self._is_ended = True
        self._cancel_alarm()

    @contextlib.contextmanager
    def later(self) -> t.Iterator[None]:
        """Look at the end of the block for what has changed in it on this thread.

        In the block, a task may be neither here nor in the store yet.
        """
        before, self._here.is_later = self._here.is_later, True
        try:
            yield
        finally:
            self._here.is_later = before
            if self._must_look:
                self.wake()

    def wake(self, _: object = None) -> None:
        """Look at once: something has changed, or is due."""
        self._must_look = True
        if self._may_look() and not self._node.ticks.is_ready:
            self._node.ticks.update()
        # A thread that is looking already looks again.
        while self._may_look() and self._looking.acquire(blocking=False):
            try:
                self._must_look = False
                claimed = [] if self._is_ended else self._claimed()
            finally:
                self._looking.release()
            # Not within the lock: these tasks may run now, and change something.
            for one in claimed:
                self._node.claiming.accept(one)

    def note_room(self) -> None:
        """Look at once: the next attempt of a task is due by the clock of the test."""
        self.wake()

    def _may_look(self) -> bool:
        return self._must_look and not self._here.is_later

    def _claimed(self) -> list[t.Any]:
        node = self._node
        node.store.promote()
        node.holding.stop_what_was_asked()
        node.following.update_all()
        self._set_alarm(node.store.next_due())
        if node.dispatcher.table.closed:
            return []
        me, known = node.presence.join(), node.names.known()
        claimed: list[t.Any] = node.store.wait(node.store.claim(me, known, _MOST))
        return claimed

    def _set_alarm(self, wait: float | None) -> None:
        self._cancel_alarm()
        if wait is not None:
            timer = self._node.dispatcher.timer
            due = timer.clock.monotonic() + max(wait, 0.0)
            self._alarm = timer.at(due, self.wake, None)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._node.dispatcher.timer.cancel(self._alarm)
            self._alarm = None


class PromptOwner(RemoteOwner):
    """The owner of tasks that wait in the store of a test."""

    def __init__(self, node: t.Any, runner: Runner) -> None:
        super().__init__(node)
        self._runner = runner

    def start_waiting(self, task: Task, timeout: float | None) -> None:
        """Refuse a wait that would never end."""
        self._runner.refuse_wait(task, timeout)


class WaitingForCommit(UncommittedOwner, PromptOwner):
    """The owner of tasks that wait for a session to commit."""


class PromptAccepting(Accepting):
    """Accepts every task for this process, which has room for it."""

    def _refuse_own_lock(self, call: Call) -> None:
        """Do nothing: a transaction of the app locks no store in memory."""

    def _holds(self, options: Options) -> bool:
        return True


class CaptureCommitting(Committing):
    """Accepts the calls whose tasks begin when a session commits."""

    def __init__(self, node: t.Any, runner: Runner) -> None:
        super().__init__(node)
        self._owner = WaitingForCommit(node, runner)

    def uncommitted(self) -> list[StoredFuture[t.Any]]:
        """Return the futures of tasks whose transactions have not ended."""
        return [one.future for one in self._pending.copy().values()]

    def _insert_with(self, session: t.Any, new: NewTask) -> Taken | None:
        refusal: Taken | None = self._node.store.refusal(new)
        return refusal

    def _watch(self, session: t.Any, new: NewTask) -> None:
        Commit(session, partial(self._settle, new))

    def _settle(self, new: NewTask, committed: bool) -> None:
        node, one = self._node, self._pending[new.uid]
        if committed:
            node.store.wait(node.store.insert([new]))
            record = node.find("uid", new.uid)
            if record is not None:
                self._follow_committed(record, one)
                node.wake()
                return
        # Or it was taken meanwhile, which a database does not let happen.
        self._cancel(new.uid, one)


class QuietLeaving(Leaving):
    """The end of a process that has nothing to hand back."""

    def hand_back(self) -> None:
        """Do nothing: there is no other process."""

    def give_up_ends(self) -> None:
        """Do nothing: ends are written at once."""

    def rest(self) -> None:
        """Do nothing: there is no lease to end."""

    def close(self) -> None:
        """End the store."""
        self._node.close()
