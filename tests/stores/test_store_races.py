"""Two processes at the same row: one is first, and the other finds what it has left.

A test holds a transaction open, lets another process do something about the same rows
until that waits or is ready, and commits. PostgreSQL locks rows, SQLite the file; what
holds afterwards is the same.
"""

from __future__ import annotations

import threading
import time
import typing as t
from contextlib import contextmanager

import psycopg
import pytest
from databases import Server
from limits import LIMIT
from sqlalchemy import Connection
from stores import (
    LEASE,
    HandClock,
    claim,
    done,
    finish,
    held,
    insert,
    join,
    new,
    running,
    state_of,
)

from flask_executor.stores.records import Claimed, Finish
from flask_executor.stores.sql import SqlStore, claims, ends, schedules, workers
from flask_executor.stores.sql.claims import ClaimRequest

T = t.TypeVar("T")
ME = ClaimRequest("me", ("mail.send",), 9)


class Beside(t.Generic[T]):
    """A call on a thread of its own, which may have to wait for a transaction."""

    def __init__(self, url: str, call: t.Callable[[], T]) -> None:
        self._url = url
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._until_it_waits()

    def _run(self) -> None:
        self._result = self._call()

    def _until_it_waits(self) -> None:
        deadline = time.monotonic() + LIMIT
        while self._thread.is_alive() and not self._waits():
            assert time.monotonic() < deadline

    def _waits(self) -> bool:
        if self._url.startswith("sqlite"):
            self._thread.join(0.05)
            return True
        url = self._url.replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return connection.execute(waiting).fetchone() is not None

    def result(self) -> T:
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        return self._result


class Race:
    """Two processes with one store, and a transaction that one of them holds open."""

    def __init__(self, store: SqlStore, other: SqlStore, clock: HandClock) -> None:
        self.store = store
        self.other = other
        self.clock = clock
        store.setup()
        other.setup()

    @contextmanager
    def first(self) -> t.Iterator[Connection]:
        """Give a connection; what is done with it comes first."""
        with self.other.database.transaction() as db:
            yield db

    def beside(self, call: t.Callable[[], T]) -> Beside[T]:
        url = self.store.database.url.render_as_string(hide_password=False)
        return Beside(url, call)

    def reap(self, db: Connection) -> None:
        self.other._leases.reap(db, 3)

    def dead_have_nothing(self) -> None:
        """Check that no task has an owner that was declared dead."""
        dead = {w.id for w in self.store.workers(alive=False) if w.state == "dead"}
        assert dead.isdisjoint(
            one.owner
            for one in self.store.tasks()
            if one.state in ("waiting", "running")
        )


@pytest.fixture
def race(store: SqlStore, other: SqlStore, clock: HandClock) -> Race:
    return Race(store, other, clock)


def claim_before_reap(race: Race) -> None:
    """A worker claims, its lease is over, and the reaper comes before the commit."""
    join(race.store, "me")
    insert(race.store, new())
    race.clock.advance(LEASE + 1)
    with race.first() as db:
        [[claimed]] = race.other._claims.claim(db, [ME])
        reaping = race.beside(lambda: race.store.reap(3))
    reaping.result()
    race.dead_have_nothing()
    race.store.reap(3)
    assert not finish(race.store, claimed.fence)


def reap_before_claim(race: Race) -> None:
    """The reaper has declared a worker dead, which claims before the commit."""
    join(race.store, "me")
    insert(race.store, new())
    race.clock.advance(LEASE + 1)
    with race.first() as db:
        race.reap(db)
        claiming = race.beside(lambda: done(race.store.claim(*ME[:3])))
    assert claiming.result() == []
    race.dead_have_nothing()


@pytest.mark.parametrize("scene", [claim_before_reap, reap_before_claim])
def test_no_task_goes_to_a_dead_worker(race: Race, scene: t.Any) -> None:
    """Of the claim and the reaper either may be first: the dead have no task then."""
    scene(race)


@pytest.fixture
def race_of_mutants(
    monkeypatch: pytest.MonkeyPatch,
    postgresql_url: str,
    stores: t.Any,
    clock: HandClock,
) -> t.Callable[[t.Any, str, str, str], Race]:
    """Makes a race in which a statement is changed."""

    def mutate(module: t.Any, name: str, old: str, new: str) -> Race:
        statement = getattr(module, name)
        assert old in statement
        monkeypatch.setattr(module, name, statement.replace(old, new))
        pair = [stores(postgresql_url, clock=clock) for _ in range(2)]
        return Race(*pair, clock)

    return mutate


