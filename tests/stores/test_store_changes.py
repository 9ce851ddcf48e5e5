"""Noticing what other processes have changed."""

from __future__ import annotations

import itertools
import threading
import time
import typing as t

import pytest
from databases import Server
from limits import LIMIT
from stores import insert, join, new

from flask_executor.stores.sql import SqlStore, changes


class Heard:
    """A callback that counts, and can be waited for."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    @property
    def count(self) -> int:
        return self._count

    def more_than(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count > count, LIMIT)


@pytest.fixture(autouse=True)
def nothing_but_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the backstop out, which would hide that a notification did not come."""
    monkeypatch.setattr(changes, "_BACKSTOP", 10 * LIMIT)


def test_a_change_of_another_process_is_heard(store: SqlStore, other: SqlStore) -> None:
    """Each time that another process has committed something, the callback comes."""
    heard = Heard()
    end = store.watch(heard)
    assert heard.more_than(0)  # it begins with one, for what was before
    for _ in range(3):
        before = heard.count
        insert(other, new())
        assert heard.more_than(before)
    end()


def test_a_callback_that_raises_is_called_again(
    store: SqlStore, other: SqlStore
) -> None:
    """What a callback raises neither ends the thread nor keeps it from others."""
    heard = Heard()

    def fail() -> t.NoReturn:
        heard()
        raise RuntimeError

    store.watch(fail)
    last = Heard()
    store.watch(last)
    for _ in range(2):
        before = heard.count, last.count
        insert(other, new())
        assert heard.more_than(before[0])
        assert last.more_than(before[1])


def test_who_does_not_watch_any_more_is_not_called(
    store: SqlStore, other: SqlStore
) -> None:
    """Others go on watching."""
    ended, other_one = Heard(), Heard()
    end = store.watch(ended)
    store.watch(other_one)
    insert(other, new())
    assert other_one.more_than(0)
    end()
    end()
    before, count = ended.count, other_one.count
    insert(other, new())
    assert other_one.more_than(count)
    assert ended.count == before


def test_what_a_process_holds_concerns_nobody_else(
    postgresql_url: str, stores: t.Callable[..., SqlStore]
) -> None:
    """A task that is held from the start is not announced; one that waits is."""
    store, told = stores(postgresql_url), Heard()
    join(store, "me")
    store._writer._announce = told
    insert(store, new(owner="me"))
    assert told.count == 0
    insert(store, new())
    assert told.count == 1


def test_changes_that_follow_each_other_are_told_together(
    store: SqlStore, other: SqlStore
) -> None:
    """While others write without a pause, the callback comes now and then."""
    times: list[float] = []
    heard = Heard()

    def noted() -> None:
        times.append(time.monotonic())
        heard()

    store.watch(noted)
    while heard.count < 4:
        insert(other, new())
    pauses = [after - before for before, after in itertools.pairwise(times[1:])]
    assert min(pauses) >= changes._REST * 0.9


def test_a_lost_listen_is_renewed(
    server: Server, postgresql_url: str, stores: t.Callable[..., SqlStore]
) -> None:
    """After its connection was closed, notifications are heard again."""
    store, other = stores(postgresql_url), stores(postgresql_url)
    heard = Heard()
    store.watch(heard)
    assert heard.more_than(0)
    before = heard.count
    with server.connect() as connection:
        [[ended]] = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%'"
        ).fetchall()
    assert ended == 1
    assert heard.more_than(before)  # it has connected again
    before = heard.count
    insert(other, new())
    assert heard.more_than(before)


def test_a_lost_notification_is_made_up_for(
    postgresql_url: str,
    stores: t.Callable[..., SqlStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Now and then PostgreSQL counts as changed, even if nobody has said so."""
    monkeypatch.setattr(changes, "_BACKSTOP", 0.01)
    heard = Heard()
    stores(postgresql_url).watch(heard)
    for _ in range(3):
        assert heard.more_than(heard.count)


def test_an_idle_file_is_looked_at_less_often(
    sqlite_url: str, stores: t.Callable[..., SqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses grow while nothing happens, up to a limit, and shrink after that."""
    monkeypatch.setattr(changes, "_AWAKE", 0.0)
    monkeypatch.setattr(changes, "_REST", 0.0)
    store, other = stores(sqlite_url), stores(sqlite_url)
    is_long, is_short = threading.Event(), threading.Event()
    pause = changes.Changes._pause

    def noted(self: changes.Changes, seconds: float, *sockets: t.Any) -> bool:
        if seconds == changes._LONGEST:
            is_long.set()
        elif seconds <= 2 * changes._SHORTEST:
            is_short.set()
        return pause(self, 0.0, *sockets)

    monkeypatch.setattr(changes.Changes, "_pause", noted)
    store.watch(lambda: None)
    for _ in range(2):
        assert is_short.wait(LIMIT)
        assert is_long.wait(LIMIT)
        is_short.clear()
        insert(other, new())
        assert is_short.wait(LIMIT)
        is_long.clear()
