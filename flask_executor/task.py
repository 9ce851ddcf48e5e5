"""Tasks: what is known of a submitted call, from submit to its end."""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from types import FunctionType

from .attempt import Attempt
from .calls import Call, Chunk, Outcome
from .contexts import Origin
from .current import Progress
from .options import Options

State = t.Literal[
    "delayed",
    "waiting",
    "running",
    "retrying",
    "succeeded",
    "failed",
    "timed_out",
    "cancelled",
    "interrupted",
]
"""The state of a task. ``delayed``: not due yet. ``waiting``: for a worker.
``retrying``: an attempt has failed, and the pause before the next one is not over. The
last five are ends; ``interrupted``, only with a store: its process has died.
"""

DEFAULTS = Options()


class Wait(t.Protocol):
    """A wait of one task for others, which its code ends."""

    def end(self) -> None:
        """Note the end of the wait; return when the code may go on."""

    def end_then(self, fn: t.Callable[[], object]) -> None:
        """Note the end of the wait, and call ``fn`` once the code may go on."""


class Saved(t.Protocol):
    """The row of a task in a store, which its owner keeps up to date."""

    is_left: bool
    """True if the task was asked to stop only because its process ends."""
    job: str
    """The name of its job; that of the task if nobody else can run it."""
    source: t.Mapping[str, str]
    """Where it comes from, as the row says: the request, and what sinks have added."""
    request: str | None
    """The id of the request that it comes from, as the row says."""
    due: float | None
    """When it was due after a delay, if it waited for that as a row."""

    @property
    def is_ephemeral(self) -> bool:
        """True if the task ends with its process."""

    def begin(self) -> bool:
        """Note that an attempt begins; return False if it must not begin here.

        It is called on the thread that is to run it. If it returns False, it has
        settled what becomes of the task.
        """

    def give_back(self) -> bool:
        """Let any process run a task that has not begun; False if it must stay here."""

    def retry(self, error: BaseException, pause: float) -> bool:
        """Note a failed attempt; return False if the next one may run anywhere."""

    def progressed(self, progress: Progress) -> None:
        """Note the progress of the current attempt."""

    def end(
        self, verdict: t.Any, value: t.Any, deliver: t.Callable[..., object]
    ) -> None:
        """Write the end, then call ``deliver(task, verdict, value)`` elsewhere."""


class Owner(t.Protocol):
    """The object that decides about a task: the dispatcher."""

    def begin(self, task: Task) -> Attempt | None:
        """Begin an attempt on this thread; return None if the task must not run."""

    def settle(self, attempt: Attempt, error: BaseException) -> None:
        """Decide what a failure means, in the context in which it was raised."""

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take the outcome of an attempt. Called once for each that began."""

    def cancel(self, task: Task) -> bool:
        """Cancel the task if it waits; return True if it is cancelled now."""

    def request_cancel(self, task: Task) -> bool:
        """Cancel it if it waits, ask it to stop if it runs; False if it has ended."""

    def abandon(self, task: Task, error: BaseException) -> None:
        """End a task that nothing can run, with this error."""

    def reported(self, task: Task, /) -> object:
        """Announce the progress of a running task."""

    def want(self, task: Task) -> None:
        """Let a task go first where code that waits lends out its worker."""

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait for a task that blocks this thread."""

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> Wait | None:
        """Prepare a wait for any of several tasks."""

    def now(self) -> float:
        """Return the dispatcher's monotonic time, in seconds."""


