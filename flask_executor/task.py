"""One submitted call, from the line to its end."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future
from functools import partial

from .worker import Call, Outcome, run

Judge = t.Callable[["Task", Outcome], None]


class Task:
    """One submitted call, its future, and who judges what comes of it.

    :param future: the caller's handle; its end is decided by the judge alone.
    :param call: dropped as soon as it has run or was cancelled.
    :param judge: called once with the outcome, on the thread that ran the call.
    """

    __slots__ = ("__weakref__", "call", "future", "judge", "name")

    def __init__(self, future: Future[t.Any], call: Call, judge: Judge) -> None:
        self.future = future
        self.call: Call | None = call
        self.judge = judge
        self.name: str | None = None
        """The callable's name; known once it is asked for without the call itself."""

    def begin(self) -> bool:
        """Whether the call is to run: it was not cancelled while it waited."""
        if self.future.set_running_or_notify_cancel():
            return True
        self.drop_call()
        return False

    def run(self) -> None:
        """Run the call on this thread, unless it was cancelled."""
        if self.begin():
            call: Call = self.call  # type: ignore[assignment]
            self.finish(run(call))

    def finish(self, outcome: Outcome) -> None:
        """Hand the outcome to the judge; nothing here refers to the call any more."""
        if outcome.error is not None:
            self.name = self.name or name_of(t.cast(Call, self.call).fn)
        self.drop_call()
        self.judge(self, outcome)

    def abandon(self) -> None:
        """Cancel a call that nobody will run, and tell those who wait for it."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()
        self.drop_call()

    def drop_call(self) -> None:
        """Let go of the callable, its arguments and its context."""
        self.call = None

    def __repr__(self) -> str:
        name = self.name if self.call is None else name_of(self.call.fn)
        return f"<Task {name} {self.future!r}>"


def name_of(fn: t.Any) -> str:
    """What to call a callable in logs: its module and qualified name."""
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    if name is None:
        return repr(fn)
    return f"{getattr(fn, '__module__', None) or 'builtins'}.{name}"
