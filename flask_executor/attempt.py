"""Attempts: one run of a task, from its beginning to its end."""

from __future__ import annotations

import threading
import typing as t

from .calls import Call
from .current import Progress
from .options import hint_at_options


class Attempt:
    """One run of a task: made when it begins, and never used for a second one.

    It stands behind ``current_task`` in the code that runs.

    :param task: the task that runs.
    :param number: the first attempt is 1.
    :param call: what is called; dropped when the run has ended.
    """

    __slots__ = ("__dict__", "__weakref__", "call", "number", "task", "thread")

    # Class attributes: values that most attempts never have take no memory.
    deadline: float | None = None
    """When its timeout is over, on the dispatcher's monotonic clock; None: never."""
    timer: t.Any = None
    """The handle of the timer that watches the deadline."""
    timed_out: bool = False
    """True if it was stopped because its timeout was over."""
    stop_requested: bool = False
    """True if somebody asked it to stop."""
    overrun: bool = False
    """True if its task has ended with a timeout and this run still goes on."""
    decided: t.Any = None
    """The verdict on its outcome, once there is one."""
    planned: t.Any = None
    """The verdict that its timeout has brought, to be performed when it has stopped."""
    on_stop: tuple[t.Callable[[], object], ...] = ()
    """Called when it is asked to stop; see :meth:`call_on_stop`."""

    def __init__(self, task: t.Any, number: int, call: Call) -> None:
        self.task: t.Any = task
        self.number: int = number
        self.call: Call | None = call
        self.thread: int = threading.get_ident()
        """The thread on which it began."""

    # What the code of the task asks, through current_task

    @property
    def id(self) -> str:
        """The id of the task."""
        return t.cast(str, self.task.id)

    @property
    def name(self) -> str:
        """The name of the task."""
        return t.cast(str, self.task.name)

    @property
    def key(self) -> t.Hashable | None:
        """The key of the task, or None."""
        return t.cast("t.Hashable | None", self.task.key)

    @property
    def attempt(self) -> int:
        """The number of this attempt."""
        return self.number

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, or None if there is none."""
        if self.deadline is None:
            return None
        return self.deadline - t.cast(float, self.task._owner.now())

    @property
    def cancel_requested(self) -> bool:
        """True if it is to stop: somebody asked, or its timeout is over."""
        return self.stop_requested or self.timed_out or self.overrun

    def report(self, progress: Progress) -> None:
        """Note the progress of the task, unless this run is over."""
        if self.task._run is self and self.call is not None:
            self.task._report(progress)

    def raised(self, error: BaseException) -> None:
        """Note what the call raised, in the context in which it was raised."""
        if self.call is not None:
            hint_at_options(error, self.call.kwargs)
        self.task._owner.settle(self, error)

    # What others do with it

    def call_on_stop(self, fn: t.Callable[[], object]) -> t.Callable[[], None]:
        """Call ``fn`` when this run is asked to stop, or now if it was.

        :param fn: runs on the thread that asks.
        :return: a function that undoes this.
        """
        self.on_stop = (*self.on_stop, fn)
        if self.cancel_requested:
            fn()

        def undo() -> None:
            self.on_stop = tuple(one for one in self.on_stop if one is not fn)

        return undo

    def runs_here(self) -> bool:
        """Return True if this thread is the one that runs it."""
        return self.thread == threading.get_ident()

    def __repr__(self) -> str:
        return f"<Attempt {self.number} of {self.task!r}>"
