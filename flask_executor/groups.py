"""Groups: many tasks, one handle."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
import typing as t
from concurrent.futures import CancelledError, Future
from functools import partial
from types import TracebackType

from .attempt import Attempt
from .contexts import Snapshot
from .current import Progress, running
from .errors import ExecutorNotInitialized, TaskCancelled, UnsupportedOption
from .futures import TaskFuture, _Callback
from .options import NoKey, TaskOptions
from .submitter import Submitter, Verbs
from .task import Task, name_of

P = t.ParamSpec("P")
T = t.TypeVar("T")
F = t.TypeVar("F", bound=TaskFuture[t.Any])
Member = TaskFuture[t.Any]
Callback = t.Callable[["Group"], object]

_ABSENT = object()
_PASS_THROUGH = (KeyboardInterrupt, SystemExit, GeneratorExit)
_CANCELLED = (CancelledError, asyncio.CancelledError)


class Group(Verbs):
    """Many tasks, one handle.

    It has an executor's ``submit`` and ``submit_stored``, and what they give become its
    members; once its ``with`` block was left, they raise :exc:`RuntimeError`::

        group = executor.group("thumbnails")
        group.map(thumbnail, images)
        print(group.progress.fraction)

    As a ``with`` block, or ``async with``, it is structured, as
    :class:`asyncio.TaskGroup` and the nurseries of trio are: leaving the block waits
    for all members; the first failure, of a member or of the block itself, cancels the
    rest, by :meth:`.TaskFuture.request_cancel`; and the failures rise together, as an
    :exc:`ExceptionGroup`, that of the block among them. A cancelled member is no
    failure. Other than there, a failure does not interrupt the block where it stands;
    what it submits from then on is cancelled without having run. Once left, it takes
    no more members.

    ``KeyboardInterrupt``, ``SystemExit``, and a cancelling of the block itself, pass
    through as they are, when all members have ended. A task that was asked to stop
    while it leaves a block asks the members to, and is cancelled.

    All of it may be used from any thread, and within tasks: there the thread that waits
    runs members itself, so groups nest to any depth in a pool of any size.

    :param submitting: the executor, or a view of it, that tasks are submitted to.
    :param name: for people.

    .. versionadded:: 2.0
    """

    name: str
    """What it is called, for people."""

    def __init__(
        self, submitting: Submitter, name: str = "", _members: _Members | None = None
    ) -> None:
        self.name = name
        self._submitting = submitting
        self._members = _members or _Members()

    def using(self, **options: t.Unpack[TaskOptions]) -> Group:
        """A view of the group that submits with these options, as
        :meth:`.Executor.using`; the members are the same.
        """
        return Group(self._submitting.using(**options), self.name, self._members)

    def _submit(
        self,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any = NoKey,
    ) -> TaskFuture[t.Any]:
        fn = self._members.admit(fn)
        submitter = self._submitting
        if key is NoKey:
            return self._members.add(submitter.submit(fn, *args, **kwargs))
        return self._members.add(submitter.submit_stored(key, fn, *args, **kwargs))

    @t.overload
    def map(
        self,
        fn: t.Callable[..., t.Coroutine[t.Any, t.Any, T]],
        *iterables: t.Iterable[t.Any],
    ) -> list[TaskFuture[T]]: ...

    @t.overload
    def map(
        self, fn: t.Callable[..., T], *iterables: t.Iterable[t.Any]
    ) -> list[TaskFuture[T]]: ...

    def map(
        self, fn: t.Callable[..., t.Any], *iterables: t.Iterable[t.Any]
    ) -> list[TaskFuture[t.Any]]:
        """Submit a call for each item; each is a member.

        :return: the futures, in order, as the ``Client.map`` of Dask: the results,
            which :meth:`.Executor.map` gives, are for the group to wait for.
        :raises UnsupportedOption: a :exc:`ValueError`, with the option ``key``, which
            names one task.
        """
        if "key" in self._submitting.options:
            raise UnsupportedOption(
                "key", "map", "it names one task, and map makes many; use submit_stored"
            )
        return [self.submit(fn, *args) for args in zip(*iterables, strict=False)]

    def add(self, future: F) -> F:
        """Make a task that was submitted elsewhere a member, whatever its state; one
        that is a member stays one.

        :return: the future.
        :raises TypeError: where it is no future of an executor of this package.
        :raises RuntimeError: where the ``with`` block was left.
        """
        if not isinstance(future, TaskFuture):
            raise TypeError(
                f"{future!r} cannot be a member of a group: add what executor.submit"
                " returned."
            )
        self._members.refuse_late()
        return self._members.add(future)

    @property
    def futures(self) -> list[TaskFuture[t.Any]]:
        """The members' futures now, in the order in which they came."""
        return [*self._members.futures]

    @property
    def progress(self) -> Progress:
        """How far the whole is: ``total`` counts the members, ``done`` those that have
        ended, well or not, and of the others the fraction that each reports.
        """
        return self._members.progress()

    def done(self) -> bool:
        """Whether all members have ended, as those of an empty group have."""
        return self._members.next_unfinished() is None

    def cancel(self) -> bool:
        """Cancel the members that wait, and ask those to stop that run, as
        :meth:`.TaskFuture.request_cancel`.

        In a ``with`` block that counts for members that come later, too.

        :return: False where all had ended already.
        """
        return self._members.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for all members, however they end.

        :param timeout: seconds to wait at most, or None.
        :return: whether all have ended, as :meth:`threading.Event.wait`.
        """
        return self._members.wait(_deadline(timeout))

    def results(self, timeout: float | None = None) -> list[t.Any]:
        """What the members returned, in the order in which they came.

        The first in that order that failed raises what it raised, as with
        :meth:`.Executor.map`; the others go on.

        :param timeout: seconds to wait at most, or None.
        :raises TimeoutError: when it is over.
        :raises concurrent.futures.CancelledError: where one was cancelled.
        """
        deadline = _deadline(timeout)
        return [self._ended(one, deadline).result() for one in self.futures]

    def exceptions(self, timeout: float | None = None) -> list[BaseException]:
        """What the members that failed raised, waiting for all; none for a member that
        was cancelled.

        :param timeout: seconds to wait at most, or None.
        :raises TimeoutError: when it is over.
        """
        if not self.wait(timeout):
            raise self._timeout()
        return self._members.failures()

    def as_completed(
        self, timeout: float | None = None
    ) -> t.Iterator[TaskFuture[t.Any]]:
        """The members' futures, each as it ends, as
        :func:`concurrent.futures.as_completed`; those that come meanwhile, too.

        :param timeout: seconds from this call on for which is waited in all.
        :raises TimeoutError: when it is over.
        """
        return self._as_completed(_deadline(timeout))

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn(group)`` once: when all members have ended, or now if they have.

        In a ``with`` block that is when it is left; else add it after the members, for
        the first of them may end before the second comes. It runs as that of a future,
        see :meth:`.TaskFuture.add_done_callback`, on the thread that ended the last
        member, or waits for it.

        :param fn: a callable that takes this group.
        """
        app = self._submitting._app_here()
        if app is None:
            raise ExecutorNotInitialized
        callback = _Callback(fn, app, Snapshot.take(app))
        self._members.when_done(partial(callback, t.cast(t.Any, self)))

    def __enter__(self) -> t.Self:
        self._members.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cancel()
        try:
            self._outlast()
        finally:
            self._members.close(by_force=True)
        self._raise_failures(error)

    async def __aenter__(self) -> t.Self:
        self._members.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cancel()
        try:
            await self._outlast_awaiting()
        except asyncio.CancelledError as cancelled:
            self._raise_failures(cancelled if error is None else error)
            raise
        finally:
            self._members.close(by_force=True)
        self._raise_failures(error)

    def _outlast(self) -> None:
        members = self._members
        undo = self._stop_with_task()
        try:
            while not members.close():
                members.wait(None)
        except BaseException:
            # As at Ctrl-C in asyncio and trio: no member outlives the block.
            self.cancel()
            members.wait(None)
            raise
        finally:
            undo()

    async def _outlast_awaiting(self) -> None:
        try:
            while not self._members.close():
                await self._all_ended()
        except asyncio.CancelledError:
            self.cancel()
            while not self._members.close():
                with contextlib.suppress(asyncio.CancelledError):
                    await self._all_ended()
            raise

    def _stop_with_task(self) -> t.Callable[[], None]:
        """Ask the members to stop as soon as the task that waits here is asked to.

        :return: call it to undo this.
        """
        inside = running.get()
        if isinstance(inside, Attempt):
            return inside.call_on_stop(self._members.stop_with_task)
        return lambda: None

    def _raise_failures(self, error: BaseException | None) -> None:
        """Raise what failed, together.

        :param error: what the block itself raised, which rises by itself where there
            is nothing to raise it with.
        """
        if isinstance(error, _PASS_THROUGH):
            return
        failures = self._members.failures()
        if not (
            error is None
            or isinstance(error, _CANCELLED)
            # The block may have asked a member for its result.
            or any(error is one for one in failures)
        ):
            failures.append(error)
        if failures:
            self._raise_together(failures)
        inside = running.get()
        if self._members.told_to_stop and error is None and inside is not None:
            raise TaskCancelled(inside.name)

    def _raise_together(self, failures: list[BaseException]) -> t.NoReturn:
        message = f"failures in {self!r}"
        try:
            raise BaseExceptionGroup(message, failures) from None
        finally:
            # The traceback keeps this frame, which must not keep the failures.
            del failures

    def _ended(self, future: Member, deadline: float | None) -> Member:
        if not _wait_for(future, deadline):
            raise self._timeout()
        return future

    def _timeout(self) -> TimeoutError:
        return TimeoutError(f"{self!r}: not all members have ended in the time given.")

    def _as_completed(self, deadline: float | None) -> t.Generator[Member, None, None]:
        members = self._members
        finished: queue.SimpleQueue[Member] = queue.SimpleQueue()
        put = finished.put
        members.watch(put)
        try:
            for _ in members.each():
                with members.waited_for(deadline):
                    future = finished.get(timeout=_remaining(deadline))
                yield future
        except queue.Empty:
            raise self._timeout() from None
        finally:
            members.unwatch(put)

    def __aiter__(self) -> t.AsyncIterator[TaskFuture[t.Any]]:
        """The members' futures, each as it ends, as :meth:`as_completed`, without
        blocking the event loop.
        """
        return self._as_they_end()

    async def _as_they_end(self) -> t.AsyncGenerator[Member, None]:
        members = self._members
        finished: asyncio.Queue[Member] = asyncio.Queue()
        put = _Hand(asyncio.get_running_loop(), finished)
        members.watch(put)
        try:
            for _ in members.each():
                with members.waited_for(None):
                    future = await finished.get()
                yield future
        finally:
            members.unwatch(put)

    def __await__(self) -> t.Generator[t.Any, None, list[t.Any]]:
        """The results, as :meth:`results`, when all have ended; on any event loop."""
        return self._results_awaited().__await__()

    async def _results_awaited(self) -> list[t.Any]:
        await self._all_ended()
        return self.results()

    async def _all_ended(self) -> None:
        async for _ in self:
            pass

    def __len__(self) -> int:
        return len(self._members.futures)

    def __iter__(self) -> t.Iterator[TaskFuture[t.Any]]:
        return iter(self.futures)

    def __contains__(self, future: object) -> bool:
        return self._members.holds(future)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        left = len(self._members.unfinished)
        return f"<Group{name} {len(self) - left} of {len(self)} done>"


