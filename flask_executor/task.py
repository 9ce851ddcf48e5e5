"""One submitted call, from the line to its end."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future
from functools import partial

from .worker import Call, Chunk, Outcome, run

Judge = t.Callable[["Task", Outcome], None]


class Task:
    """One submitted call, its future, and who judges what comes of it.

    :param future: the caller's handle; its end is decided by the judge alone.
    :param call: dropped as soon as it has run or was cancelled.
    :param judge: called once with the outcome, on the thread that ran the call.
    """

    __slots__ = ("__weakref__", "_name", "call", "future", "judge")

    def __init__(self, future: Future[t.Any], call: Call, judge: Judge) -> None:
        self.future: Future[t.Any] = future
        self.call: Call | None = call
        self.judge: Judge = judge
        self._name = ""

    @property
    def name(self) -> str:
        """The callable's name, for logs; without the call, as it was remembered."""
        return self._name if self.call is None else name_of(self.call.fn)

    def begin(self) -> bool:
        """Whether the call is to run: it was not cancelled while it waited."""
        if self.future.set_running_or_notify_cancel():
            return True
        self.drop_call()
        return False

    def run(self, _context: object = None) -> None:
        """Run the call on this thread, unless it was cancelled.

        :param _context: what the threads of Python 3.14 pass to their work items.
        """
        if self.begin():
            self.finish(run(self.call))  # type: ignore[arg-type]
        # The traceback of a failure refers to the frames of those who called it, this
        # one among them: without this, the future would refer to itself.
        del self

    def finish(self, outcome: Outcome) -> None:
        """Hand the outcome to the judge; nothing here refers to the call any more."""
        if outcome.error is not None:
            self._name = self.name
        self.call = None
        self.judge(self, outcome)

    def abandon(self) -> None:
        """Cancel a call that nobody will run, and tell those who wait for it."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()
        self.drop_call()

    def drop_call(self, *, remember: str = "") -> None:
        """Let go of the callable, its arguments and its context.

        :param remember: what to be called from now on.
        """
        self._name = remember or self._name
        self.call = None

    def __repr__(self) -> str:
        return f"<Task {self.name} {self.future!r}>"


def name_of(fn: t.Any) -> str:
    """What to call a callable in logs: its module and qualified name."""
    while isinstance(fn, partial | Chunk):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    if name is None:
        return _repr_of(fn)
    return f"{getattr(fn, '__module__', None) or 'builtins'}.{name}"


def _repr_of(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:  # people's own may fail, and a log must not fail with it
        return object.__repr__(thing)
