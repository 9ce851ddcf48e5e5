"""What a soak counts and finds wrong."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import logging
import os
import signal
import sys
import traceback
import typing as t
from collections import defaultdict
from concurrent.futures import CancelledError

from flask import Flask
from lanes import Kind
from leftovers import workers

from flask_executor import signals
from flask_executor.errors import TaskTimeout, WorkerLost
from flask_executor.store_errors import TaskInterrupted

LIMIT = 180
"""Seconds after which a task that has not ended is lost."""
ENDS = ("succeeded", "failed", "timed_out", "cancelled")
ERRORS = {TaskTimeout: "timed_out", TaskInterrupted: "interrupted"}
"""Ends that are no failures, by what their futures raise."""


class Ledger:
    """What is counted, by futures, by signals and by the log; and what is wrong.

    :param tasks: how many there may be.
    """

    def __init__(self, tasks: int) -> None:
        self._counters: defaultdict[tuple[str, ...], itertools.count[int]]
        self._counters = defaultdict(itertools.count)
        self._numbers = itertools.count()
        # One byte each, how often it has ended; not 0, so that the memory is taken now.
        self._ended = bytearray(b"\1") * tasks
        self.wrong: list[str] = []

    def count(self, *what: str) -> None:
        """One more of these; from any thread."""
        next(self._counters[what])

    def counted(self, *what: str) -> int:
        """How many there were."""
        # Only its representation tells how far a counter is: "count(5)".
        return int(repr(self._counters[what])[6:-1]) if what in self._counters else 0

    def note(self, message: str) -> None:
        """Something is wrong."""
        self.wrong.append(message)
        if len(self.wrong) <= 20:
            print(f"WRONG: {message}", file=sys.stderr, flush=True)

    def note_uncaught(self, args: t.Any) -> None:
        """A thread has ended with an exception; see :data:`threading.excepthook`."""
        traceback.print_exception(args.exc_value)
        self.note(f"{args.thread!r} ended with {args.exc_value!r}")

    def listen(self) -> None:
        """Count what is announced."""
        signals.task_submitted.connect(self._submitted, weak=False)
        signals.task_started.connect(self._started, weak=False)
        signals.task_retrying.connect(self._retrying, weak=False)
        signals.task_progressed.connect(self._progressed, weak=False)
        for end in ENDS:
            receiver = self._receiver_of(end)
            getattr(signals, f"task_{end}").connect(receiver, weak=False)

    def _submitted(self, app: Flask, task: t.Any) -> None:
        task.number = next(self._numbers)
        self.count("signal", task._pool.kind, "submitted")

    def _started(self, app: Flask, task: t.Any, **facts: t.Any) -> None:
        self.count("signal", task._pool.kind, "started")
        if self._ended[task.number] != 1:
            self.note(f"{task!r} started after its end")

    def _retrying(self, app: Flask, task: t.Any, **facts: t.Any) -> None:
        self.count("signal", task._pool.kind, "retrying")

    def _progressed(self, app: Flask, task: t.Any, **facts: t.Any) -> None:
        self.count("signal", task._pool.kind, "progressed")

    def _receiver_of(self, end: str) -> t.Callable[..., None]:
        def ended(app: Flask, task: t.Any, **facts: t.Any) -> None:
            self._ended[task.number] += 1
            self.count("signal", task._pool.kind, end)

        return ended

    def judge(self, lane: str, kind: Kind, number: int, future: t.Any) -> None:
        """Count how a future ended, and whether it could have."""
        end, error = self._end_of(future)
        self.count("future", lane, end)
        if end != future.task.state:
            self.note(f"{future.task!r}: its future has {end}")
        if end == "succeeded" and (value := future.result()) != number:
            self.note(f"{future.task!r} of {number} returned {value!r}")
        if end == "failed" and isinstance(error, WorkerLost):
            self.count("lost", lane)
            if lane in ("process", "pebble"):
                return
        if end not in kind.ends.split() or (
            end == "failed" and not isinstance(error, kind.error)
        ):
            self.note(f"{lane}: {kind} ended as {end}, with {error!r}")

    def _end_of(self, future: t.Any) -> tuple[str, BaseException | None]:
        try:
            error = future.exception(LIMIT)
        except CancelledError:
            return "cancelled", None
        except TimeoutError:
            give_up(f"{future.task!r} has not ended: {vars(future.task)}")
        if error is None:
            return "succeeded", None
        named = (end for kind, end in ERRORS.items() if isinstance(error, kind))
        return next(named, "failed"), error

    def check(self, lanes: t.Iterable[str]) -> dict[str, dict[str, int]]:
        """The counts of each pool; what does not add up is noted."""
        table = {lane: self._checked(lane) for lane in lanes}
        submitted = sum(row["submitted"] for row in table.values())
        for number, ended in enumerate(self._ended[:submitted]):
            if ended != 2:
                self.note(f"task {number} announced its end {ended - 1} times")
        self._check_log(table)
        return table

    def _checked(self, lane: str) -> dict[str, int]:
        kind = "event loop" if lane == "loop" else lane
        row = {"submitted": self.counted("future", lane, "submitted")}
        for end in ("submitted", *ENDS):
            row[end] = self.counted("future", lane, end)
            if (told := self.counted("signal", kind, end)) != row[end]:
                self.note(f"{lane}: {row[end]} futures {end}, {told} signals")
        if row["submitted"] != sum(row[end] for end in ENDS):
            self.note(f"{lane}: what was submitted and what ended differ: {row}")
        row["retries"] = self.counted("signal", kind, "retrying")
        row["workers lost"] = self.counted("lost", lane)
        return row

    def _check_log(self, table: dict[str, dict[str, int]]) -> None:
        for what, start in LOGGED.items():
            there = sum(row[what] for row in table.values())
            if (logged := self.counted("log", start)) != there:
                self.note(f"{there} {what}, {logged} in the log")


LOGGED = {
    "failed": "Task %s failed",
    "retries": "Task %s failed in attempt",
    "timed_out": "Task %s ran into",
}


"""What the log says of each task to which it happens."""


class Log(logging.Handler):
    """Counts what is logged, and notes what was not expected."""

    EXPECTED = (
        *LOGGED.values(),
        "Task %s has returned",
        "Executor %s is",
        "Executor %s waits",
        "The process of task %s has died",
    )

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record under the beginning of its message."""
        message = str(record.msg)
        if message == LOGGED["failed"]:
            self._ledger.count("log", message)
            return
        for start in self.EXPECTED[1:]:
            if message.startswith(start):
                self._ledger.count("log", start)
                return
        self._ledger.note(f"logged: {self.format(record)}")


def give_up(message: str) -> t.NoReturn:
    """A task is lost: tell where every thread stands, and wait for nothing more.

    Processes that are no children of a pool would go on for ever.
    """
    print(f"LOST: {message}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    for pid in workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(1)


def show(report: dict[str, t.Any]) -> str:
    """The figures as a table."""
    names = next(iter(report["pools"].values()))
    lines = [f"{'':10}" + "".join(f"{name:>13}" for name in names)]
    for pool, row in report["pools"].items():
        lines.append(f"{pool:10}" + "".join(f"{number:13,}" for number in row.values()))
    others = (name for name in report if name not in ("pools", "wrong"))
    lines += [f"{name}: {report[name]}" for name in others]
    verdict = f"{len(report['wrong'])} wrong" if report["wrong"] else "nothing is lost"
    return "\n".join([*lines, verdict])
