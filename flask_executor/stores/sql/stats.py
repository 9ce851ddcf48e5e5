"""Statistics of ends per minute, so that charts and totals never look at all tasks.

Each end leaves a sample in memory. Every few seconds the samples become rows that are
added to those that are there: a sum commutes, so any number of processes may do this.
"""

from __future__ import annotations

import math
import os
import queue
import typing as t

from sqlalchemy import Connection

from ..records import Stat
from .schema import BUCKETS
from .statements import Statements

Key = tuple[int, str, str]

_WAIT = [f"wait{i}" for i in range(BUCKETS)]
_RUN = [f"run{i}" for i in range(BUCKETS)]
_SUMS = ["n", "wait_sum", "run_sum", *_WAIT, *_RUN]


class Sample(t.NamedTuple):
    """One end."""

    task_id: int
    key: Key
    wait: float
    """Seconds from when it was due to its last attempt, or to its end without one."""
    run: float | None
    """Seconds of its last attempt, or None."""


class Stats:
    """Samples in memory, and the statements that add them up."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql
        self._samples: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        self._pid = os.getpid()
        names = ", ".join(["minute", "job", '"end"', *_SUMS])
        values = ", ".join(f":{name}" for name in ["minute", "job", "end", *_SUMS])
        sums = ", ".join(f"{name} = s.{name} + excluded.{name}" for name in _SUMS)
        self._add = sql.text(
            f"INSERT INTO {{stat}} AS s ({names}) VALUES ({values})"
            f' ON CONFLICT (minute, job, "end") DO UPDATE SET {sums}'
        )
        select = f"SELECT {names} FROM {{stat}} WHERE minute >= :minute"
        self._all = sql.text(f'{select} ORDER BY minute, job, "end"')
        self._of_job = sql.text(f'{select} AND job = :job ORDER BY minute, "end"')

    def note(self, row: t.Any) -> None:
        """Note an end, from the row of its task; on any thread."""
        due = row.submitted if row.due is None else max(row.due, row.submitted)
        begun = row.finished if row.begun is None else row.begun
        run = None if row.begun is None else max(0.0, row.finished - row.begun)
        key = int(row.finished // 60), row.job or "", row.state
        self._samples.put(Sample(row.id, key, max(0.0, begun - due), run))

    def take(self) -> list[dict[str, t.Any]]:
        """Return the rows of all samples so far, and forget these."""
        if self._pid != os.getpid():  # they are the parent's
            self._samples, self._pid = queue.SimpleQueue(), os.getpid()
        # An end that was written again, after the first transaction failed, is one end.
        samples: dict[int, Sample] = {}
        while not self._samples.empty():
            sample = self._samples.get()
            samples[sample.task_id] = sample
        rows: dict[Key, dict[str, t.Any]] = {}
        for sample in samples.values():
            _add(rows.setdefault(sample.key, _empty(sample.key)), sample)
        # In one order everywhere: two transactions must not wait for each other.
        return [rows[key] for key in sorted(rows)]

    def add(
        self, db: Connection, values: t.Sequence[t.Sequence[dict[str, t.Any]]]
    ) -> list[None]:
        """Add rows to what is there."""
        for rows in values:
            self._sql.run_for_each(db, self._add, rows)
        return [None] * len(values)

    def read(self, db: Connection, since: float, job: str | None) -> list[Stat]:
        """Return the rows of the minutes since then."""
        values: dict[str, t.Any] = {"minute": math.floor(since / 60)}
        if job is not None:
            values["job"] = job
        statement = self._all if job is None else self._of_job
        return [_stat(row) for row in self._sql.run(db, statement, **values)]


def bucket(seconds: float) -> int:
    """Return the number of the bucket that counts a duration."""
    _, exponent = math.frexp(seconds * 1000)
    return min(max(exponent, 0), BUCKETS - 1)


def _empty(key: Key) -> dict[str, t.Any]:
    minute, job, end = key
    return {"minute": minute, "job": job, "end": end} | dict.fromkeys(_SUMS, 0)


def _add(row: dict[str, t.Any], sample: Sample) -> None:
    row["n"] += 1
    row["wait_sum"] += sample.wait
    row[_WAIT[bucket(sample.wait)]] += 1
    if sample.run is not None:
        row["run_sum"] += sample.run
        row[_RUN[bucket(sample.run)]] += 1


def _stat(row: t.Any) -> Stat:
    minute, job, end, n, wait_sum, run_sum, *buckets = row
    return Stat(
        minute,
        job,
        end,
        n,
        wait_sum,
        run_sum,
        tuple(buckets[:BUCKETS]),
        tuple(buckets[BUCKETS:]),
    )
