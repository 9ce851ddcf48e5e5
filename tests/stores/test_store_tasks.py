"""The contract of a store: tasks from insert to their end."""

from __future__ import annotations

import typing as t
from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from stores import (
    PAYLOAD,
    RESULT,
    HandClock,
    claim,
    done,
    finish,
    get,
    held,
    insert,
    join,
    new,
    race,
    refused,
    running,
    state_of,
)

from flask_executor.stores.base import Store
from flask_executor.stores.records import Fence, Inserted, RetryLater, Taken
from flask_executor.stores.sql import SqlStore


def test_what_goes_in_comes_out(store: SqlStore, clock: HandClock) -> None:
    """A claim brings everything that was inserted, the payload byte by byte."""
    join(store, "me")
    facts: dict[str, t.Any] = {
        "uid": "abc",
        "name": "a name",
        "guarantee": "at_most_once",
        "key": "s:key",
        "meta": {"owner": [1, None, "é"]},
        "priority": -3,
        "parent": "p",
        "source": {"path": "/"},
        "timeout": 1.5,
        "retry": [3, 1.0],
        "code_version": "v1",
    }
    [id] = insert(store, new("job", **facts))
    claimed = claim(store, "me", ["job"])
    for name, value in facts.items():
        assert getattr(claimed, name) == value, name
    assert claimed.payload == store.payload(id) == PAYLOAD
    assert (claimed.job, claimed.submitted) == ("job", clock.now)
    assert (claimed.attempt, claimed.lost) == (0, 0)
    record = get(store, id)
    for name in facts.keys() - {"retry"}:
        assert getattr(record, name) == facts[name], name


def test_a_result_comes_back_byte_by_byte(store: SqlStore, clock: HandClock) -> None:
    """A task that has succeeded has its result, its size, and its times."""
    join(store, "me")
    fence = held(store, "me")
    clock.advance(1)
    assert done(store.begin(fence, synced=True)) == (1, clock.now)
    clock.advance(2)
    assert finish(store, fence, result=RESULT)
    assert store.result(fence.id) == RESULT
    record = get(store, fence.id)
    assert (record.state, record.result_size) == ("succeeded", 2)
    times = record.submitted, record.begun, record.finished
    assert times == (clock.now - 3, clock.now - 2, clock.now)


def test_an_end_is_written_whatever_its_text(store: Store) -> None:
    """No character in a message or a traceback prevents the end of its task."""
    join(store, "me")
    fence = running(store, "me")
    why = {"error_class": "E", "error_text": "a\0b\ud800c", "traceback": "\0"}
    assert finish(store, fence, "failed", **why)
    record = get(store, fence.id)
    assert (record.error_class, record.error_text) == ("E", "a\ufffdb?c")


def test_a_key_is_taken_once(store: Store, other: Store) -> None:
    """A taken key is refused, with who has it, in any process, also when that ended."""
    join(store, "me")
    fence = held(store, "me", key="k", uid="first")
    assert refused(other, new(key="k")) == Taken("key", "first", "k", "held")
    done(store.begin(fence, synced=True))
    finish(store, fence)
    assert refused(other, new(key="k")).state == "succeeded"


def test_of_many_tasks_only_those_taken_are_refused(store: Store) -> None:
    """Inserting many tasks says of each what became of it, in order."""
    tasks = [new(key="a"), new(key="b"), new(key="a"), new()]
    outcomes = done(store.insert(tasks))
    kinds = [type(one) for one in outcomes]
    assert kinds == [Inserted, Inserted, Taken, Inserted]
    ids = [one.id for one in outcomes if isinstance(one, Inserted)]
    assert ids == sorted(ids)


def test_a_task_is_inserted_once_by_its_uid(store: Store) -> None:
    """To insert a task again, after a lost reply, is the same as once."""
    join(store, "me")
    task = new(owner="me", key="k", unique_key="u")
    first = done(store.insert([task]))
    assert done(store.insert([task])) == first
    assert sum(store.counts().values()) == 1


@pytest.mark.parametrize("field", ["key", "unique_key"])
def test_of_two_that_insert_the_same_one_wins(
    store: Store, other: Store, field: str
) -> None:
    """A key, or a unique task, goes to one of several processes that race for it."""
    for number in range(10):
        name: dict[str, t.Any] = {field: f"k{number}"}
        inserts = [partial(one.insert, [new(**name)]) for one in (store, other)]
        outcomes = [done(future) for future in race(*inserts)]
        kinds = sorted(type(one).__name__ for [one] in outcomes)
        assert kinds == ["Inserted", "Taken"]


