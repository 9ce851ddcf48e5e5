"""For tests: see what is submitted, run it when the test says so, move the clock by
hand.

:func:`capture` stands in for the pool of an executor; ``executor_tasks`` is the same as
a pytest fixture. Nothing sleeps here.
"""

from __future__ import annotations

import asyncio
import threading
import time
import typing as t
import weakref
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from .attempt import Attempt
from .calls import Call, Chunk, Outcome
from .contexts import open_uploads
from .current import running
from .dispatch import Clock, Dispatcher, Drained, Timer
from .errors import ExecutorNotInitialized, LoopBlocked
from .executor import Executor
from .futures import Callback, TaskFuture
from .jobs import ExecutorJob
from .options import Options
from .pools.base import Pool, refuse_after_shutdown, run_task, submit_bare
from .pools.sync import run_to_end
from .queues import PriorityQueue
from .settings import Settings
from .submitter import Submitter
from .task import Task, Wait

if t.TYPE_CHECKING:
    from flask import Flask

_HAIR = 1e-5
"""Seconds by which something may be early: sums of seconds are not exact."""


class TasksLeftBehind(AssertionError):
    """A test has ended, and some of its tasks have not."""

    def __init__(self, tasks: t.Sequence[Task]) -> None:
        self.tasks: tuple[Task, ...] = tuple(tasks)
        """Those that were left behind, as they were then."""
        super().__init__(
            f"The test has left {_listed(tasks)} behind: run what waits with release(),"
            " what is delayed or tried again with clock.advance(), or say cancel()."
        )


class NotReleased(RuntimeError):
    """A test was about to wait for what only the test itself could have run."""

    def __init__(self, tasks: t.Sequence[Task]) -> None:
        self.tasks: tuple[Task, ...] = tuple(tasks)
        """Those that would have been waited for."""
        super().__init__(
            f"This wait would never end, for it is up to the test to run"
            f" {_listed(tasks)}: call release() or clock.advance() before."
        )


def _listed(tasks: t.Sequence[Task]) -> str:
    return ", ".join(map(repr, tasks))


class ManualClock(Clock):
    """A clock that stands still until it is moved.

    Delays, the pauses before retries and timeouts go by it, not ``time.sleep``, nor the
    timeout of a ``result()``. It begins with the time of the machine, or that of
    freezegun or time-machine; move it from one thread at a time.
    """

    def __init__(self) -> None:
        self._began = time.time()
        self._at_first = self._monotonic = time.monotonic()
        self._timers: list[weakref.ref[Timer]] = []

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._began + (self._monotonic - self._at_first)

    def now(self) -> datetime:
        """The moment, in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, by: float | timedelta) -> None:
        """Move the clock on. What becomes due on the way happens in order, each at its
        time, on this thread.

        :param by: seconds, or a timedelta.
        :raises ValueError: for less than none.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if seconds < 0:
            raise ValueError(f"advance({by!r}): a clock does not go back.")
        goal = self._monotonic + seconds
        while (first := self._first_due()) is not None and first[0] <= goal + _HAIR:
            self._move_to(first[0])
            first[2].run_due()
        self._move_to(goal)

    def advance_to(self, moment: datetime) -> None:
        """Move the clock on to a moment, such as the ``run_at`` of a task.

        :param moment: with a time zone.
        :raises ValueError: where it is over, or has no time zone.
        """
        if moment.utcoffset() is None:
            raise ValueError(f"advance_to({moment!r}): the time zone is missing.")
        # Not a difference of datetimes, which know whole microseconds only.
        self.advance(moment.timestamp() - self.time())

    def drives(self, timer: Timer) -> bool:
        """Whether this clock calls :meth:`.Timer.run_due` itself: it does."""
        self._timers.append(weakref.ref(timer))
        return True

    def _first_due(self) -> tuple[float, int, Timer] | None:
        dues = [
            (due, number, timer)
            for number, known in enumerate(self._timers)
            if (timer := known()) is not None and (due := timer.next_due()) is not None
        ]
        return min(dues, default=None)

    def _move_to(self, moment: float) -> None:
        # What happened on the way may have moved it further.
        self._monotonic = max(self._monotonic, moment)

    def __repr__(self) -> str:
        return f"<ManualClock {self.now():%Y-%m-%d %H:%M:%S.%f}>"


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """What was submitted: one task."""

    name: str
    """What it is called in logs: the option ``name``, or the function's."""
    fn: t.Any
    """The function, or the job, that was submitted."""
    args: tuple[t.Any, ...]
    """Its positional arguments."""
    kwargs: dict[str, t.Any]
    """Its keyword arguments."""
    key: t.Hashable | None
    """Under which its future is stored, or None."""
    options: Options
    """What counts for it: options of the call, of the job and of the config."""
    future: TaskFuture[t.Any]
    """Its future."""

    def __repr__(self) -> str:
        key = "" if self.key is None else f" (key {self.key!r})"
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        return f"<Submitted {self.name}({', '.join(given)}){key}>"