class Task:
    """One submitted call, as its submitter, receivers and logs see it.

    A task is read-only; only the executor changes it. All of it can be read from any
    thread, also after the end.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_call",
        "_finished",
        "_name",
        "_note",
        "_owner",
        "_pool",
        "_queue",
        "_run",
        "_started",
        "_submitted",
        "attempt",
        "future",
        "key",
        "options",
        "state",
    )

    # Class attributes: what most tasks never have takes no memory in them.
    progress: Progress | None = None
    """The last progress that the current attempt has reported, or None."""
    _id: str | None = None
    _place: t.Any = None
    _timer: t.Any = None
    _error: BaseException | None = None
    _ended_as: State | None = None
    _wanted: bool = False
    _was_asked: bool = False
    _is_reserved: bool = False
    _saved: Saved | None = None
    _origin: Origin | None = None

    def __init__(
        self,
        future: Future[t.Any],
        call: Call,
        owner: Owner,
        options: Options = DEFAULTS,
        key: t.Hashable | None = None,
        submitted: float = 0.0,
    ) -> None:
        self.future: t.Any = future
        """Its future, until it has ended; then None."""
        self.options: Options = options
        """The options that apply to it."""
        self.key: t.Hashable | None = key
        """The key under which its future is stored, or None."""
        self.state: State = "waiting"
        """``delayed``, ``waiting``, ``running``, ``retrying``, then ``succeeded``,
        ``failed``, ``timed_out`` or ``cancelled``."""
        self.attempt: int = 0
        """How often it has begun: 0 while it waits, 1 in its first attempt."""
        # Dropped when the task has ended; an attempt that goes on keeps its own.
        self._call: t.Any = call
        self._owner: Owner = owner
        self._pool: t.Any = None
        self._queue: t.Any = None
        self._run: Attempt | None = None
        self._name: str | None = options.name
        # Not set: what one sink keeps with a task. The __dict__ takes longer to make.
        self._note: t.Any
        self._submitted: float = submitted
        self._started: float | None = None
        self._finished: float | None = None

    @property
    def id(self) -> str:
        """Unique among all tasks; the same for all attempts."""
        if self._id is None:  # most are never asked, and a random id takes its time
            # Of two threads that ask at once, both get the first. A lock might be held
            # for ever in a forked child.
            made = os.urandom(16).hex()
            self._id = t.cast(str, vars(self).setdefault("_first_id", made))
        return self._id

    @property
    def name(self) -> str:
        """The option ``name``, or the callable's module and qualified name."""
        call = self._call  # first: it is dropped after its name was noted
        return name_of(call.fn) if self._name is None else self._name

    @property
    def submitted_at(self) -> datetime:
        """When it was submitted, in UTC."""
        return datetime.fromtimestamp(self._submitted, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When its last attempt began, in UTC, or None."""
        return _moment(self._started)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, in UTC, or None."""
        return _moment(self._finished)

    @property
    def cancel_requested(self) -> bool:
        """True if its last attempt was asked to stop, or its timeout was over."""
        run = self._run
        return self._was_asked if run is None else run.cancel_requested

    @property
    def overrun(self) -> bool:
        """True if its timeout is over and its run is not, for nothing could stop it."""
        return self._run is not None and self._run.overrun

    @property
    def _has_ended(self) -> bool:
        return self._finished is not None

    def _report(self, progress: Progress) -> None:
        if self._finished is None:
            self.progress = progress
            self._owner.reported(self)
            if self._saved is not None:
                self._saved.progressed(progress)

    def _release(self) -> None:
        """Drop the callable, its arguments, its context and the future."""
        call = self._call
        if self._name is None:
            self._name = name_of(call.fn)
        if self.key is not None and self._saved is None:
            # Lists show it as long as the future is stored.
            self._origin = origin_of(call) or self._origin
        self._call = self.future = None
        run = self._run
        if run is not None and not run.overrun:
            if run.stop_requested or run.timed_out:
                self._was_asked = True
            self._run = None  # it refers to this
        if self._error is not None:
            self._error = None

    def __repr__(self) -> str:
        return f"<Task {self._label} {self.state}>"

    @property
    def _label(self) -> str:
        return self.name if self.key is None else f"{self.name} (key {self.key!r})"


def origin_of(call: t.Any) -> Origin | None:
    """Return the request that a call comes from; None if there was none, or no call."""
    snapshot = None if call is None else call.snapshot
    return None if snapshot is None else t.cast("Origin | None", snapshot.origin)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def name_of(fn: t.Any) -> str:
    """Return what a callable is called in logs: its module and qualified name."""
    if type(fn) is FunctionType:  # most are
        return f"{fn.__module__ or 'builtins'}.{fn.__qualname__}"
    while isinstance(fn, partial | Chunk):
        fn = fn.func
    try:
        name = getattr(fn, "__qualname__", None)
        module = getattr(fn, "__module__", None)
    except Exception:  # a proxy of nothing
        name = None
    if not isinstance(name, str):
        return _repr_of(fn)
    return f"{module or 'builtins'}.{name}"


def _repr_of(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:  # the app's own repr may fail, and a log must not fail with it
        return object.__repr__(thing)
