"""What can be read of a store, and that none of it looks at every task."""

from __future__ import annotations

import re
import typing as t

import pytest
from sqlalchemy import event
from stores import (
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
    refused,
    running,
    state_of,
)

from flask_executor.stores.base import Store
from flask_executor.stores.records import Finish, RetryLater
from flask_executor.stores.sql import SqlStore, lists


def ids(tasks: t.Iterable[t.Any]) -> list[int]:
    return [task.id for task in tasks]


def test_one_task_is_found_by_what_identifies_it(store: Store) -> None:
    """By its id, its public id, or its key; several at once, too."""
    one, two = insert(store, new(uid="u1", key="k1"), new(uid="u2", key="k2"))
    assert [ids([get(store, one)]), store.get("uid", "no")] == [[one], None]
    for by, values in (
        ("id", [one, two]),
        ("uid", ["u1", "u2"]),
        ("key", ["k1", "k2"]),
    ):
        for id, value in zip((one, two), values, strict=True):
            record = store.get(t.cast(t.Any, by), t.cast(t.Any, value))
            assert record is not None
            assert record.id == id
        found = store.get_many(t.cast(t.Any, by), [*values, 99 if by == "id" else "x"])
        assert sorted(ids(found)) == [one, two]
    assert store.get_many("uid", []) == []
    assert store.state_of("k1") == ("u1", "waiting")
    assert store.state_of("x") is None


def test_what_is_held_is_waiting_for_users(store: Store) -> None:
    """In records, pages and counts alike."""
    join(store, "me")
    fence = held(store, "me")
    [waiting] = insert(store, new())
    assert get(store, fence.id).state == "waiting"
    assert ids(store.tasks(state="waiting")) == [waiting, fence.id]
    counts = store.counts()
    assert counts["waiting"] == 2
    assert "held" not in counts


def test_pages_go_from_new_to_old(store: Store) -> None:
    """``before`` is the next page, ``after`` the one before it."""
    made = insert(store, *(new() for _ in range(7)))[::-1]
    assert ids(store.tasks()) == made
    assert ids(store.tasks(limit=3)) == made[:3]
    assert ids(store.tasks(limit=3, before=made[2])) == made[3:6]
    assert ids(store.tasks(limit=2, after=made[4])) == made[2:4]
    assert ids(store.tasks(after=made[4], before=made[1])) == made[2:4]


def test_filters_go_together(store: Store) -> None:
    """Each filter leaves out what it does not name."""
    join(store, "me")
    group = store.open_group("g")
    facts = {"name": "n", "parent": "p", "group_id": group, "key": "k"}
    fence = running(store, "me", **facts)
    finish(store, fence, "failed", error_class="KeyError")
    insert(store, new("other.job"), new(name="n"))
    right = {
        "state": "failed",
        "job": "mail.send",
        "name": "n",
        "error": "KeyError",
        "group": group,
        "parent": "p",
    }
    wrong = {
        "state": "waiting",
        "job": "other.job",
        "name": "x",
        "error": "ValueError",
        "group": group + 1,
        "parent": "x",
    }
    assert ids(store.tasks(keyed=True, **t.cast(t.Any, right))) == [fence.id]
    assert store.count(**t.cast(t.Any, right)) == 1
    for name in right:
        one = t.cast(t.Any, {name: right[name]})
        assert fence.id in ids(store.tasks(**one)), name
        assert store.count(**one) == len(store.tasks(**one)), name
        other = t.cast(t.Any, right | {name: wrong[name]})
        assert store.tasks(**other) == [], name
        assert store.count(**other) == 0, name


def test_counts_stop_at_a_limit(store: Store) -> None:
    """There is a number for each state, at most the limit."""
    join(store, "me")
    insert(store, *(new() for _ in range(5)))
    finish(store, running(store, "me"))
    counts = store.counts()
    assert (counts["waiting"], counts["succeeded"], counts["failed"]) == (5, 1, 0)
    assert set(counts) == {
        "delayed",
        "waiting",
        "running",
        "retrying",
        "succeeded",
        "failed",
        "timed_out",
        "cancelled",
        "interrupted",
    }
    assert store.counts(limit=3)["waiting"] == 3
    held(store, "me")
    assert store.count(state="waiting") == 6
    assert store.count(state="waiting", limit=3) == 3
    assert (store.count(), store.count(limit=6)) == (7, 6)


