"""How a dispatcher stops: shutdown, drain, and the end of the process."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - see the last line
import logging
import math
import os
import signal
import sys
import threading
import time
import typing as t
import weakref
from concurrent.futures import wait as wait_for
from multiprocessing.util import Finalize, register_after_fork

from ..errors import WaitsForItself
from ..log import Log
from ..pools import Pool
from ..task import Task
from .endings import Endings
from .table import TaskTable
from .timer import Timer

_LOOK = 0.1
"""Seconds between two looks for tasks that were handed to another process."""
_MOST_NAMED = 20
"""How many tasks one log message names."""


class Drained(t.NamedTuple):
    """What happened to the tasks of an executor that was drained."""

    finished: tuple[Task, ...]
    """Tasks that ran to their end, also with a failure."""
    cancelled: tuple[Task, ...]
    """Tasks that were cancelled."""
    running: tuple[Task, ...]
    """Tasks that still ran when the time was over."""

    @classmethod
    def of(cls, tasks: t.Iterable[Task]) -> Drained:
        """Sort tasks by what has happened to them."""
        finished, cancelled, still = [], [], []
        for task in tasks:
            if not task._has_ended and task._call is None:
                continue  # another process may run it
            if not task._has_ended or task.overrun:
                still.append(task)
            elif task.state == "cancelled":
                cancelled.append(task)
            else:
                finished.append(task)
        return cls(tuple(finished), tuple(cancelled), tuple(still))

    def describe(self) -> str:
        """Return it as text for the log; empty parts are left out."""
        groups = zip(("finished", "cancelled", "still running"), self, strict=True)
        said = [
            f"{len(tasks)} {what} ({_names(tasks)})" for what, tasks in groups if tasks
        ]
        return ", ".join(said) or "there was nothing to do"


class Shutdown:
    """Stops one dispatcher.

    :param table: its tasks.
    :param timer: ends with the last of them.
    :param log: the log in which it writes what happened to them.
    :param endings: ends those that wait.
    :param name: the name of the executor.
    :param pools: returns the pools that were made.
    :param is_inside: returns True in code that this would wait for.
    """

    def __init__(
        self,
        table: TaskTable,
        timer: Timer,
        log: Log,
        endings: Endings,
        name: str,
        pools: t.Callable[[], list[Pool]],
        is_inside: t.Callable[[], bool],
    ) -> None:
        self._table = table
        self._timer = timer
        self._log = log
        self._endings = endings
        self._name = name
        self._pools = pools
        self._is_inside = is_inside
        self._emptied = threading.Event()
        self.while_draining: t.Callable[[], object] = _do_nothing
        """Called again and again while a drain waits for saved tasks."""
        table.on_empty = self._let_go

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more, and end the pools.

        :param wait: return only when all that was accepted has run; not on a thread of
            the pools, which would wait for itself.
        :param cancel_futures: cancel what waits.
        """
        self._table.closed = True
        for task in self._table.pending.copy() if cancel_futures else ():
            self._endings.cancel(task)
        if not any(map(_may_come_back, self._table.live.copy())):
            self._shut_pools(wait=False)
        self._table.note_empty()
        if wait and not self._is_inside():
            self._emptied.wait()
            self._shut_pools(wait=True)
            self._timer.close(wait=True)

    def _let_go(self) -> None:
        """Release the pools and the timer, after the last task has ended."""
        self._shut_pools(wait=False)
        self._timer.close(wait=False)
        self._emptied.set()

    def drain(self, timeout: float | None) -> Drained:
        """Accept nothing more, and give what was accepted the time to end.

        Tasks that are not due yet do not become due: they are cancelled, or fail with
        their last failure. Tasks that have not begun when the time is over are
        cancelled.

        :param timeout: seconds; None: as long as it takes.
        :raises WaitsForItself: in code of a task.
        """
        if self._is_inside():
            raise WaitsForItself("drain")
        self._table.closed = self._table.leaving = True
        live = self._table.live.copy()
        late = [attempt.task for attempt in self._table.late.copy()]
        tasks = [*dict.fromkeys([*live, *late])]
        for task in self._table.pending.copy():
            if _is_timed(task):
                self._endings.give_up(task)
        self._wait_for(live, timeout)
        for task in self._table.pending.copy():
            self._endings.give_up(task)
        self.shutdown(wait=False, cancel_futures=True)
        return self._summed_up(Drained.of(tasks))

    def _wait_for(self, live: dict[Task, t.Any], timeout: float | None) -> None:
        """Wait until tasks have ended, or another process may run them.

        A second at a time, at most: if a signal comes right before a wait begins,
        Python runs its handler after that wait, and a second Ctrl-C would have no
        effect.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        may_go = any(task._saved is not None for task in live)
        longest = _LOOK if may_go else 1.0
        while live and (left := deadline - time.monotonic()) > 0:
            wait_for(live.values(), min(left, longest))
            self.while_draining()
            there = self._table.live.copy()
            live = {task: f for task, f in live.items() if task in there}
            live = {task: f for task, f in live.items() if not f.done()}

    def leave(self, timeout: float | None, ask: t.Callable[[Task], object]) -> None:
        """End with the process, and log every task that is lost.

        :param timeout: seconds to wait; None: as long as it takes.
        :param ask: asks a task to stop.
        """
        self._table.closed = True
        unfinished = self.unfinished()
        if not unfinished:
            self._table.note_empty()  # so that its worker processes end
            return
        if any(task.state == "running" or task.overrun for task in unfinished):
            # Tasks that are not due yet are cancelled at once.
            awaited = [task for task in unfinished if not _is_timed(task)]
            self._log.write(
                logging.WARNING,
                "Executor %s waits for %s to finish: %s. Press Ctrl-C again to abandon"
                " them.",
                self._name,
                _count(awaited),
                _names(awaited),
            )
        # The process ends when those have that can be stopped, or that ask.
        for task in self.drain(timeout).running:
            ask(task)

    def abandon(self) -> None:
        """Log which tasks are lost because somebody did not wait for them."""
        if unfinished := self.unfinished():
            message = "Executor %s abandons %s: %s"
            values = self._name, _count(unfinished), _names(unfinished)
            self._log.write(logging.WARNING, message, *values)

    def unfinished(self) -> list[Task]:
        """Return the tasks that have not ended, and those that overrun."""
        late = [attempt.task for attempt in self._table.late.copy()]
        return [*dict.fromkeys([*self._table.live.copy(), *late])]

    def _summed_up(self, drained: Drained) -> Drained:
        lost = drained.cancelled or drained.running
        level = logging.WARNING if lost else logging.INFO
        message = "Executor %s is drained: %s"
        self._log.write(level, message, self._name, drained.describe())
        return drained

    def _shut_pools(self, *, wait: bool) -> None:
        for pool in self._pools():
            pool.shutdown(wait=False)
        for pool in self._pools() if wait else ():
            pool.shutdown(wait=True)


def _do_nothing() -> None:
    pass


def _may_come_back(task: Task) -> bool:
    """Return True if a task may have to be put into its queue once more."""
    retry, place = task.options.retry, task._place
    return bool(retry or place) or _is_timed(task)


def _is_timed(task: Task) -> bool:
    """Return True if a task waits for its time."""
    return task.state in ("delayed", "retrying")


def _count(tasks: t.Sequence[Task]) -> str:
    return "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"


def _names(tasks: t.Sequence[Task]) -> str:
    named = ", ".join(task._label for task in tasks[:_MOST_NAMED])
    left = len(tasks) - _MOST_NAMED
    return f"{named} and {left} more" if left > 0 else named


_all: weakref.WeakSet[t.Any] = weakref.WeakSet()
_ended: set[int] = set()
"""This process, once it ends; a process that it was forked from may be there, too."""


def leave_with_process(dispatcher: t.Any) -> None:
    """Let a dispatcher end its tasks when the process ends.

    If it is made after that, it accepts none: nobody would wait for them.
    """
    _all.add(dispatcher)
    if os.getpid() in _ended:
        dispatcher.table.closed = True


def dispatchers_here() -> list[t.Any]:
    """Return the dispatchers of this process that have not ended with it."""
    return [one for one in list(_all) if one.pid == os.getpid()]


def _leave_all() -> None:
    _ended.add(os.getpid())  # first: those that are made later are not in the list
    ours = dispatchers_here()
    _all.difference_update(ours)  # once is enough
    # All together: a task that ends in one must not begin another one elsewhere.
    for one in ours:
        one.table.closed = True
    _abandon_at_interrupt(ours)
    for one in ours:
        one.leave()


def _abandon_at_interrupt(dispatchers: list[t.Any]) -> None:
    """Let Ctrl-C end the process from now on, with a line that names what is lost.

    A KeyboardInterrupt would be raised wherever the main thread is, in the middle of a
    line of the log or where Python joins its threads, and be swallowed there.
    """

    def abandon(number: int, frame: object) -> None:
        for one in dispatchers:
            one.closing.abandon()
        end_now(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, abandon)


def end_now(code: int) -> t.NoReturn:
    """End the process without waiting for any thread.

    :param code: 128 and the number of a signal is what a shell expects after that.
    """
    _all.clear()  # multiprocessing has a function among these that waits for them
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


# Before the standard library's pools refuse tasks that come back, as after a pause:
# their own hook, which comes with the import above, was there first.
getattr(threading, "_register_atexit", atexit.register)(_leave_all)


def _leave_before_children(_: object = None) -> None:
    """Leave a process of multiprocessing before it waits for its child processes.

    It does that before it ends its threads, and a worker process ends when its thread
    does.
    """
    Finalize(None, _leave_all, exitpriority=_BEFORE_ITS_OWN)


_BEFORE_ITS_OWN = 100
"""Finalizers of multiprocessing itself, as of its queues, have priority 10 or less."""

_leave_before_children()
register_after_fork(_leave_all, _leave_before_children)  # which forgets finalizers
