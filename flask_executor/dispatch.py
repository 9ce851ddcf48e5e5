"""The dispatcher: admits tasks, hands them to pools, and judges what comes of them."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - see _leave_all
import os
import sys
import threading
import time
import typing as t
import weakref
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from concurrent.futures._base import PENDING, RUNNING
from inspect import CO_COROUTINE
from types import FunctionType

from blinker import NamedSignal
from flask import Flask

from .calls import Call, Outcome
from .clock import Clock, Timer
from .current import running
from .errors import (
    ArgumentsNotPicklable,
    ExecutorShutDown,
    LoopBlocked,
    NotCallable,
    QueueFull,
    TaskCancelled,
    TaskTimeout,
    WaitsForItself,
)
from .futures import Callback, TaskFuture
from .gates import Gate
from .options import Given, Options, unsupported
from .pools import Pool, pool_module
from .pools.loop import LoopPool
from .reports import Drained, Reporter, clear_locals
from .settings import Settings
from .signals import (
    task_cancelled,
    task_failed,
    task_progressed,
    task_retrying,
    task_started,
    task_submitted,
    task_succeeded,
    task_timed_out,
)
from .task import End, Task
from .waiting import fellow, run_for, stand_in_for, waiter

if sys.version_info >= (3, 14):  # asyncio's warns, and goes in 3.16
    from inspect import iscoroutinefunction
else:  # which also knows a function that was marked by a library before 3.12
    from asyncio import iscoroutinefunction

_ABSENT = object()
_system_clock = Clock()


class Dispatcher:
    """Takes tasks in, hands them to a pool, judges what comes of them.

    A task is in ``_waiting``, then in ``_running``: whoever takes it out of there, in
    one step, decides what is next; so a task starts once and ends once, whoever else
    wants to cancel it, run it or call it late at that moment. One that failed is in
    ``_judged`` until it has ended or waits again.

    :param settings: what the config said at first use.
    :param name: for threads, processes and messages.
    :param app: for which the pools are made.
    :param clock: tells the time.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        app: Flask,
        clock: Clock = _system_clock,
    ) -> None:
        self.settings: Settings = settings
        """What the config said at first use."""
        self.g_carried: str = settings.g_carried
        """Which names of ``g`` a task sees."""
        self.defaults: Options = Options.of(settings)
        """What counts for a task that says nothing."""
        # Weak: the executor's map of apps must not keep its keys alive.
        self._reporter = Reporter(app, settings)
        self._name = name
        self._clock = clock
        self._time = clock.time
        self.pool: Pool = pool_module(settings.type).make(settings, name, app)
        """The pool that the type names."""
        self._loop: LoopPool | None = None
        self._lock = threading.Lock()
        self._timer = Timer(clock, f"{name}_timer")
        self._gates: dict[t.Any, Gate] = {}
        self._waiting: dict[Task, None] = {}
        self._running: dict[Task, None] = {}
        self._judged: dict[tuple[Task, int], None] = {}
        self._overrun: dict[Task, None] = {}
        self._closed = False
        self._leaving = False
        self._emptied = threading.Event()
        self._pid = os.getpid()
        _dispatchers.add(self)

    @property
    def app(self) -> Flask:
        """The app for which the pools were made."""
        return self._reporter.app

    def now(self) -> float:
        """Seconds that only grow."""
        return self._clock.monotonic()

    # Taking in

    def options_of(self, job: t.Any, given: Given) -> Options:
        """What counts for a call: what it says, over its job, over the config."""
        layers = (given,) if job is None else (job.options, given)
        if not any(layers):
            return self.defaults
        return self.defaults.overlaid(*layers)

    def submit(
        self,
        future: TaskFuture[t.Any],
        call: Call,
        options: Options,
        callbacks: t.Iterable[Callback] = (),
        *,
        job: t.Any = None,
    ) -> None:
        """Accept a call; its future ends when it has run.

        :param callbacks: called with the future, in the call's own context.
        :param job: whose limit counts, where the options have one.
        :raises ExecutorShutDown: after :meth:`shutdown`.
        :raises QueueFull: where too many wait.
        :raises CallNotPicklable: where no worker process could import the callable.
        :raises UnsupportedOption: where that could not be told before.
        """
        task = Task(future, call, self, options, future.key)
        for callback in callbacks:
            future.add_callback_in(call.snapshot, callback)
        if self._closed:
            raise ExecutorShutDown(task.name)
        problem = self._prepare(task, call)
        self._admit(task)
        future.task = task
        if task_submitted.receivers:
            self._reporter.announce(task_submitted, task)
        if problem is not None:
            self._refuse(task, problem)
        elif future.key is not None and future.cancelled():  # by who found it stored
            self.cancel(task)
        else:
            self._line_up(task, job)

    def _admit(self, task: Task) -> None:
        limit = self.settings.max_pending
        task.submitted = self._time()
        if limit is None:
            self._waiting[task] = None
        else:
            with self._lock:
                if len(self._waiting) >= limit:
                    raise QueueFull(task.name, limit)
                self._waiting[task] = None
        # It is asked again now: who closes it either finds the task, or is found out.
        if self._closed and self._waiting.pop(task, _ABSENT) is not _ABSENT:
            self._note_end()
            raise ExecutorShutDown(task.name)

    def _prepare(self, task: Task, call: Call) -> Exception | None:
        """Choose the pool, and make what it needs; why the task cannot run, if so."""
        if not callable(call.fn):
            return NotCallable(call.fn)
        is_plain = not is_coroutine_function(call.fn)
        pool = task.pool = self.pool if is_plain else self._pool_for_coroutine(call)
        own = task.options is not self.defaults
        if own and (refusal := unsupported(task.options, pool)):
            raise refusal
        if pool.packs:
            try:
                pool.pack(task)
            except ArgumentsNotPicklable as error:
                return error
        return None

    def _pool_for_coroutine(self, call: Call) -> Pool:
        if self.pool.runs_in_caller:
            from .pools.sync import run_to_end

            call.fn = run_to_end(call.fn)
            return self.pool
        return self._loop_pool()

    def _loop_pool(self) -> LoopPool:
        with self._lock:
            if self._loop is None:
                self._loop = LoopPool(f"{self._name}_loop")
                if self._closed:
                    self._loop.shutdown()
            return self._loop

    def _refuse(self, task: Task, error: Exception) -> None:
        if self._waiting.pop(task, _ABSENT) is not _ABSENT:
            self._fail(task, error)

    def _line_up(self, task: Task, job: t.Any) -> None:
        options = task.options
        if options is not self.defaults and not task.pool.runs_in_caller:
            if options.max_concurrency is not None:
                gate = Gate(options.max_concurrency)
                task.gate = self._gates.setdefault(job, gate)
            if wait := options.wait(self._time()):
                self._delay(task, wait)
                return
        try:
            task.pool.start(task)
        except BaseException:  # the interpreter ends, say
            self.cancel(task)
            raise

    def _delay(self, task: Task, wait: float) -> None:
        task.stage = "delayed"
        self._wake(task, wait)

    def _wake(self, task: Task, wait: float) -> None:
        alarm = task.alarm = self._timer.at(self.now() + wait, self._due, task)
        if self._leaving or task not in self._waiting:  # since it waits
            self._timer.call_off(alarm)
            self._give_up(task)

    def _due(self, task: Task) -> None:
        if task in self._waiting:
            task.alarm = None
            self._line_up_again(task)

    def _line_up_again(self, task: Task, *, first: bool = False) -> None:
        task.stage = "waiting"
        # By who waits, or by a worker that is free: whoever comes first.
        wanted_by = task.wanted_by
        if wanted_by is not None:
            stand_in_for(wanted_by, task, self._stand_in_name)
        try:
            task.pool.start(task, first=first)
        except Exception:  # the interpreter ends, or there are no threads left
            if wanted_by is None:
                self._give_up(task)

    # Running

    def begin(self, task: Task) -> bool:
        """Whether a task is to run now, on this thread; asked when it is its turn."""
        if task.stage != "waiting":  # it was run by one who waits for it
            return False
        gate = task.gate
        if gate is not None and not gate.enter(task):
            return False
        if self._waiting.pop(task, _ABSENT) is _ABSENT:
            # It was cancelled, or run by one who waits for it.
            if gate is not None:
                self._leave(gate)
            return False
        self._running[task] = None
        task.stage = "running"
        task.attempt += 1
        task.started = self._time()
        # Nobody else may change it now, so no lock is needed.
        task.future._state = RUNNING
        if task_started.receivers:
            self._reporter.announce(task_started, task)
        if task.options.timeout is not None:
            self._watch(task, task.options.timeout)
        return True

    def finish(self, task: Task, outcome: Outcome) -> None:
        """Judge what came of a call, on the thread that ran it."""
        if task.alarm is not None:
            self._timer.call_off(task.alarm)
            task.alarm = None
        if task.gate is not None:
            self._leave(task.gate)
        if outcome.error is not None:
            self._failed(task, outcome.error)
        elif self._running.pop(task, _ABSENT) is _ABSENT:
            self._returned_late(task)
        else:
            future = self._end(task, "succeeded", task_succeeded)
            future.end_with(outcome.value)
            if self._closed:
                self._note_end()

    def reported(self, task: Task) -> None:
        """Announce the progress of a running task."""
        if task_progressed.receivers:
            self._reporter.announce(task_progressed, task)

    def _leave(self, gate: Gate) -> None:
        held = gate.leave()
        # One that was cancelled, or run by one who waits for it, is passed over.
        while held is not None and held not in self._waiting:
            held = gate.next_held()
        if held is not None and held.stage == "waiting":
            self._line_up_again(held, first=True)

    def _failed(self, task: Task, error: BaseException) -> None:
        mark = task, task.attempt  # the next one may fail before this has returned
        self._judged[mark] = None  # first: it must be seen all the time
        try:
            if self._running.pop(task, _ABSENT) is _ABSENT:
                self._returned_late(task)
            else:
                self._judge(task, error)
        finally:
            del self._judged[mark]
        self._note_end()

    def _judge(self, task: Task, error: BaseException) -> None:
        if task.timed_out:  # whatever it raised when it was stopped
            error = _timeout_of(task)
        elif _is_cancelling(task, error):
            self._cancelled(task)
            return
        pause = self._pause(task, error)
        if pause is None:
            self._fail(task, error)
        else:
            self._try_again(task, error, pause)

    # Timeouts

    def _watch(self, task: Task, timeout: float) -> None:
        task.deadline = self.now() + timeout
        if task.timed_out:  # the attempt before
            task.timed_out = False
        if task.pool.runs_on_threads or task.pool.runs_in_caller:
            task.thread = threading.get_ident()
        task.alarm = self._timer.at(task.deadline, self._overdue, task)

    def _overdue(self, task: Task) -> None:
        if task.deadline is None or self.now() < task.deadline:
            return  # it is that of an attempt ago
        error = _timeout_of(task)
        if task.pool.stops_runs and self._pause(task, error) is not None:
            if task in self._running:  # it has not ended just now
                # The next attempt waits until this one has really ended.
                task.timed_out = task.cancel_requested = True
                task.pool.interrupt(task)
        elif self._take_overrun(task):
            self._end_overrun(task, error)

    def _take_overrun(self, task: Task) -> bool:
        # First: finish looks there when it comes too late.
        self._overrun[task] = None
        task.overrun = not task.pool.stops_runs
        if self._running.pop(task, _ABSENT) is not _ABSENT:
            return True
        self._overrun.pop(task, None)
        task.overrun = False
        return False

    def _end_overrun(self, task: Task, error: TaskTimeout) -> None:
        task.cancel_requested = True
        # Before its call is let go, by which some pools know it.
        task.pool.interrupt(task)
        self._time_out(task, error)

    def _returned_late(self, task: Task) -> None:
        if self._overrun.pop(task, _ABSENT) is _ABSENT or not task.overrun:
            return
        task.overrun = False
        deadline = t.cast(float, task.deadline)
        self._reporter.returned_late(task, self.now() - deadline)

    # Trying again

    def _pause(self, task: Task, error: BaseException) -> float | None:
        retry = task.options.retry
        if retry is None or self._leaving:
            return None
        if task.cancel_requested and not task.timed_out:
            return None
        if isinstance(error, TaskTimeout) and not task.pool.stops_runs:
            return None
        try:
            return retry.pause_after(task.attempt, error)
        except Exception as failure:  # people's own policy, say
            self._reporter.policy_failed(task, failure)
            return None

    def _try_again(self, task: Task, error: BaseException, pause: float) -> None:
        if task.pool.runs_in_caller:
            pause = 0
        self._reporter.failed_for_now(task, error, pause)
        clear_locals(error)
        task.error = error
        task.stage = "retrying"
        task.deadline = None
        if task.timed_out:
            task.cancel_requested = False
        _set_pending(task.future)
        if task_retrying.receivers:
            self._reporter.announce(task_retrying, task, error=error, delay=pause)
        self._waiting[task] = None
        if task.cancel_requested:  # since it failed
            self.cancel(task)
        elif self._leaving:
            self._give_up(task)
        elif pause:
            self._wake(task, pause)
        else:
            self._line_up_again(task)

    # Cancelling

    def cancel(self, task: Task) -> bool:
        """Cancel a task that waits; whether it is cancelled now."""
        if not self._take_waiting(task):
            return task.end == "cancelled"
        self._cancelled(task)
        return True

    def _take_waiting(self, task: Task) -> bool:
        """Have a task wait no longer; whether it did."""
        if self._waiting.pop(task, _ABSENT) is _ABSENT:
            return False
        if (alarm := task.alarm) is not None:
            self._timer.call_off(alarm)
            task.alarm = None
        return True

    def request_cancel(self, task: Task) -> bool:
        """Cancel a task that waits, ask one to stop that runs; False if it ended."""
        if self.cancel(task):
            return True
        if task.end is not None:
            return False
        task.cancel_requested = True
        task.timed_out = False
        if task in self._running:
            task.pool.interrupt(task)
        return True

    def _cancelled(self, task: Task) -> None:
        future = self._end(task, "cancelled", task_cancelled)
        if not future.cancelled():
            _set_pending(future)
            Future.cancel(future)
        # So that wait() and as_completed() know it before a worker comes to it.
        future.set_running_or_notify_cancel()
        self._note_end()

    def _give_up(self, task: Task) -> None:
        """End a task that can wait no longer: as it failed last, or as cancelled."""
        if task.error is None:
            self.cancel(task)
        elif self._take_waiting(task):
            error, task.error = task.error, None
            self._fail(task, error)

    # Ending

    def _fail(self, task: Task, error: BaseException) -> None:
        if task.timed_out:
            self._time_out(task, error)
            return
        self._reporter.failed(task, error)
        clear_locals(error)
        future = self._end(task, "failed", task_failed, error)
        future.set_exception(error)
        self._note_end()

    def _time_out(self, task: Task, error: BaseException) -> None:
        self._reporter.timed_out(task)
        future = self._end(task, "timed_out", task_timed_out, error)
        future.set_exception(error)
        self._note_end()

    def _end(
        self,
        task: Task,
        end: End,
        signal: NamedSignal,
        error: BaseException | None = None,
    ) -> TaskFuture[t.Any]:
        """Note that a task has ended, and announce it; its future, to be ended now."""
        future: TaskFuture[t.Any] = task.future
        task.finished = self._time()
        task.end = end
        task.let_go()
        if signal.receivers:
            facts = {} if error is None else {"error": error}
            self._reporter.announce(signal, task, **facts)
        return future

    # Waiting inside

    def wait_inside(self, task: Task, timeout: float | None) -> float | None:
        """See that a task runs which code is about to wait for.

        Where that is the code of another task, it holds a worker, maybe the only one:
        so the task runs on this thread, or on one that stands in for it where the wait
        may be over before the run is.

        :return: the seconds that are left to wait.
        :raises LoopBlocked: a :exc:`RuntimeError`, on the event loop's own thread.
        """
        inside = running.get()
        if timeout is None and self._loop is not None and self._loop.is_own_thread:
            raise LoopBlocked(task.name)
        if inside is None:
            self._run_for_callback(task, timeout)
        elif (of_ours := fellow(task)) is not None and of_ours.gate is not None:
            return self._wait_outside(of_ours, task, timeout)
        else:
            self._lend_worker(task, timeout)
        return timeout

    def _run_for_callback(self, task: Task, timeout: float | None) -> None:
        """Where code on a worker waits that is no task's, a done-callback's, say, the
        line may wait for it: run the task first.
        """
        pool, may_run = task.pool, timeout is None and task.stage == "waiting"
        if may_run and pool.runs_on_threads and pool.is_own_thread:
            task.run()

    def _lend_worker(self, task: Task, timeout: float | None) -> None:
        inside = waiter(task)
        if inside is not None:
            here = timeout is None and task.options.timeout is None
            run_for(inside, task, here=here, name=self._stand_in_name)

    def _wait_outside(
        self, inside: Task, task: Task, timeout: float | None
    ) -> float | None:
        """Wait outside the gate: who waits does not run, so others of its job may, and
        it may be one of them that it waits for.
        """
        future = task.future
        until = None if timeout is None else time.monotonic() + timeout
        self._leave(inside.gate)
        try:
            self._lend_worker(task, timeout)
            if future is not None:
                wait_for((future,), timeout)
        finally:
            inside.gate.enter_again()
        return None if until is None else until - time.monotonic()

    def waited_for(self, task: Task) -> None:
        """Likewise, for the standard library's ``wait`` and ``as_completed``: they are
        about to wait for several, so one thread stands in and runs them in turn.
        """
        inside = waiter(task)
        if inside is not None:
            run_for(inside, task, here=False, name=self._stand_in_name)

    def awaited(
        self, task: Task, wait: t.Generator[t.Any, None, t.Any]
    ) -> t.Generator[t.Any, None, t.Any]:
        """Likewise, for who awaits it on an event loop, by the steps of ``wait``."""
        self.waited_for(task)
        inside = fellow(task)
        if inside is None or inside.gate is None:
            return (yield from wait)
        self._leave(inside.gate)
        try:
            return (yield from wait)
        finally:
            inside.gate.come_back()

    @property
    def _stand_in_name(self) -> str:
        return f"{self._name}_stand_in"

    # Closing

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more, and end the pools.

        :param wait: return only when all that was accepted has run; not from a thread
            of the pool, which would wait for itself.
        :param cancel_futures: cancel what waits.
        """
        self._closed = True
        for task in [*self._waiting] if cancel_futures else ():
            self.cancel(task)
        if not any(map(_may_come_back, self._live())):
            self._shut_pools(wait=False)
        self._note_end()
        if wait and not self._is_inside():
            self._emptied.wait()
            self._shut_pools(wait=True)
            self._timer.close(wait=True)

    def drain(self, timeout: float | None) -> Drained:
        """Accept nothing more, and give what was accepted the time to end.

        What is not due yet does not become due: it is cancelled, or fails as it failed
        last. What has not begun when the time is over is cancelled.
        """
        if self._is_inside():
            raise WaitsForItself("drain")
        self._closed = self._leaving = True
        tasks = [*self._live(), *self._overrun]
        futures = [task.future for task in tasks]
        for task in [*self._waiting]:
            if task.state in ("delayed", "retrying"):
                self._give_up(task)
        wait_for([future for future in futures if future is not None], timeout)
        for task in [*self._waiting]:
            self._give_up(task)
        self.shutdown(wait=False, cancel_futures=True)
        drained = Drained.of(tasks)
        self._reporter.drained(self._name, drained)
        return drained

    def leave(self) -> None:
        """The process ends: see that nothing is lost without a word."""
        self._closed = True
        if self._live() or self._overrun:
            # The process ends when those have that can be stopped, or that ask.
            for task in self.drain(self.settings.drain_timeout).running:
                self.request_cancel(task)

    def _is_inside(self) -> bool:
        """Whether this is code of a task of ours, or one of our threads."""
        inside = running.get()
        if isinstance(inside, Task) and inside.owner is self:
            return True
        return any(one.is_own_thread for one in (*self._pools(), self._timer))

    def _live(self) -> list[Task]:
        """The tasks that have not ended."""
        # In the order in which a task goes round, and once more: none is missed.
        judged = [task for task, _ in [*self._judged]]
        found = [*judged, *self._waiting, *self._running]
        return list(dict.fromkeys([*found, *(task for task, _ in [*self._judged])]))

    def _pools(self) -> list[t.Any]:
        with self._lock:
            return [self.pool] if self._loop is None else [self.pool, self._loop]

    def _shut_pools(self, *, wait: bool) -> None:
        for pool in self._pools():
            pool.shutdown(wait=False)
        for pool in self._pools() if wait else ():
            pool.shutdown(wait=True)

    def _note_end(self) -> None:
        if not self._closed:
            return
        # In the order in which a task goes round, and once more: none is missed.
        judged, waiting = self._judged, self._waiting
        if not (judged or waiting or self._running or judged or waiting):
            self._shut_pools(wait=False)
            self._timer.close(wait=False)
            self._emptied.set()


def _may_come_back(task: Task) -> bool:
    """Whether a task may have to be put in line once more."""
    options = task.options
    return bool(options.retry or task.gate or task.state in ("delayed", "retrying"))


def _is_cancelling(task: Task, error: BaseException) -> bool:
    """Whether that is how a task stops that was asked to."""
    if isinstance(error, CancelledError | asyncio.CancelledError):
        return task.cancel_requested or isinstance(error, TaskCancelled)
    return False


def _timeout_of(task: Task) -> TaskTimeout:
    return TaskTimeout(task.name, t.cast(float, task.options.timeout))


def _set_pending(future: Future[t.Any]) -> None:
    """Have a future that runs be one that waits: it may run again, or be cancelled."""
    with future._condition:
        future._state = PENDING


def is_coroutine_function(fn: t.Any) -> bool:
    """Whether calling it gives a coroutine: partials and callable objects too."""
    if type(fn) is FunctionType and not fn.__dict__:  # most often, and ten times faster
        return bool(fn.__code__.co_flags & CO_COROUTINE)
    call = getattr(type(fn), "__call__", None)  # noqa: B004
    return iscoroutinefunction(fn) or iscoroutinefunction(call)


_dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _leave_all() -> None:
    ours = [one for one in list(_dispatchers) if one._pid == os.getpid()]
    for dispatcher in ours:  # all at once: what ends in one must not begin in another
        dispatcher._closed = True
    for dispatcher in ours:
        dispatcher.leave()


# Before the standard library's pools refuse what comes back, after a pause, say: their
# own hook, which comes with the import above, was there first.
getattr(threading, "_register_atexit", atexit.register)(_leave_all)
