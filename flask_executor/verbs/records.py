"""What the verbs show of tasks and of processes: plain values, as they were when asked.

Nothing in them was unpickled.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime

from ..current import Progress
from ..task import State

STATES: tuple[str, ...] = t.get_args(State)
"""All states of a task."""
ENDS: tuple[str, ...] = STATES[-5:]
"""The states in which a task has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """What is known of a task at one moment; it does not change.

    All times are in UTC. What is not known, or does not exist, is None.

    .. versionadded:: 2.0
    """

    id: str
    """Unique among all tasks: ``future.task.id``."""
    name: str
    """The option ``name``, or the function's module and qualified name."""
    state: str
    """``delayed``, ``waiting``, ``running``, ``retrying``, then ``succeeded``,
    ``failed``, ``timed_out``, ``cancelled`` or ``interrupted``."""
    submitted_at: datetime
    job: str | None = None
    """The name under which its job was declared."""
    key: t.Hashable | None = None
    """The key of its future. A key that cannot be read in this process, because it is
    a member of an Enum that is not imported, is the text that the store has for it."""
    meta: t.Any = None
    """The option ``meta``."""
    guarantee: str = "ephemeral"
    priority: int = 0
    timeout: float | None = None
    """Seconds."""
    unique: t.Hashable | None = None
    """The option ``unique``."""
    attempt: int = 0
    """How often it has begun."""
    lost: int = 0
    """How often its process died with it."""
    progress: Progress | None = None
    due_at: datetime | None = None
    """When it is due, or was: after a delay, or after the pause of a retry."""
    started_at: datetime | None = None
    """When its last attempt began."""
    finished_at: datetime | None = None
    cancel_requested: bool = False
    """True if it was asked to stop."""
    worker: str | None = None
    """The :attr:`WorkerInfo.id` of the process that has it, or had it last."""
    parent: str | None = None
    """The id of the task that submitted it."""
    source: dict[str, str] | None = None
    """The request that submitted it: ``method``, ``path`` and ``endpoint``, as far as
    there was one; no ``path`` if the task does not see its request, with
    :confval:`EXECUTOR_STORE_REQUEST` ``= "none"``. With tracing, ``traceparent``,
    too."""
    request: str | None = None
    """The id of that request. All that it has started has the same: the tasks that it
    has submitted, what these submit in turn, and repetitions. It is our own: what a
    header such as ``X-Request-ID`` says is not used."""
    retried_from: str | None = None
    """The id of the task of which it is a repetition: see :meth:`.Executor.retry`."""
    error_class: str | None = None
    """The class of the exception, as ``'ValueError'`` or ``'shop.errors.NoMoney'``."""
    error: str | None = None
    """The text of the exception."""
    traceback: str | None = None
    result_size: int | None = None
    """How many bytes the saved result has."""

    @property
    def has_ended(self) -> bool:
        """True if nothing more happens to it."""
        return self.state in ENDS


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerInfo:
    """A process that has tasks, as it was when it last renewed its lease.

    .. versionadded:: 2.0
    """

    id: str
    """Random for each start of a process."""
    host: str
    pid: int
    name: str = ""
    """What ``flask executor worker --name`` calls it."""
    started_at: datetime | None = None
    alive_until: datetime | None = None
    """When its lease ends, unless it renews it; None without a store."""
    pool: str | None = None
    """The kind of its pool: its ``EXECUTOR_TYPE``."""
    slots: int | None = None
    """How many calls it runs at once; None: there is no limit."""
    busy: int = 0
    """How many attempts run."""
    queue: int = 0
    """How many tasks wait in it."""
    runs: bool = True
    """True if it also runs tasks of other processes."""
    jobs: tuple[str, ...] = ()
    """The names of the jobs that it knows."""
    full: tuple[str, ...] = ()
    """Those of its jobs that have tasks waiting because of ``max_concurrency``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptInfo:
    """One run of a task.

    .. versionadded:: 2.0
    """

    number: int
    """The first attempt is 1."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    end: str | None = None
    """``succeeded``, ``failed``, ``timed_out``, ``cancelled``, ``interrupted``, or
    ``lost`` if its process died and the task could run again; None while it runs."""
    error_class: str | None = None
    """The class of the exception, as in :attr:`TaskRecord.error_class`."""
    error: str | None = None
    """The text of the exception."""


BUCKETS: tuple[float, ...] = (*(0.001 * 2**i for i in range(25)), math.inf)
"""The limits of the buckets of a histogram, in seconds. Each bucket counts what took
less than its limit, and not less than the limit before it.

.. versionadded:: 2.0
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class MinuteStatistics:
    """The tasks of one job that have ended in one minute, in one way.

    .. versionadded:: 2.0
    """

    minute: datetime
    """Its begin, in UTC."""
    job: str | None
    """The name of the job; None for calls of other functions."""
    end: str
    """The state in which they have ended."""
    count: int
    """How many tasks these are."""
    wait_sum: float
    """The seconds that they have waited for their last attempt, added up. A task waits
    from when it was submitted, or later became due."""
    run_sum: float
    """The seconds that their last attempts took, added up."""
    waits: tuple[int, ...]
    """How many have waited how long: a number for each of :data:`BUCKETS`."""
    runs: tuple[int, ...]
    """How many have run how long. Those that never began are not among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupInfo:
    """A group in the store.

    .. versionadded:: 2.0
    """

    id: int
    """Newer groups have greater ids."""
    name: str
    total: int
    """How many members it has so far."""
    done: int
    """How many of these have ended, in any way."""
    failed: int
    """How many of these have failed, timed out or were interrupted."""
    closed: bool
    """True if no more members come."""
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadStack:
    """What one thread of a process does at this moment.

    .. versionadded:: 2.0
    """

    thread: str
    """Its name."""
    stack: str
    """The lines of code that it is in, as in a traceback: the innermost is the last."""
    task_id: str | None = None
    """The id of the task that it runs; None if it runs no task."""
    task_name: str | None = None
    overran: bool = False
    """True if the timeout of that task is over, and the thread could not be stopped."""


def moment(seconds: float | None) -> datetime | None:
    """Return seconds since the epoch as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
