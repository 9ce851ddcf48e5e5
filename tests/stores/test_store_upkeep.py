"""Groups, periodic jobs, statistics, pruning."""

from __future__ import annotations

import typing as t
from functools import partial

import pytest
from stores import (
    LEASE,
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
from flask_executor.stores.records import Inserted, RetryLater, Schedule
from flask_executor.stores.sql import SqlStore, stats
from flask_executor.stores.sql.schema import BUCKETS


def progress_of(store: Store, group: int) -> tuple[int, int, int]:
    record = store.group(group)
    assert record is not None
    return record.total, record.done, record.failed


def test_a_group_counts_its_members(store: Store, clock: HandClock) -> None:
    """Each end counts once, however a task ended; failures are counted, too."""
    join(store, "me")
    group = store.open_group("g")
    member = {"group_id": group}
    insert(store, new(**member, uid="cancelled"), new())
    fences = [running(store, "me", **member) for _ in range(2)]
    assert progress_of(store, group) == (3, 0, 0)
    store.cancel("cancelled")
    for _ in range(2):
        finish(store, fences[0])
    finish(store, fences[1], "failed")
    assert progress_of(store, group) == (3, 3, 1)
    asked = held(store, "me", **member, uid="asked")
    store.cancel("asked")
    done(store.release(asked))
    held(store, "me", **member)
    running(store, "me", **member, guarantee="at_most_once")
    clock.advance(LEASE + 1)
    store.reap(3)
    assert progress_of(store, group) == (6, 5, 2)


def test_a_group_is_found_by_its_name(store: Store, clock: HandClock) -> None:
    """The newest of a name; it can be closed."""
    store.open_group("g")
    second = store.open_group("g")
    store.close_group(second)
    assert store.group_named("g") == (second, "g", 0, 0, 0, True, clock())
    assert store.group_named("x") is store.group(99_999_999) is None


def test_groups_come_in_pages(store: Store) -> None:
    """Newest first; ``before`` is the next page."""
    made = [store.open_group(name) for name in "abc"][::-1]
    insert(store, new(group_id=made[0]))
    first, second = store.groups(limit=2)
    assert (first.name, first.total, first.closed) == ("c", 1, False)
    assert [one.id for one in (first, second)] == made[:2]
    assert [one.id for one in store.groups(before=second.id)] == made[2:]
    assert first == store.group(made[0])


def test_a_replaced_member_has_ended(store: Store) -> None:
    """What a unique task replaces counts in its group, too."""
    group = store.open_group("g")
    insert(store, new(unique_key="u", group_id=group))
    insert(store, new(unique_key="u", group_id=group, replace=True))
    assert progress_of(store, group) == (2, 1, 0)


def test_paused_jobs_are_not_claimed(store: Store, other: Store) -> None:
    """A pause holds for every process, until the job is resumed."""
    join(store, "me")
    insert(store, new("a"), new("b"))
    other.pause("a")
    jobs = ["a", "b"]
    assert [one.job for one in done(store.claim("me", jobs, 9))] == ["b"]
    assert [(one.job, one.paused) for one in other.schedules()] == [("a", True)]
    other.resume("a")
    assert [one.job for one in done(store.claim("me", jobs, 9))] == ["a"]
    assert other.schedules() == []


def test_a_schedule_is_kept_with_its_pause(store: Store) -> None:
    """To store it again, as each process does at its start, changes no pause."""
    store.schedule("job", "* * * * *", "Europe/Berlin", 60.0)
    store.pause("job")
    store.schedule("job", "*/5 * * * *", None, 300.0)
    store.tick("job", 60.0, None)
    store.tick("job", 120.0, None)
    expected = Schedule("job", "*/5 * * * *", None, True, 300.0, 120.0)
    assert store.schedules() == [expected]


def test_a_tick_is_made_by_one_of_many(store: Store, other: Store) -> None:
    """However many processes race for a tick, there is one task."""
    for at in range(5):
        calls = [partial(s.tick, "job", at * 60.0, new("job")) for s in (store, other)]
        outcomes = race(*calls * 2)
        assert sum(isinstance(one, Inserted) for one in outcomes) == 1
        assert outcomes.count(None) == 3
    assert len(store.tasks(job="job")) == 5


def test_a_skipped_tick_is_noted(store: Store) -> None:
    """Without a task, so that nobody makes it later."""
    assert store.tick("job", 60.0, None) is None
    assert store.tick("job", 60.0, new("job")) is None
    assert store.tasks(job="job") == []


def test_a_tick_of_a_unique_job_may_find_one_there(store: Store) -> None:
    """The tick is noted, and says which task there is."""
    insert(store, new("job", unique_key="u", uid="there"))
    outcome = store.tick("job", 60.0, new("job", unique_key="u"))
    assert outcome == ("unique", "there", None, "waiting")
    assert store.tick("job", 60.0, new("job")) is None


def test_ends_are_counted_by_minute(store: Store, clock: HandClock) -> None:
    """Per minute, job and end: a number, sums and histograms of waiting and running."""
    join(store, "me")
    clock.now = 6_000.0
    fence = held(store, "me")
    clock.advance(2)
    done(store.begin(fence, synced=False))
    clock.advance(0.1)
    finish(store, fence)
    store.flush()
    store.cancel(get(store, insert(store, new())[0]).uid)
    finish(store, running(store, "me"))
    store.flush()
    store.flush()
    done(store.insert([]))  # what was queued before is written
    cancelled, succeeded = store.stats(0)
    assert (cancelled.minute, cancelled.end, cancelled.n) == (100, "cancelled", 1)
    assert (cancelled.run_sum, sum(cancelled.run)) == (0, 0)
    assert (succeeded.job, succeeded.end, succeeded.n) == ("mail.send", "succeeded", 2)
    assert succeeded.wait_sum == pytest.approx(2)
    assert succeeded.run_sum == pytest.approx(0.1)
    assert succeeded.wait[stats.bucket(2.0)] == succeeded.wait[0] == 1
    assert succeeded.run[stats.bucket(0.1)] == succeeded.run[0] == 1
    assert len(succeeded.wait) == len(succeeded.run) == BUCKETS
    assert store.stats(0, "mail.send") == [cancelled, succeeded]
    assert store.stats(0, "other") == store.stats(60 * 101) == []


def test_buckets_double() -> None:
    """Bucket ``i`` counts what took less than ``0.001 * 2 ** i`` seconds."""
    assert [stats.bucket(x) for x in (0.0, 0.0009, 0.001, 0.0019, 0.002)] == [
        0,
        0,
        1,
        1,
        2,
    ]
    assert stats.bucket(1e9) == BUCKETS - 1


def count(store: SqlStore, table: str) -> int:
    statement = store.sql.text(f"SELECT COUNT(*) FROM {{{table}}}")
    return t.cast(
        int, store.database.read(lambda db: store.sql.run(db, statement))[0][0]
    )


def test_what_has_ended_long_ago_is_removed(store: SqlStore, clock: HandClock) -> None:
    """By state, with payload, result and attempts; what has not ended stays."""
    join(store, "me")
    for _ in range(3):
        finish(store, running(store, "me", key=None), result=RESULT)
    failed = running(store, "me")
    done(store.retry_later(RetryLater(fence=failed, pause=0.0)))
    store.promote()
    again = claim(store, "me").fence
    done(store.begin(again, synced=False))
    finish(store, again, "failed")
    open_one = running(store, "me")
    clock.advance(100)
    late = running(store, "me")
    finish(store, late)
    keep = {"succeeded": 50.0, "failed": None}
    assert store.prune(keep) == 3
    assert [count(store, table) for table in ("task", "payload", "result")] == [3, 3, 0]
    clock.advance(1)
    assert store.prune({"failed": 0.5, "succeeded": 0.5}) == 2
    assert [count(store, table) for table in ("task", "attempt")] == [1, 0]
    assert state_of(store, open_one.id) == "running"


def test_what_ended_long_ago_is_counted(store: Store, clock: HandClock) -> None:
    """By its state and its age, up to a limit."""
    join(store, "me")
    for _ in range(3):
        finish(store, running(store, "me"), "failed")
        clock.advance(10)
    running(store, "me")
    ages = [store.count_ended("failed", age) for age in (0, 15, 20, 31)]
    assert ages == [3, 2, 2, 0]
    assert store.count_ended("failed", 0, limit=2) == 2
    assert store.count_ended("succeeded", 0) == 0


def test_pruning_takes_few_at_a_time(store: SqlStore, clock: HandClock) -> None:
    """A transaction removes at most the limit, oldest first, over all states."""
    join(store, "me")
    for state in ("succeeded", "succeeded", "failed", "failed"):
        finish(store, running(store, "me"), state)
        clock.advance(1)
    keep = {"succeeded": 0.0, "failed": 0.0}
    assert [store.prune(keep, limit=3) for _ in range(3)] == [3, 1, 0]


def test_the_key_of_a_removed_task_is_free(store: SqlStore, clock: HandClock) -> None:
    """Until then it is taken."""
    join(store, "me")
    finish(store, running(store, "me", key="k"))
    clock.advance(10)
    assert refused(store, new(key="k")).state == "succeeded"
    assert store.prune({"succeeded": 5.0}) == 1
    insert(store, new(key="k"))


def test_old_workers_ticks_and_groups_are_removed(
    store: SqlStore, clock: HandClock
) -> None:
    """The dead after a day, ticks after a month except the last, finished groups."""
    join(store, "dead", "left")
    store.leave("left", max_lost=3)
    clock.advance(LEASE + 1)
    store.reap(3)
    join(store, "alive")
    for at in (0.0, 60.0):
        store.tick("job", at, None)
    store.open_group("finished")
    insert(store, new(group_id=store.open_group("not finished")))
    clock.advance(86_400 * 100)
    store.renew("alive", lease=LEASE)
    store.prune({})
    tables = [count(store, table) for table in ("worker", "tick", "grp")]
    assert tables == [1, 1, 1]
    assert store.tick("job", 60.0, None) is None
