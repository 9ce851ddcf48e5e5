"""The dispatcher: puts the rooms of this package together, and performs verdicts."""

from __future__ import annotations

import logging
import os
import threading
import typing as t
import weakref
from concurrent.futures import Future

from flask import Flask

from ..attempt import Attempt
from ..calls import Call, Outcome, is_coroutine_function
from ..current import running
from ..errors import (
    ArgumentsNotPicklable,
    ExecutorShutDown,
    NotCallable,
    QueueFull,
)
from ..futures import Callback, TaskFuture
from ..options import Given, Options, unsupported
from ..pools import CoroutinePool, Pool, pool_module
from ..pools.base import run_task
from ..settings import Settings
from ..signals import task_submitted
from ..task import State, Task, Wait
from ..threads import here
from .events import Events, clear_locals
from .limits import Limits
from .nested import NestedWaits
from .shutdown import Drained, Shutdown, leave_with_process
from .table import TaskTable
from .timer import Clock, Timer
from .verdict import CANCELLED, Verdict, timeout_of, verdict

_system_clock = Clock()


class Dispatcher:
    """Accepts tasks, hands them to a pool, and decides what becomes of them.

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
        """The options of a task that gives none."""
        self.pid: int = os.getpid()
        """The process whose threads run its tasks."""
        self._name = name
        self._lock = threading.Lock()
        self._loop: Pool | None = None
        self.pool: Pool = pool_module(settings.type).make(settings, name, app)
        """The pool that the type names."""
        self.clock: Clock = clock
        """Tells the time."""
        self.timer: Timer = Timer(clock, f"{name}_timer")
        """Calls what is due."""
        self.table: TaskTable = TaskTable(clock.time)
        """The tasks that have not ended."""
        self.events: Events = Events(app, settings)
        """Tells the log and the receivers of signals what happens."""
        self.limits: Limits = Limits(self.enqueue_first)
        """How many tasks of each job run at once."""
        self.nested: NestedWaits = NestedWaits(self, self._owns, self.run_here)
        """Tasks that wait for tasks."""
        self.closing: Shutdown = Shutdown(
            self.table,
            self.timer,
            self.events.log,
            name,
            self.pools,
            self.cancel,
            self.give_up,
            self.is_inside,
        )
        """Whether and how it stops."""
        weakref.finalize(self, self.timer.close, wait=False).atexit = False
        leave_with_process(self)

    @property
    def app(self) -> Flask:
        """The app for which the pools were made."""
        return self.events.log.app

    def now(self) -> float:
        """Return the monotonic time, in seconds."""
        return self.clock.monotonic()

    def pools(self) -> list[Pool]:
        """Return the pools that there are by now."""
        return [self.pool] if self._loop is None else [self.pool, self._loop]

    # Accepting

    def options_of(self, job: t.Any, given: Given) -> Options:
        """Return the options of a call: its own over its job's over the config."""
        layers = (given,) if job is None else (job.options, given)
        if not any(layers):
            return self.defaults
        return self.defaults.overlaid(*layers)

    def register(self, future: TaskFuture[t.Any], call: Call, options: Options) -> Task:
        """Make the task of a future that is being submitted; nothing runs yet.

        From now on the future may be stored, found and cancelled. :meth:`submit` or
        :meth:`withdraw` must follow.

        :raises ExecutorShutDown: after :meth:`shutdown`.
        :raises QueueFull: if too many tasks wait.
        """
        task = Task(future, call, self, options, future.key)
        if self.closing.closed:
            raise ExecutorShutDown(task.name)
        limit = self.settings.max_pending
        if task.key is not None or limit is not None or task_submitted.receivers:
            self._reserve(task, limit)
        future.task = task
        return task

    def _reserve(self, task: Task, limit: int | None) -> None:
        """Let a task be counted, and be cancelled by who finds it, before it is
        accepted.
        """
        with self._lock:
            if limit is not None and self.table.count_waiting() >= limit:
                raise QueueFull(task.name, limit)
            self.table.reserve(task)

    def withdraw(self, task: Task) -> None:
        """Forget a task that is not submitted after all."""
        self.table.forget(task)
        if (future := task.future) is not None:
            Future.cancel(future)  # for those that have found it
            future.set_running_or_notify_cancel()
        self.closing.note_end()

    def submit(
        self, task: Task, callbacks: t.Iterable[Callback] = (), *, job: t.Any = None
    ) -> None:
        """Accept a registered task; its future ends when it has run.

        :param callbacks: called with the future, in the call's own context.
        :param job: whose limit applies, if the options have one.
        :raises ExecutorShutDown: after :meth:`shutdown`.
        :raises CallNotPicklable: if no worker process could import the callable.
        :raises UnsupportedOption: if that could not be told before.
        """
        call, future = task._call, task.future
        for callback in callbacks:
            future.add_callback_in(call.snapshot, callback)
        problem = self._prepare(task, call)
        self.table.note_submitted(task)
        self.events.submitted(task)
        was_cancelled = task._is_reserved and not self.table.take_reserved(task)
        self.table.admit(task)
        if was_cancelled:
            self.end_pending(task, CANCELLED)
        elif problem is not None:
            self.end_pending(task, Verdict("failed", error=problem))
        elif self.closing.closed and self.end_pending(task, CANCELLED):
            raise ExecutorShutDown(task.name)
        else:
            self._enqueue_new(task, job)

    def _prepare(self, task: Task, call: Call) -> Exception | None:
        """Choose the pool, and make what it needs; return why it cannot run, if so."""
        task._pool = self.pool
        if not callable(call.fn):
            return NotCallable(call.fn)
        is_plain = not is_coroutine_function(call.fn)
        pool = task._pool = self.pool if is_plain else self._pool_for_coroutine(call)
        own = task.options is not self.defaults
        if own and (refusal := unsupported(task.options, pool)):
            raise refusal
        if pool.serializes:
            try:
                pool.prepare(call)
            except ArgumentsNotPicklable as error:
                return error
        return None

    def _pool_for_coroutine(self, call: Call) -> Pool:
        if self.pool.runs_in_caller:
            from ..pools.sync import run_to_end

            call.fn = run_to_end(call.fn)
            return self.pool
        return self._loop_pool()

    def _loop_pool(self) -> Pool:
        with self._lock:
            if self._loop is None:
                loop: Pool = CoroutinePool(f"{self._name}_loop")
                if self.closing.closed:
                    loop.shutdown()
                self._loop = loop
            return self._loop

    def _owns(self, pool: Pool) -> bool:
        return pool is self.pool or pool is self._loop

    # Queueing

    def _enqueue_new(self, task: Task, job: t.Any) -> None:
        options = task.options
        try:
            if options is not self.defaults and not task._pool.runs_in_caller:
                if options.max_concurrency is not None:
                    task._place = self.limits.place_for(task, job)
                if wait := options.wait(self.clock.time()):
                    self._enqueue_later(task, wait, "delayed")
                    return
            task._pool.enqueue(task)
        except BaseException:  # the interpreter ends, or there are no more threads
            self.cancel(task)
            raise

    def _enqueue_later(self, task: Task, wait: float, state: State) -> None:
        self.table.move(task, state)
        due = self.now() + wait
        handle = task._timer = self.timer.at(due, self._became_due, task)
        if self.closing.leaving or task not in self.table.pending:  # since it waits
            self.timer.cancel(handle)
            self.give_up(task)

    def _became_due(self, task: Task) -> None:
        if task in self.table.pending:
            task._timer = None
            self._enqueue_again(task)

    def enqueue_first(self, task: Task) -> None:
        """Put a task into its queue before the others of its priority."""
        self._enqueue_again(task, first=True)

    def _enqueue_again(self, task: Task, *, first: bool = False) -> None:
        self.table.move(task, "waiting")
        try:
            task._pool.enqueue(task, first=first)
        except Exception:  # the interpreter ends, or there are no more threads
            self.timer.aside(self.give_up, task)

    # Running

    def begin(self, task: Task) -> Attempt | None:
        """Begin an attempt on this thread; return None if the task must not run."""
        try:
            return self._begin(task)
        except BaseException as error:  # a fault in here: it must not cost a worker
            self._break_off(task, error)
            return None

    def _begin(self, task: Task) -> Attempt | None:
        place = task._place
        if place is not None and not place.limit.enter(place):
            if task not in self.table.pending:  # what took it has looked there before
                place.limit.leave(place)
            return None
        attempt = self.table.start(task)
        if attempt is None:
            if place is not None:
                place.limit.leave(place)
            return None
        pool = task._pool
        if pool.runs_on_threads or pool.runs_in_caller:
            attempt.thread = threading.get_ident()
        self.events.started(attempt)
        if task.options.timeout is not None:
            attempt.deadline = self.now() + task.options.timeout
            attempt.timer = self.timer.at(attempt.deadline, self._became_late, attempt)
        return attempt

    def settle(self, attempt: Attempt, error: BaseException) -> None:
        """Decide what a failure means, in the context in which it was raised."""
        if self.table.take_running(attempt):
            made = attempt.decided = self._verdict(attempt, Outcome(error=error))
            if made.error is not None:
                self.events.decided(attempt, made)

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take the outcome of an attempt, on whatever thread has it."""
        try:
            self._finish(attempt, outcome)
        except BaseException as error:  # a fault in here: it must not cost a worker
            self._break_off(attempt.task, error)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        task, place = attempt.task, attempt.task._place
        if attempt.timer is not None:
            self.timer.cancel(attempt.timer)
        if place is not None:
            place.limit.leave(place)
        made, attempt.decided = attempt.decided, None
        if self.table.take_running(attempt):
            made = self._verdict(attempt, outcome)
            if made.error is not None:
                self._log_decided(attempt, made)
        attempt.call = None
        if made is not None:
            self._perform(task, made)
        elif self.table.take_late(attempt) and attempt.overrun:
            attempt.overrun = False
            self.events.returned_late(attempt, -t.cast(float, attempt.remaining()))

    def _verdict(self, attempt: Attempt, outcome: Outcome) -> Verdict:
        if attempt.planned is not None and attempt.timed_out and outcome.error:
            return t.cast(Verdict, attempt.planned)
        return verdict(attempt, outcome, leaving=self.closing.leaving)

    def _log_decided(self, attempt: Attempt, made: Verdict) -> None:
        """Tell the sinks of a decision, in a restore of the task's context."""
        call = attempt.call
        if call is None or call.snapshot is None:
            self.events.decided(attempt, made)
        else:
            tell = self.events.decided
            self.events.log.guard(call.snapshot.run, tell, (attempt, made), {}, attempt)

    def reported(self, task: Task) -> None:
        """Announce the progress of a running task."""
        self.events.progressed(task)

    def run_here(self, task: Task) -> None:
        """Run a task of a thread pool on this thread."""
        run_task(task)

    # Timeouts

    def _became_late(self, attempt: Attempt) -> None:
        self.timer.aside(self._overdue, attempt)

    def _overdue(self, attempt: Attempt) -> None:
        """The timeout of an attempt is over: stop it, or end its task without it."""
        pool: Pool = attempt.task._pool
        attempt.timed_out = True
        made = verdict(attempt, Outcome(error=timeout_of(attempt)))
        if made.kind == "retrying":
            # The next attempt waits until this one has really ended.
            attempt.planned = made
            if self.table.is_running(attempt):
                self._stop(attempt)
        elif self.table.take_overdue(attempt, overruns=not pool.stops_runs):
            self._stop(attempt)  # before its call is released, by which some know it
            self._log_decided(attempt, made)
            self._end(attempt.task, made)

    def _stop(self, attempt: Attempt) -> None:
        attempt.task._pool.interrupt(attempt)
        for fn in attempt.on_stop:
            fn()

    # Performing verdicts

    def _perform(self, task: Task, made: Verdict) -> None:
        if made.kind == "retrying":
            self._try_again(task, made)
        else:
            self._end(task, made)

    def _try_again(self, task: Task, made: Verdict) -> None:
        attempt, error = t.cast(Attempt, task._run), t.cast(BaseException, made.error)
        clear_locals(error)
        self.table.note_failed(task, error)
        self.events.retrying(task, made)
        if task._place is not None:
            task._place = task._place.renewed()
        self.table.admit_again(task)
        if attempt.stop_requested:  # since it failed
            self.cancel(task)
        elif self.closing.leaving:
            self.give_up(task)
        elif made.pause:
            self._enqueue_later(task, made.pause, "retrying")
        else:
            self._enqueue_again(task)

    def _end(self, task: Task, made: Verdict) -> None:
        """End a task as decided: tell the sinks, then deliver it to the future."""
        if made.error is not None:
            clear_locals(made.error)
        future = self.table.end(task, t.cast(State, made.kind))
        try:
            self.events.ended(task, made)
        finally:
            self._deliver(task, future, made)

    def _deliver(self, task: Task, future: TaskFuture[t.Any], made: Verdict) -> None:
        if made.kind == "succeeded":
            future.end_with(made.value)
        elif made.kind == "cancelled":
            future.end_cancelled()
        else:
            future.end_failed(t.cast(BaseException, made.error))
        # Its future has ended, so it is alive no more; callbacks may wait for that.
        self.table.remove(task)
        future.run_callbacks()
        self.closing.note_end()

    def _break_off(self, task: Task, error: BaseException) -> None:
        """End a task in whatever state a fault of ours has left it."""
        message = "A fault in the executor has ended task %s"
        self.events.log.write(logging.ERROR, message, task._label, error=error)
        self.table.take_pending(task)
        if task._run is not None:
            self.table.take_running(task._run)
        if task._place is not None:
            task._place.limit.leave(task._place)
        if not task._has_ended:
            self._end(task, Verdict("failed", error=error))

    # Cancelling

    def cancel(self, task: Task) -> bool:
        """Cancel a task that waits; return True if it is cancelled now."""
        if self.end_pending(task, CANCELLED) or task.state == "cancelled":
            return True
        return self.table.take_reserved(task) and Future.cancel(task.future)

    def request_cancel(self, task: Task) -> bool:
        """Cancel a task that waits, ask one to stop that runs; False if it has ended."""
        if self.cancel(task):
            return True
        attempt = task._run
        if task._has_ended or attempt is None:
            return False
        attempt.stop_requested, attempt.timed_out = True, False
        if self.table.is_running(attempt):
            self._stop(attempt)
        return True

    def give_up(self, task: Task) -> None:
        """End a task that can wait no longer: as it failed last, or as cancelled."""
        error = task._error
        if error is None:
            self.cancel(task)
            return
        timed_out = task._run is not None and task._run.timed_out
        kind: t.Any = "timed_out" if timed_out else "failed"
        self.end_pending(task, Verdict(kind, error=error, given_up=True))

    def abandon(self, task: Task, error: BaseException) -> None:
        """End a pending task that nothing can run."""
        self.end_pending(task, Verdict("failed", error=error))

    def end_pending(self, task: Task, made: Verdict) -> bool:
        """End a task that is pending, wherever it waits; False if it is not."""
        if not self.table.take_pending(task):
            return False
        if task._timer is not None:
            self.timer.cancel(task._timer)
            task._timer = None
        task._pool.remove(task)
        if task._place is not None:
            task._place.limit.leave(task._place)
        if made.error is not None:
            self.events.failed(task, made)
        self._end(task, made)
        return True

    # Waiting inside, stopping

    def want(self, task: Task) -> None:
        """Let a task go first wherever code that waits lends out its worker."""
        if here.pool is not None or running.get() is not None:
            self.nested.want(task)

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait for a task that blocks this thread; see :mod:`.nested`."""
        if here.pool is None and running.get() is None:  # most often, and quick
            return None
        return self.nested.start_waiting(task, timeout)

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> Wait | None:
        """Prepare a wait for any of several tasks; see :mod:`.nested`."""
        if here.pool is None and running.get() is None:
            return None
        return self.nested.start_awaiting(task, also, has_timeout=has_timeout)

    def is_inside(self) -> bool:
        """Return True in code of a task of ours, and on threads that run such code."""
        return self.nested.is_inside() or self.timer.is_own_thread

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more; see :meth:`.Shutdown.shutdown`."""
        self.closing.shutdown(wait=wait, cancel_futures=cancel_futures)

    def drain(self, timeout: float | None) -> Drained:
        """Accept nothing more and wait; see :meth:`.Shutdown.drain`."""
        return self.closing.drain(timeout)

    def leave(self) -> None:
        """The process ends; see :meth:`.Shutdown.leave`."""
        self.closing.leave(self.settings.drain_timeout, self.request_cancel)
