"""What has happened to the tasks of one dispatcher, as numbers.

Each event costs a fraction of a microsecond: it adds to plain numbers under one lock.
Prometheus gets these when somebody asks, or a few times per second.
"""

from __future__ import annotations

import itertools
import os
import threading
import typing as t
import weakref
from bisect import bisect_left
from collections import deque

from ..dispatch import Dispatcher
from ..job_names import JobNames, job_name
from ..jobs import ExecutorJob

BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0),
)
"""The upper bounds of the buckets, in seconds; the last bucket has all the rest."""
ENDS = ("succeeded", "failed", "timed_out", "cancelled")
OTHER = "other"
"""The label of what was not declared as a job, and of the jobs beyond the limit."""
MOST = 200
"""How many values the label ``job`` has at most, with :data:`OTHER`."""


class Row:
    """What has happened to the tasks of one job. Times are in seconds."""

    __slots__ = ("ended", "retried", "run", "runs", "submitted", "wait", "waits")

    submitted: int
    retried: int
    ended: dict[str, int]
    wait: float
    """The sum of all waits."""
    run: float
    """The sum of all runs."""
    waits: list[int]
    """How many waits there are in each bucket."""
    runs: list[int]
    """How many runs there are in each bucket."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start from zero."""
        self.submitted = self.retried = 0
        self.ended = dict.fromkeys(ENDS, 0)
        self.wait = self.run = 0.0
        self.waits, self.runs = [0] * (len(BOUNDS) + 1), [0] * (len(BOUNDS) + 1)

    def add_run(self, task: t.Any, end: float) -> None:
        """Add an attempt, and before the first one how long the task has waited."""
        begun, options = task._started, task.options
        seconds = end - begun
        self.runs[bisect_left(BOUNDS, seconds)] += 1
        if seconds > 0:  # clocks can be set back
            self.run += seconds
        if task.attempt != 1:
            return
        if options.delay is options.run_at is task._saved is None:  # as most are
            seconds = begun - task._submitted
        else:
            seconds = begun - _due(task)
        self.waits[bisect_left(BOUNDS, seconds)] += 1
        if seconds > 0:
            self.wait += seconds

    @property
    def has_news(self) -> bool:
        """True if something has happened since the last :meth:`take`."""
        counts = (*self.ended.values(), *self.waits, *self.runs)
        return bool(self.submitted or self.retried) or any(counts)

    def take(self) -> Row:
        """Return the numbers so far, and start from zero."""
        taken = Row.__new__(Row)
        for name in self.__slots__:
            setattr(taken, name, getattr(self, name))
        self.clear()
        return taken


class Labels:
    """Which values the label ``job`` has: the first names that are seen, and ``other``.

    :param names: the jobs of an executor.
    """

    def __init__(self, names: JobNames) -> None:
        self._names = names
        # No lock here: it might be held for ever in a forked child.
        self._numbers = itertools.count(1)
        self._known = {OTHER}

    def of(self, fn: t.Any) -> str:
        """Return the label for what was submitted."""
        name = job_name(fn) if type(fn) is ExecutorJob else None
        return OTHER if name is None else self._limited(name)

    def named(self, name: str) -> str:
        """Return the label for a task whose function is not known any more."""
        return self.of(self._names.find(name))

    def _limited(self, name: str) -> str:
        if name in self._known:
            return name
        # Two threads with one name may take two numbers, which is not too many.
        if next(self._numbers) >= MOST:
            return OTHER
        self._known.add(name)
        return name


