"""Run calls, and capture their outcomes.

:func:`run` and :func:`run_coroutine` raise nothing: what a call returns or raises
becomes an :class:`Outcome`, and the submitting side decides what that means.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import typing as t
from dataclasses import dataclass
from inspect import CO_COROUTINE
from types import FunctionType

from .contexts import Snapshot, open_uploads
from .current import Inside, running


@dataclass(slots=True)
class Outcome:
    """The outcome of a call: its value, or the exception that it raised."""

    value: t.Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Call:
    """A callable with its arguments and the context in which it is to run."""

    fn: t.Any
    args: t.Sequence[t.Any]
    kwargs: dict[str, t.Any]
    snapshot: Snapshot | None = None
    """The context that it sees; None: that of the code that runs it."""
    payload: t.Any = None
    """The call as bytes, for a pool that sends it to another process."""


def run(call: Call, inside: Inside) -> Outcome:
    """Run a call on this thread, in a fresh restore of its snapshot.

    :param inside: the object behind ``current_task``. It is told of an exception while
        the context still exists.
    """
    fn, args, kwargs, snapshot = call.fn, call.args, call.kwargs, call.snapshot
    try:
        if snapshot is None:
            return Outcome(_run_here(inside, fn, args, kwargs))
        if args or kwargs:
            args, kwargs = open_uploads(args), open_uploads(kwargs)
        return Outcome(snapshot.run(fn, args, kwargs, inside))
    except BaseException as error:
        return Outcome(error=error)


def _run_here(
    inside: Inside, fn: t.Any, args: t.Sequence[t.Any], kwargs: dict[str, t.Any]
) -> t.Any:
    """Run in the context of the caller, and leave ``current_task`` as it was."""
    before = running.set(inside)
    try:
        return fn(*args, **kwargs)
    except BaseException as error:
        inside.raised(error)
        raise
    finally:
        running.reset(before)


async def run_coroutine(call: Call, inside: Inside) -> Outcome:
    """Run the call of a coroutine function in the current asyncio task.

    Its snapshot is entered in the context of that asyncio task, which the caller makes
    from :meth:`.Snapshot.variables`.
    """
    running.set(inside)
    try:
        return Outcome(await _run_coroutine(call, inside))
    except BaseException as error:
        return Outcome(error=error)


async def _run_coroutine(call: Call, inside: Inside) -> t.Any:
    fn, args, kwargs, snapshot = call.fn, call.args, call.kwargs, call.snapshot
    leave = _stay if snapshot is None else snapshot.enter()
    try:
        value = await fn(*open_uploads(args), **open_uploads(kwargs))
    except BaseException as error:
        inside.raised(error)
        leave(error)
        raise
    leave(None)
    return value


def _stay(error: BaseException | None) -> None:
    """Do nothing: no context was entered."""


class Chunk:
    """Several calls of a map as one: they run one after another, in one context.

    :param func: the function that is called with the arguments of each item.
    """

    def __init__(self, func: t.Callable[..., t.Any]) -> None:
        self.func = func

    def __call__(self, calls: t.Iterable[t.Any]) -> t.Any:
        """Return the results, in order."""
        return [self.func(*args) for args in calls]


class CoroutineChunk(Chunk):
    """A chunk of calls of a coroutine function."""

    async def __call__(self, calls: t.Iterable[t.Any]) -> t.Any:
        """Return the results, in order."""
        return [await self.func(*args) for args in calls]


def is_coroutine_function(fn: t.Any) -> bool:
    """Return True if calling it gives a coroutine, as some callable objects do."""
    if type(fn) is FunctionType and not fn.__dict__:  # most are, and ten times faster
        return bool(fn.__code__.co_flags & CO_COROUTINE)
    try:
        return _is_marked(fn) or _is_marked(getattr(type(fn), "__call__", None))  # noqa: B004
    except Exception:  # a proxy of nothing: it fails when it is called
        return False


if sys.version_info >= (3, 14):  # asyncio's warns, and goes in 3.16
    _is_marked: t.Callable[[t.Any], bool] = inspect.iscoroutinefunction
else:  # which also knows a function that was marked by a library before 3.12
    _is_marked = asyncio.iscoroutinefunction

if sys.version_info >= (3, 12):
    mark_coroutine_function: t.Callable[[t.Any], object] = inspect.markcoroutinefunction
else:

    def mark_coroutine_function(fn: t.Any) -> None:
        """Mark a callable object as a coroutine function."""
        fn._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