def test_a_unique_task_is_one_until_it_has_ended(store: Store) -> None:
    """Another task may take the place of a unique one only when that has ended."""
    join(store, "me")
    fence = running(store, "me", unique_key="u", uid="first")
    assert refused(store, new(unique_key="u")) == ("unique", "first", None, "running")
    retry = RetryLater(fence=fence, pause=5.0)
    assert done(store.retry_later(retry))
    assert refused(store, new(unique_key="u")).state == "retrying"
    store.cancel("first")
    insert(store, new(unique_key="u"))


def test_a_unique_task_can_replace_what_waits(store: Store) -> None:
    """With ``replace`` a task that nobody has is cancelled; one that runs stays."""
    join(store, "me")
    [first] = insert(store, new(unique_key="u"))
    [second] = insert(store, new(unique_key="u", replace=True))
    assert state_of(store, first) == "cancelled"
    assert claim(store, "me").fence.id == second
    assert refused(store, new(unique_key="u", replace=True)).what == "unique"


def test_a_task_may_be_part_of_the_callers_own_transaction(
    store: SqlStore, url: str
) -> None:
    """Rolled back, it was never there; committed, it can be claimed."""
    join(store, "me")
    engine = create_engine(url)  # as the app makes it, with nothing of ours
    with Session(engine) as session:
        store.insert_with(session.connection(), [new(uid="a"), new(key="k")])
        session.rollback()
    assert store.tasks() == []
    with Session(engine) as session:
        store.insert_with(session.connection(), [new(uid="b")])
        with suppress(LookupError), session.begin_nested():
            store.insert_with(session.connection(), [new(uid="c")])
            raise LookupError
        assert store.tasks() == []
        session.commit()
    engine.dispose()
    assert claim(store, "me").uid == "b"
    assert claim_all(store) == []


def claim_all(store: Store) -> list[t.Any]:
    return done(store.claim("me", ["mail.send"], 99))


def test_claims_come_in_order(store: Store) -> None:
    """The most urgent task is claimed first; among equals the oldest."""
    join(store, "me")
    ids = insert(store, new(priority=1), new(priority=2), new(priority=1))
    claimed = done(store.claim("me", ["mail.send"], 10))
    assert [one.fence.id for one in claimed] == [ids[1], ids[0], ids[2]]
    assert done(store.claim("me", ["mail.send"], 10)) == []


def test_only_known_jobs_are_claimed(store: Store) -> None:
    """Code that does not know a job leaves its tasks to others."""
    join(store, "me")
    insert(store, new("old"), new("new"), new("old"))
    assert [c.job for c in done(store.claim("me", ["new", "x"], 10))] == ["new"]
    assert done(store.claim("me", [], 10)) == []


def test_no_task_is_claimed_twice(store: Store, other: Store) -> None:
    """However many processes claim at once, each task goes to one of them."""
    join(store, "a", "b")
    ids = insert(store, *(new() for _ in range(60)))

    def claims(store: Store, me: str) -> list[int]:
        found = [done(store.claim(me, ["mail.send"], 7)) for _ in range(10)]
        return [one.fence.id for some in found for one in some]

    first, second = race(lambda: claims(store, "a"), lambda: claims(other, "b"))
    assert sorted(first + second) == ids


def test_a_claim_raises_the_epoch(store: Store) -> None:
    """Who has claimed a task again has another fence than before."""
    join(store, "me")
    insert(store, new())
    first = claim(store, "me").fence
    assert done(store.release(first))
    second = claim(store, "me").fence
    assert second == Fence(first.id, "me", first.epoch + 1)
    assert done(store.begin(first, synced=True)) is None
    assert done(store.begin(second, synced=True)) is not None


def test_a_task_begins_once(store: Store) -> None:
    """A second begin with the same fence is refused, as is its release."""
    join(store, "me")
    fence = running(store, "me")
    assert done(store.begin(fence, synced=True)) is None
    assert not done(store.release(fence))


def test_an_end_is_written_once(store: Store) -> None:
    """The first end counts; to write that again is no error, another one is stale."""
    join(store, "me")
    fence = running(store, "me")
    assert finish(store, fence, result=RESULT)
    assert finish(store, fence, result=RESULT)
    assert not finish(store, fence, "failed")
    assert state_of(store, fence.id) == "succeeded"


def test_a_delayed_task_waits_when_it_is_due(store: Store, clock: HandClock) -> None:
    """Nobody claims a task before it is due, and everybody after."""
    join(store, "me")
    [delayed, dated] = insert(store, new(delay=10.0), new(due=clock.now + 20))
    assert state_of(store, delayed) == "delayed"
    assert done(store.claim("me", ["mail.send"], 9)) == []
    assert store.next_due() == pytest.approx(10)
    clock.advance(9.9)
    assert store.promote() == 0
    clock.advance(0.2)
    assert store.promote() == 1
    assert claim(store, "me").fence.id == delayed
    clock.advance(10)
    assert store.promote() == 1
    assert claim(store, "me").fence.id == dated
    assert store.next_due() is None


