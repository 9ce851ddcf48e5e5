"""The contract of a store: what remembers tasks beyond their process.

What every method promises:

- It may be called on any thread. After a fork the child has a store of its own: nothing
  that the parent was about to write is written twice.
- Each method changes all it says or nothing. It is safe beside any number of other
  processes that do the same at the same time.
- All times are those of the database's clock.
- A method that needs the database and cannot have it raises :exc:`.StoreUnavailable`
  within seconds. Nothing hangs.

Methods that return a future are *queued*. One thread per process commits what came
meanwhile in one transaction, and ends the futures after the commit, in order. A
callback of such a future runs on that thread, so it must be quick and must not wait for
the store. While nobody else writes, :meth:`.Work.insert` commits on the calling thread,
and its future has ended when it returns. All other methods work on the thread that
calls them.

*Synced* means: on the disk when it returns, or when its future ends, so that a power
cut does not undo it. What is not synced survives the death of every process, but
perhaps not a power cut.

*Fenced* means: the write is refused, with None or False, if the worker does not have
the task any more: it was declared dead, or somebody else has ended the task.
"""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod
from concurrent.futures import Future

from .lookups import By as By
from .lookups import Lookups as Lookups
from .records import (
    Begun,
    Claimed,
    Fence,
    Finish,
    Inserted,
    NewTask,
    Orphan,
    Reaped,
    Record,
    Renewed,
    RetryLater,
    State,
    Taken,
    WorkerRecord,
)

T = t.TypeVar("T")
Outcome = Inserted | Taken


class Workers(ABC):
    """The leases of processes, and what becomes of tasks whose process is gone.

    None of this is queued or synced: a lease must not wait for other writes.
    """

    @abstractmethod
    def join(
        self,
        me: str,
        *,
        lease: float,
        host: str = "",
        pid: int = 0,
        code_version: str | None = None,
        info: t.Any = None,
    ) -> None:
        """Register a worker under a random id that was never used before.

        :param lease: seconds after which it is dead, unless it renews.
        :param info: what it shows of itself: slots, busy, queue.
        """

    @abstractmethod
    def renew(self, me: str, *, lease: float, info: t.Any = None) -> Renewed | None:
        """Renew a lease; return None if this worker was declared dead or has left.

        Then it must take a new id, and begin nothing that it has claimed.
        A lease that is over can be renewed until somebody has declared the worker dead.
        """

    @abstractmethod
    def leave(self, me: str, *, max_lost: int) -> list[Orphan]:
        """End a lease at once, and hand back what the worker has.

        What has not begun waits for other workers; it does not count as lost. What has
        begun is treated as after a death.
        """

    @abstractmethod
    def reap(self, max_lost: int) -> Reaped:
        """Declare workers dead whose lease is over, and take up what they had.

        It looks at every task without a living owner, up to some hundreds; call it
        again while it returns orphans. By guarantee:

        - at least once: waits again, with ``lost`` raised by one if it had begun, and
          to one if that is not known. If it had begun, and ``lost`` reaches
          ``max_lost``, it fails.
        - at most once: waits again if it had not begun, and is ``interrupted`` if it
          had.
        - ephemeral: is ``interrupted``.
        """

    @abstractmethod
    def reconcile(
        self, me: str, known: t.Iterable[int], *, older: float, max_lost: int
    ) -> list[Orphan]:
        """Give up what is mine in the store, and unknown to me.

        A commit whose reply was lost leaves such tasks.

        :param known: the ids of the tasks that this worker knows to be its own; read
            within the transaction, which may have waited long for its turn.
        :param older: only tasks that were claimed this many seconds ago.
        """

    @abstractmethod
    def ask(self, worker: str, what: str) -> bool:
        """Ask a worker, at its next renewal; return False if it is not alive.

        What it has answered before is gone then.
        """

    @abstractmethod
    def answer(self, me: str, answer: str) -> None:
        """Answer what :meth:`renew` has returned."""

    @abstractmethod
    def worker(self, id: str) -> WorkerRecord | None:
        """Return one worker, alive or not, with its answer; None if it is unknown."""

    @abstractmethod
    def workers(self, *, alive: bool = True, limit: int = 1000) -> list[WorkerRecord]:
        """Return the workers, newest first, without their answers."""


