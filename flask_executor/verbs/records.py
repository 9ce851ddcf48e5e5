"""What the verbs show of tasks and of processes: plain values, as they were when asked.

Nothing in them was unpickled.
"""

from __future__ import annotations

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
    there was one. With tracing, ``traceparent``, too."""
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
    type: str | None = None
    """Its ``EXECUTOR_TYPE``."""
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


def moment(seconds: float | None) -> datetime | None:
    """Return seconds since the epoch as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
