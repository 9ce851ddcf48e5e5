"""What goes into a store, and what comes out of it.

Times are seconds since the epoch, on the clock of the database. ``meta``, ``source``,
``retry``, ``info`` and ``progress`` are plain JSON values. Keys are texts, as
``stores/keys`` encodes them. Payloads and results are bytes that the store never reads.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Guarantee = t.Literal["ephemeral", "at_most_once", "at_least_once"]

State = t.Literal[
    "delayed",
    "waiting",
    "held",
    "running",
    "retrying",
    "succeeded",
    "failed",
    "timed_out",
    "cancelled",
    "interrupted",
]
"""The state of a stored task. ``held``: a worker has claimed it, and it has not begun.
For users that is ``waiting``. The last five are ends.
"""

OPEN: tuple[State, ...] = ("delayed", "waiting", "held", "running", "retrying")
ENDS: tuple[State, ...] = (
    "succeeded",
    "failed",
    "timed_out",
    "cancelled",
    "interrupted",
)
End = t.Literal["succeeded", "failed", "timed_out", "cancelled", "interrupted"]


class Sealed(t.NamedTuple):
    """A payload or a result as it is stored."""

    format: str
    """Names the serializer."""
    data: bytes
    signature: bytes


class Fence(t.NamedTuple):
    """The right to write about a claimed task.

    Each claim raises the epoch of its task, and each write tests it. So a worker that
    was declared dead can change nothing of what it had.
    """

    id: int
    owner: str
    """The id of the worker that has claimed it."""
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewTask:
    """A task to be inserted."""

    uid: str
    """Its public id, unique. To insert a ``uid`` again changes nothing."""
    name: str
    guarantee: Guarantee
    owner: str | None = None
    """The worker that holds it from the start, or None: any worker may claim it."""
    job: str | None = None
    """The name under which it was declared. Without one nobody can claim it."""
    key: str | None = None
    meta: t.Any = None
    priority: int = 0
    delay: float | None = None
    """Seconds from now, before which it is not due."""
    due: float | None = None
    """When it is due, instead of ``delay``."""
    parent: str | None = None
    """The ``uid`` of the task that submitted it."""
    source: t.Any = None
    """The request that submitted it."""
    request: str | None = None
    """The id of that request: all that one has started have the same."""
    timeout: float | None = None
    retry: t.Any = None
    unique_key: str | None = None
    replace: bool = False
    """If ``unique_key`` is taken by a task that nobody has claimed, cancel that."""
    group_id: int | None = None
    code_version: str | None = None
    retried_from: str | None = None
    """The ``uid`` of the task of which it is a repetition; it takes over the key."""
    payload: Sealed | None = None


class Inserted(t.NamedTuple):
    """A task was inserted."""

    id: int
    fence: Fence | None
    """The fence of a task that is held from the start."""


class Taken(t.NamedTuple):
    """A task was not inserted: another one has its key, or is the one that may be."""

    what: t.Literal["key", "unique"]
    uid: str
    """The task that is there instead."""
    key: str | None
    state: State


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A task that a worker may begin, with all it needs for that."""

    fence: Fence
    uid: str
    name: str
    job: str
    key: str | None
    guarantee: Guarantee
    meta: t.Any
    priority: int
    attempt: int
    """How often it has begun before."""
    lost: int
    """How often a worker died with it. If it is not 0, the begin must be committed
    before the call: otherwise a task that kills its worker would never be counted."""
    timeout: float | None
    retry: t.Any
    submitted: float
    due: float | None
    parent: str | None
    source: t.Any
    request: str | None
    group_id: int | None
    code_version: str | None
    payload: Sealed | None


class Begun(t.NamedTuple):
    """An attempt has begun."""

    attempt: int
    begun: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """The end of a task."""

    fence: Fence
    state: End
    result: Sealed | None = None
    error_class: str | None = None
    error_text: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryLater:
    """An attempt that has failed, and the pause before the next one."""

    fence: Fence
    pause: float
    """Seconds."""
    end: t.Literal["failed", "timed_out"] = "failed"
    error_class: str | None = None
    error_text: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What lists and futures show of a task. Nothing in it was unpickled."""

    id: int
    """Grows with each task: newer is greater."""
    uid: str
    key: str | None
    job: str | None
    name: str
    meta: t.Any
    state: State
    """Never ``held``, which is ``waiting`` for users."""
    guarantee: Guarantee
    priority: int
    due: float | None
    owner: str | None
    """The worker that has it, or had it last."""
    attempt: int
    lost: int
    submitted: float
    begun: float | None
    finished: float | None
    timeout: float | None
    retry: t.Any
    parent: str | None
    source: t.Any
    request: str | None
    group_id: int | None
    unique_key: str | None
    cancel: bool
    """True if it was asked to stop."""
    progress: t.Any
    """``[done, total, message]``, or None."""
    result_size: int | None
    error_class: str | None
    error_text: str | None
    traceback: str | None
    retried_from: str | None
    code_version: str | None


class Orphan(t.NamedTuple):
    """A task whose worker is gone, and what became of it."""

    uid: str
    name: str
    key: str | None
    state: State
    """``waiting``, or an end."""
    lost: int


class Reaped(t.NamedTuple):
    """What one run of the reaper has changed."""

    workers: list[str]
    """The ids of the workers that it declared dead."""
    orphans: list[Orphan]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRecord:
    """A process that runs tasks."""

    id: str
    state: t.Literal["alive", "dead", "left"]
    lease_until: float
    started: float
    host: str
    pid: int
    code_version: str | None
    info: t.Any
    ask: str | None
    answer: str | None


class Renewed(t.NamedTuple):
    """A lease was renewed."""

    ask: str | None
    """What a dashboard wants to know, until :meth:`.Store.answer`."""


class AttemptRecord(t.NamedTuple):
    """An attempt that did not succeed."""

    number: int
    begun: float | None
    ended: float
    end: str
    """``failed``, ``timed_out``, ``cancelled``, ``interrupted``, or ``lost`` if its
    worker died."""
    error_class: str | None
    error_text: str | None = None


class GroupRecord(t.NamedTuple):
    """The progress of a group."""

    id: int
    name: str
    total: int
    done: int
    """How many have ended, in any way."""
    failed: int
    """How many of these have failed, timed out or were interrupted."""
    closed: bool
    """True if no more members come."""
    opened: float | None = None


class Schedule(t.NamedTuple):
    """A job that is periodic, or paused."""

    job: str
    spec: str | None
    timezone: str | None
    paused: bool
    next: float | None
    last: float | None
    """Its last tick."""


class Stat(t.NamedTuple):
    """The ends of one job in one minute."""

    minute: int
    """Minutes since the epoch."""
    job: str
    end: str
    n: int
    wait_sum: float
    run_sum: float
    wait: tuple[int, ...]
    """A histogram: bucket ``i`` counts what took less than ``0.001 * 2 ** i`` seconds,
    and not less than the bucket before; the last one counts all the rest."""
    run: tuple[int, ...]
