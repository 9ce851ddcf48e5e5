"""A process that does nothing except run saved tasks: ``flask executor worker``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import typing as t

from ..dispatch import Dispatcher
from ..dispatch.shutdown import Drained, end_now
from ..signals import task_cancelled, task_failed, task_succeeded, task_timed_out
from .node import Node

_REFRESH = 0.5
"""Seconds between two looks at what the worker does."""
_BETWEEN = 10.0
"""Seconds between two lines that are not on a terminal."""
_AWAY = "the database is away"


class Tally:
    """Counts the tasks of a dispatcher that have ended."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.succeeded: int = 0
        """How many tasks have succeeded."""
        self.failed: int = 0
        """How many have failed, or were not in time."""
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        # The signals refer to their receivers weakly.
        for sent in (task_succeeded, task_failed, task_timed_out, task_cancelled):
            sent.connect(self._count, sender=dispatcher.app)

    def _count(self, sender: object, task: t.Any, **_: object) -> None:
        if task._owner is self._dispatcher:
            with self._lock:
                self.succeeded += task.state == "succeeded"
                self.failed += task.state in ("failed", "timed_out")


class Worker:
    """Runs saved tasks until a signal comes, or ``flask executor drain``.

    :param dispatcher: runs them; its node claims them.
    :param name: what people call it.
    :param out: where it says what it does.
    """

    def __init__(
        self, dispatcher: Dispatcher, name: str = "", out: t.TextIO | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._node: Node = dispatcher.node
        self._node.label = name
        self._name = name or f"worker {os.getpid()}"
        self._out = out or sys.stderr
        self._is_terminal = self._out.isatty()
        self._tally = Tally(dispatcher)
        self._stop = threading.Event()
        self._shown = "", 0.0

    def run(self) -> int:
        """Run tasks until a signal comes; return the exit code.

        Call it on the main thread. The code is 0 if all that ran has ended. Otherwise
        this does not return: the process ends with 1, because a thread cannot be ended
        alone, and what it has belongs to another process now. After a second signal the
        code is 128 and the number of that signal.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        self._node.serves = True
        self._node.drain = self._stop.set
        self._node.work()
        self._say(f"starts: {self._description()}")
        while not self._stop.wait(_REFRESH):
            self._show()
        drained = self._drain()
        if drained.running:
            end_now(1)
        return 0

    def _signalled(self, number: int, frame: object) -> None:
        if self._stop.is_set():
            self._dispatcher.closing.abandon()
            end_now(128 + number)
        self._stop.set()

    def _drain(self) -> Drained:
        dispatcher = self._dispatcher
        dispatcher.table.closed = True
        self._node.leaving.hand_back()
        running = len(dispatcher.table.live)
        again = "Again to end at once" if running else "Nothing runs"
        self._say(f"drains: {running} to finish. {again}.")
        drained = dispatcher.drain(dispatcher.settings.drain_timeout)
        for task in drained.running:
            dispatcher.request_cancel(task)
        self._node.leaving.close()
        self._say(f"ends: {self._description()}")
        return drained

    def _show(self) -> None:
        """Show what it does, if that is something else than before."""
        line, now = self._description(), time.monotonic()
        before, at = self._shown
        is_urgent = (_AWAY in line) != (_AWAY in before)
        is_late = self._is_terminal or is_urgent or now - at >= _BETWEEN
        if line == before or not is_late:
            return
        self._shown = line, now
        if self._is_terminal:
            self._write(f"\r{self._name}: {line}\x1b[K")
        else:
            self._say(line)

    def _description(self) -> str:
        info = self._node.info()
        slots = f" of {info['slots']}" if info["slots"] else ""
        tally = self._tally
        parts = [
            f"{info['busy']}{slots} busy",
            f"{info['queue']} waiting here",
            f"{tally.succeeded} succeeded",
            f"{tally.failed} failed",
        ]
        if not self._node.is_reachable:
            parts.append(_AWAY)
        return ", ".join(parts)

    def _say(self, text: str) -> None:
        start = "\r\x1b[K" if self._is_terminal else ""
        self._write(f"{start}{self._name} {text}\n")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:  # nobody reads it any more, and the tasks go on
            pass