@pytest.mark.parametrize("scene", [claim_before_reap, reap_before_claim])
def test_a_weaker_lock_would_not_do(race_of_mutants: t.Any, scene: t.Any) -> None:
    """With FOR KEY SHARE instead of FOR SHARE, the dead get tasks."""
    race = race_of_mutants(claims, "POSTGRESQL", "FOR SHARE", "FOR KEY SHARE")
    with pytest.raises(AssertionError):
        scene(race)


def new_owner_during_reap(race: Race) -> None:
    """While a reaper waits, another one reaps, and a new worker claims the task."""
    insert(race.store, new(owner="gone"))
    with race.first() as db:
        race.reap(db)
        facts: t.Any = {"host": "", "pid": 0, "code_version": None, "info": None}
        race.other._leases.join(db, "me", LEASE, **facts)
        [[claimed]] = race.other._claims.claim(db, [ME])
        reaping = race.beside(lambda: race.store.reap(3))
    assert reaping.result().orphans == []
    assert finish(race.store, claimed.fence)


def test_the_living_keep_what_was_reaped_before(race: Race) -> None:
    """A reaper takes nothing from a worker that has joined since it began."""
    new_owner_during_reap(race)


def test_a_reaper_must_test_the_epoch(race_of_mutants: t.Any) -> None:
    """Without it, a reaper takes a task from a worker that it cannot see yet."""
    old = "t.owner = orphan.had\n        AND t.epoch = orphan.at_epoch"
    race = race_of_mutants(workers, "_ORPHANS", old, "t.owner IS NOT NULL")
    with pytest.raises(AssertionError):
        new_owner_during_reap(race)


def late_finish(race: Race) -> None:
    """A worker was frozen, declared dead, and its task claimed again by itself."""
    join(race.store, "me")
    fence = running(race.store, "me")
    race.store.reconcile("me", [], older=-1, max_lost=3)
    again = claim(race.store, "me").fence
    done(race.store.begin(again, synced=True))
    assert not finish(race.store, fence)
    assert finish(race.store, again)


def test_a_late_end_is_stale(race: Race) -> None:
    """The end of an earlier claim is refused, even if the owner is the same."""
    late_finish(race)


def test_a_finish_must_test_the_epoch(race_of_mutants: t.Any) -> None:
    """Without it, the end of an earlier claim is taken."""
    race = race_of_mutants(ends, "_FENCED", " AND t.epoch = g.at_epoch", "")
    with pytest.raises(AssertionError):
        late_finish(race)


def test_reap_before_finish(race: Race) -> None:
    """What a reaper has taken up cannot be ended by its old owner."""
    join(race.store, "me")
    fence = running(race.store, "me")
    race.clock.advance(LEASE + 1)
    with race.first() as db:
        race.reap(db)
        finishing = race.beside(lambda: finish(race.store, fence))
    assert finishing.result() is False
    assert state_of(race.store, fence.id) == "waiting"


def test_finish_before_reap(race: Race) -> None:
    """What has ended is not taken up by a reaper that found it running."""
    join(race.store, "me")
    fence = running(race.store, "me")
    race.clock.advance(LEASE + 1)
    with race.first() as db:
        race.other._ends.finish(db, [Finish(fence=fence, state="succeeded")])
        reaping = race.beside(lambda: race.store.reap(3))
    assert reaping.result().orphans == []
    assert state_of(race.store, fence.id) == "succeeded"


@pytest.mark.parametrize("begins_first", [False, True])
def test_begin_and_reap(race: Race, begins_first: bool) -> None:
    """An at-most-once task that has begun is interrupted; otherwise it cannot begin."""
    join(race.store, "me")
    fence = held(race.store, "me", guarantee="at_most_once")
    race.clock.advance(LEASE + 1)
    with race.first() as db:
        if begins_first:
            assert race.other._claims.begin(db, [fence]) != [None]
            beside: Beside[t.Any] = race.beside(lambda: race.store.reap(3))
        else:
            race.reap(db)
            beside = race.beside(lambda: done(race.store.begin(fence, synced=True)))
    if begins_first:
        beside.result()
        race.store.reap(3)  # it may have passed over a worker that was busy
        assert state_of(race.store, fence.id) == "interrupted"
    else:
        assert beside.result() is None
        assert state_of(race.store, fence.id) == "waiting"


