"""Tasks and workers: which statement runs where, and what is synced."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future

from sqlalchemy import Connection

from ..base import Outcome, Work, Workers
from ..errors import StoreUnavailable
from ..records import (
    Begun,
    Claimed,
    Fence,
    Finish,
    NewTask,
    Orphan,
    Reaped,
    Record,
    Renewed,
    RetryLater,
    State,
    WorkerRecord,
)
from .claims import ClaimRequest, Claims
from .core import Core
from .ends import Ends, Progress
from .inserts import Inserts
from .queues import Queues
from .stats import Stats
from .workers import Leases


class SqlWorkers(Core, Workers):
    """The leases of processes."""

    def _prepare(self) -> None:
        super()._prepare()
        self._stats = Stats(self.sql)
        self._ends = Ends(self.sql, self._stats)
        self._leases = Leases(self.sql, self._ends)

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
        """Register a worker."""
        facts = {"host": host, "pid": pid, "code_version": code_version, "info": info}
        self._write_here(lambda db: self._leases.join(db, me, lease, **facts))

    def renew(self, me: str, *, lease: float, info: t.Any = None) -> Renewed | None:
        """Renew a lease; None if the worker is dead."""
        return self._write_here(lambda db: self._leases.renew(db, me, lease, info))

    def leave(self, me: str, *, max_lost: int) -> list[Orphan]:
        """End a lease at once, and hand back what the worker has."""
        return self._told(
            self._write_here(lambda db: self._leases.leave(db, me, max_lost))
        )

    def reap(self, max_lost: int) -> Reaped:
        """Declare workers dead whose lease is over, and take up what they had."""
        reaped = self._write_here(lambda db: self._leases.reap(db, max_lost))
        return Reaped(reaped.workers, self._told(reaped.orphans))

    def reconcile(
        self, me: str, known: t.Iterable[int], *, older: float, max_lost: int
    ) -> list[Orphan]:
        """Give up what is mine in the store, and unknown to me."""
        return self._told(
            self._write_here(
                lambda db: self._leases.reconcile(db, me, known, older, max_lost)
            )
        )

    def _told(self, orphans: list[Orphan]) -> list[Orphan]:
        if orphans:
            self.announce()
        return orphans

    def ask(self, worker: str, what: str) -> bool:
        """Ask a worker; False if it is not alive."""
        asked = self._write_here(lambda db: self._leases.ask(db, worker, what))
        self.announce()
        return asked

    def answer(self, me: str, answer: str) -> None:
        """Answer what a renewal has returned."""
        self._write_here(lambda db: self._leases.answer(db, me, answer))
        self.announce()

    def worker(self, id: str) -> WorkerRecord | None:
        """Return one worker, with its answer, or None."""
        return self._read(lambda db: self._leases.worker(db, id))

    def workers(self, *, alive: bool = True, limit: int = 1000) -> list[WorkerRecord]:
        """Return the workers, newest first, without their answers."""
        return self._read(lambda db: self._leases.workers(db, alive, limit))


class SqlWork(SqlWorkers, Work):
    """Tasks from submit to their end."""

    def _prepare(self) -> None:
        super()._prepare()
        self._inserts = Inserts(self.sql, self._ends)
        self._claims = Claims(self.sql)
        self._queues = Queues(self.sql, self._ends)

    def insert(self, tasks: t.Sequence[NewTask]) -> Future[list[Outcome]]:
        """Insert tasks in one transaction."""
        # Nobody else can do anything about what this process holds.
        told = any(task.owner is None for task in tasks)
        future = self._queue(
            self._insert_all, tasks, synced=True, announced=told, awaited=True
        )
        uids = [task.uid for task in tasks]
        future.add_done_callback(lambda done: self._withdraw(done, uids))
        return future

    def insert_with(self, db: Connection, tasks: t.Sequence[NewTask]) -> list[Outcome]:
        """Insert tasks in the transaction of somebody else's connection.

        They are there when that commits. Nobody is told: call :meth:`announce` then.

        :raises StoreUnavailable: if the database is away, or somebody else has the lock
            for too long.
        """
        try:
            self._setup_with(db)
            return self._inserts.insert(db, tasks)
        except Exception as error:
            raise self.database.explained(error) from error

    def _insert_all(
        self, db: Connection, values: t.Sequence[t.Sequence[NewTask]]
    ) -> list[list[Outcome]]:
        outcomes = iter(self._inserts.insert(db, [one for v in values for one in v]))
        return [[next(outcomes) for _ in value] for value in values]

    def _withdraw(self, future: Future[t.Any], uids: list[str]) -> None:
        # The commit may have arrived, and only its reply not. Nobody was told of these
        # tasks, so they must not run.
        if future.cancelled() or not isinstance(future.exception(), StoreUnavailable):
            return
        if self._writer.is_open:
            self._queue(self._queues.withdraw, uids, must=True)

    def claim(
        self,
        me: str,
        jobs: t.Collection[str],
        limit: int,
        *,
        only: t.Collection[str] | None = None,
    ) -> Future[list[Claimed]]:
        """Claim waiting tasks of these jobs."""
        uids = None if only is None else tuple(only)
        request = ClaimRequest(me, tuple(jobs), limit, uids)
        return self._queue(self._claims.claim, request)

    def promote(self, limit: int = 500) -> int:
        """Let tasks wait that have become due; return how many."""
        promoted = self._write_here(lambda db: self._queues.promote(db, limit))
        if promoted:
            self.announce()
        return promoted

    def next_due(self) -> float | None:
        """Return in how many seconds the next task becomes due, or None."""
        return self._read(self._queues.next_due)

    def begin(self, fence: Fence, *, synced: bool) -> Future[Begun | None]:
        """Note that an attempt begins."""
        how = {"synced": synced, "must": not synced}
        return self._queue(self._claims.begin, fence, fence.id, **how)

    def retry_later(self, retry: RetryLater) -> Future[bool]:
        """Note that an attempt has failed, and when the next is due."""
        about = retry.fence.id
        return self._queue(
            self._ends.retry_later, retry, about, must=True, announced=True
        )

    def release(self, fence: Fence) -> Future[bool]:
        """Hand back a claimed task that has not begun."""
        return self._queue(self._ends.release, fence, fence.id, announced=True)

    def finish(self, finish: Finish) -> Future[bool]:
        """Write the end of a task, and its result."""
        about = finish.fence.id
        return self._queue(
            self._ends.finish, finish, about, synced=True, must=True, announced=True
        )

    def progress(self, fence: Fence, progress: t.Any) -> Future[bool]:
        """Write the progress of a running task."""
        report = Progress(fence, progress)
        return self._queue(self._ends.progress, report, fence.id, announced=True)

    def cancel(self, uid: str) -> State | None:
        """Cancel a task from anywhere."""
        cancelled: Future[State | None] = self._queue(
            self._ends.cancel, uid, synced=True, announced=True, awaited=True
        )
        return self.wait(cancelled)

    def asked(self, me: str) -> list[Fence]:
        """Return which of my tasks were asked to stop, and have not ended."""
        return self._read(lambda db: self._queues.asked(db, me))

    def pop(self, key: str) -> Record | None:
        """Free a key, and return its task; None for all except one caller."""
        popped: Future[Record | None] = self._queue(
            self._queues.pop, key, synced=True, announced=True, awaited=True
        )
        return self.wait(popped)