class Work(ABC):
    """Tasks from submit to their end."""

    @abstractmethod
    def insert(self, tasks: t.Sequence[NewTask]) -> Future[list[Outcome]]:
        """Insert tasks in one transaction. Queued; synced.

        Each is either inserted or :class:`.Taken`. With :exc:`.StoreUnavailable` none
        was accepted: if the reply to the commit was lost, what has not begun is removed
        as soon as the database is back.
        """

    @abstractmethod
    def claim(
        self,
        me: str,
        jobs: t.Collection[str],
        limit: int,
        *,
        only: t.Collection[str] | None = None,
    ) -> Future[list[Claimed]]:
        """Claim up to ``limit`` waiting tasks of these jobs, unless paused. Queued.

        The most urgent come first; among equals the oldest. None, if ``me`` is dead.

        :param only: the ``uid`` of each task that may be claimed, or None.
        """

    @abstractmethod
    def promote(self, limit: int = 500) -> int:
        """Let tasks wait that have become due; return how many."""

    @abstractmethod
    def next_due(self) -> float | None:
        """Return in how many seconds the next task becomes due, or None."""

    @abstractmethod
    def begin(self, fence: Fence, *, synced: bool) -> Future[Begun | None]:
        """Note that an attempt begins. Queued; fenced.

        None also means that the task was asked to stop: then end it as cancelled.

        :param synced: for who waits for it before the call, as an at-most-once task
            must. Otherwise the attempt may have begun already, so the begin is kept and
            written later if the database is away; if it is refused, stop that run.
        """

    @abstractmethod
    def retry_later(self, retry: RetryLater) -> Future[bool]:
        """Note that an attempt has failed, and when the next is due. Queued; fenced.

        Any worker may run that; an ephemeral task stays with its owner. It is kept and
        written later if the database is away.
        """

    @abstractmethod
    def release(self, fence: Fence) -> Future[bool]:
        """Hand back a claimed task that has not begun. Queued; fenced."""

    @abstractmethod
    def finish(self, finish: Finish) -> Future[bool]:
        """Write the end of a task, and its result. Queued; synced; fenced.

        It is kept and written later if the database is away. False: the end is stale,
        drop the result. To write the same end again is True.
        """

    @abstractmethod
    def progress(self, fence: Fence, progress: t.Any) -> Future[bool]:
        """Write the progress of a running task. Queued; fenced."""

    @abstractmethod
    def cancel(self, uid: str) -> State | None:
        """Cancel a task from anywhere. Synced.

        What nobody has claimed is cancelled at once. Otherwise its owner is asked to
        stop, and finds it in :meth:`asked`.

        :return: the state it now has; None if it is unknown or had ended.
        """

    @abstractmethod
    def asked(self, me: str) -> list[Fence]:
        """Return which of my tasks were asked to stop, and have not ended."""

    @abstractmethod
    def pop(self, key: str) -> Record | None:
        """Free a key, and return its task; None for all except one caller. Synced."""


class Upkeep(ABC):
    """Groups, periodic jobs, and keeping the tables small."""

    @abstractmethod
    def open_group(self, name: str) -> int:
        """Make a group, and return its id. Synced."""

    @abstractmethod
    def close_group(self, id: int) -> None:
        """Note that no more members come."""

    @abstractmethod
    def pause(self, job: str) -> None:
        """Let nobody claim tasks of this job."""

    @abstractmethod
    def resume(self, job: str) -> None:
        """Let tasks of this job be claimed again."""

    @abstractmethod
    def schedule(
        self, job: str, spec: str, timezone: str | None, next: float | None
    ) -> None:
        """Store what a periodic job is, and when it is next due."""

    @abstractmethod
    def tick(self, job: str, at: float, task: NewTask | None) -> Outcome | None:
        """Note a tick of a periodic job, and insert its task. Synced.

        :param task: None notes a tick that is skipped.
        :return: what :meth:`insert` returns; None if the tick was noted before.
        """

    @abstractmethod
    def prune(self, keep: t.Mapping[str, float | None], limit: int = 500) -> int:
        """Remove what has ended long ago; return how many tasks. Some per call.

        :param keep: seconds per state; None, or no entry, keeps them.
        """

    @abstractmethod
    def forsake(self, jobs: t.Collection[str], *, older: float) -> int:
        """End waiting tasks of unknown jobs as failed; return how many. Some per call.

        A job is unknown if it is none of these, and no worker has claimed a task of it
        in all that time.

        :param older: only tasks that have waited for this many seconds.
        """

    @abstractmethod
    def now(self) -> float:
        """Return the time of the database."""

    @abstractmethod
    def wait(self, future: Future[T]) -> T:
        """Return the outcome of a queued write, once it is committed.

        :raises StoreUnavailable: after some seconds in which nothing could be written.
        """

    @abstractmethod
    def flush(self) -> None:
        """Write the statistics collected so far. Queued; called every few seconds."""

    def settle(self, timeout: float) -> bool:
        """Wait until what was queued so far is written; False if it took too long."""
        return True  # a store without a queue has written it

    @abstractmethod
    def watch(self, changed: t.Callable[[], object]) -> t.Callable[[], None]:
        """Call ``changed`` soon after something has changed, and now and then.

        It is called on a thread of the store, never twice at once. What it raises is
        dropped. It may come without a change; a change in this process may come late.

        :return: a function that ends it.
        """

    @abstractmethod
    def close(self, timeout: float | None = None) -> bool:
        """Write what is queued, and disconnect; return False if that took too long."""


class Store(Workers, Work, Lookups, Upkeep):
    """All that a store can do; see the text of the module."""
