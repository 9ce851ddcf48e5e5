"""One submitted call, from the line to its end."""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from types import FunctionType

from .calls import Call, Chunk, Outcome, run
from .current import Progress
from .options import Options

Stage = t.Literal["delayed", "waiting", "running", "retrying"]
"""Where a task is that has not ended. ``delayed``: not due yet. ``waiting``: for a
worker. ``retrying``: an attempt has failed, and the pause before the next one lasts."""

End = t.Literal["succeeded", "failed", "timed_out", "cancelled"]
"""How a task has ended."""

DEFAULTS = Options()


class Owner(t.Protocol):
    """Who decides what becomes of a task."""

    def begin(self, task: Task) -> bool:
        """Whether the task is to run now; asked on the thread that would run it."""

    def finish(self, task: Task, outcome: Outcome) -> None:
        """Judge what came of the call; called once for each :meth:`begin` that said
        yes, on the thread that ran it.
        """

    def cancel(self, task: Task) -> bool:
        """Cancel the task if it waits; whether it is cancelled now."""

    def request_cancel(self, task: Task) -> bool:
        """Cancel it if it waits, ask it to stop if it runs; False if it has ended."""

    def reported(self, task: Task) -> None:
        """Announce the progress of a running task."""

    def wait_inside(self, task: Task, timeout: float | None) -> float | None:
        """See that the task runs: the code of another one is about to wait for it; how
        long it is to wait.
        """

    def waited_for(self, task: Task) -> None:
        """Likewise, for who waits without asking for the result."""

    def awaited(
        self, task: Task, wait: t.Generator[t.Any, None, t.Any]
    ) -> t.Generator[t.Any, None, t.Any]:
        """Likewise, for who awaits it on an event loop, by the steps of ``wait``."""

    def now(self) -> float:
        """Seconds that only grow."""


class Task:
    """One submitted call: what is known of it, and what it needs to run.

    :param future: the caller's handle; let go when the task has ended.
    :param call: the call, or what the pool has made of it to send it away; let go
        likewise.
    :param owner: decides what becomes of it.
    :param options: what counts for it.
    :param key: under which its future is stored, or None.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_id",
        "_name",
        "attempt",
        "call",
        "end",
        "finished",
        "future",
        "key",
        "options",
        "owner",
        "pool",
        "stage",
        "started",
        "submitted",
    )

    # What most tasks never have costs them nothing.
    gate: t.Any = None
    progress: Progress | None = None
    """What the task has reported last, or None."""
    overrun: bool = False
    """Whether its timeout is over and its run is not, for nothing could stop it."""
    cancel_requested: bool = False
    """Whether it was asked to stop."""
    deadline: float | None = None
    """When its timeout is over, on the clock of :func:`time.monotonic`, or None."""
    alarm: t.Any = None
    error: BaseException | None = None
    thread: int | None = None
    timed_out: bool = False
    wanted_by: Task | None = None
    stand_in: t.Any = None
    was_held: bool = False
    depth: int = 0

    def __init__(
        self,
        future: Future[t.Any],
        call: Call,
        owner: Owner,
        options: Options = DEFAULTS,
        key: t.Hashable | None = None,
    ) -> None:
        self.future: t.Any = future
        self.call: t.Any = call
        self.owner: Owner = owner
        self.pool: t.Any = None
        self.options: Options = options
        self.key: t.Hashable | None = key
        """The key under which its future is stored, or None."""
        self.stage: Stage = "waiting"
        self.end: End | None = None
        self.attempt: int = 0
        """How often it has been begun: 0 while it waits, 1 in its first attempt."""
        self.submitted: float = 0.0
        self.started: float | None = None
        self.finished: float | None = None
        self._id: str | None = None
        self._name: str | None = options.name

    @property
    def id(self) -> str:
        """Unique among all tasks; the same for all attempts."""
        if self._id is None:  # most are never asked, and a random id takes its time
            # Of two that ask at once, both get the first. A lock might be held for
            # ever in a forked child.
            made = os.urandom(16).hex()
            self._id = t.cast(str, vars(self).setdefault("first_id", made))
        return self._id

    @property
    def state(self) -> Stage | End:
        """Where the task is: ``delayed``, ``waiting``, ``running``, ``retrying``, then
        ``succeeded``, ``failed``, ``timed_out`` or ``cancelled``.
        """
        return self.end or self.stage

    @property
    def name(self) -> str:
        """The option ``name``, or the callable's module and qualified name."""
        call = self.call  # first: it is let go after its name was noted
        return name_of(call.fn) if self._name is None else self._name

    @property
    def submitted_at(self) -> datetime:
        """When it was submitted, in UTC."""
        return datetime.fromtimestamp(self.submitted, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When its last attempt began, in UTC, or None."""
        return _moment(self.started)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, in UTC, or None."""
        return _moment(self.finished)

    def remaining(self) -> float | None:
        """Seconds until the deadline, below 0 after it; None where there is none."""
        return None if self.deadline is None else self.deadline - self.owner.now()

    def report(self, progress: Progress) -> None:
        """Note how far it is, and have it announced; nothing, once it has ended."""
        if self.end is None:
            self.progress = progress
            self.owner.reported(self)

    def run(self, _context: object = None) -> None:
        """Run the call on this thread, unless its owner says no.

        :param _context: what the threads of Python 3.14 pass to their work items.
        """
        call = self.call  # before it begins: its timeout may end it at any time then
        if self.owner.begin(self):
            self.owner.finish(self, run(call, self))
        # The traceback of a failure refers to the frames of those who called it, this
        # one among them: without this, the future would refer to itself.
        del self, call

    def send_away(self, packed: t.Any) -> None:
        """Keep what a pool has made of the call, in place of the call."""
        self._name = self.name
        self.call = packed

    def let_go(self) -> None:
        """Drop the callable, its arguments, its context and the future."""
        if self._name is None:
            self._name = name_of(self.call.fn)
        self.call = self.future = None
        if self.error is not None:
            self.error = None
        if self.wanted_by is not None:
            self.wanted_by = None

    def __repr__(self) -> str:
        key = "" if self.key is None else f" (key {self.key!r})"
        return f"<Task {self.name}{key} {self.state}>"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def name_of(fn: t.Any) -> str:
    """What to call a callable in logs: its module and qualified name."""
    if type(fn) is FunctionType:  # most often
        return f"{fn.__module__ or 'builtins'}.{fn.__qualname__}"
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