class CapturedTasks:
    """The tasks of a test, and the verbs that run them; what :func:`capture` gives."""

    clock: ManualClock
    """The clock of the tasks, moved by hand."""

    def __init__(self, runner: _Runner, clock: ManualClock) -> None:
        self.clock = clock
        self._runner = runner
        self._submitted: list[Submitted] = []
        self._dispatchers: list[_Dispatcher] = []

    @property
    def hold(self) -> bool:
        """Whether what is submitted waits for :meth:`release`; else it runs before
        ``submit`` returns. It may be set at any time.
        """
        return self._runner.hold

    @hold.setter
    def hold(self, hold: bool) -> None:
        self._runner.hold = hold

    @property
    def submitted(self) -> list[Submitted]:
        """What was submitted so far, in order; by tasks, too."""
        return [*self._submitted]

    @property
    def unfinished(self) -> list[Task]:
        """The tasks that have not ended: held, delayed, between two attempts, held back
        by their job's ``max_concurrency``, or running on another thread.
        """
        return [task for one in self._dispatchers for task in one.unfinished()]

    def release(self, count: int | None = None) -> list[Task]:
        """Run what is held, on this thread: by priority, then first come first served.

        :param count: how many tasks; None is all, and what they submit as well.
        :return: those that were run, in this order.
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
        """Cancel all that waits: what is held, delayed, or between two attempts."""
        for dispatcher in self._dispatchers:
            dispatcher.cancel_waiting()

    def _close(self) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        counts = f"{len(self._submitted)} submitted, {len(self.unfinished)} unfinished"
        return f"<CapturedTasks: {counts}>"


class _Here(threading.local):
    """Where a thread is."""

    later: deque[Task] | None = None
    """What it runs next; None outside of tasks."""
    judging: bool = False
    """Whether a task has just run, and what becomes of it is being decided."""


class _Runner:
    """Runs tasks on the thread that it is called on, or holds them.

    :param hold: whether it holds those that come.
    """

    def __init__(self, hold: bool) -> None:
        self.hold = hold
        self._held = PriorityQueue()
        self._here = _Here()
        self._thread = threading.get_ident()

    @property
    def is_test_thread(self) -> bool:
        """Whether this is the thread on which the test runs."""
        return threading.get_ident() == self._thread

    def start(self, task: Task, *, first: bool) -> None:
        """Run a task, or hold it."""
        if self.hold:
            self._held.put(task, first=first)
        elif self._here.judging:
            # It comes back while its last attempt is still being judged, or a
            # done-callback has submitted it: one after another, or a chain of such
            # tasks would need a stack of its length.
            t.cast("deque[Task]", self._here.later).append(task)
        else:
            self.run(task)

    def take(self) -> Task | None:
        """The held task whose turn it is."""
        while (task := self._held.take()) is not None:
            if task.state == "waiting":  # not cancelled, nor run by who waited for it
                return task
        return None

    def run(self, task: Task) -> None:
        """Run a task, and what came back or was submitted at its end."""
        here = self._here
        outer = here.later, here.judging
        here.later, here.judging = deque([task]), False
        try:
            while here.later:
                run_task(here.later.popleft())
        finally:
            here.later, here.judging = outer

    @contextmanager
    def judging(self) -> t.Iterator[None]:
        """The block decides what becomes of a task that has run on this thread."""
        here = self._here
        before, here.judging = here.judging, here.later is not None
        try:
            yield
        finally:
            here.judging = before

    def check_wait(self, task: Task, timeout: float | None) -> None:
        """Refuse that the test waits for what does not run meanwhile.

        :raises TimeoutError: at once, where there is a timeout.
        :raises NotReleased: where there is none.
        """
        if not self.is_test_thread or task.state == "running":
            return
        if task.state == "waiting" and self._here.judging and not self.hold:
            self.run(task)
        if not task._has_ended:
            raise NotReleased([task]) if timeout is None else TimeoutError


@contextmanager
def capture(
    executor: Submitter,
    /,
    *others: Submitter,
    hold: bool = False,
    clock: ManualClock | None = None,
) -> t.Iterator[CapturedTasks]:
    """Record what is submitted within the block, and run it as the test says.

    It counts for all apps of the executor, those that are initialized within the block
    too, whatever their ``EXECUTOR_TYPE``. Each task runs on the thread that submits it,
    releases it or moves the clock, in its own copy of the context, with the options,
    signals and callbacks that it would have in earnest; a coroutine function runs to
    its end. Afterwards the executor is as it was.

    :param others: executors whose tasks are captured along.
    :param hold: keep what is submitted until :meth:`CapturedTasks.release`; else it
        runs before ``submit`` returns, unless it is delayed.
    :param clock: one to go on with; by default a new one.
    :raises TasksLeftBehind: an :exc:`AssertionError`, at the end of the block, where a
        task has not ended. What waits is cancelled then.
    """
    tasks = CapturedTasks(_Runner(hold), clock or ManualClock())
    with ExitStack() as stack:
        for one in (executor, *others):
            stack.enter_context(_captured(one._executor, tasks))
        stack.callback(tasks._close)
        yield tasks
        if left := tasks.unfinished:
            raise TasksLeftBehind(left)


@contextmanager
def _captured(executor: Executor, tasks: CapturedTasks) -> t.Iterator[None]:
    """Our dispatchers are in the place of an executor's within the block."""
    new_before, new = executor._new_dispatcher, partial(_Dispatcher, tasks)
    dispatchers = {state: state._dispatcher for state in _states(executor)}
    executor._new_dispatcher = new
    for state in dispatchers:
        state._dispatcher, state.new_dispatcher = None, new
    try:
        yield
    finally:
        executor._new_dispatcher = new_before
        for state in {*dispatchers, *_states(executor)}:
            # One that came within the block makes its own at its next use.
            state._dispatcher = dispatchers.get(state)
            state.new_dispatcher = new_before


def _states(executor: Executor) -> list[t.Any]:
    return [state.here() for state in executor._states.values()]


class _Dispatcher(Dispatcher):
    """A dispatcher whose tasks run when the test says so."""

    def __init__(
        self, tasks: CapturedTasks, settings: Settings, name: str, app: Flask
    ) -> None:
        # With the type that makes nothing, for its pool is not what runs calls.
        super().__init__(replace(settings, type="sync"), name, app, tasks.clock)
        self.settings = settings
        self.pool = _Pool(tasks._runner)
        self._coroutines = _CoroutinePool(tasks._runner)
        self._loop = t.cast(t.Any, self._coroutines)
        self._runner = tasks._runner
        self._tasks = tasks
        self._given: weakref.WeakKeyDictionary[Task, Options] = (
            weakref.WeakKeyDictionary()
        )
        self._take_outcome, self.finish = self.finish, self._finish
        tasks._dispatchers.append(self)

    def register(self, future: TaskFuture[t.Any], call: Call, options: Options) -> Task:
        """Make the task of a future that is being submitted."""
        task = super().register(future, call, _without_chance(options))
        self._given[task] = options
        return task

    def submit(
        self, task: Task, callbacks: t.Iterable[Callback] = (), *, job: t.Any = None
    ) -> None:
        """Accept a task, and record it."""
        submitted = _submitted(task, self._given.pop(task))
        # First: what it submits itself comes after it.
        self._tasks._submitted.append(submitted)
        try:
            super().submit(task, callbacks, job=job)
        except BaseException:
            self._tasks._submitted.remove(submitted)
            raise

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        with self._runner.judging():
            self._take_outcome(attempt, outcome)

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait, and see that the test does not wait in vain."""
        if timeout is None and self._coroutines.is_own_thread:
            raise LoopBlocked(task.name)
        inside = self.nested.current_attempt()
        if inside is not None and task.state == "waiting":
            self._run_for(inside, task)
        self._runner.check_wait(task, timeout)
        return None if task._has_ended else super().start_waiting(task, timeout)

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> Wait | None:
        """Prepare a wait for any of several tasks, and run those that are held."""
        inside = self.nested.current_attempt()
        for one in (*also, task) if inside is not None else ():
            if one.state == "waiting":
                self._run_for(t.cast(Attempt, inside), one)
        if task._has_ended:
            return None
        return super().start_awaiting(task, also, has_timeout=has_timeout)

    def drain(self, timeout: float | None) -> Drained:
        """Accept nothing more. Nothing that is held begins while the test waits, so a
        timeout is over at once.
        """
        if self._runner.is_test_thread and not self.table.running:
            held = [t for t in self.table.pending.copy() if t.state == "waiting"]
            if timeout is None and held:
                raise NotReleased(held)
            timeout = 0
        return super().drain(timeout)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more, and do not wait in vain."""
        waits = wait and self._runner.is_test_thread and not self.is_inside()
        waiting = [*self.table.pending.copy()]
        if waits and not cancel_futures and waiting:
            raise NotReleased(waiting)
        super().shutdown(wait, cancel_futures)

    def unfinished(self) -> list[Task]:
        """Return the tasks that have not ended."""
        late = [attempt.task for attempt in self.table.late.copy()]
        return [*dict.fromkeys([*late, *self.table.live.copy()])]

    def cancel_waiting(self) -> None:
        """Cancel all that waits."""
        for task in self.table.pending.copy():
            self.cancel(task)

    def _run_for(self, inside: Attempt, task: Task) -> None:
        place = inside.task._place
        if place is None:
            self._runner.run(task)
            return
        place.limit.start_waiting(place, has_timeout=False)  # who waits does not run
        try:
            self._runner.run(task)
        finally:
            place.limit.stop_waiting(place)
            place.limit.come_back(place, _nothing)