def test_who_is_ahead_is_counted(store: Store) -> None:
    """What is more urgent, and what was there before, comes first."""
    first, urgent, last = insert(store, new(), new(priority=5), new())
    assert [store.ahead(one) for one in (first, urgent, last)] == [1, 0, 2]
    assert store.ahead(last, limit=1) == 1
    assert store.ahead(last + 99) == 0


def test_the_longest_wait_is_from_when_a_task_was_due(
    store: Store, clock: HandClock
) -> None:
    """A delay is no wait; what runs, or has ended, does not wait."""
    join(store, "me")
    assert store.oldest_wait() is None
    insert(store, new(delay=50.0))
    fence = running(store, "me")
    clock.advance(60)
    assert store.oldest_wait() is None
    store.promote()
    assert store.oldest_wait() == pytest.approx(10)
    clock.advance(5)
    held(store, "me")
    [urgent] = insert(store, new("other.job", priority=9))
    assert store.oldest_wait() == pytest.approx(15)
    claimed = claim(store, "me").fence
    clock.advance(5)
    assert store.oldest_wait() == pytest.approx(20), "it has not begun"
    done(store.begin(claimed, synced=True))
    assert store.oldest_wait() == pytest.approx(5)
    done(store.retry_later(RetryLater(fence=fence, pause=30.0)))
    clock.advance(31)
    store.promote()
    assert store.oldest_wait() == pytest.approx(36)
    assert store.oldest_wait(limit=1) == pytest.approx(36)
    assert state_of(store, urgent) == "waiting"


BIG = ("task", "payload", "result", "attempt")
ALSO_READ = ("stat", "grp", "worker")
"""Tables that are smaller. Who changes them may look at all rows, readers may not."""
QUEUES = ("ready", "due", "owned", "asked", "keyed")
"""Indexes of few rows, which may be read from one end."""


def use_everything(store: SqlStore, clock: HandClock) -> None:
    """Go through every verb that reads or changes tasks."""
    join(store, "me", "dead")
    group = store.open_group("g")
    insert(store, *(new(key=f"k{i}", group_id=group) for i in range(3)))
    insert(store, new(delay=1.0), new(unique_key="u"), new(uid="u"))
    refused(store, new(unique_key="u"))
    refused(store, new(key="k0"))
    insert(store, new(unique_key="u", replace=True))
    again = new(retried_from="u", key="k0")
    refused(store, again)
    clock.advance(2)
    store.promote()
    store.next_due()
    fence = claim(store, "me").fence
    done(store.begin(fence, synced=True))
    done(store.progress(fence, [1, 2, ""]))
    store.cancel("u")
    store.asked("me")
    done(store.retry_later(RetryLater(fence=fence, pause=1.0)))
    second, third = claim(store, "me").fence, claim(store, "me").fence
    done(store.release(second))
    done(store.begin(third, synced=False))
    for _ in range(2):
        done(store.finish(Finish(fence=third, state="failed", result=RESULT)))
    store.reconcile("me", [1], older=-1, max_lost=3)
    clock.advance(99)
    store.reap(3)
    store.pop("k1")
    store.prune({"failed": 1.0, "succeeded": 1.0})
    read_everything(store, group)


def read_everything(store: SqlStore, group: int) -> None:
    for by, value in (("id", 1), ("uid", "u"), ("key", "k")):
        store.get(t.cast(t.Any, by), value)
        store.get_many(t.cast(t.Any, by), [t.cast(t.Any, value)])
    store.result(1)
    store.payload(1)
    store.attempts(1)
    store.counts()
    store.count_keys()
    store.ahead(1)
    store.paused()
    store.is_locked(1)
    store.count_ended("failed", 1.0)
    store.oldest_wait()
    store.groups()
    store.groups(before=9)
    store.group_named("g")
    store.stats(0)
    store.stats(0, "j")
    store.worker("me")
    filters = {"job": "j", "name": "n", "error": "E", "group": group, "parent": "p"}
    filters |= {"request": "r", "retried_from": "u"}
    for state in (None, "waiting", "failed", "succeeded"):
        store.tasks(state=state)
        store.count(state=state)
        for name, value in filters.items():
            store.count(state=state, **t.cast(t.Any, {name: value}))
            store.tasks(state=state, before=9, **t.cast(t.Any, {name: value}))
    store.tasks(keyed=True, after=1)


