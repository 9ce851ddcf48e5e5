"""The lease of this process: what tells all others that it is alive.

A thread of its own renews it, so that nothing else can delay that. The same thread
takes up what dead processes have left.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import typing as t
import weakref

from ..stores.errors import StoreUnavailable
from ..threads import start_thread

_REAP = 1.0
"""Seconds between two looks for dead processes."""


class Lease:
    """What a process knows of its lease."""

    def __init__(self) -> None:
        self.me: str | None = None
        """The id of this worker, random for each start; None if it has no lease."""
        self.ended: threading.Event = threading.Event()
        """Set when it never takes a lease again."""
        self.pid: int = os.getpid()


class Presence:
    """One process, as the store knows it.

    :param node: what belongs to the worker.
    :param name: for threads and messages.
    """

    def __init__(self, node: t.Any, name: str) -> None:
        self._node = node
        self._name = name
        self._lock = threading.Lock()
        self.lease: Lease = Lease()
        self.is_away: bool = False
        """True if the database was away at the last renewal."""
        self._renew_at = 0.0
        self._reap_at = 0.0
        self._thread: threading.Thread | None = None

    @property
    def me(self) -> str | None:
        """The id of this worker; None if it has no lease."""
        return self.lease.me

    def join(self) -> str:
        """Return the id of this worker; the first call takes a lease.

        :raises StoreUnavailable: if the database is away, or the process ends.
        """
        if (me := self.me) is not None:
            return me
        with self._lock:
            if self.lease.ended.is_set():
                raise StoreUnavailable("of this process", "the process ends")
            if self.me is None:
                self._join()
                self._plan_renewal()
                # Weak: the thread must not keep an app alive that nobody uses.
                pause = min(_REAP, self._node.settings.store_lease / 12)
                step, leave = map(weakref.WeakMethod, (self._step, self._leave))
                loop = _Loop(step, leave, self.lease.ended, pause)
                name = f"{self._name}_lease"
                self._thread = start_thread(loop.run, name=name, daemon=True)
            return t.cast(str, self.me)

    def _join(self) -> None:
        me = os.urandom(16).hex()
        settings, store = self._node.settings, self._node.store
        store.join(
            me,
            lease=settings.store_lease,
            host=socket.gethostname(),
            pid=os.getpid(),
            info=self._node.info(),
        )
        self.lease.me = me

    def leave(self, timeout: float) -> None:
        """End the lease for ever, and hand back what has not begun.

        That happens on the thread of the lease, so that a database that does not answer
        cannot keep the process.

        :param timeout: seconds to wait for it.
        """
        self.lease.ended.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(timeout)
        if thread.is_alive():
            self._say_not_left("the database does not answer")

    def _leave(self) -> None:
        with self._lock:
            me, self.lease.me = self.me, None
        try:
            self._node.store.leave(me, max_lost=self._node.settings.store_max_lost)
        except Exception as error:
            self._say_not_left(error)

    def _say_not_left(self, reason: object) -> None:
        message = (
            "Process %s could not end its lease: %s. Others take up what it had when"
            " the lease is over, in %g seconds at most."
        )
        values = os.getpid(), reason, self._node.settings.store_lease
        self._node.log.write(logging.WARNING, message, *values)

    def _step(self) -> None:
        if self.is_away or time.monotonic() >= self._renew_at:
            self._plan_renewal()
            self._try(self._renew)
        if not self.is_away and time.monotonic() >= self._reap_at:
            self._try(self._reap)
        self._node.holding.end_without_store()

    def _plan_renewal(self) -> None:
        self._renew_at = time.monotonic() + self._node.settings.store_lease / 6

    def _try(self, duty: t.Callable[[], object]) -> None:
        """Do something with the store; say once that it is away."""
        try:
            duty()
        except StoreUnavailable as error:
            if not self.is_away:
                self._node.log.write(logging.WARNING, "%s", error)
            self.is_away = True
            # Nobody could renew. When the database is back, all who are alive do that
            # first; otherwise they would declare each other dead.
            self._reap_at = time.monotonic() + self._node.settings.store_lease / 3
        except Exception as error:
            message = "A fault in the executor, which goes on"
            self._node.log.write(logging.ERROR, message, error=error)
        else:
            self.is_away = False

    def _renew(self) -> None:
        settings, store, me = self._node.settings, self._node.store, self.me
        if me is None or self.lease.ended.is_set():
            return
        info = self._node.info()
        renewed = store.renew(me, lease=settings.store_lease, info=info)
        if renewed is None:
            self._declared_dead(me)
            return
        store.reconcile(
            me,
            self._node.holding,  # as it is when its turn has come
            older=settings.store_lease / 3,
            max_lost=settings.store_max_lost,
        )
        self._node.holding.stop_what_was_asked()
        if renewed.ask is not None:
            self._node.questions.answer(me, renewed.ask)

    def _declared_dead(self, me: str) -> None:
        with self._lock:
            if self.lease.ended.is_set():
                return
            self._join()
        message = (
            "Process %s did not renew its lease for %g seconds and was declared dead:"
            " what it had waits for others, and its runs are asked to stop."
        )
        lease = self._node.settings.store_lease
        self._node.log.write(logging.WARNING, message, os.getpid(), lease)
        self._node.holding.give_up(me)

    def _reap(self) -> None:
        if self.lease.ended.is_set():
            return
        reaped = self._node.store.reap(self._node.settings.store_max_lost)
        for orphan in reaped.orphans:
            message = "The process of task %s has died: it is %s now"
            self._node.log.write(logging.WARNING, message, orphan.name, orphan.state)
        if reaped.orphans:
            self._node.feeding.wake()


class _Loop(t.NamedTuple):
    """What the thread runs: it refers to the rest only while it does something."""

    step: t.Callable[[], t.Callable[[], object] | None]
    leave: t.Callable[[], t.Callable[[], object] | None]
    ended: threading.Event
    pause: float

    def run(self) -> None:
        """Take a step now and then, until the lease has ended."""
        while not self.ended.wait(self.pause * random.uniform(0.9, 1.1)):
            if (step := self.step()) is None:
                return
            step()
            del step
        if (leave := self.leave()) is not None:
            leave()
