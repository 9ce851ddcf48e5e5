"""What the store knows that explains why a task does not run."""

from __future__ import annotations

import dataclasses
import typing as t

from ..stores.records import Record, WorkerRecord
from ..verbs.reasons import Facts

_MOST_READ = 20
"""How many running tasks are read in order to name some."""


class Asking:
    """Collects the facts about a task that does not run in this process.

    What is known of the workers of other processes is as old as the last renewal of
    their lease.

    :param node: reads the store.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node

    def alive(self) -> list[WorkerRecord]:
        """Return the processes whose lease is not over, newest first."""
        now, found = self._node.store.now(), self._node.store.workers()
        return [self._fresh(worker) for worker in found if worker.lease_until > now]

    def _fresh(self, worker: WorkerRecord) -> WorkerRecord:
        """Return a process as it is now, if it is this one."""
        if worker.id != self._node.presence.me:
            return worker
        return dataclasses.replace(worker, info=self._node.info())

    def facts(self, record: Record) -> Facts:
        """Return what may be in the way of a task.

        :raises StoreUnavailable: if the database is away.
        """
        due = record.due
        is_timed = due is not None and record.state in ("delayed", "retrying")
        more: dict[str, t.Any] = {}
        if is_timed:
            more["due_in"] = t.cast(float, due) - self._node.store.now()
        if record.finished is None:
            more |= self._of_owned(record) if record.owner else self._of_free(record)
        return Facts(
            name=record.name,
            state=record.state,
            error_class=record.error_class,
            attempt=record.attempt,
            cancel=record.cancel,
            job=record.job or record.name,
            **more,
        )

    def _of_owned(self, record: Record) -> dict[str, t.Any]:
        """Return what the process that has a task does."""
        mine = [worker for worker in self.alive() if worker.id == record.owner]
        if not mine:
            known = self._node.store.workers(alive=False)
            gone = [worker for worker in known if worker.id == record.owner]
            process = place_of(gone[0]) if gone else "that is not known any more"
            is_lost = record.state != "running"
            return {"process": process, "is_lost": is_lost}
        [worker] = mine
        info = worker.info or {}
        facts: dict[str, t.Any] = {"process": place_of(worker)}
        if record.job in info.get("full", ()):
            names = self._running(job=record.job)
            return facts | {"limit_reached": True, "limited_by": names}
        return facts | self._of_pools([worker])

    def _of_free(self, record: Record) -> dict[str, t.Any]:
        """Return what the processes do that may claim a task."""
        store, alive = self._node.store, self.alive()
        runners = [worker for worker in alive if (worker.info or {}).get("runs")]
        knowing = [one for one in runners if record.job in one.info.get("jobs", ())]
        facts: dict[str, t.Any] = {
            "paused": record.job in store.paused(),
            "runners": len(runners),
            "knowing": len(knowing),
        }
        if knowing and record.state == "waiting":
            facts["locked"] = store.is_locked(record.id)
            facts["ahead"] = store.ahead(record.id)
            facts |= self._of_pools(knowing)
        return facts

    def _of_pools(self, workers: t.Sequence[WorkerRecord]) -> dict[str, t.Any]:
        """Return with what the pools of some processes are busy, if all are."""
        slots = [worker.info.get("slots") for worker in workers]
        busy = [worker.info.get("busy", 0) for worker in workers]
        pairs = zip(slots, busy, strict=True)
        if not all(most is not None and now >= most for most, now in pairs):
            return {}
        owners = {worker.id for worker in workers}
        names = self._running(owners=owners)
        return {"is_busy": True, "slots": sum(slots), "busy_with": names}

    def _running(
        self, *, job: str | None = None, owners: t.Collection[str] | None = None
    ) -> list[str]:
        store = self._node.store
        found = store.tasks(state="running", job=job, limit=_MOST_READ)
        return [one.name for one in found if owners is None or one.owner in owners]


def place_of(worker: WorkerRecord) -> str:
    """Return where a worker is, for people."""
    return f"{worker.host}:{worker.pid}"
