"""Any order of the verbs, by three processes, against a simple model."""

from __future__ import annotations

import itertools
import typing as t
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from stores import LEASE, HandClock, done, new

from flask_executor.stores.records import ENDS, Fence, Finish, Inserted, RetryLater
from flask_executor.stores.sql import SqlStore

MAX_LOST = 2
GUARANTEES = ("at_least_once", "at_most_once", "ephemeral")
guarantees = st.sampled_from(GUARANTEES)
ends = st.sampled_from(("succeeded", "failed", "cancelled"))


@dataclass
class Task:
    """A task as the model has it."""

    id: int
    uid: str
    guarantee: str
    state: str
    priority: int
    owner: str | None
    epoch: int = 0
    attempt: int = 0
    lost: int = 0
    cancel: bool = False
    due: float = 0.0
    claimed: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.state not in ENDS

    def has(self, fence: Fence) -> bool:
        return self.is_open and (self.owner, self.epoch) == (fence.owner, fence.epoch)

    def settle(self, if_unknown: int) -> None:
        """Its worker is gone."""
        runs = self.state == "running"
        durable = self.guarantee == "at_least_once"
        if self.cancel and (durable or not runs):
            self.state = "cancelled"
        elif durable and runs and self.lost + 1 >= MAX_LOST:
            self.state = "failed"
        elif self.cancel or (runs and not durable) or self.guarantee == "ephemeral":
            self.state = "interrupted"
        else:
            self.state, self.owner = "waiting", None
        if durable:
            self.lost = self.lost + 1 if runs else (self.lost or if_unknown)
        self.epoch += 1


