"""What code inside a task can ask its task, and report to it."""

from __future__ import annotations

import operator
import typing as t
from contextvars import ContextVar

from werkzeug.local import LocalProxy

from .errors import NoCurrentTask, TaskCancelled

T = t.TypeVar("T")


class Progress(t.NamedTuple):
    """The progress of a task."""

    done: float = 0
    """How much is done, in the unit that the task counts."""
    total: float | None = None
    """How much there is in all; None if that is not known."""
    message: str = ""
    """What the task does at the moment, for people."""

    @property
    def fraction(self) -> float | None:
        """The share that is done, 0 to 1; None if the total is not known."""
        if not self.total:
            return None
        try:
            return min(max(self.done / self.total, 0.0), 1.0)
        except TypeError:  # a task may report anything
            return None


class Inside(t.Protocol):
    """The object behind :data:`current_task`.

    It is the running attempt, or in a worker process what is known of it there.
    """

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def key(self) -> t.Hashable | None: ...
    @property
    def attempt(self) -> int: ...
    @property
    def deadline(self) -> float | None: ...
    def remaining(self) -> float | None: ...
    @property
    def cancel_requested(self) -> bool: ...
    def report(self, progress: Progress) -> None: ...
    def raised(self, error: BaseException) -> None: ...


running: ContextVar[Inside | None] = ContextVar("flask_executor_task", default=None)
"""The task whose code runs in this context; None outside of tasks."""


class CurrentTask:
    """The task whose code uses this; see :data:`current_task`."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    @property
    def id(self) -> str:
        """The id of the task, the same for all its attempts."""
        return self._inside.id

    @property
    def name(self) -> str:
        """The name of the task in logs."""
        return self._inside.name

    @property
    def key(self) -> t.Hashable | None:
        """The key under which its future is stored, or None.

        In a worker process it is also None if the key cannot be pickled.
        """
        return self._inside.key

    @property
    def attempt(self) -> int:
        """The number of this attempt; the first is 1."""
        return self._inside.attempt

    @property
    def deadline(self) -> float | None:
        """When its ``timeout`` is over, or None if it has none.

        It is a time of :func:`time.monotonic`.
        """
        return self._inside.deadline

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, below 0 after it, or None."""
        return self._inside.remaining()

    @property
    def cancel_requested(self) -> bool:
        """True if it was asked to stop.

        ``future.request_cancel()`` asks, or its ``timeout`` is over.
        """
        return self._inside.cancel_requested

    def raise_if_cancelled(self) -> None:
        """End the task here if it was asked to stop.

        :raises TaskCancelled: a :exc:`concurrent.futures.CancelledError`. Let it
            through, otherwise the future is not cancelled.
        """
        if self._inside.cancel_requested:
            raise TaskCancelled(self._inside.name)

    def progress(
        self, done: float, total: float | None = None, message: str = ""
    ) -> None:
        """Report the progress of the task; ``future.task.progress`` shows it.

        It never blocks. From a worker process at most some twenty reports a second are
        passed on, and the last one.

        :param done: how much is done, in any unit.
        :param total: how much there is in all, if known.
        :param message: what the task does at the moment, for people.
        """
        self._inside.report(Progress(done, total, message))

    def track(
        self, iterable: t.Iterable[T], total: float | None = None, message: str = ""
    ) -> t.Iterator[T]:
        """Yield the items of an iterable, report progress, and stop if asked to.

        :param total: how many items there are; by default the length of the iterable.
        :raises TaskCancelled: between two items, if the task was asked to stop.
        """
        if total is None:
            total = operator.length_hint(iterable) or None
        done = 0
        for item in iterable:
            self.raise_if_cancelled()
            self.progress(done, total, message)
            yield item
            done += 1
        self.progress(done, total, message)

    def __repr__(self) -> str:
        return f"<CurrentTask {self.name} attempt {self.attempt}>"


def _current() -> CurrentTask:
    inside = running.get()
    if inside is None:
        raise NoCurrentTask
    return CurrentTask(inside)


current_task: CurrentTask = t.cast(CurrentTask, LocalProxy(_current))
"""The task whose code uses this, in threads, coroutines and worker processes.

Outside of tasks every use raises :exc:`.NoCurrentTask`, a :exc:`RuntimeError`.
"""
