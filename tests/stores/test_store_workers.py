"""The contract of a store: leases, and what becomes of the tasks of the dead."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from stores import (
    LEASE,
    HandClock,
    claim,
    done,
    finish,
    get,
    held,
    insert,
    join,
    new,
    running,
    state_of,
)

from flask_executor.stores.base import Store
from flask_executor.stores.records import Reaped, RetryLater

MAX_LOST = 3


def reap(store: Store) -> Reaped:
    return store.reap(MAX_LOST)


def let_die(store: Store, clock: HandClock, *workers: str) -> Reaped:
    """Let the leases of all workers be over, and reap."""
    clock.advance(LEASE + 1)
    reaped = reap(store)
    assert {*workers} <= {*reaped.workers}
    return reaped


def test_a_worker_is_shown_with_what_it_says(store: Store, clock: HandClock) -> None:
    """Workers are listed newest first, the dead on request."""
    store.join("a", lease=LEASE, host="h", pid=7, code_version="v", info={"slots": 4})
    [worker] = store.workers()
    assert (worker.id, worker.host, worker.pid) == ("a", "h", 7)
    assert (worker.code_version, worker.info) == ("v", {"slots": 4})
    assert (worker.started, worker.lease_until) == (clock.now, clock.now + LEASE)
    clock.advance(20)
    store.renew("a", lease=LEASE, info={"slots": 5})
    [worker] = store.workers()
    assert (worker.info, worker.lease_until) == ({"slots": 5}, clock.now + LEASE)
    let_die(store, clock, "a")
    store.join("b", lease=LEASE)
    assert [w.id for w in store.workers()] == ["b"]
    states = [(w.id, w.state) for w in store.workers(alive=False)]
    assert states == [("b", "alive"), ("a", "dead")]


def test_a_renewed_lease_keeps_everything(store: Store, clock: HandClock) -> None:
    """A worker is alive by its lease, however long its tasks run."""
    join(store, "me")
    fence = running(store, "me")
    for _ in range(10):
        clock.advance(LEASE - 1)
        assert store.renew("me", lease=LEASE) is not None
        assert reap(store) == ([], [])
    assert finish(store, fence)


def test_a_late_renewal_is_taken_before_the_reaper_comes(
    store: Store, clock: HandClock
) -> None:
    """Death is a state: until somebody has declared it, the lease can be renewed."""
    join(store, "me")
    clock.advance(10 * LEASE)
    assert store.renew("me", lease=LEASE) is not None
    assert reap(store).workers == []
    clock.advance(LEASE + 1)
    assert reap(store).workers == ["me"]
    assert store.renew("me", lease=LEASE) is None


GUARANTEES: list[tuple[str, bool, str, int]] = [
    ("at_least_once", False, "waiting", 1),
    ("at_least_once", True, "waiting", 1),
    ("at_most_once", False, "waiting", 0),
    ("at_most_once", True, "interrupted", 0),
    ("ephemeral", False, "interrupted", 0),
    ("ephemeral", True, "interrupted", 0),
]


@pytest.mark.parametrize(("guarantee", "begun", "state", "lost"), GUARANTEES)
def test_what_the_dead_leave_by_guarantee(
    store: Store,
    clock: HandClock,
    guarantee: t.Any,
    begun: bool,
    state: str,
    lost: int,
) -> None:
    """Each guarantee says what becomes of a task whose worker has died."""
    join(store, "me")
    take = running if begun else held
    fence = take(store, "me", guarantee=guarantee, uid="u", key="k")
    reaped = let_die(store, clock, "me")
    assert reaped.orphans == [("u", "mail.send", "k", state, lost)]
    record = get(store, fence.id)
    assert (record.state, record.lost) == (state, lost)
    assert (record.finished is None) == (state == "waiting")
    told = [(one.end, one.error_text) for one in store.attempts(fence.id)]
    lost_text = "Its worker died before the task had ended."
    assert told == ([("lost", lost_text)] if begun else [])
    assert reap(store) == ([], [])


def test_the_declared_dead_can_change_nothing(store: Store, clock: HandClock) -> None:
    """A worker that was only frozen finds that its begins and ends are refused."""
    join(store, "frozen", "other")
    waits, runs = held(store, "frozen"), running(store, "frozen")
    clock.advance(LEASE + 1)
    store.renew("other", lease=LEASE)
    reap(store)
    assert done(store.begin(waits, synced=True)) is None
    assert not finish(store, runs)
    assert not done(store.progress(runs, [1, 2, ""]))
    assert not done(store.retry_later(RetryLater(fence=runs, pause=0.0)))
    assert not done(store.release(waits))
    assert done(store.claim("frozen", ["mail.send"], 9)) == []
    again = done(store.claim("other", ["mail.send"], 9))
    assert [one.fence.epoch for one in again] == [3, 3]
    assert not finish(store, runs)
    assert finish(store, again[0].fence)


def test_a_task_that_kills_its_workers_ends(store: Store, clock: HandClock) -> None:
    """After ``max_lost`` deaths it has failed, so that it does not kill them all."""
    [id] = insert(store, new())
    for number in range(1, MAX_LOST + 1):
        join(store, f"w{number}")
        done(store.begin(claim(store, f"w{number}").fence, synced=False))
        [orphan] = let_die(store, clock).orphans
        assert orphan.lost == number
    assert orphan.state == state_of(store, id) == "failed"
    assert get(store, id).error_class == "WorkerLost"
    assert len(store.attempts(id)) == MAX_LOST


def test_a_task_that_never_began_does_not_end(store: Store, clock: HandClock) -> None:
    """Tasks that only waited in workers that died are not to blame for it."""
    [id] = insert(store, new())
    for number in range(2 * MAX_LOST):
        join(store, f"w{number}")
        claimed = claim(store, f"w{number}")
        assert claimed.lost == min(number, 1)
        let_die(store, clock)
    assert (state_of(store, id), get(store, id).lost) == ("waiting", 1)


def test_every_orphan_is_found(store: Store) -> None:
    """Also a task whose owner never joined is taken up, and one of long ago."""
    fence = held(store, "nobody")
    assert [orphan.state for orphan in reap(store).orphans] == ["waiting"]
    assert state_of(store, fence.id) == "waiting"


def test_what_was_asked_to_stop_does_not_run_again(
    store: Store, clock: HandClock
) -> None:
    """If its worker dies, a cancelled task ends instead of waiting again."""
    join(store, "me")
    fences = [
        held(store, "me", uid="a"),
        running(store, "me", uid="b"),
        held(store, "me", uid="c", guarantee="at_most_once"),
    ]
    for uid in "abc":
        store.cancel(uid)
    let_die(store, clock)
    assert {state_of(store, fence.id) for fence in fences} == {"cancelled"}


def test_who_leaves_hands_back_what_has_not_begun(store: Store) -> None:
    """It waits for others at once, and is not counted as lost."""
    join(store, "me", "other")
    waits = held(store, "me")
    runs = running(store, "me", guarantee="at_most_once")
    left = running(store, "me", uid="left")
    states = {orphan.state for orphan in store.leave("me", max_lost=MAX_LOST)}
    assert states == {"waiting", "interrupted"}
    assert (state_of(store, waits.id), get(store, waits.id).lost) == ("waiting", 0)
    assert state_of(store, runs.id) == "interrupted"
    assert (state_of(store, left.id), get(store, left.id).lost) == ("waiting", 1)
    assert store.leave("me", max_lost=MAX_LOST) == []
    assert store.renew("me", lease=LEASE) is None
    assert [w.state for w in store.workers(alive=False) if w.id == "me"] == ["left"]


def test_what_a_worker_does_not_know_is_given_up(
    store: Store, clock: HandClock
) -> None:
    """A claim whose reply was lost is undone after a while, and only that."""
    join(store, "me")
    known, unknown = held(store, "me"), held(store, "me")
    clock.advance(9)
    late = held(store, "me")
    clock.advance(2)
    options: dict[str, t.Any] = {"older": 10, "max_lost": MAX_LOST}
    [orphan] = store.reconcile("me", [known.id], **options)
    assert orphan.state == state_of(store, unknown.id) == "waiting"
    assert not done(store.release(unknown))
    assert store.reconcile("me", [known.id, late.id], **options) == []
    assert store.reconcile("me", [], **options)[0].state == "waiting"
    assert done(store.begin(late, synced=True)) is not None


def test_a_worker_is_asked_and_answers(store: Store, other: Store) -> None:
    """Its next renewals bring the question, until it has answered."""
    join(store, "me")
    assert store.renew("me", lease=LEASE) == (None,)
    assert other.ask("me", "stacks")
    assert store.renew("me", lease=LEASE) == ("stacks",)
    store.answer("me", "stack of MainThread")
    assert store.renew("me", lease=LEASE) == (None,)
    found = other.worker("me")
    assert found is not None
    assert (found.answer, found.ask) == ("stack of MainThread", None)
    assert other.workers() == [replace(found, answer=None)]
    assert other.ask("me", "stacks")
    assert store.worker("me") == replace(found, answer=None, ask="stacks")
    assert store.worker("nobody") is None
    assert not other.ask("nobody", "stacks")
