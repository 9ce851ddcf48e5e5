"""Groups: many tasks, one handle."""

from __future__ import annotations

import queue
import typing as t
from contextvars import ContextVar
from functools import partial

from .blocks import Block
from .contexts import Snapshot
from .current import Inside, Progress, running
from .errors import ExecutorNotInitialized
from .futures import TaskFuture
from .members import F, Member, Members
from .options import NoKey, TaskOptions, refuse_single
from .submitter import Declared, Submitter, Verbs
from .waiters import DoneCallback, deadline_after, wait_for

T = t.TypeVar("T")
Callback = t.Callable[["Group"], object]


class Joining(t.NamedTuple):
    """The group whose ``submit`` runs on this thread."""

    name: str
    members: Members
    by: Inside | None
    """The task that submits to it, or None."""


joining: ContextVar[Joining | None] = ContextVar("flask_executor_group", default=None)


class Group(Verbs):
    """Many tasks, one handle.

    It has an executor's ``submit`` and ``submit_stored``. The futures that they return
    become its members. After its ``with`` block they raise :exc:`RuntimeError`::

        group = executor.group("thumbnails")
        group.map(thumbnail, images)
        print(group.progress.fraction)

    As a ``with`` or ``async with`` block it is structured, like
    :class:`asyncio.TaskGroup` and the nurseries of trio. Leaving the block waits for
    all members. The first failure, of a member or of the block itself, cancels the
    rest with :meth:`.TaskFuture.request_cancel`. All failures, that of the block
    included, are raised together in an :exc:`ExceptionGroup`. A cancelled member is no
    failure. Unlike there, a failure does not interrupt the block; what the block
    submits afterwards is cancelled and does not run.

    ``KeyboardInterrupt``, ``SystemExit`` and a cancellation of the block itself are
    raised unchanged, after all members have ended. If a task is asked to stop while it
    leaves a block, it asks the members to stop, and is cancelled.

    A group can be used from any thread, and within tasks. There the thread that waits
    runs members itself, so groups nest to any depth in a pool of any size.

    :param submitting: the executor, or a view of it, that tasks are submitted to.
    :param name: a name for people.

    .. versionadded:: 2.0
    """

    def __init__(
        self, submitting: Submitter, name: str = "", _members: Members | None = None
    ) -> None:
        self.name: str = name
        """A name for people."""
        self._submitting = submitting
        self._members = _members or Members()

    def using(self, **options: t.Unpack[TaskOptions]) -> Group:
        """Return a view of the group, with the same members, that has these options.

        See :meth:`.Executor.using`.
        """
        return Group(self._submitting.using(**options), self.name, self._members)

    def _submit(
        self,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any = NoKey,
    ) -> TaskFuture[t.Any]:
        members = self._members
        fn = members.admit(fn)
        if not self.name:
            return members.add(self._hand_on(fn, args, kwargs, key))
        # So that a store knows the members of a group with a name.
        joined = joining.set(Joining(self.name, members, running.get()))
        try:
            return members.add(self._hand_on(fn, args, kwargs, key))
        finally:
            joining.reset(joined)

    def _hand_on(
        self,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any,
    ) -> TaskFuture[t.Any]:
        if key is NoKey:
            return self._submitting.submit(fn, *args, **kwargs)
        return self._submitting.submit_stored(key, fn, *args, **kwargs)

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
        """Submit a call for each item; each becomes a member.

        :return: the futures, in order, as the ``Client.map`` of Dask does.
            :meth:`.Executor.map` returns results; here :meth:`results` does.
        :raises UnsupportedOption: a :exc:`ValueError`, if the option ``key`` or
            ``unique`` is given, because it names one task.
        """
        job: t.Any = fn
        given = [job.options] if isinstance(job, Declared) else []
        refuse_single("map", *given, self._submitting.options)
        return [self.submit(fn, *args) for args in zip(*iterables, strict=False)]

    def add(self, future: F) -> F:
        """Make a task that was submitted elsewhere a member, in any state.

        Adding a member again changes nothing.

        :return: the future.
        :raises TypeError: if it is not a future of an executor of this package.
        :raises RuntimeError: if the ``with`` block was left.
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
        """The members' futures as they are now, in the order in which they came."""
        return [*self._members.futures]

    @property
    def progress(self) -> Progress:
        """The progress of all members together.

        ``total`` counts the members. ``done`` counts those that have ended, also by a
        failure, and adds the fraction that each of the others reports.
        """
        return self._members.progress()

    def done(self) -> bool:
        """Return True if all members have ended, also if there are none."""
        return self._members.next_unfinished() is None

    def cancel(self) -> bool:
        """Cancel the members that wait, and ask those that run to stop.

        It calls :meth:`.TaskFuture.request_cancel` of each. In a ``with`` block,
        members that come later are cancelled, too.

        :return: False if all had ended already.
        """
        return self._members.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all members have ended, and return True.

        :param timeout: seconds to wait at most, or None.
        :return: False if the timeout was over before.
        """
        return self._members.wait(deadline_after(timeout))

    def results(self, timeout: float | None = None) -> list[t.Any]:
        """Return what the members returned, in the order in which they came.

        If members failed, it raises the error of the first in that order, as
        :meth:`.Executor.map` does; the others go on.

        :param timeout: seconds to wait at most, or None.
        :raises TimeoutError: if the timeout is over before all have ended.
        :raises concurrent.futures.CancelledError: if a member was cancelled.
        """
        deadline = deadline_after(timeout)
        return [self._ended(one, deadline).result() for one in self.futures]

    def exceptions(self, timeout: float | None = None) -> list[BaseException]:
        """Wait for all members, and return what those that failed raised.

        A cancelled member is no failure.

        :param timeout: seconds to wait at most, or None.
        :raises TimeoutError: if the timeout is over before all have ended.
        """
        if not self.wait(timeout):
            raise self._timeout()
        return self._members.failures()

    def as_completed(
        self, timeout: float | None = None
    ) -> t.Iterator[TaskFuture[t.Any]]:
        """Yield the members' futures, each as it ends.

        Members that come meanwhile are included. See
        :func:`concurrent.futures.as_completed`.

        :param timeout: seconds to wait in all, from this call on, or None.
        :raises TimeoutError: if the timeout is over before all have ended.
        """
        return self._as_completed(deadline_after(timeout))

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn(group)`` once all members have ended; at once if they have already.

        In a ``with`` block it is called when the block is left. Without a block, add
        it after the members: the first may end before the second comes. It runs like a
        future's (:meth:`.TaskFuture.add_done_callback`), on the thread that ended the
        last member, or on one that waits for it.

        :param fn: a callable that takes this group.
        """
        app = self._submitting._app_here()
        if app is None:
            raise ExecutorNotInitialized
        callback = DoneCallback(fn, app, Snapshot.take(app))
        self._members.when_done(partial(callback, t.cast(t.Any, self)))

    def __enter__(self) -> t.Self:
        self._members.open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        Block(self, self._members).leave(error)

    async def __aenter__(self) -> t.Self:
        self._members.open()
        return self

    async def __aexit__(
        self, kind: object, error: BaseException | None, tb: object
    ) -> None:
        await Block(self, self._members).leave_awaiting(error)

    def _ended(self, future: Member, deadline: float | None) -> Member:
        if not wait_for(future, deadline):
            raise self._timeout()
        return future

    def _timeout(self) -> TimeoutError:
        return TimeoutError(f"{self!r}: not all members have ended in the time given.")

    def _as_completed(self, deadline: float | None) -> t.Generator[Member, None, None]:
        try:
            yield from self._members.as_completed(deadline)
        except queue.Empty:
            raise self._timeout() from None

    def __aiter__(self) -> t.AsyncIterator[TaskFuture[t.Any]]:
        """Yield futures as :meth:`as_completed`, without blocking the event loop."""
        return self._members.as_they_end()

    def __await__(self) -> t.Generator[t.Any, None, list[t.Any]]:
        """Return :meth:`results` when all have ended; on any event loop."""
        return self._results_awaited().__await__()

    async def _results_awaited(self) -> list[t.Any]:
        await self._members.all_ended()
        return self.results()

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
