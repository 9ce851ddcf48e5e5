"""Run a call where it runs, and capture what happens.

Nothing raises past :func:`run`: whatever the call does becomes an :class:`Outcome`,
which the submitting side judges.
"""

from __future__ import annotations

import asyncio
import typing as t
from dataclasses import dataclass
from inspect import CO_COROUTINE
from types import FunctionType

from .contexts import Snapshot, open_uploads
from .current import Inside, running
from .options import hint_at_options


@dataclass(slots=True)
class Outcome:
    """What came of a call: its value, or the exception that it raised."""

    value: t.Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Call:
    """A callable and its arguments, and what it sees; None is the caller's context."""

    fn: t.Any
    args: t.Sequence[t.Any]
    kwargs: dict[str, t.Any]
    snapshot: Snapshot | None


def run(call: Call, inside: Inside) -> Outcome:
    """Run a call in a fresh restore of its snapshot, on this thread.

    :param inside: what its code finds behind ``current_task``.
    """
    fn, args, kwargs, snapshot = call.fn, call.args, call.kwargs, call.snapshot
    try:
        if snapshot is None:
            return Outcome(_run_here(inside, fn, args, kwargs))
        if args or kwargs:
            args, kwargs = open_uploads(args), open_uploads(kwargs)
        return Outcome(snapshot.run(fn, args, kwargs, inside))
    except BaseException as error:
        hint_at_options(error, kwargs)
        return Outcome(error=error)


def _run_here(
    inside: Inside, fn: t.Any, args: t.Sequence[t.Any], kwargs: dict[str, t.Any]
) -> t.Any:
    """In the caller's own context, which is not to keep what is set here."""
    before = running.set(inside)
    try:
        return fn(*args, **kwargs)
    finally:
        running.reset(before)


async def run_coroutine(call: Call, inside: Inside) -> Outcome:
    """Run a coroutine function likewise.

    Its snapshot is entered in the context of the current asyncio task, which the
    caller makes from :meth:`.Snapshot.variables`.
    """
    running.set(inside)
    try:
        return Outcome(await _run_coroutine(call))
    except BaseException as error:
        hint_at_options(error, call.kwargs)
        return Outcome(error=error)


async def _run_coroutine(call: Call) -> t.Any:
    fn, args, kwargs, snapshot = call.fn, call.args, call.kwargs, call.snapshot
    if snapshot is None:
        return await fn(*args, **kwargs)
    leave = snapshot.enter()
    try:
        value = await fn(*open_uploads(args), **open_uploads(kwargs))
    except BaseException as error:
        leave(error)
        raise
    leave(None)
    return value


class Chunk:
    """Several calls of a map as one: one after another, in one context.

    :param func: the function that each item's arguments go to.
    """

    def __init__(self, func: t.Callable[..., t.Any]) -> None:
        self.func = func

    def __call__(self, calls: t.Iterable[t.Any]) -> t.Any:
        """The results, in order."""
        return [self.func(*args) for args in calls]


class CoroutineChunk(Chunk):
    """The same of a coroutine function."""

    async def __call__(self, calls: t.Iterable[t.Any]) -> t.Any:
        """The results, in order."""
        return [await self.func(*args) for args in calls]


def is_coroutine_function(fn: t.Any) -> bool:
    """Whether calling it gives a coroutine: partials and callable objects too."""
    if type(fn) is FunctionType and not fn.__dict__:  # most often, and ten times faster
        return bool(fn.__code__.co_flags & CO_COROUTINE)
    return asyncio.iscoroutinefunction(fn) or asyncio.iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004
    )
