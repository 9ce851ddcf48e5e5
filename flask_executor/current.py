"""What the code inside a task may ask of it, and tell it."""

from __future__ import annotations

import operator
import typing as t
from contextvars import ContextVar

from werkzeug.local import LocalProxy

from .errors import NoCurrentTask, TaskCancelled

T = t.TypeVar("T")


class Progress(t.NamedTuple):
    """How far a task is."""

    done: float = 0
    """How much is done, in whatever unit the task counts."""
    total: float | None = None
    """How much there is in all; None where that is not known."""
    message: str = ""
    """What is going on, for people."""

    @property
    def fraction(self) -> float | None:
        """The share that is done, 0 to 1; None where the total is not known."""
        if not self.total:
            return None
        try:
            return min(max(self.done / self.total, 0.0), 1.0)
        except TypeError:  # a task may report anything
            return None


class Inside(t.Protocol):
    """What stands behind :data:`current_task`: the task itself, or in a worker process
    what is known of it there.
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
"""The task whose code this is."""


class CurrentTask:
    """The task whose code asks; see :data:`current_task`."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    @property
    def id(self) -> str:
        """The id of the task, the same for all its attempts."""
        return self._inside.id

    @property
    def name(self) -> str:
        """What it is called in logs."""
        return self._inside.name

    @property
    def key(self) -> t.Hashable | None:
        """The key under which its future is stored, or None. In a worker process it
        is None, too, where the key cannot be pickled.
        """
        return self._inside.key

    @property
    def attempt(self) -> int:
        """Which attempt this is; the first is 1."""
        return self._inside.attempt

    @property
    def deadline(self) -> float | None:
        """When its ``timeout`` is over, on the clock of :func:`time.monotonic`; None
        where it has none.
        """
        return self._inside.deadline

    def remaining(self) -> float | None:
        """Seconds until the deadline, below 0 after it; None where there is none."""
        return self._inside.remaining()

    @property
    def cancel_requested(self) -> bool:
        """Whether it was asked to stop: by ``future.request_cancel()``, or because its
        ``timeout`` is over.
        """
        return self._inside.cancel_requested

    def raise_if_cancelled(self) -> None:
        """End the task here where it was asked to stop.

        :raises TaskCancelled: a :exc:`concurrent.futures.CancelledError`, which must be
            let through for the future to be cancelled.
        """
        if self._inside.cancel_requested:
            raise TaskCancelled(self._inside.name)

    def progress(
        self, done: float, total: float | None = None, message: str = ""
    ) -> None:
        """Tell how far the task is; ``future.task.progress`` shows it.

        It never blocks. From a worker process at most some twenty reports a second are
        passed on, and the last one.

        :param done: how much is done, in any unit.
        :param total: how much there is in all, if known.
        :param message: what is going on, for people.
        """
        self._inside.report(Progress(done, total, message))

    def track(
        self, iterable: t.Iterable[T], total: float | None = None, message: str = ""
    ) -> t.Iterator[T]:
        """Go through an iterable, reporting progress, and stop where asked to.

        :param total: how many items there are; by default what the iterable says.
        :raises TaskCancelled: between two items, where the task was asked to stop.
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
"""The task whose code asks: in threads, coroutines and worker processes.

Outside a task every use of it is a :exc:`.NoCurrentTask`, a :exc:`RuntimeError`.
"""
