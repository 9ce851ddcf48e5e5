"""Events of tasks, reported to an ordered list of sinks: the log, then the signals,
then what surfaces have added.

An error in a sink never reaches the code that reports the event: it must neither block
a thread that waits for a task, nor end a worker.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
import traceback
import typing as t
from contextlib import nullcontext
from types import FrameType

from blinker import NamedSignal
from flask import Flask

from ..attempt import Attempt
from ..contexts import current_app
from ..log import Log
from ..settings import Settings
from ..signals import (
    send,
    task_cancelled,
    task_failed,
    task_progressed,
    task_retrying,
    task_started,
    task_submitted,
    task_succeeded,
    task_timed_out,
)
from ..task import Task
from .verdict import Verdict


class LogSink:
    """Logs failures while the context of the task still exists.

    :param enabled: if False, failures are not logged.
    """

    def __init__(self, log: Log, *, enabled: bool) -> None:
        self._log = log
        self._enabled = enabled

    def decided(self, attempt: Attempt, verdict: Verdict) -> None:
        """Log an attempt that has failed, with the decision about it."""
        if verdict.fault is not None:
            message = "The retry policy of %s has raised; it is not tried again"
            name = attempt.task.name
            self._log.write(logging.ERROR, message, name, error=verdict.fault)
        if not self._enabled or verdict.error is None:
            return
        if verdict.kind == "retrying":
            self._retrying(attempt, verdict, verdict.error)
        elif verdict.kind == "timed_out":
            self._timed_out(attempt)
        elif verdict.kind == "failed":
            message = "Task %s failed" + _ending(verdict)
            label = attempt.task._label
            self._log.write(logging.ERROR, message, label, error=verdict.error)

    def failed(self, task: Task, verdict: Verdict) -> None:
        """Log a task that failed while it waited."""
        if self._enabled:
            message = "Task %s failed" + _ending(verdict)
            self._log.write(logging.ERROR, message, task._label, error=verdict.error)

    def broke(self, task: Task, error: BaseException) -> None:
        """Log a task that a fault of the executor itself has ended."""
        message = "A fault in the executor has ended task %s"
        self._log.write(logging.ERROR, message, task._label, error=error)

    def returned_late(self, attempt: Attempt, seconds: float) -> None:
        """Log a run that has returned after its timeout."""
        message = "Task %s has returned, %.3g seconds after its timeout"
        self._log.write(logging.WARNING, message, attempt.task._label, seconds)

    def _retrying(
        self, attempt: Attempt, verdict: Verdict, error: BaseException
    ) -> None:
        task, attempts = attempt.task, attempt.task.options.retry.attempts
        self._log.write(
            logging.WARNING,
            "Task %s failed in attempt %s of %s, next in %.3g s: %s",
            task._label,
            attempt.number,
            attempts,
            verdict.pause,
            _one_line(error),
        )
        message = "Attempt %s of task %s failed"
        label = task._label
        self._log.write(logging.DEBUG, message, attempt.number, label, error=error)

    def _timed_out(self, attempt: Attempt) -> None:
        task, goes_on = attempt.task, ""
        pool = task._pool
        if pool.runs_on_threads or pool.runs_in_caller:
            goes_on = f", and goes on at:\n{stack_of(attempt.thread)}"
        message = "Task %s ran into its timeout of %g seconds%s"
        timeout = task.options.timeout
        self._log.write(logging.ERROR, message, task._label, timeout, goes_on)


def _ending(verdict: Verdict) -> str:
    given_up = verdict.given_up
    return " and is not tried again, since the process ends" if given_up else ""


def _one_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")


_frames = threading.Lock()


@contextlib.contextmanager
def _no_collection() -> t.Iterator[None]:
    """Let no garbage be collected: on Python 3.11 that may stop the whole process while
    frames are looked for (CPython's issue 106883).
    """
    with _frames:
        was_enabled = sys.version_info < (3, 12) and gc.isenabled()
        if was_enabled:
            gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


def current_frames() -> dict[int, FrameType]:
    """Return the innermost frame of each thread, by its ident."""
    with _no_collection():
        return sys._current_frames()


def stack_of(thread: int) -> str:
    """Return where a thread stands, as text; ``''`` for one that is gone."""
    frame = current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


class SignalSink:
    """Sends signals to their receivers, in an app context."""

    _ENDS: t.ClassVar[dict[str, NamedSignal]] = {
        "succeeded": task_succeeded,
        "failed": task_failed,
        "timed_out": task_timed_out,
        "cancelled": task_cancelled,
    }

    def __init__(self, log: Log) -> None:
        self._log = log

    def submitted(self, task: Task) -> None:
        """Send that a task was accepted."""
        if task_submitted.receivers:
            self._send(task_submitted, task)

    def started(self, attempt: Attempt) -> None:
        """Send that an attempt begins."""
        if task_started.receivers:
            self._send(task_started, attempt.task)

    def progressed(self, task: Task) -> None:
        """Send that a task has reported progress."""
        if task_progressed.receivers:
            self._send(task_progressed, task)

    def retrying(self, task: Task, verdict: Verdict) -> None:
        """Send that an attempt has failed and another one follows."""
        if task_retrying.receivers:
            facts = {"error": verdict.error, "delay": verdict.pause}
            self._send(task_retrying, task, **facts)

    def ended(self, task: Task, verdict: Verdict, value: t.Any) -> None:
        """Send that a task has ended."""
        signal = self._ENDS[verdict.kind]
        if signal.receivers:
            facts: dict[str, t.Any] = {}
            if verdict.kind == "succeeded":
                facts["result"] = value
            elif verdict.error is not None:
                facts["error"] = verdict.error
            self._send(signal, task, **facts)

    def _send(self, signal: NamedSignal, task: Task, **facts: t.Any) -> None:
        app = self._log.app
        if not signal.has_receivers_for(app):  # they are for another app
            return

        def failed(receiver: t.Any, error: BaseException) -> None:
            message = "The receiver %r of %s failed for %s"
            values = receiver, signal.name, task.name
            self._log.write(logging.ERROR, message, *values, error=error)

        try:
            with app.app_context() if current_app() is None else nullcontext():
                send(signal, app, failed, task=task, **facts)
        except BaseException as error:  # for example, of a teardown function
            failed(app, error)


class Events:
    """Reports each event to all sinks, in order.

    A sink has a method for each event that it needs: ``submitted(task)``,
    ``started(attempt)``, ``progressed(task)``, ``decided(attempt, verdict)`` in the
    context of the task, ``retrying(task, verdict)``, ``ended(task, verdict, value)``,
    ``returned_late(attempt, seconds)``, ``failed(task, verdict)`` for a task that fails
    while it waits, ``broke(task, error)`` for a fault of our own. ``ended`` comes
    before the future ends. ``saving(id, name, source)`` comes before the row of a task
    is written, on the thread that submits: a sink may put texts into ``source``, which
    travel with the row. In ``started`` it may give the attempt another call.

    None of them may raise.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self.log: Log = Log(app)
        """The log of the app."""
        enabled = settings.log_exceptions and not settings.propagate_exceptions
        self._logs_failures = enabled
        self._sinks: list[object] = [
            LogSink(self.log, enabled=enabled),
            SignalSink(self.log),
        ]
        self._adding = threading.Lock()
        self._connect()

    def add(self, sink: object) -> None:
        """Report events to one more sink, after all others."""
        with self._adding:
            self._sinks.append(sink)
            self._connect()

    def _connect(self) -> None:
        for event in _EVENTS:
            heard = [getattr(sink, event, None) for sink in self._sinks]
            setattr(self, event, _teller(tuple(fn for fn in heard if fn is not None)))

    def is_logged(self, verdict: Verdict) -> bool:
        """Return True if ``decided`` does something with the verdict on a failure."""
        return self._logs_failures or verdict.fault is not None

    saving: t.Callable[[str, str, dict[str, str]], object]
    submitted: t.Callable[[Task], object]
    started: t.Callable[[Attempt], object]
    progressed: t.Callable[[Task], object]
    decided: t.Callable[[Attempt, Verdict], object]
    retrying: t.Callable[[Task, Verdict], object]
    ended: t.Callable[[Task, Verdict, t.Any], object]
    returned_late: t.Callable[[Attempt, float], object]
    failed: t.Callable[[Task, Verdict], object]
    broke: t.Callable[[Task, BaseException], object]


_EVENTS = (
    "saving",
    "submitted",
    "started",
    "progressed",
    "decided",
    "retrying",
    "ended",
    "returned_late",
    "failed",
    "broke",
)


def _teller(sinks: tuple[t.Callable[..., object], ...]) -> t.Callable[..., object]:
    """Return one function that calls those of all sinks, in order."""
    if len(sinks) == 1:  # most events have one sink
        return sinks[0]
    if len(sinks) == 2:  # as with metrics: a loop takes longer
        first, second = sinks

        def tell_both(*facts: t.Any) -> None:
            first(*facts)
            second(*facts)

        return tell_both

    def tell(*facts: t.Any) -> None:
        for sink in sinks:
            sink(*facts)

    return tell


def clear_locals(error: BaseException) -> None:
    """Empty the frames of an exception's traceback, and of those it came from.

    The traceback still prints; it no longer keeps the task's objects alive.
    """
    pending: list[BaseException | None] = [error]
    # What the caller of a 'sync' task is handling is not the task's.
    cleared = {id(sys.exception())}
    while pending:
        current = pending.pop()
        if current is None or id(current) in cleared:
            continue
        cleared.add(id(current))
        traceback.clear_frames(current.__traceback__)
        pending += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions
