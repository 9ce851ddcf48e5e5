"""The dispatcher that :func:`.capture` puts into an executor."""

from __future__ import annotations

import contextlib
import typing as t
import weakref
from dataclasses import dataclass, replace

from ..attempt import Attempt
from ..calls import Call, Outcome
from ..dispatch import Dispatcher, Drained
from ..errors import LoopBlocked
from ..futures import Callback, TaskFuture
from ..options import Options
from ..pools import Pool
from ..settings import Settings
from ..task import Task, Wait
from .clock import ManualClock
from .pools import CoroutinePool, RunnerPool
from .runner import NotReleased, Runner
from .submitted import Submitted, submitted_by

if t.TYPE_CHECKING:
    from flask import Flask


@dataclass(frozen=True, slots=True)
class CapturedTest:
    """What the dispatchers of one test share."""

    runner: Runner
    clock: ManualClock
    submitted: list[Submitted]


class CaptureDispatcher(Dispatcher):
    """A dispatcher whose tasks run when the test says so."""

    def __init__(
        self, test: CapturedTest, settings: Settings, name: str, app: Flask
    ) -> None:
        # The type that makes nothing, because its pool runs no calls here.
        super().__init__(replace(settings, type="sync"), name, app, test.clock)
        self.settings = settings
        self.pool: Pool = RunnerPool(test.runner)
        self._coroutines = CoroutinePool(test.runner)
        self._loop = t.cast(t.Any, self._coroutines)
        self._runner = test.runner
        self._submitted = test.submitted
        self._given: weakref.WeakKeyDictionary[Task, Options] = (
            weakref.WeakKeyDictionary()
        )
        self._take_outcome = self.finish
        self.finish: t.Callable[[Attempt, Outcome], None] = self._finish

    def register(self, future: TaskFuture[t.Any], call: Call, options: Options) -> Task:
        """Make the task of a future that is being submitted."""
        task = super().register(future, call, _without_chance(options))
        self._given[task] = options
        return task

    def submit(
        self,
        task: Task,
        callbacks: t.Iterable[Callback] = (),
        *,
        job: t.Any = None,
        again: bool = False,
    ) -> None:
        """Accept a task, and record it."""
        options = self._given.pop(task)
        if again and self._is_known(task.future):  # its next attempt
            super().submit(task, callbacks, job=job, again=True)
            return
        submitted = submitted_by(task, options)
        # Before it can run: what it submits itself is listed after it.
        self._submitted.append(submitted)
        try:
            super().submit(task, callbacks, job=job, again=again)
        except BaseException:
            self._submitted.remove(submitted)
            raise

    def _is_known(self, future: TaskFuture[t.Any]) -> bool:
        return any(one.future is future for one in self._submitted)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        saved = attempt.task._saved
        later = contextlib.nullcontext() if saved is None else self.node.feeding.later()
        with self._runner.deciding(), later:
            self._take_outcome(attempt, outcome)

    def start_waiting(self, task: Task, timeout: float | None) -> Wait | None:
        """Prepare a wait, and refuse one that would never end."""
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
        """Accept nothing more, and wait for what runs.

        While the test waits nothing that is held begins, so a timeout is over at once.
        """
        if self._runner.is_test_thread and not self.table.running:
            held = [t for t in self.table.pending.copy() if t.state == "waiting"]
            if timeout is None and held:
                raise NotReleased(held)
            timeout = 0
        return super().drain(timeout)

    def close(self) -> None:
        """Accept nothing more, cancel what waits, and end the store."""
        self.shutdown(wait=False, cancel_futures=True)
        if self.node is not None:
            self.node.close()

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Accept nothing more, and refuse a wait that would never end."""
        waits = wait and self._runner.is_test_thread and not self.is_inside()
        waiting = [*self.table.pending.copy()]
        if waits and not cancel_futures and waiting:
            raise NotReleased(waiting)
        super().shutdown(wait, cancel_futures)

    def unfinished(self) -> list[Task]:
        """Return the tasks that have not ended."""
        late = [attempt.task for attempt in self.table.late.copy()]
        saved = [] if self.node is None else self.node.unfinished()
        return [*dict.fromkeys([*late, *self.table.live.copy(), *saved])]

    def cancel_waiting(self) -> None:
        """Cancel all tasks that wait."""
        for task in self.table.pending.copy():
            self.cancel(task)
        for task in () if self.node is None else self.node.unfinished():
            task._owner.cancel(task)

    def make_node(self, dispatcher: Dispatcher, names: t.Any, *name: str) -> t.Any:
        """Return what ties this to a store that ends with the test.

        :raises StoreRefused: if SQLAlchemy is not installed.
        """
        from ..sharing.opening import not_installed

        try:
            from .nodes import CaptureNode
        except ImportError as error:
            raise not_installed(t.cast(str, self.settings.store), error) from None
        return CaptureNode(dispatcher, self._runner, names, *name)

    def _run_for(self, inside: Attempt, task: Task) -> None:
        place = inside.task._place
        if place is None:
            self._runner.run(task)
            return
        place.limit.start_waiting(
            place, has_timeout=False
        )  # a task that waits does not count
        try:
            self._runner.run(task)
        finally:
            place.limit.stop_waiting(place)
            place.limit.come_back(place, _nothing)


def _nothing() -> None:
    """Do not wait for the place: on the thread of the test nobody else gives it up."""


def _without_chance(options: Options) -> Options:
    """Return the options without jitter, so that a test knows the pauses of retries."""
    if options.retry is None:
        return options
    return replace(options, retry=replace(options.retry, jitter=0.0))