def _nothing() -> None:
    """Wait for no place: on the thread of the test nobody else gives it up."""


def _submitted(task: Task, options: Options) -> Submitted:
    call: Call = task._call
    fn = call.fn.func if isinstance(call.fn, Chunk) else call.fn
    return Submitted(
        name=task.name,
        fn=fn.declared if type(fn) is ExecutorJob else fn,
        args=tuple(open_uploads(call.args)),
        kwargs=open_uploads(call.kwargs),
        key=task.key,
        options=options,
        future=task.future,
    )


def _without_chance(options: Options) -> Options:
    """With pauses before retries that a test can tell."""
    if options.retry is None:
        return options
    return replace(options, retry=replace(options.retry, jitter=0.0))


class _Pool(Pool):
    """Hands tasks to the runner."""

    kind: t.ClassVar[str] = "capture"
    runs_on_threads: t.ClassVar[bool] = True
    submit = submit_bare
    _max_workers = 1

    def __init__(self, runner: _Runner) -> None:
        self._runner = runner
        self._shutdown = False

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Run a task, now or later.

        :raises ExecutorShutDown: if the pool is shut down.
        """
        if self._shutdown:
            refuse_after_shutdown(task)
        self._runner.start(task, first=first)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more."""
        self._shutdown = True


class _CoroutinePool(_Pool):
    """The same for coroutine functions, each on an event loop of its own."""

    serializes: t.ClassVar[bool] = True
    stops_runs: t.ClassVar[bool] = True

    def __init__(self, runner: _Runner) -> None:
        super().__init__(runner)
        self._cancels: dict[t.Any, t.Callable[[], object]] = {}

    @property
    def is_own_thread(self) -> bool:
        """True in code of a coroutine, on the thread of its event loop."""
        return running.get() in self._cancels and _runs_event_loop()

    def prepare(self, call: Call) -> None:
        """Make a plain function of a coroutine function."""
        fn = call.fn

        async def run(*args: t.Any, **kwargs: t.Any) -> t.Any:
            with self._interruptible():
                return await fn(*args, **kwargs)

        run.__qualname__ = getattr(fn, "__qualname__", repr(fn))
        run.__module__ = getattr(fn, "__module__", __name__)
        call.fn = run_to_end(run)

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel a coroutine, at its next ``await``."""
        if (cancel := self._cancels.get(attempt)) is not None:
            cancel()

    @contextmanager
    def _interruptible(self) -> t.Iterator[None]:
        loop = asyncio.get_running_loop()
        coroutine = t.cast("asyncio.Task[t.Any]", asyncio.current_task())
        attempt = t.cast(Attempt, running.get())
        self._cancels[attempt] = partial(loop.call_soon_threadsafe, coroutine.cancel)
        if attempt.cancel_requested:  # before it began
            coroutine.cancel()
        try:
            yield
        finally:
            del self._cancels[attempt]


def _runs_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


try:
    import pytest
except ImportError:  # what is above needs none
    pass
else:

    @pytest.fixture
    def executor_tasks(app: Flask) -> t.Iterator[CapturedTasks]:
        """The tasks of a test, captured; a pytest fixture.

        It captures all executors of what the fixture ``app`` gives, as :func:`capture`
        does, and a test that leaves tasks behind ends with an error. Import it where
        pytest looks for fixtures, in ``conftest.py`` say.
        """
        executors = [one for one in app.extensions.values() if _is_executor(one)]
        if not executors:
            raise ExecutorNotInitialized(app)
        with capture(*executors) as tasks:
            yield tasks


def _is_executor(thing: object) -> bool:
    return isinstance(thing, Executor)
