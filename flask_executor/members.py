"""The members of a group: which have ended, and who waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import typing as t
from concurrent.futures import Future
from functools import partial

from .current import Progress
from .errors import TaskCancelled
from .futures import TaskFuture
from .task import Task, name_of
from .waiters import remaining_until, wait_for

F = t.TypeVar("F", bound=TaskFuture[t.Any])
Member = TaskFuture[t.Any]

_ABSENT = object()


class Members:
    """The members of a group and its views: which have ended, and who is told.

    A member is removed from ``unfinished`` once: by its own callback, or by a thread
    that saw it end earlier. A thread that waits for a future is woken before the
    future's callbacks run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.futures: list[Member] = []
        self._known: set[Member] = set()
        self.unfinished: dict[Member, Task | None] = {}
        self._passed = 0  # all futures before this index have ended
        self._waited = 0  # all before this index are known to be waited for
        self._failed = False
        self.is_open: bool = False
        self._left = False
        self.stopping: bool = False
        self.told_to_stop: bool = False
        self._callbacks: list[t.Callable[[], object]] = []
        self._watchers: list[t.Callable[[Member], object]] = []

    def admit(self, fn: t.Any) -> t.Any:
        """Return what to submit for a callable.

        While the members are being cancelled, it is a callable that never runs it.
        """
        self.refuse_late()
        return _NeverRun(fn) if self.stopping and callable(fn) else fn

    def refuse_late(self) -> None:
        """Refuse new members after the block was left.

        :raises RuntimeError: if it was left.
        """
        if self._left:
            raise RuntimeError(
                "This group takes no more members, for its with block was left: make"
                " another one, with executor.group()."
            )

    def add(self, future: F) -> F:
        """Add a member; it is cancelled if the others are being cancelled."""
        with self._lock:
            if future in self._known:
                return future
            self._known.add(future)
            self.futures.append(future)
            self.unfinished[future] = future.task
            stopping = self.stopping or self._left
        # The base class's method: there is no context to copy.
        Future.add_done_callback(future, _Note(self))
        if stopping:
            future.request_cancel()
        return future

    def holds(self, future: object) -> bool:
        """Return True if a future is a member."""
        return future in self._known

    def note(self, future: Member) -> None:
        """Note that a member has ended, if that is not known yet."""
        failed = not future.cancelled() and future.exception() is not None
        with self._lock:
            if self.unfinished.pop(future, _ABSENT) is _ABSENT:
                return
            self._failed = self._failed or failed
            stop = failed and self.is_open and not self.stopping
            self.stopping = self.stopping or stop
            for put in self._watchers:
                put(future)
            callbacks = self._due_callbacks()
        if stop:
            self.stop()
        _call_all(callbacks)

    def stop(self) -> bool:
        """Cancel all that have not ended, or ask them to stop.

        :return: False if all had ended already.
        """
        with self._lock:
            self.stopping = self.is_open
            members = [*self.unfinished]
        # Not under the lock: their callbacks call note(), which takes it.
        asked = [member.request_cancel() for member in members]
        return any(asked)

    def stop_with_task(self) -> None:
        """Stop the members because the task that leaves the block must stop."""
        self.told_to_stop = True
        self.stop()

    def failures(self) -> list[BaseException]:
        """Return what the members that failed raised, in the order of the members."""
        ended = (one for one in self.futures if one.done() and not one.cancelled())
        errors = (one.exception() for one in ended)
        return [error for error in errors if error is not None]

    def progress(self) -> Progress:
        """Return how many have ended, plus the fractions of the others."""
        with self._lock:
            total, tasks = len(self.futures), [*self.unfinished.values()]
        shares = sum(map(_share, tasks))
        return Progress(total - len(tasks) + shares, total)

    def open(self) -> None:
        """Note that the ``with`` block begins.

        :raises RuntimeError: if it began before.
        """
        with self._lock:
            if self.is_open or self._left:
                raise RuntimeError(
                    "This group was entered before: a with block needs a group of its"
                    " own, with executor.group()."
                )
            self.is_open = True
        if self._failed:
            self.stop()

    def close(self, *, by_force: bool = False) -> bool:
        """End the block if all members have ended; return True if it is ended.

        :param by_force: end it even if some members have not ended.
        """
        with self._lock:
            if self.unfinished and not by_force:
                return False
            self.is_open, self._left = False, True
            callbacks = self._due_callbacks()
        _call_all(callbacks)
        return True

    def when_done(self, callback: t.Callable[[], object]) -> None:
        """Call a function once all have ended and the block was left."""
        with self._lock:
            self._callbacks.append(callback)
            callbacks = self._due_callbacks()
        _call_all(callbacks)

    def _due_callbacks(self) -> list[t.Callable[[], object]]:
        if self.unfinished or self.is_open:
            return []
        callbacks, self._callbacks = self._callbacks, []
        return callbacks

    def next_unfinished(self) -> Member | None:
        """Return the first member that has not ended, or None."""
        while (future := self._next_unnoted()) is not None and future.done():
            self.note(future)
        return future

    def _next_unnoted(self) -> Member | None:
        with self._lock:
            while self._passed < len(self.futures):
                future = self.futures[self._passed]
                if future in self.unfinished:
                    return future
                self._passed += 1
            return None

    def wait(self, deadline: float | None) -> bool:
        """Wait for all; return True if all have ended."""
        while (future := self.next_unfinished()) is not None:
            for task in self._not_waited_for():
                task._owner.want(task)
            if not wait_for(future, deadline):
                return False
        return True

    @contextlib.contextmanager
    def waited_for(self, deadline: float | None) -> t.Iterator[None]:
        """Wait for members in this block: a task that does lends them its worker."""
        future = self.next_unfinished()
        task = None if future is None else future.task
        wait = None
        if task is not None and not task._has_ended:
            also = self._not_waited_for()
            has_timeout = deadline is not None
            wait = task._owner.start_awaiting(task, also, has_timeout=has_timeout)
        try:
            yield
        finally:
            if wait is not None:
                wait.end()

    def _not_waited_for(self) -> list[Task]:
        """Return the tasks of members that came since this was asked last."""
        with self._lock:
            new, self._waited = self.futures[self._waited :], len(self.futures)
        tasks = (future.task for future in new)
        return [task for task in tasks if task is not None and not task._has_ended]

    def each(self) -> t.Iterator[int]:
        """Yield once for each member, including those that come meanwhile."""
        turn = 0
        while turn < len(self.futures):
            yield turn
            turn += 1

    def as_completed(self, deadline: float | None) -> t.Generator[Member, None, None]:
        """Yield the members, each as it ends.

        :raises queue.Empty: after the deadline.
        """
        finished: queue.SimpleQueue[Member] = queue.SimpleQueue()
        put = finished.put
        self.watch(put)
        try:
            for _ in self.each():
                with self.waited_for(deadline):
                    future = finished.get(timeout=remaining_until(deadline))
                yield future
        finally:
            self.unwatch(put)

    async def as_they_end(self) -> t.AsyncGenerator[Member, None]:
        """Yield the members, each as it ends, without blocking the event loop."""
        finished: asyncio.Queue[Member] = asyncio.Queue()
        put = _Hand(asyncio.get_running_loop(), finished)
        self.watch(put)
        try:
            for _ in self.each():
                with self.waited_for(None):
                    future = await finished.get()
                yield future
        finally:
            self.unwatch(put)

    async def all_ended(self) -> None:
        """Wait until all have ended, without blocking the event loop."""
        async for _ in self.as_they_end():
            pass

    def watch(self, put: t.Callable[[Member], object]) -> None:
        """Pass ``put`` all members that have ended, and each other when it ends."""
        with self._lock:
            for future in self.futures:
                if future not in self.unfinished:
                    put(future)
            self._watchers.append(put)

    def unwatch(self, put: t.Callable[[Member], object]) -> None:
        """Stop passing members to ``put``."""
        with self._lock:
            self._watchers.remove(put)


class _Note:
    """Tells a group that a member has ended, and then refers to nothing.

    A future keeps its callbacks as long as it lives, and the group keeps the future.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Members) -> None:
        self._members: Members | None = members

    def __call__(self, future: Future[t.Any]) -> None:
        members, self._members = self._members, None
        t.cast(Members, members).note(t.cast(Member, future))


class _NeverRun(partial[t.Any]):
    """Stands for a callable whose task is cancelled as soon as it is submitted.

    If a worker begins it before it is cancelled, there is nothing to run.
    """

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        raise TaskCancelled(name_of(self.func))


class _Hand:
    """Puts members into an asyncio queue, from any thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, finished: asyncio.Queue[Member]
    ) -> None:
        self._loop = loop
        self._finished = finished

    def __call__(self, future: Member) -> None:
        # An iteration that is never finished may outlive its loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finished.put_nowait, future)


def _call_all(callbacks: list[t.Callable[[], object]]) -> None:
    for callback in callbacks:
        callback()


def _share(task: Task | None) -> float:
    """Return how much of a task is done, from 0 to 1, if its end was not noted yet."""
    if task is None:
        return 0
    if task._has_ended:
        return 1
    return 0 if task.progress is None else task.progress.fraction or 0
