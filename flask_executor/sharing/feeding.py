"""What this process takes from the store: tasks to run, and news of those elsewhere."""

from __future__ import annotations

import logging
import threading
import time
import typing as t
import weakref

from ..calls import is_coroutine_function
from ..stores.errors import StoreUnavailable
from ..stores.records import Record
from ..threads import start_thread

_PROMOTE = 0.5
"""Seconds between two looks for tasks that have become due."""
_PRUNE = 60.0
"""Seconds between two removals of what has ended long ago."""
_FLUSH = 5.0
"""Seconds between two writes of the statistics."""
_FORSAKEN = 24 * 3600.0
"""Seconds after which a task ends whose job no process knows."""
_SHARE = 4
"""How many times longer than a look for news the pause after it is."""
_IDLE = 2.0
"""Seconds for which the thread stays alive with nothing to do."""


class Feeding:
    """A thread that claims tasks if this process runs them, and updates futures.

    It lives while this process runs tasks of others, or has saved tasks, or somebody
    here holds a future of a task that has not ended.

    :param node: has the store, the tasks and the futures.
    :param name: for the thread.
    """

    def __init__(self, node: t.Any, name: str) -> None:
        self._node = node
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._has_news = True
        self._may_find = True
        self._news_after = 0.0
        self._needed_until = 0.0
        self._is_started = False
        self._is_ended = False
        self._thread: threading.Thread | None = None
        self._due: dict[str, float] = {}
        self._open: dict[str, Record] = {}
        self._said: str | None = None
        self._watch = _Watch()

    def start(self) -> None:
        """Start the thread, unless it runs."""
        self._needed_until = time.monotonic() + _IDLE
        with self._lock:
            if self._is_started or self._is_ended:
                return
            # Weak: no thread keeps an app alive that nobody uses any more.
            self._watch = _Watch()
            step = weakref.WeakMethod(self.step)
            loop = _Loop(step, self._changed, self._watch)
            name = f"{self._name}_feed"
            self._thread = start_thread(loop.run, name=name, daemon=True)
            self._is_started = True

    def wake(self) -> None:
        """Look at once: there may be a task to run, or somebody waits for one."""
        self._may_find = True
        self._changed.set()

    def note_room(self) -> None:
        """Look at once if there was something to run when we last looked."""
        if self._may_find:  # otherwise each end of a task would cost a query
            self._changed.set()

    def _told(self) -> None:
        self._has_news = True
        self.wake()

    def stop(self, timeout: float) -> None:
        """Take no more, and wait for the end of the thread."""
        self._is_ended = True
        self._changed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def step(self) -> float | None:
        """Do once what is to be done; return the pause until the next step.

        None: the thread is not needed any more.
        """
        self._changed.clear()
        if not self._is_needed():
            return None
        try:
            self._look()
            self._said = None
        except StoreUnavailable as error:
            self._say(logging.WARNING, error)
        except Exception as error:
            self._say(logging.ERROR, error)
        return self._pause()

    def _look(self) -> None:
        if self._watch.end is None:
            told = weakref.WeakMethod(self._told)
            self._watch.end = self._node.store.watch(lambda: _call(told))
        if self._claims:
            self._node.presence.join()  # which takes up what the dead left, too
        self._node.committing.settle()
        self._update()
        self._feed()
        self._tidy()

    def _say(self, level: int, error: Exception) -> None:
        """Log a problem once, and wait a moment: it may pass."""
        if self._said != str(error) and not self._is_ended:
            message = "The executor looks for tasks again and again, because: %s"
            fault = error if level == logging.ERROR else None
            self._node.log.write(level, message, error, error=fault)
        self._said = str(error)
        time.sleep(0.0 if self._is_ended else _PROMOTE)

    def _pause(self) -> float:
        until_news = self._news_after - time.monotonic()
        return max(0.0, min(_PROMOTE, until_news)) if self._has_news else _PROMOTE

    def _is_needed(self) -> bool:
        now = time.monotonic()
        if self._is_busy:
            self._needed_until = now + _IDLE
        with self._lock:
            if now > self._needed_until or self._is_ended:
                self._is_started = False
            return self._is_started

    @property
    def _is_busy(self) -> bool:
        node = self._node
        pending = node.holding or node.committing.has_pending() or node.ticks.begun
        return bool(self._claims or pending or node.following.open())

    @property
    def _claims(self) -> bool:
        node = self._node
        return bool(node.runs and not node.dispatcher.table.closed)

    def _update(self) -> None:
        """Tell futures of what has happened, if something has.

        With very many futures that takes its time. So that it takes no more than a part
        of all time, a pause follows.
        """
        now = time.monotonic()
        is_due = self._has_news or self._is_due("news", _PROMOTE)
        if is_due and now >= self._news_after:
            self._has_news = False
            self._open = self._node.following.update_all()
            took = time.monotonic() - now
            self._news_after = now + (1 + _SHARE) * took

    def _feed(self) -> None:
        node = self._node
        if self._is_due("promote", _PROMOTE) and (self._claims or self._open):
            due = node.store.next_due()
            if due is not None and due <= 0 and node.store.promote():
                self._may_find = True
        node.know_pauses()
        node.holding.stop_what_was_asked()
        if node.dispatcher.table.closed:
            return
        self._claim_awaited()
        if self._claims and (self._may_find or self._is_due("waiting", _PROMOTE)):
            self._may_find = False  # first: what comes during the look is told
            self._claim_any()

    def _claim_any(self) -> None:
        """Claim what there is room for, if any task waits."""
        if not self._node.store.tasks(state="waiting", limit=1):
            return
        self._may_find = True
        names, holding = self._node.names, self._node.holding
        coroutines: list[str] = []
        others: list[str] = []
        for name in names.known():
            if (job := names.find(name)) is not None:
                kind = coroutines if is_coroutine_function(job.fn) else others
                kind.append(name)
        self._claim(others, holding.room())
        self._claim(coroutines, holding.room_for_coroutines())

    def _claim_awaited(self) -> None:
        """Claim the tasks that a task of this process waits for.

        It has lent its worker, so there is room for them.
        """
        node, wanted = self._node, []
        for uid, record in self._open.items():
            future = node.following.known(uid)
            if future is None or future.done() or record.state != "waiting":
                continue
            if future.task._wanted:
                wanted.append(uid)
        self._claim(node.names.known(), len(wanted), wanted)

    def _claim(
        self, jobs: list[str], limit: int, only: list[str] | None = None
    ) -> None:
        if limit <= 0 or not jobs or only == []:
            return
        node = self._node
        me = node.presence.join()
        claimed = node.store.wait(node.store.claim(me, jobs, limit, only=only))
        for one in claimed:
            self._open.pop(one.uid, None)
            node.claiming.accept(one)
        if only is None and len(claimed) == limit:
            self._changed.set()

    def _tidy(self) -> None:
        node = self._node
        if not node.ticks.is_ready or self._is_due("ticks", _PROMOTE):
            node.ticks.update()
        if self._is_due("flush", _FLUSH):
            node.store.flush()
        if not self._claims or not self._is_due("prune", _PRUNE):
            return
        while not self._is_ended and node.store.prune(node.settings.keep_times):
            pass
        node.store.forsake(node.names.known(), older=_FORSAKEN)

    def _is_due(self, what: str, interval: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + interval
        return True


class _Watch:
    """What ends that the store tells of changes, once it does."""

    end: t.Callable[[], object] | None = None


class _Loop(t.NamedTuple):
    """What the thread runs: it refers to the rest only while it does something."""

    step: t.Callable[[], t.Callable[[], float | None] | None]
    changed: threading.Event
    watch: _Watch

    def run(self) -> None:
        """Take one step after each change, and now and then."""
        try:
            while (step := self.step()) is not None:
                pause = step()
                del step
                if pause is None:
                    return
                self.changed.wait(pause)
        finally:
            if self.watch.end is not None:
                self.watch.end()


def _call(method: t.Any) -> None:
    if (bound := method()) is not None:
        bound()
