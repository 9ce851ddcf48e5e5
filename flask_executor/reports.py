"""What is said of tasks: in the log of their app, and through the signals."""

from __future__ import annotations

import sys
import traceback
import typing as t
import weakref
from contextlib import nullcontext
from logging import ERROR, INFO, WARNING

from blinker import NamedSignal
from flask import Flask

from .contexts import current_app
from .settings import Settings
from .signals import send
from .task import Task


class Drained(t.NamedTuple):
    """What became of the tasks of an executor that was drained."""

    finished: tuple[Task, ...]
    """Those that ran to their end, well or not."""
    cancelled: tuple[Task, ...]
    """Those that had not begun."""
    running: tuple[Task, ...]
    """Those that were still running when the time was over."""

    @classmethod
    def of(cls, tasks: t.Iterable[Task]) -> Drained:
        """Tasks by what has become of them."""
        finished, cancelled, still = [], [], []
        for task in tasks:
            if task.end is None or task.overrun:
                still.append(task)
            elif task.end == "cancelled":
                cancelled.append(task)
            else:
                finished.append(task)
        return cls(tuple(finished), tuple(cancelled), tuple(still))


class Reporter:
    """Says in the log of an app, and to the receivers of the signals, what happens.

    Nothing that goes wrong there reaches who has it said: it must neither keep those
    waiting who wait for a task, nor end a worker.

    :param app: referred to weakly.
    :param settings: whether failures are logged.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = weakref.ref(app)
        self._logs_failures = (
            settings.log_exceptions and not settings.propagate_exceptions
        )

    @property
    def app(self) -> Flask:
        """The app."""
        return self._app()  # type: ignore[return-value]

    def failed(self, task: Task, error: BaseException) -> None:
        """A task has failed."""
        self._log_failure("Task %s (key %r) failed", task, error=error)

    def failed_for_now(self, task: Task, error: BaseException, pause: float) -> None:
        """A task has failed, and is tried again."""
        self._log_failure(
            "Task %s (key %r) failed in attempt %s of %s and is tried again in %.3g"
            " seconds",
            task,
            task.attempt,
            t.cast(t.Any, task.options.retry).attempts,
            pause,
            error=error,
        )

    def policy_failed(self, task: Task, error: BaseException) -> None:
        """A retry policy of people's own has raised, so the task is not tried again."""
        message = "The retry policy of %s has raised; it is not tried again"
        self._log(ERROR, message, task.name, error=error)

    def timed_out(self, task: Task) -> None:
        """A task has run into its timeout; where it goes on, at what."""
        stack = "" if task.thread is None else _stack_of(task.thread)
        message = "Task %s (key %r) ran into its timeout of %g seconds%s"
        goes_on = f", and goes on at:\n{stack}" if stack else ""
        self._log_failure(message, task, task.options.timeout, goes_on)

    def returned_late(self, task: Task, seconds: float) -> None:
        """A task that went on after its timeout has returned."""
        message = "Task %s (key %r) has returned, %.3g seconds after its timeout"
        self._log(WARNING, message, task.name, task.key, seconds)

    def drained(self, name: str, drained: Drained) -> None:
        """An executor was drained."""
        level = WARNING if drained.cancelled or drained.running else INFO
        message = "Executor %s is drained: finished %s; cancelled %s; still running %s"
        shown = [", ".join(map(_shown, tasks)) or "none" for tasks in drained]
        self._log(level, message, name, *shown)

    def announce(self, signal: NamedSignal, task: Task, **facts: t.Any) -> None:
        """Send a signal to its receivers, in an app context."""
        app = self.app
        if not signal.has_receivers_for(app):  # but for another app
            return

        def failed(receiver: t.Any, error: BaseException) -> None:
            message = "The receiver %r of %s failed for %s"
            self._log(ERROR, message, receiver, signal.name, task.name, error=error)

        try:
            with app.app_context() if current_app() is None else nullcontext():
                send(signal, app, failed, task=task, **facts)
        except BaseException as error:  # of a teardown function, say
            failed(app, error)

    def _log_failure(
        self,
        message: str,
        task: Task,
        *values: t.Any,
        error: BaseException | None = None,
    ) -> None:
        if self._logs_failures:
            self._log(ERROR, message, task.name, task.key, *values, error=error)

    def _log(
        self,
        level: int,
        message: str,
        *values: t.Any,
        error: BaseException | None = None,
    ) -> None:
        try:
            self.app.logger.log(level, message, *values, exc_info=error)
        except BaseException:
            # As logging does for its own faults, tell the standard error.
            traceback.print_exc()


def _shown(task: Task) -> str:
    return task.name if task.key is None else f"{task.name} (key {task.key!r})"


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


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