def statements(store: SqlStore, clock: HandClock) -> dict[str, t.Any]:
    """Return all statements of the verbs above, with parameters."""
    seen: dict[str, t.Any] = {}

    def note(
        _: t.Any, __: t.Any, statement: str, values: t.Any, ___: t.Any, many: bool
    ) -> None:
        if re.match(r"\s*(SELECT|UPDATE|INSERT|DELETE|WITH)", statement):
            seen[statement] = values[0] if many else values

    store.setup()
    event.listen(store.database.engine, "before_cursor_execute", note)
    use_everything(store, clock)
    event.remove(store.database.engine, "before_cursor_execute", note)
    assert len(seen) > 50
    return seen


def scanned_by_sqlite(statement: str, plan: list[str]) -> list[str]:
    """Return the lines of a plan in which a whole table or index is read."""
    stops = "LIMIT" in statement
    tables = watched(statement)
    is_page = re.search(r"WHERE +(true|id < \?) ORDER BY id DESC LIMIT", statement)
    bad = []
    for line in plan:
        names = "|".join([*(f"executor_{table}" for table in tables), "t"])
        scan = re.match(rf"SCAN ({names})\b(?: USING.* INDEX (\w+))?", line)
        is_queue = scan and (scan[2] or "").removeprefix("executor_task_") in QUEUES
        if "rowid<?" in line or "rowid>?" in line:  # by the id alone, whatever else
            bad += [] if is_page else [line]
        elif scan and not (is_page or (is_queue and stops)):
            bad += [] if _scans_a_part(plan, scan[1]) else [line]
    return bad


def watched(statement: str) -> tuple[str, ...]:
    """Return the tables that a statement must not read from end to end."""
    return BIG + ALSO_READ if statement.lstrip().startswith("SELECT") else BIG


def _scans_a_part(plan: list[str], name: str) -> bool:
    """Return True if what is scanned is a subquery that has the name of a table."""
    return name == "t" and any(re.match(r"CO-ROUTINE|MATERIALIZE", p) for p in plan)


def test_sqlite_reads_no_table_from_end_to_end(
    stores: t.Callable[..., SqlStore], sqlite_url: str, clock: HandClock
) -> None:
    """Each statement finds its rows in an index, or stops at a limit."""
    store = stores(sqlite_url, clock=clock)
    seen = statements(store, clock)
    for statement, values in seen.items():
        with store.database.engine.connect() as db:
            explain = f"EXPLAIN QUERY PLAN {statement}"
            plan = [row[3] for row in db.exec_driver_sql(explain, values)]
        assert scanned_by_sqlite(statement, plan) == [], (statement, plan)
        assert not sorts(statement, plan), (statement, plan)
        assert not goes_by_state(statement, plan), (statement, plan)
        assert passes_by(statement, values, plan) == [], (statement, plan)


def passes_by(statement: str, values: t.Any, plan: list[str]) -> list[str]:
    """Return the filters that leave few tasks, and whose index is not used."""
    # Of those that have succeeded there may be a million.
    also = ("parent", "group_id", "error_class") if "succeeded" in values else ()
    named = [n for n in ("request", "retried_from", *also) if f" {n} = ?" in statement]
    found = ["group" if n == "group_id" else n.partition("_cl")[0] for n in named]
    return [name for name in found if f"INDEX executor_task_{name} " not in str(plan)]