class TaskCounts:
    """Counts the events of one dispatcher; a sink.

    :param labels: the label of each job.
    :param report: called soon after something has changed, on the thread of the timer.
        None: somebody asks now and then.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        labels: Labels,
        report: t.Callable[[], object] | None,
    ) -> None:
        self._dispatcher = weakref.ref(dispatcher)
        self._time = dispatcher.timer.clock.time
        self._timer = dispatcher.timer
        self._labels = labels
        self._report = report
        # Reentrant: the garbage collector may end a task on a thread that is in here.
        self._lock = threading.RLock()
        self._rows: dict[str, Row] = {}
        self._came: deque[Row] = deque()
        # By id, for speed: a job is hashed slowly if it is looked up weakly.
        self._of_jobs: dict[int, tuple[weakref.ref[t.Any], Row]] = {}
        self._other = self._row(OTHER)
        self._is_told: bool = report is None
        self.pid: int = os.getpid()
        """The process whose tasks these are."""

    @property
    def is_over(self) -> bool:
        """True if nothing more comes: the dispatcher is gone, or was the parent's."""
        return self.pid != os.getpid() or self._dispatcher() is None

    # Events

    # What most tasks do is written out, without functions of its own: each call of one
    # would take as long as what it does.

    def submitted(self, task: t.Any) -> None:
        """Count a task that was accepted."""
        call = task._call
        if call is None:
            row = self._row_named(task.name)
        elif type(call.fn) is not ExecutorJob:
            row = self._other
        else:
            row = self._row_of(call.fn)
        task._note = row
        # Without the lock, which takes longer than all else here.
        self._came.append(row)
        if len(self._came) > _MANY:
            self._count_came()
        if not self._is_told:
            self._tell_soon()

    def retrying(self, task: t.Any, verdict: object) -> None:
        """Count an attempt that another one follows."""
        row, now = self._row_in(task), self._time()
        task._counted_attempt = task.attempt
        with self._lock:
            row.retried += 1
            row.add_run(task, now)
        if not self._is_told:
            self._tell_soon()

    def ended(self, task: t.Any, verdict: t.Any, value: object) -> None:
        """Count the end of a task, with how long it has waited and run."""
        try:
            row = task._note
        except AttributeError:
            row = self._row_in(task)
        begun = task._started
        with self._lock:
            row.ended[verdict.kind] += 1
            # A task may end before its first attempt, or before its next one.
            if begun is not None and (task.attempt == 1 or _has_run(task)):
                row.add_run(task, task._finished)
        if not self._is_told:
            self._tell_soon()

    def returned_late(self, attempt: object, seconds: float) -> None:
        """Note that a thread that overran is free again."""
        if not self._is_told:
            self._tell_soon()

    def _tell_soon(self) -> None:
        self._is_told = True
        try:
            due = self._timer.clock.monotonic() + _PAUSE
            self._timer.at(due, _tell, weakref.ref(self))
        except RuntimeError:  # there are no more threads, or the interpreter ends
            self._is_told = False

    def tell(self) -> None:
        """Report what has changed."""
        self._is_told = False  # first: what changes meanwhile is told the next time
        if self._report is not None:
            self._report()

    # Rows

    def _row_in(self, task: t.Any) -> Row:
        """Return the row of a task, also if another process has submitted it."""
        if (row := getattr(task, "_note", None)) is not None:
            return t.cast(Row, row)
        if task._call is not None:
            return self._row_of(task._call.fn)
        return self._row_named(task.name if task._saved is None else task._saved.job)

    def _row_of(self, fn: t.Any) -> Row:
        if type(fn) is not ExecutorJob:
            return self._other
        found = self._of_jobs.get(id(fn))
        if found is not None and found[0]() is fn:
            return found[1]
        row, key = self._row(self._labels.of(fn)), id(fn)
        forget = self._of_jobs.pop
        self._of_jobs[key] = weakref.ref(fn, lambda _: forget(key, None)), row
        return row

    def _row_named(self, name: str) -> Row:
        return self._row(self._labels.named(name))

    def _row(self, label: str) -> Row:
        with self._lock:
            return self._rows.setdefault(label, Row())

    def _count_came(self) -> None:
        with self._lock:
            for _ in range(len(self._came)):  # and not what comes meanwhile
                self._came.popleft().submitted += 1

    # Asking

    def take(self) -> dict[str, Row]:
        """Return what has happened since the last time, by label."""
        self._count_came()
        with self._lock:
            rows = [*self._rows.items()]
            return {label: row.take() for label, row in rows if row.has_news}

    def count_running(self) -> int:
        """Return how many attempts run now."""
        dispatcher = self._dispatcher()
        return 0 if dispatcher is None else len(dispatcher.table.running)

    def count_overrun(self) -> int:
        """Return how many attempts run on after their timeout."""
        dispatcher = self._dispatcher()
        late = () if dispatcher is None else dispatcher.table.late.copy()
        return sum(attempt.overrun for attempt in late)


class ToldCounts(TaskCounts):
    """Counts that are told to a registry, which does not ask."""

    def started(self, attempt: object) -> None:
        """Note that one more runs, maybe for long."""
        if not self._is_told:
            self._tell_soon()


_MANY = 1000
"""So many tasks are noted before they are counted."""
_PAUSE = 0.25
"""Seconds until a change is told."""


def _tell(counts: weakref.ref[TaskCounts]) -> None:
    if (found := counts()) is not None:
        found.tell()


def _has_run(task: t.Any) -> bool:
    """Return True if the last attempt of a task was not counted when it failed."""
    return bool(vars(task).get("_counted_attempt") != task.attempt)


def _due(task: t.Any) -> float:
    """Return when a task could begin: when it was submitted, or at the end of a delay
    that was asked for; in seconds since the epoch.
    """
    submitted: float = task._submitted
    saved = task._saved
    if saved is not None and saved.due is not None:
        return max(submitted, t.cast(float, saved.due))
    return submitted + (task.options.wait(submitted) or 0.0)
