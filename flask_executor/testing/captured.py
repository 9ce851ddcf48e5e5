"""Capture the tasks of an executor, and run them when a test says so."""

from __future__ import annotations

import typing as t
from contextlib import ExitStack, contextmanager

from ..executor import Executor
from ..settings import Settings
from ..submitter import Submitter
from ..task import Task
from .clock import ManualClock
from .dispatcher import CaptureDispatcher, CapturedTest
from .runner import Runner, listed
from .submitted import Submitted

if t.TYPE_CHECKING:
    from flask import Flask


class TasksLeftBehind(AssertionError):
    """A test has ended, and some of its tasks have not."""

    def __init__(self, tasks: t.Sequence[Task]) -> None:
        self.tasks: tuple[Task, ...] = tuple(tasks)
        """The tasks that had not ended at the end of the test."""
        super().__init__(
            f"The test has left {listed(tasks)} behind: run what waits with release(),"
            " what is delayed or tried again with clock.advance(), or say cancel()."
        )


class CapturedTasks:
    """The tasks of a test, and methods that run them; :func:`capture` makes it."""

    clock: ManualClock
    """The clock of the tasks; the test moves it."""

    def __init__(self, runner: Runner, clock: ManualClock) -> None:
        self.clock = clock
        self._runner = runner
        self._submitted: list[Submitted] = []
        self._dispatchers: list[CaptureDispatcher] = []

    @property
    def hold(self) -> bool:
        """True if what is submitted waits for :meth:`release`.

        Otherwise it runs before ``submit`` returns. It can be set at any time.
        """
        return self._runner.hold

    @hold.setter
    def hold(self, hold: bool) -> None:
        self._runner.hold = hold

    @property
    def submitted(self) -> list[Submitted]:
        """What was submitted so far, in order; what tasks submitted is included."""
        return [*self._submitted]

    @property
    def unfinished(self) -> list[Task]:
        """The tasks that have not ended.

        They are held, delayed, between two attempts, waiting because of their job's
        ``max_concurrency``, or running on another thread.
        """
        return [task for one in self._dispatchers for task in one.unfinished()]

    def release(self, count: int | None = None) -> list[Task]:
        """Run held tasks on this thread: by priority, then in the order they came.

        :param count: how many tasks; None: all, and those that they submit.
        :return: the tasks that were run, in this order.
        """
        released: list[Task] = []
        while count is None or len(released) < count:
            task = self._runner.take()
            if task is None:
                break
            released.append(task)
            self._runner.run(task)
        return released

    def cancel(self) -> None:
        """Cancel all tasks that wait: held, delayed, or between two attempts."""
        for dispatcher in self._dispatchers:
            dispatcher.cancel_waiting()

    def _new_dispatcher(
        self, settings: Settings, name: str, app: Flask
    ) -> CaptureDispatcher:
        test = CapturedTest(self._runner, self.clock, self._submitted)
        dispatcher = CaptureDispatcher(test, settings, name, app)
        self._dispatchers.append(dispatcher)
        return dispatcher

    def _close(self) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.close()

    def __repr__(self) -> str:
        counts = f"{len(self._submitted)} submitted, {len(self.unfinished)} unfinished"
        return f"<CapturedTasks: {counts}>"


@contextmanager
def capture(
    executor: Submitter,
    /,
    *others: Submitter,
    hold: bool = False,
    clock: ManualClock | None = None,
) -> t.Iterator[CapturedTasks]:
    """Record what is submitted within the block, and run it when the test says so.

    It captures the tasks of all apps of the executor, with any ``EXECUTOR_TYPE``, also
    of apps that are initialized within the block. Each task runs on the thread that
    submits it, releases it or moves the clock, in its own copy of the context, with
    its usual options, signals and callbacks. A coroutine function runs to its end.
    After the block the executor is as it was before.

    :param others: more executors whose tasks are captured.
    :param hold: keep what is submitted until :meth:`CapturedTasks.release`. Otherwise
        it runs before ``submit`` returns, unless it is delayed.
    :param clock: a clock that was used before; by default a new one.
    :raises TasksLeftBehind: an :exc:`AssertionError`, at the end of the block, if a
        task has not ended. Tasks that wait are cancelled then.
    """
    tasks = CapturedTasks(Runner(hold), clock or ManualClock())
    with ExitStack() as stack:
        for one in (executor, *others):
            stack.enter_context(_captured(one._executor, tasks))
        stack.callback(tasks._close)
        yield tasks
        if left := tasks.unfinished:
            raise TasksLeftBehind(left)


@contextmanager
def _captured(executor: Executor, tasks: CapturedTasks) -> t.Iterator[None]:
    """Replace the dispatchers of an executor within the block."""
    new_before, new = executor._new_dispatcher, tasks._new_dispatcher
    before = {state: _replaced(state) for state in _states(executor)}
    executor._new_dispatcher = new
    for state in before:
        state.new_dispatcher = new
    try:
        yield
    finally:
        executor._new_dispatcher = new_before
        for state in {*before, *_states(executor)}:
            # An app that came within the block makes a dispatcher at its next use.
            _replaced(state, *before.get(state, ()))
            state.new_dispatcher = new_before


def _replaced(state: t.Any, dispatcher: t.Any = None, futures: t.Any = None) -> t.Any:
    """Give an app's state another dispatcher, or none; return what there was.

    With a store, the futures belong to the dispatcher.
    """
    before = state.ready, state._futures
    state.ready = dispatcher
    if state._settings is not None and state._settings.store is not None:
        state._futures = futures
    return before


def _states(executor: Executor) -> list[t.Any]:
    return [state.here() for state in executor._states.values()]