def test_a_request_with_many_tasks_is_listed_by_state(
    stores: t.Callable[..., SqlStore], sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would look at all that the request has started; few are in any state
    except succeeded.
    """
    store = stores(sqlite_url)
    insert(store, *(new(request="r") for _ in range(3)))
    monkeypatch.setattr(lists, "_MANY", 3)
    plans = plans_of(store, lambda: store.tasks(request="r", state="failed"))
    assert any("INDEX executor_task_state " in plan for plan in plans)
    assert store.count(request="r", state="waiting") == 3
    monkeypatch.setattr(lists, "_MANY", 4)
    plans = plans_of(store, lambda: store.tasks(request="r", state="failed"))
    assert not any("INDEX executor_task_state " in plan for plan in plans)
    assert store.count(request="r", state="waiting") == 3


def plans_of(store: SqlStore, ask: t.Callable[[], object]) -> list[str]:
    """Return how SQLite answers a question: the plan of each statement."""
    seen: dict[str, t.Any] = {}

    def note(*given: t.Any) -> None:
        seen[given[2]] = given[3]

    event.listen(store.database.engine, "before_cursor_execute", note)
    ask()
    event.remove(store.database.engine, "before_cursor_execute", note)
    with store.database.engine.connect() as db:
        explain = "EXPLAIN QUERY PLAN "
        return [
            str([row[3] for row in db.exec_driver_sql(explain + one, values)])
            for one, values in seen.items()
            if one.lstrip().startswith("SELECT")
        ]


def sorts(statement: str, plan: list[str]) -> bool:
    """Return True if all rows are sorted before the first is returned."""
    # What a claim has found, and two pages, are put in order again: these are few.
    few = "executor_payload AS p" in statement or "UNION ALL" in statement
    return not few and "FOR ORDER BY" in str(plan)


def goes_by_state(statement: str, plan: list[str]) -> bool:
    """Return True if a change of tasks begins with all that have some state."""
    changes = re.match(r"\s*(UPDATE|WITH|DELETE)", statement)
    return bool(changes) and "INDEX executor_task_state " in str(plan)


def test_postgresql_reads_no_table_from_end_to_end(
    stores: t.Callable[..., SqlStore], postgresql_url: str, clock: HandClock
) -> None:
    """Each statement has an index that it can use instead."""
    store = stores(postgresql_url, clock=clock)
    seen = statements(store, clock)
    with store.database.engine.connect() as db:
        # With so few rows, reading them all is quicker: is there another way at all?
        db.exec_driver_sql("SET enable_seqscan = off")
        for statement, values in seen.items():
            plan = [
                row[0] for row in db.exec_driver_sql(f"EXPLAIN {statement}", values)
            ]
            scans = [line for line in plan if re.search(r"Seq Scan on executor_", line)]
            names = "|".join(watched(statement))
            big = [line for line in scans if re.search(rf"_({names})\b", line)]
            assert big == [], (statement, plan)


@pytest.mark.parametrize("index", ["task_job", "task_ended", "task_key", "task_parent"])
def test_a_missing_index_would_be_noticed(
    stores: t.Callable[..., SqlStore], sqlite_url: str, clock: HandClock, index: str
) -> None:
    """Without an index some plan reads a whole table."""
    store = stores(sqlite_url, clock=clock)
    seen = statements(store, clock)
    with store.database.engine.connect() as db:
        db.exec_driver_sql(f"DROP INDEX executor_{index}")
        plans = {}
        for statement, values in seen.items():
            explain = f"EXPLAIN QUERY PLAN {statement}"
            if f"INDEXED BY executor_{index}" not in statement:
                plans[statement] = [
                    row[3] for row in db.exec_driver_sql(explain, values)
                ]
    assert any(scanned_by_sqlite(*one) or sorts(*one) for one in plans.items())


def test_postgresql_finds_what_is_over_in_an_index(
    stores: t.Callable[..., SqlStore], postgresql_url: str
) -> None:
    """The clock is asked once per statement, so that an index can compare with it."""
    store = stores(postgresql_url)
    seen: list[t.Any] = []

    def note(*event: t.Any) -> None:
        seen.append(event[2:4])

    store.setup()
    event.listen(store.database.engine, "before_cursor_execute", note)
    store.promote()
    store.prune({"succeeded": 1.0})
    store.reap(3)
    event.remove(store.database.engine, "before_cursor_execute", note)
    found = []
    with store.database.engine.connect() as db:
        db.exec_driver_sql("SET enable_seqscan = off")
        for statement, values in seen:
            if "clock_timestamp" in statement and "SKIP LOCKED" in statement:
                rows = db.exec_driver_sql(f"EXPLAIN {statement}", values)
                conditions = [row[0] for row in rows if "Index Cond" in row[0]]
                found += re.findall(r"(due|finished|lease_until) <=? ", str(conditions))
    assert found == ["due", "finished", "lease_until"]