class Machine(RuleBasedStateMachine):
    """What three processes may do in any order."""

    store: SqlStore
    clock: HandClock
    workers = Bundle("workers")
    fences = Bundle("fences")
    _names = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.job = f"job-{next(self._names)}"
        self.tasks: dict[int, Task] = {}
        self.leases: dict[str, float] = {}

    def teardown(self) -> None:
        for table in ("task", "worker", "payload", "attempt"):
            self.sql(f"DELETE FROM {{{table}}}")

    def sql(self, statement: str) -> list[t.Any]:
        made = self.store.sql.text(statement)
        return self.store.database.write(
            lambda db: self.store.sql.run(db, made), synced=False
        )

    @property
    def open_tasks(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.is_open]

    @rule(target=workers)
    def join(self) -> t.Any:
        if len(self.leases) == 3:
            return multiple()
        name = f"worker-{next(self._names)}"
        self.store.join(name, lease=LEASE)
        self.leases[name] = self.clock.now + LEASE
        return name

    @rule(target=fences, owner=workers, guarantee=guarantees, later=st.booleans())
    def insert_held(self, owner: str, guarantee: t.Any, later: bool) -> Fence:
        delay = 5.0 if later and guarantee == "ephemeral" else None
        task = self.insert(guarantee, 0, delay, owner)
        return Fence(task.id, owner, 1)

    @rule(
        guarantee=st.sampled_from(GUARANTEES[:2]),
        priority=st.sampled_from((0, 1)),
        later=st.booleans(),
    )
    def insert_waiting(self, guarantee: t.Any, priority: int, later: bool) -> None:
        self.insert(guarantee, priority, 5.0 if later else None, None)

    def insert(
        self, guarantee: t.Any, priority: int, delay: float | None, owner: str | None
    ) -> Task:
        given = {"guarantee": guarantee, "priority": priority, "delay": delay}
        task = new(self.job, owner=owner, **given)
        [outcome] = done(self.store.insert([task]))
        assert isinstance(outcome, Inserted)
        state = "delayed" if delay else "held" if owner else "waiting"
        made = Task(outcome.id, task.uid, guarantee, state, priority, owner)
        made.due = self.clock.now + (delay or 0)
        if owner:
            made.epoch, made.claimed = 1, self.clock.now
        self.tasks[made.id] = made
        return made

    @rule(target=fences, me=workers, limit=st.sampled_from((1, 3)))
    def claim(self, me: str, limit: int) -> t.Any:
        waiting = [task for task in self.open_tasks if task.state == "waiting"]
        waiting.sort(key=lambda task: (-task.priority, task.id))
        expected = waiting[:limit] if me in self.leases else []
        for task in expected:
            task.state, task.owner = "held", me
            task.epoch, task.claimed = task.epoch + 1, self.clock.now
        claimed = done(self.store.claim(me, [self.job], limit))
        fences = [Fence(task.id, me, task.epoch) for task in expected]
        assert [one.fence for one in claimed] == fences
        return multiple(*fences)

    @rule(fence=fences)
    def begin(self, fence: Fence) -> None:
        task = self.tasks[fence.id]
        right = task.has(fence) and fence.owner in self.leases and not task.cancel
        right = right and task.state in ("held", "delayed", "retrying")
        if right:
            task.state, task.attempt = "running", task.attempt + 1
        begun = done(self.store.begin(fence, synced=False))
        assert (begun is not None) == right
        assert begun is None or begun.attempt == task.attempt

    @rule(fence=fences, state=ends)
    def finish(self, fence: Fence, state: t.Any) -> None:
        task = self.tasks[fence.id]
        again = (task.owner, task.epoch) == (fence.owner, fence.epoch)
        right = task.has(fence) or (again and task.state == state)
        if task.has(fence):
            task.state = state
        assert done(self.store.finish(Finish(fence=fence, state=state))) == right

    @rule(fence=fences)
    def retry_later(self, fence: Fence) -> None:
        task = self.tasks[fence.id]
        right = task.has(fence) and task.state == "running"
        if right:
            task.state, task.due = "retrying", self.clock.now + 5
            task.owner = task.owner if task.guarantee == "ephemeral" else None
        assert done(self.store.retry_later(RetryLater(fence=fence, pause=5))) == right

    @rule(fence=fences)
    def release(self, fence: Fence) -> None:
        task = self.tasks[fence.id]
        right = task.has(fence) and task.state == "held"
        right = right and task.guarantee != "ephemeral"
        if right:
            task.state = "cancelled" if task.cancel else "waiting"
            task.owner = None
        assert done(self.store.release(fence)) == right

    @rule(choose=st.randoms(use_true_random=False))
    def cancel(self, choose: t.Any) -> None:
        if not self.tasks:
            return
        task = choose.choice([*self.tasks.values()])
        expected = None
        if task.is_open:
            task.cancel = True
            task.state = task.state if task.owner else "cancelled"
            expected = task.state
        assert self.store.cancel(task.uid) == expected

    @rule(seconds=st.sampled_from((1.0, 6.0, LEASE + 1)))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def promote(self) -> None:
        due = [
            task
            for task in self.open_tasks
            if task.state in ("delayed", "retrying")
            and task.owner is None
            and task.due <= self.clock.now
        ]
        for task in due:
            task.state = "waiting"
        assert self.store.promote() == len(due)

    @rule(me=workers)
    def renew(self, me: str) -> None:
        assert (self.store.renew(me, lease=LEASE) is not None) == (me in self.leases)
        if me in self.leases:
            self.leases[me] = self.clock.now + LEASE

    @rule()
    def reap(self) -> None:
        dead = {me for me, until in self.leases.items() if until < self.clock.now}
        for me in dead:
            del self.leases[me]
        orphans = [
            task
            for task in self.open_tasks
            if task.owner is not None and task.owner not in self.leases
        ]
        for task in orphans:
            task.settle(if_unknown=1)
        reaped = self.store.reap(MAX_LOST)
        assert {*reaped.workers} == dead
        assert {one.uid for one in reaped.orphans} == {task.uid for task in orphans}

    @rule(me=workers)
    def leave(self, me: str) -> None:
        if self.leases.pop(me, None) is not None:
            for task in self.open_tasks:
                if task.owner == me:
                    task.settle(if_unknown=0)
        self.store.leave(me, max_lost=MAX_LOST)

    @rule(me=workers, known=st.sets(st.integers(0, 4)))
    def reconcile(self, me: str, known: set[int]) -> None:
        ids = {id for n, id in enumerate(self.tasks) if n in known}
        for task in self.open_tasks:
            is_old = task.claimed < self.clock.now
            if task.owner == me and is_old and task.id not in ids:
                task.settle(if_unknown=1)
        self.store.reconcile(me, ids, older=0, max_lost=MAX_LOST)

    @invariant()
    def the_store_is_the_model(self) -> None:
        """Every task is in the state that the model has for it."""
        rows = self.sql("SELECT id, state, owner, epoch, attempt, lost FROM {task}")
        found = {row.id: tuple(row)[1:] for row in rows}
        expected = {
            task.id: (task.state, task.owner, task.epoch, task.attempt, task.lost)
            for task in self.tasks.values()
        }
        assert found == expected


def run(store: SqlStore, clock: HandClock, examples: int) -> None:
    store.setup()
    machine = type("OneStore", (Machine,), {"store": store, "clock": clock})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # making a failure smaller takes minutes
            suppress_health_check=[*HealthCheck],
        ),
    )


def test_any_order_on_sqlite(
    stores: t.Callable[..., SqlStore], sqlite_url: str, clock: HandClock
) -> None:
    """Whatever three processes do, in any order, SQLite and the model agree."""
    run(stores(sqlite_url, clock=clock), clock, 30)


def test_any_order_on_postgresql(
    stores: t.Callable[..., SqlStore], postgresql_url: str, clock: HandClock
) -> None:
    """Whatever three processes do, in any order, PostgreSQL and the model agree."""
    run(stores(postgresql_url, clock=clock), clock, 15)
