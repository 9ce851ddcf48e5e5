"""The dispatcher: puts the parts of this package together for one executor and app."""

from __future__ import annotations

import atexit
import os
import threading
import typing as t
import weakref
from concurrent.futures import Future

from flask import Flask

from ..attempt import Attempt
from ..calls import Call, Outcome, is_coroutine_function
from ..current import running
from ..errors import ArgumentsNotPicklable, ExecutorShutDown, NotCallable, QueueFull
from ..futures import Callback, TaskFuture
from ..options import Given, Options, unsupported
from ..pools import CoroutinePool, Pool, pool_module
from ..pools.base import run_task
from ..settings import Settings
from ..signals import task_submitted
from ..task import Task, Wait
from ..threads import here
from .endings import Endings
from .events import Events
from .nested import NestedWaits
from .queueing import Queueing
from .runs import Runs
from .shutdown import Drained, Shutdown, leave_with_process
from .table import TaskTable
from .timer import Clock, Timer
from .uniques import Uniques
from .verdict import CANCELLED, Verdict

_system_clock = Clock()


class Dispatcher:
    """Accepts tasks for the pools of one app, and owns them.

    Its parts do the work: it passes each question of a pool or a future to the part
    that answers it.

    :param settings: the settings as they were at first use.
    :param name: for threads, processes and messages.
    :param app: the app for which the pools are made.
    :param clock: tells the time.
    """

    node: t.Any = None
    """What ties it to a store; None without ``EXECUTOR_STORE``."""
    make_node: t.Any = None
    """Makes the node instead, for tests."""
    periodic: t.Any = None
    """What submits the periodic jobs, once it is needed."""
    pauses: t.Any = None
    """Which jobs are paused, once one was."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        app: Flask,
        clock: Clock = _system_clock,
    ) -> None:
        self.settings: Settings = settings
        """The settings as they were at first use."""
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
        self.timer: Timer = Timer(clock, f"{name}_timer")
        """Calls functions when they are due."""
        self.table: TaskTable = TaskTable(clock.time)
        """The tasks that have not ended."""
        self.events: Events = Events(app, settings)
        """Tells the log and the receivers of signals about events."""
        self._put_together(name)
        # The thread of an idle timer ends as soon as its dispatcher is deleted.
        weakref.finalize(self, self.timer.close, wait=False).atexit = False
        leave_with_process(self)

    def _put_together(self, name: str) -> None:
        table, timer, events = self.table, self.timer, self.events
        self.endings: Endings = Endings(table, timer, events)
        """How tasks end."""
        self.queueing: Queueing = Queueing(table, timer, self.endings, self.defaults)
        """Where tasks wait."""
        self.uniques: Uniques = Uniques(table, self.endings)
        """Which values of the option ``unique`` are taken."""
        runs = Runs(table, timer, events, self.endings, self.queueing)
        self.nested: NestedWaits = NestedWaits(self, self._owns, run_task)
        """Tasks that wait for tasks."""
        self.closing: Shutdown = Shutdown(
            table, timer, events.log, self.endings, name, self.pools, self.is_inside
        )
        """How it stops."""
        # The methods that pools and futures call of the owner of a task.
        self.begin: t.Callable[[Task], Attempt | None] = runs.begin
        self.settle: t.Callable[[Attempt, BaseException], None] = runs.settle
        self.finish: t.Callable[[Attempt, Outcome], None] = runs.finish
        self.cancel: t.Callable[[Task], bool] = self.endings.cancel
        self.request_cancel: t.Callable[[Task], bool] = runs.request_cancel
        self.abandon: t.Callable[[Task, BaseException], None] = self.endings.abandon
        self.reported: t.Callable[[Task], object] = events.progressed
        self.now: t.Callable[[], float] = timer.clock.monotonic
        self._time = timer.clock.time

    @property
    def app(self) -> Flask:
        """The app for which the pools were made."""
        return self.events.log.app

    def pools(self) -> list[Pool]:
        """Return the pools that were made so far."""
        return [self.pool] if self._loop is None else [self.pool, self._loop]

    def _owns(self, pool: Pool) -> bool:
        return pool is self.pool or pool is self._loop

    # Accepting

    def options_of(self, job: t.Any, given: Given) -> Options:
        """Return the options of a call, merged: call over job over config."""
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
        task = Task(future, call, self, options, future.key, self._time())
        if self.table.closed:
            raise ExecutorShutDown(task.name)
        limit = self.settings.max_pending
        if task.key is not None or limit is not None or task_submitted.receivers:
            self._reserve(task, limit)
        future.task = task
        return task

    def _reserve(self, task: Task, limit: int | None) -> None:
        """Count a task that is not accepted yet, and let it be cancelled."""
        with self._lock:
            if limit is not None and self.table.count_waiting() >= limit:
                raise QueueFull(task.name, limit)
            self.table.reserve(task)

    def withdraw(self, task: Task) -> None:
        """Forget a task that is not submitted after all."""
        if (future := task.future) is not None:
            Future.cancel(future)  # for threads that have found it
            future.set_running_or_notify_cancel()
        self.table.forget(task)

    def submit(
        self,
        task: Task,
        callbacks: t.Iterable[Callback] = (),
        *,
        job: t.Any = None,
        again: bool = False,
    ) -> None:
        """Accept a registered task; its future ends when it has run.

        :param callbacks: called with the future, in the call's own context.
        :param job: the job whose limit applies, if the options have one.
        :param again: it was submitted before, in this process or in another one.
        :raises ExecutorShutDown: after :meth:`shutdown`.
        :raises CallNotPicklable: if no worker process could import the callable.
        :raises UnsupportedOption: if that was not known before.
        """
        call = task._call
        for callback in callbacks:
            task.future.add_callback_in(call.snapshot, callback)
        problem = self._prepare(task, call)
        if not again:
            self.events.submitted(task)
        was_cancelled = task._is_reserved and not self.table.take_reserved(task)
        self.table.admit(task)
        if was_cancelled:
            self.endings.end_pending(task, CANCELLED)
        elif problem is not None:
            self.endings.end_pending(task, Verdict("failed", problem))
        elif self.table.closed and self.endings.end_pending(task, CANCELLED):
            raise ExecutorShutDown(task.name)
        else:
            self.queueing.enqueue_new(task, job)

    def _prepare(self, task: Task, call: Call) -> Exception | None:
        """Choose the pool and prepare the call; return the error if it cannot run."""
        pool = task._pool = self.pool
        if not callable(call.fn):
            return NotCallable(call.fn)
        if is_coroutine_function(call.fn):
            pool = task._pool = self._pool_for_coroutine(call)
        own = task.options is not self.defaults
        if own and (refusal := self._unsupported(task.options, pool)):
            raise refusal
        if pool.serializes:
            try:
                pool.prepare(call)
            except ArgumentsNotPicklable as error:
                return error
        return None

    def _unsupported(self, options: Options, pool: Pool) -> Exception | None:
        return unsupported(options, pool, has_store=self.node is not None)

    def _pool_for_coroutine(self, call: Call) -> Pool:
        if self.pool.runs_in_caller:
            call.fn = self.pool.adapt_coroutine_function(call.fn)
            return self.pool
        with self._lock:
            if self._loop is None:
                self._loop = CoroutinePool(f"{self._name}_loop")
                if self.table.closed:
                    self._loop.shutdown()
            return self._loop

    # Waiting inside, stopping

    def want(self, task: Task) -> None:
        """Let a task go first where code that waits lends out its worker."""
        if here.pool is not None or running.get() is not None:
            self.nested.want(task)

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait for a task that blocks this thread; see :mod:`.nested`."""
        if here.pool is None and running.get() is None:  # the usual case, and fast
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
        """Return True in code of our tasks, and on threads that run such code."""
        return self.nested.is_inside() or self.timer.is_own_thread

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more; see :meth:`.Shutdown.shutdown`."""
        self.closing.shutdown(wait=wait, cancel_futures=cancel_futures)
        if self.node is not None and wait and not self.is_inside():
            self.node.leaving.rest()

    def drain(self, timeout: float | None) -> Drained:
        """Accept nothing more and wait; see :meth:`.Shutdown.drain`."""
        return self.closing.drain(timeout)

    def leave(self) -> None:
        """End with the process; see :meth:`.Shutdown.leave`."""
        if self.node is None:
            self.closing.leave(self.settings.drain_timeout, self.request_cancel)
            return
        self.node.leaving.hand_back()
        self.closing.leave(self.settings.drain_timeout, self.node.leaving.ask)
        if self.closing.unfinished():  # then Python waits for its threads
            atexit.register(self.node.leaving.close)
        else:
            self.node.leaving.close()
