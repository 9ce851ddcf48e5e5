"""The pools of a test; its runner runs what they are given."""

from __future__ import annotations

import asyncio
import typing as t
from contextlib import contextmanager
from functools import partial

from ..attempt import Attempt
from ..calls import Call
from ..current import running
from ..pools.base import Pool, refuse_after_shutdown, submit_bare
from ..pools.sync import run_to_end
from ..task import Task
from .runner import Runner


class RunnerPool(Pool):
    """A pool that hands tasks to the runner of a test."""

    kind: t.ClassVar[str] = "capture"
    runs_on_threads: t.ClassVar[bool] = True
    submit = submit_bare
    _max_workers = 1

    def __init__(self, runner: Runner) -> None:
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


class CoroutinePool(RunnerPool):
    """The same for coroutine functions, each on its own event loop."""

    serializes: t.ClassVar[bool] = True
    stops_runs: t.ClassVar[bool] = True

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self._cancels: dict[t.Any, t.Callable[[], object]] = {}

    @property
    def is_own_thread(self) -> bool:
        """True in the code of a coroutine, on the thread of its event loop."""
        return running.get() in self._cancels and _runs_event_loop()

    def prepare(self, call: Call) -> None:
        """Replace a coroutine function by a plain function that runs it."""
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
