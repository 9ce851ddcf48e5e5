"""The contract of a pool: what the dispatcher expects of it.

A pool is a real :class:`concurrent.futures.Executor` that also takes tasks. It decides
in which order they begin and where they run, and nothing else. The owner of a task
decides if it may begin and what its outcome means. For each task the pool calls the
owner's ``begin``, on the thread that is to run it. If that returns an
:class:`.Attempt`, the pool runs the attempt's call and passes the outcome to
``finish``, once. If a call runs on one thread, :func:`run_task` does all of this.

What a pool may rely on, and what it must expect:

- All methods may be called from any thread at any time, also by code that runs in the
  pool itself. None of them waits for a task, except ``shutdown(wait=True)``.
- The owner's methods may run code of the app (receivers, callbacks), which may take
  long, submit tasks and wait for them. So do not hold a lock while you call them. They
  raise nothing.
- ``finish`` may be called on any thread, in any order, and long after ``begin``: an
  engine on another machine answers on its own thread. A worker that is lost is an
  outcome like any other, with :exc:`.WorkerLost` as its error.
- A task is enqueued once for each time that it waits. Until its turn comes, it can be
  taken back with ``remove``.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import Executor, Future

from ..attempt import Attempt
from ..calls import Call, Outcome, run
from ..errors import ExecutorShutDown
from ..options import OPTIONS
from ..task import Task
from ..threads import here

Perform = t.Callable[[Call, Attempt], Outcome]


class Pool(Executor):
    """The methods that the dispatcher calls of a pool; see the text of the module."""

    kind: t.ClassVar[str]
    """Its name in messages, and in the config."""
    stdlib_class: t.ClassVar[type[Executor]] = Executor
    """The class of the standard library whose API it has."""
    runs_in_caller: t.ClassVar[bool] = False
    """True if each call runs at once, in the context of the code that submits it."""
    serializes: t.ClassVar[bool] = False
    """True if :meth:`prepare` must be called."""
    runs_on_threads: t.ClassVar[bool] = False
    """True if a call may run on any thread of this process."""
    must_not_block: t.ClassVar[bool] = False
    """True if its thread runs many calls, so that none of them may wait for a task."""
    stops_runs: t.ClassVar[bool] = False
    """True if :meth:`interrupt` ends a run."""
    honours: t.ClassVar[t.Collection[str]] = frozenset(OPTIONS)
    """The options that tasks may have here."""

    @property
    def is_own_thread(self) -> bool:
        """True on a thread of the pool that runs tasks."""
        return here.pool is not None and here.pool() is self

    @classmethod
    def check_declared(cls, fn: t.Any) -> None:
        """Refuse a job that the pool could never run, when it is declared.

        :raises CallNotPicklable: with the reason.
        """

    def room(self, at_work: int) -> int | None:
        """Return how many more tasks would begin at once; None: there is no limit.

        :param at_work: how many of its tasks have begun and not ended.
        """
        return None

    def adapt_coroutine_function(self, fn: t.Any) -> t.Any:
        """Return a plain function for a coroutine function, to run in the caller."""
        raise NotImplementedError

    def prepare(self, call: Call) -> None:
        """Convert a call into what the pool can run, on the submitter's thread.

        :raises CallNotPicklable: if the pool can never run it.
        """

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Put a task into the queue.

        :param first: before all others of its priority.
        :raises ExecutorShutDown: if the pool is shut down; the task is unchanged.
        """
        raise NotImplementedError

    def remove(self, task: Task) -> bool:
        """Take a task out of the queue; return False if its turn has come."""
        return False

    def interrupt(self, attempt: Attempt) -> None:
        """Stop a run if the pool can; otherwise tell its code.

        Code that can read ``attempt.cancel_requested`` itself need not be told.
        """

    def lend_slot(self) -> t.Callable[[], None] | None:
        """Lend out the slot of this thread, whose code waits for a task.

        A task that somebody waits for may run in it until then.

        :return: a function to call when the wait is over, which takes the slot back at
            once; None if this thread has no slot.
        """
        return None

    def expedite(self, task: Task) -> None:
        """Let a task that somebody waits for run in a slot that is lent out."""


def run_task(task: Task, perform: Perform = run) -> None:
    """Run the call of a task on this thread, if its owner lets it begin.

    :param perform: what runs the call; it raises nothing.
    """
    attempt = task._owner.begin(task)
    if attempt is not None:
        # The owner may end the task while its call runs; the attempt keeps the call.
        task._owner.finish(attempt, perform(attempt.call, attempt))  # type: ignore[arg-type]
    # The traceback of a failure refers to the frames of its callers, this one among
    # them: without this, the future would refer to itself.
    del task, attempt


def refuse_after_shutdown(task: Task) -> t.NoReturn:
    """Raise the error of a pool that is shut down."""
    raise ExecutorShutDown(task.name)


class _BareOwner:
    """The owner of calls that people submit to a pool itself.

    The outcome of a call is passed to its future unchanged.
    """

    def begin(self, task: Task) -> Attempt | None:
        if not task.future.set_running_or_notify_cancel():
            return None
        task.attempt += 1
        task._run = Attempt(task, task.attempt, task._call)
        return task._run

    def settle(self, attempt: Attempt, error: BaseException) -> None:
        pass

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        future: Future[t.Any] = attempt.task.future
        attempt.call = None
        attempt.task._release()
        if outcome.error is None:
            future.set_result(outcome.value)
        else:
            future.set_exception(outcome.error)

    def cancel(self, task: Task) -> bool:
        future: Future[t.Any] = task.future
        if cancelled := future.cancel():
            future.set_running_or_notify_cancel()
            task._release()
        return cancelled

    def request_cancel(self, task: Task) -> bool:
        return self.cancel(task)

    def abandon(self, task: Task, error: BaseException) -> None:
        future: Future[t.Any] = task.future
        if future.set_running_or_notify_cancel():
            task._release()
            future.set_exception(error)

    def reported(self, task: Task, /) -> object:
        pass

    def want(self, task: Task) -> None:
        pass

    def start_waiting(self, task: Task, timeout: float | None) -> None:
        pass

    def start_awaiting(
        self, task: Task, also: t.Iterable[Task] = (), *, has_timeout: bool = False
    ) -> None:
        pass

    def now(self) -> float:
        return 0.0


bare_owner: _BareOwner = _BareOwner()


def submit_bare(
    self: t.Any, fn: t.Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any
) -> Future[t.Any]:
    """Run a call without a context, as the standard library's pools do.

    It is the ``submit`` of a pool, for people who use the pool itself.
    """
    future: Future[t.Any] = Future()
    call = Call(fn, args, kwargs)
    self.prepare(call)
    self.enqueue(Task(future, call, bare_owner))
    return future
