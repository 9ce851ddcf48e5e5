"""Run a call where it runs, and capture what happens.

Nothing raises past :func:`run`: whatever the call does becomes an :class:`Outcome`,
which the submitting side judges.
"""

from __future__ import annotations

import typing as t

from .context import Snapshot, open_uploads


class Outcome(t.NamedTuple):
    """What came of a call: its value, or the exception that it raised."""

    value: t.Any = None
    error: BaseException | None = None


class Call(t.NamedTuple):
    """A callable and its arguments, and what it sees; None is the caller's context."""

    fn: t.Any
    args: t.Sequence[t.Any]
    kwargs: dict[str, t.Any]
    snapshot: Snapshot | None


def run(call: Call) -> Outcome:
    """Run a call in a fresh restore of its snapshot, on this thread."""
    try:
        return Outcome(_run(call))
    except BaseException as error:
        return Outcome(error=error)


async def run_coroutine(call: Call) -> Outcome:
    """Run a coroutine function likewise.

    Its snapshot is entered in the context of the current asyncio task, which the
    caller makes from :meth:`.Snapshot.variables`.
    """
    try:
        return Outcome(await _run_coroutine(call))
    except BaseException as error:
        return Outcome(error=error)


def _run(call: Call) -> t.Any:
    fn, args, kwargs, snapshot = call
    if snapshot is None:
        return fn(*args, **kwargs)
    return snapshot.run(fn, open_uploads(args), open_uploads(kwargs))


async def _run_coroutine(call: Call) -> t.Any:
    fn, args, kwargs, snapshot = call
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


def run_chunk(fn: t.Callable[..., t.Any], chunk: t.Sequence[t.Any]) -> list[t.Any]:
    """Several calls of a map, one after another in one context."""
    return [fn(*args) for args in chunk]


async def run_chunk_of_coroutines(
    fn: t.Callable[..., t.Any], chunk: t.Sequence[t.Any]
) -> list[t.Any]:
    """The same for a coroutine function."""
    return [await fn(*args) for args in chunk]
