"""How calls run: the contract of a pool, and what each can do.

A pool is a real :class:`concurrent.futures.Executor` that also takes tasks. It runs
each accepted task once, by :meth:`.Task.run` or by its parts, and never raises what a
call raised.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import Executor, Future
from importlib import import_module

from ..task import Task
from ..worker import Call, Outcome


class Pool(t.Protocol):
    """What the dispatcher asks of a pool."""

    runs_in_caller: t.ClassVar[bool]
    """It runs each call at once, in the context of who submits it."""

    def start(self, task: Task) -> None:
        """Accept a task, to be run once.

        :raises ExecutorShutDown: where the pool is shut down; the task is untouched.
        :raises CallNotPicklable: where the pool can never run this callable.
        """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, as :meth:`concurrent.futures.Executor.shutdown`."""


def pool_module(kind: str) -> t.Any:
    """The module of a pool, imported when a type names it.

    It has a function ``make(settings, name, app)``, which gives a :class:`Pool` whose
    workers start with the first task.
    """
    return import_module(f".{kind}", __name__)


class BareCalls(Executor):
    """``submit`` for whoever uses the pool itself: the call alone, no context."""

    def submit(
        self, fn: t.Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any
    ) -> Future[t.Any]:
        """Run a call without a context, as the standard library's pools do."""
        future: Future[t.Any] = Future()
        t.cast(Pool, self).start(Task(future, Call(fn, args, kwargs, None), deliver))
        return future


def deliver(task: Task, outcome: Outcome) -> None:
    """The plain judge: what came of the call is what the future gets."""
    if outcome.error is None:
        task.future.set_result(outcome.value)
    else:
        task.future.set_exception(outcome.error)