@pytest.mark.parametrize("claims_first", [False, True])
def test_claim_and_cancel(race: Race, claims_first: bool) -> None:
    """A task that is cancelled while it is claimed does not begin."""
    join(race.store, "me")
    [id] = insert(race.store, new(uid="u"))
    with race.first() as db:
        if claims_first:
            [[claimed]] = race.other._claims.claim(db, [ME])
            beside: Beside[t.Any] = race.beside(lambda: race.store.cancel("u"))
        else:
            assert race.other._ends.cancel(db, ["u"]) == ["cancelled"]
            beside = race.beside(lambda: done(race.store.claim(*ME[:3])))
    if claims_first:
        assert beside.result() == "held"
        assert isinstance(claimed, Claimed)
        assert done(race.store.begin(claimed.fence, synced=True)) is None
    else:
        assert beside.result() == []
        assert state_of(race.store, id) == "cancelled"


def ticks_at_once(race: Race) -> None:
    """A process makes a tick while another one has made it, and not committed."""
    with race.first() as db:
        tick = schedules.Tick("job", 60.0, new("job"))
        race.other._schedules.tick(db, [tick])
        ticking = race.beside(lambda: race.store.tick("job", 60.0, new("job")))
    assert ticking.result() is None
    assert len(race.store.tasks(job="job")) == 1


def test_a_tick_is_made_once(race: Race) -> None:
    """Of two processes that make a tick at the same moment one makes its task."""
    ticks_at_once(race)


def test_a_tick_needs_its_unique_row(race_of_mutants: t.Any, server: Server) -> None:
    """Without it, each process makes a task for the tick."""
    old = "ON CONFLICT DO NOTHING"
    race = race_of_mutants(schedules, "TICK", old, "")
    with server.connect() as connection:
        connection.execute(
            "ALTER TABLE executor_tick DROP CONSTRAINT executor_tick_pkey"
        )
    try:
        with pytest.raises(AssertionError):
            ticks_at_once(race)
    finally:
        with server.connect() as connection:
            connection.execute("DELETE FROM executor_tick")
            connection.execute("ALTER TABLE executor_tick ADD PRIMARY KEY (job, at)")


@pytest.mark.parametrize("commits", [False, True])
def test_a_key_waits_for_who_is_inserting_it(race: Race, commits: bool) -> None:
    """If that commits the key is taken; if it is rolled back the key is free."""
    race.store.setup()

    class RolledBack(Exception):
        pass

    try:
        with race.first() as db:
            race.other.insert_with(db, [new(key="k")])
            inserting = race.beside(lambda: done(race.store.insert([new(key="k")])))
            if not commits:
                raise RolledBack
    except RolledBack:
        pass
    [outcome] = inserting.result()
    assert type(outcome).__name__ == ("Taken" if commits else "Inserted")


def test_two_that_wait_for_each_other_both_succeed(
    postgresql_url: str, stores: t.Any, clock: HandClock
) -> None:
    """If two transactions block each other, PostgreSQL ends one, and it is repeated."""
    race = Race(stores(postgresql_url), stores(postgresql_url), clock)
    ids = [insert(race.store, new(uid=uid))[0] for uid in ("a", "b")]
    lock = race.store.sql.text("UPDATE {task} SET meta = '1' WHERE uid = :uid")
    both = threading.Barrier(2)

    def cross(store: SqlStore, *uids: str) -> None:
        tries: list[int] = []

        def op(db: Connection) -> None:
            tries.append(1)
            store.sql.run(db, lock, uid=uids[0])
            if len(tries) == 1:
                both.wait(LIMIT)
            store.sql.run(db, lock, uid=uids[1])

        store.database.write(op)

    threads = [
        threading.Thread(target=cross, args=(race.store, "a", "b")),
        threading.Thread(target=cross, args=(race.other, "b", "a")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert {one.meta for one in race.store.get_many("id", ids)} == {1}
