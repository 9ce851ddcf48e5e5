"""The steps of a coroutine under a concurrency limit.

A coroutine runs in steps, from one suspension to the next, and so does each asyncio
task that it makes. :class:`Driven` stands between such a coroutine and the event loop:
before a step the place is taken, and after it the place is given up if the task waits
for other tasks by then. So a task that waits never counts, and one that goes on always
does, in any combination of ``gather``, ``create_task`` and ``TaskGroup``. A task
counts as waiting for as long as one of its asyncio tasks waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import typing as t


class Driven(t.Coroutine[t.Any, t.Any, t.Any]):
    """A coroutine of which each step runs only while its task has a place.

    :param coroutine: the coroutine that runs.
    :param place: a place of :mod:`flask_executor.dispatch.limits`.
    """

    def __init__(
        self, coroutine: t.Coroutine[t.Any, t.Any, t.Any], place: t.Any
    ) -> None:
        self._coroutine = coroutine
        self._steps = _steps(coroutine, place)
        self._has_begun = False
        # The names that asyncio and debuggers show.
        name: str = getattr(coroutine, "__name__", "coroutine")
        self.__name__: str = name
        self.__qualname__: str = getattr(coroutine, "__qualname__", name)

    def send(self, value: t.Any) -> t.Any:
        """Run until the next suspension."""
        self._has_begun = True
        return self._steps.send(value)

    def throw(self, *error: t.Any) -> t.Any:
        """Raise an exception where it is suspended."""
        if self._has_begun:
            return self._steps.throw(*error)
        return self._coroutine.throw(*error)  # which ends it: no step, no place

    def close(self) -> None:
        """End it where it is suspended."""
        self._steps.close()
        self._coroutine.close()

    def __await__(self) -> t.Generator[t.Any, t.Any, t.Any]:
        self._has_begun = True
        return self._steps


def _steps(
    coroutine: t.Coroutine[t.Any, t.Any, t.Any], place: t.Any
) -> t.Generator[t.Any, t.Any, t.Any]:
    value: t.Any = None
    error: BaseException | None = None
    try:
        while True:
            error = (yield from _take(place)) or error
            try:
                if error is None:
                    suspended_by = coroutine.send(value)
                else:
                    suspended_by = coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                place.limit.end_step(place)
            value, error = None, None
            try:
                value = yield suspended_by
            except BaseException as thrown:
                error = thrown
    finally:
        coroutine.close()
        del error


def _take(place: t.Any) -> t.Generator[t.Any, t.Any, BaseException | None]:
    """Take the place; return what was thrown in until then, for the next step."""
    loop = asyncio.get_running_loop()
    granted = loop.create_future()
    thrown: BaseException | None = None
    # Another coroutine of the task may have had its step and given the place up again.
    while not place.limit.start_step(place, _waker(loop, granted)):
        while not granted.done():
            try:
                yield from asyncio.shield(granted)
            except asyncio.CancelledError as error:
                thrown = error
        granted = loop.create_future()
    return thrown


def _waker(
    loop: asyncio.AbstractEventLoop, granted: asyncio.Future[None]
) -> t.Callable[[], None]:
    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_grant, granted)

    return wake


def _grant(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)