def test_an_attempt_that_failed_is_followed_by_another(
    store: Store, clock: HandClock
) -> None:
    """After the pause any worker may run it; the list of attempts tells the story."""
    join(store, "a", "b")
    fence = running(store, "a")
    why = {"error_class": "ValueError", "error_text": "first"}
    retry = RetryLater(fence=fence, pause=5.0, **why)
    assert done(store.retry_later(retry))
    assert not done(store.retry_later(retry))
    clock.advance(5)
    assert store.promote() == 1
    claimed = claim(store, "b")
    assert claimed.attempt == 1
    done(store.begin(claimed.fence, synced=False))
    clock.advance(1)
    why = {"error_class": "KeyError", "error_text": "second"}
    assert finish(store, claimed.fence, "failed", **why)
    now = clock()
    assert store.attempts(fence.id) == [
        (1, now - 6, now - 6, "failed", "ValueError", "first"),
        (2, now - 1, now, "failed", "KeyError", "second"),
    ]


def test_an_ephemeral_task_stays_with_its_owner(store: Store, clock: HandClock) -> None:
    """Nobody else has its call, so it is never promoted, claimed or released."""
    join(store, "me", "other")
    ephemeral: dict[str, t.Any] = {"guarantee": "ephemeral", "payload": None}
    delayed = held(store, "me", delay=1.0, **ephemeral)
    again = running(store, "me", **ephemeral)
    done(store.retry_later(RetryLater(fence=again, pause=1.0)))
    clock.advance(2)
    assert store.promote() == 0
    assert done(store.claim("other", ["mail.send"], 9)) == []
    for fence in (delayed, again):
        assert not done(store.release(fence))
        assert done(store.begin(fence, synced=False)) is not None
        assert finish(store, fence)


def test_what_nobody_has_is_cancelled_at_once(store: Store, clock: HandClock) -> None:
    """A task that waits, or is not due, ends as cancelled; one that has ended stays."""
    insert(store, new(uid="waits"), new(uid="later", delay=10.0))
    for uid in ("waits", "later"):
        assert store.cancel(uid) == "cancelled"
        record = store.get("uid", uid)
        assert record is not None
        assert (record.state, record.finished) == ("cancelled", clock.now)
        assert store.cancel(uid) is None
    assert store.cancel("unknown") is None
    clock.advance(11)
    assert store.promote() == 0


def test_the_owner_of_a_task_is_asked_to_stop_it(store: Store, other: Store) -> None:
    """Its owner finds the request, cannot begin it any more, and ends it."""
    join(store, "me")
    waits, runs = held(store, "me", uid="waits"), running(store, "me", uid="runs")
    assert store.asked("me") == []
    assert other.cancel("waits") == "held"
    assert other.cancel("runs") == "running"
    assert sorted(store.asked("me")) == sorted([waits, runs])
    assert done(store.begin(waits, synced=True)) is None
    assert finish(store, waits, "cancelled")
    assert finish(store, runs, "cancelled")
    assert store.asked("me") == []


def test_what_was_asked_to_stop_is_not_handed_back(store: Store) -> None:
    """A claimed task that was cancelled meanwhile ends when it is released."""
    join(store, "me")
    fence = held(store, "me", uid="a")
    store.cancel("a")
    assert done(store.release(fence))
    assert state_of(store, fence.id) == "cancelled"


def test_a_key_is_popped_once(store: Store, other: Store) -> None:
    """Of all who pop a key one gets the task, and the key is free again."""
    for number in range(5):
        [id] = insert(store, new(key="k"))
        popped = race(*(partial(one.pop, "k") for one in (store, other) * 2))
        [record] = [one for one in popped if one is not None]
        assert (record.id, record.key) == (id, "k"), number
        assert get(store, id).key is None


def test_progress_is_that_of_the_attempt(store: Store) -> None:
    """The last report counts; the next attempt begins without one."""
    join(store, "me")
    fence = running(store, "me")
    for number in range(3):
        last = store.progress(fence, [number, 3, "half"])
    assert done(last)
    assert get(store, fence.id).progress == [2, 3, "half"]
    done(store.retry_later(RetryLater(fence=fence, pause=0.0)))
    assert not done(store.progress(fence, [9, 9, ""]))
    store.promote()
    done(store.begin(claim(store, "me").fence, synced=False))
    assert get(store, fence.id).progress is None
