"""Looks at what is left after the kills, and says what must not be."""

from __future__ import annotations

import json
import time
import typing as t
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from crash_site import LEASE, Site
from sqlalchemy import text

from flask_executor.stores.records import OPEN
from flask_executor.stores.sql import SqlStore


class Judge:
    """Looks at the store and the effects.

    :param accepted: job and key of each task that was accepted, by id.
    """

    def __init__(self, site: Site, accepted: dict[str, tuple[str, str]]) -> None:
        self._site = site
        self._accepted = accepted
        self._store: t.Any = SqlStore(site.url)
        self.faults: list[str] = []
        self.epochs: dict[str, list[int]] = defaultdict(list)
        """The claims under which each task has run."""
        self._ends: Counter[str] = Counter()

    def wait_for_the_end(self) -> None:
        """Wait until nothing is open that was accepted, three leases at most."""
        deadline = time.monotonic() + 3 * LEASE
        while left := self._open():
            if time.monotonic() > deadline:
                self.faults.append(f"open after three leases: {left}")
                return
            time.sleep(0.2)

    def _open(self) -> list[str]:
        open_ = [one.uid for s in OPEN for one in self._store.tasks(state=s, limit=500)]
        return [uid for uid in open_ if uid in self._accepted]

    def look(self) -> None:
        """Note what is wrong."""
        for line in self._site.effects.read_text().splitlines():
            what, uid, epoch, _ = line.split()
            if what == "ran":
                self.epochs[uid].append(int(epoch))
            else:
                self._ends[uid] += 1
        for uid, (job, key) in self._accepted.items():
            self._look_at(uid, job, key)
        if not self._ends:
            self.faults.append("nobody has noted an end")
        self._look_at_ticks()
        self._store.close()

    def _look_at(self, uid: str, job: str, key: str) -> None:
        record, epochs = self._store.get("uid", uid), self.epochs[uid]
        if record is None:
            self.faults.append(f"{job} {key} was accepted, and is gone")
            return
        is_saved_work = job == "again"
        faults = {
            f"is {record.state}": record.finished is None,
            f"ended as {record.state}": is_saved_work and record.state != "succeeded",
            "had no effect": is_saved_work and not epochs,
            f"ran {len(epochs)} times": not is_saved_work and len(epochs) > 1,
            f"ended {self._ends[uid]} times": self._ends[uid] > 1,
            "was finished by an older claim": self._is_stale(uid, record, epochs),
        }
        self.faults += [
            f"{job} {key} {fault}" for fault, holds in faults.items() if holds
        ]

    def _is_stale(self, uid: str, record: t.Any, epochs: list[int]) -> bool:
        if record.state != "succeeded":
            return False
        [epoch] = self._read(
            "SELECT epoch FROM executor_task WHERE uid = :uid", uid=uid
        )
        return t.cast(int, epoch[0]) < max(epochs, default=0)

    def _look_at_ticks(self) -> None:
        """Each tick has one task, and each of these tasks one tick."""
        ticks = self._read("SELECT at, task_id FROM executor_tick")
        tasks = self._read("SELECT id FROM executor_task WHERE job = 'tick'")
        if not ticks:
            self.faults.append("there was no tick")
        if len({at for at, _ in ticks}) != len(ticks):
            self.faults.append("a tick came twice")
        if {id for _, id in ticks} != {id for (id,) in tasks}:
            self.faults.append("a tick has no task, or a task no tick")

    def _read(self, statement: str, **values: t.Any) -> list[t.Any]:
        with self._store.database.engine.connect() as db:
            return [*db.execute(text(statement), values)]

    def compare(self, keys: list[str]) -> None:
        """Note the keys of which the processes say different things."""
        for key in keys:
            said = {self._site.ask("GET", f"/state/{key}") for _ in range(8)}
            if len(said) != 1:
                self.faults.append(f"the processes do not agree on {key}: {said}")

    def pop(self, keys: list[str]) -> None:
        """Pop keys on several threads; note those that were not popped once."""
        for key in keys:
            ask = partial(self._site.ask, "POST", f"/pop/{key}")
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(ask) for _ in range(4)]
            answers = [one.result() for one in asked]
            won = sum(json.loads(one)["won"] for one in answers if one is not None)
            if won != 1:
                self.faults.append(f"{key} was popped {won} times")