class _Members:
    """The members of a group and its views: who has ended, and who is to hear of it.

    A member is taken out of ``unfinished`` once, by its own callback or by one that saw
    it end before that: who waits for a future is woken before its callbacks run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.futures: list[Member] = []
        self._known: set[Member] = set()
        self.unfinished: dict[Member, Task | None] = {}
        self._passed = 0  # before it in the list, all have ended
        self._waited = 0  # before it in the list, all are known to be waited for
        self._failed = False
        self.is_open: bool = False
        self._left = False
        self.stopping: bool = False
        self.told_to_stop: bool = False
        self._callbacks: list[t.Callable[[], object]] = []
        self._watchers: list[t.Callable[[Member], object]] = []

    # Coming

    def admit(self, fn: t.Any) -> t.Any:
        """What to submit for a callable: one that never runs where the rest is being
        cancelled.
        """
        self.refuse_late()
        return _NeverRun(fn) if self.stopping and callable(fn) else fn

    def refuse_late(self) -> None:
        """Take no more members once the block was left."""
        if self._left:
            raise RuntimeError(
                "This group takes no more members, for its with block was left: make"
                " another one, with executor.group()."
            )

    def add(self, future: F) -> F:
        """Take a member in."""
        with self._lock:
            if future in self._known:
                return future
            self._known.add(future)
            self.futures.append(future)
            self.unfinished[future] = future.task
            stopping = self.stopping or self._left
        # The base class's: no context to copy.
        Future.add_done_callback(future, _Note(self))
        if stopping:
            future.request_cancel()
        return future

    def holds(self, future: object) -> bool:
        return future in self._known

    # Ending

    def note(self, future: Member) -> None:
        """Note that a member has ended, unless that is known."""
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
        """Cancel all that have not ended, or ask them to stop; False where all have."""
        with self._lock:
            self.stopping = self.is_open
            members = [*self.unfinished]
        # Not under the lock: their callbacks come here.
        asked = [member.request_cancel() for member in members]
        return any(asked)

    def stop_with_task(self) -> None:
        """The task that waits at the end of the block was asked to stop."""
        self.told_to_stop = True
        self.stop()

    def failures(self) -> list[BaseException]:
        """What the members that have failed raised, in their order."""
        ended = (one for one in self.futures if one.done() and not one.cancelled())
        errors = (one.exception() for one in ended)
        return [error for error in errors if error is not None]

    def progress(self) -> Progress:
        """How many have ended, and the shares of the others."""
        with self._lock:
            total, tasks = len(self.futures), [*self.unfinished.values()]
        shares = sum(map(_share, tasks))
        return Progress(total - len(tasks) + shares, total)

    # The block

    def open(self) -> None:
        """The block begins."""
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
        """The block ends, if all have ended; whether it has.

        :param by_force: whoever has ended.
        """
        with self._lock:
            if self.unfinished and not by_force:
                return False
            self.is_open, self._left = False, True
            callbacks = self._due_callbacks()
        _call_all(callbacks)
        return True

    def when_done(self, callback: t.Callable[[], object]) -> None:
        """Call it once all have ended, and the block was left."""
        with self._lock:
            self._callbacks.append(callback)
            callbacks = self._due_callbacks()
        _call_all(callbacks)

    def _due_callbacks(self) -> list[t.Callable[[], object]]:
        if self.unfinished or self.is_open:
            return []
        callbacks, self._callbacks = self._callbacks, []
        return callbacks

    # Waiting

    def next_unfinished(self) -> Member | None:
        """The first member that has not ended, or None."""
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
            if not _wait_for(future, deadline):
                return False
        return True

    @contextlib.contextmanager
    def waited_for(self, deadline: float | None) -> t.Iterator[None]:
        """The block waits for members: a task that does lends its worker to them."""
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
        """A turn for each member, those that come meanwhile included."""
        turn = 0
        while turn < len(self.futures):
            yield turn
            turn += 1

    def watch(self, put: t.Callable[[Member], object]) -> None:
        """Have all that have ended put there, and each other one when it ends."""
        with self._lock:
            for future in self.futures:
                if future not in self.unfinished:
                    put(future)
            self._watchers.append(put)

    def unwatch(self, put: t.Callable[[Member], object]) -> None:
        """Put no more there."""
        with self._lock:
            self._watchers.remove(put)


class _Note:
    """Tells a group that a member has ended; then it refers to nothing.

    A future keeps its callbacks for as long as it lives, and the group keeps it.
    """

    __slots__ = ("_members",)

    def __init__(self, members: _Members) -> None:
        self._members: _Members | None = members

    def __call__(self, future: Future[t.Any]) -> None:
        members, self._members = self._members, None
        t.cast(_Members, members).note(t.cast(Member, future))


class _NeverRun(partial[t.Any]):
    """What is submitted in place of a callable whose task is cancelled from the start;
    a worker that is faster than that has nothing to run.
    """

    def __call__(self, /, *args: t.Any, **kwargs: t.Any) -> t.Any:
        raise TaskCancelled(name_of(self.func))


class _Hand:
    """Puts members into the queue of an event loop, from any thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, finished: asyncio.Queue[Member]
    ) -> None:
        self._loop = loop
        self._finished = finished

    def __call__(self, future: Member) -> None:
        # An iteration that nobody ends may outlive its loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finished.put_nowait, future)


def _call_all(callbacks: list[t.Callable[[], object]]) -> None:
    for callback in callbacks:
        callback()


def _share(task: Task | None) -> float:
    """How much of a task that has not been noted as ended is done, 0 to 1."""
    if task is None:
        return 0
    if task._has_ended:
        return 1
    return 0 if task.progress is None else task.progress.fraction or 0


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _wait_for(future: Member, deadline: float | None) -> bool:
    """Wait for a future, however it ends; whether it has.

    Within a task its own ``exception`` must do that: it has the future's task run.
    """
    remaining = _remaining(deadline)
    if future.done() or remaining == 0:
        return future.done()
    try:
        future.exception(remaining)
    except CancelledError:
        return True
    except TimeoutError:
        return future.done()
    return True
