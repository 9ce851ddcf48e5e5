"""The writer of a store: what came meanwhile is committed together."""

from __future__ import annotations

import os
import resource
import threading
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest
from control import until
from databases import Server
from limits import LIMIT
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from stores import (
    RESULT,
    done,
    get,
    has_succeeded,
    in_child,
    insert,
    join,
    new,
    running,
    state_of,
)

from flask_executor.stores.errors import StoreUnavailable
from flask_executor.stores.records import Finish, Sealed
from flask_executor.stores.sql import SqlStore, writer
from flask_executor.stores.sql.batches import Item, grouped

NewStore = t.Callable[..., SqlStore]


class Gate:
    """A batch that keeps its transaction open until it is told to go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, db: Connection, values: t.Sequence[t.Any]) -> t.Sequence[t.Any]:
        self.reached.set()
        assert self.opened.wait(LIMIT)
        return values


@contextmanager
def held_up(store: SqlStore) -> t.Iterator[None]:
    """Keep the writer in a transaction; what comes meanwhile is queued."""
    gate = Gate()
    store._queue(gate, None)
    assert gate.reached.wait(LIMIT)
    try:
        yield
    finally:
        gate.opened.set()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch, store: SqlStore) -> list[bool]:
    """The transactions of the store: for each if it was synced."""
    seen: list[bool] = []
    begin = store.database.transaction

    def noted(*, synced: bool = True, **options: t.Any) -> t.Any:
        seen.append(synced)
        return begin(synced=synced, **options)

    store.setup()
    monkeypatch.setattr(store.database, "transaction", noted)
    return seen


def test_what_comes_meanwhile_is_committed_together(
    store: SqlStore, commits: list[bool]
) -> None:
    """While one transaction commits, any number of writes wait for one more."""
    with held_up(store):
        futures = [store.insert([new()]) for _ in range(50)]
    assert [len(done(future)) for future in futures] == [1] * 50
    assert len(commits) == 2


def test_who_waits_writes_while_nobody_else_does(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit is written on its own thread; beside others it is left to the writer."""
    threads: list[threading.Thread] = []
    insert_all = store._inserts.insert

    def noted(*given: t.Any) -> t.Any:
        threads.append(threading.current_thread())
        return insert_all(*given)

    monkeypatch.setattr(store._inserts, "insert", noted)
    assert store.insert([new()]).done()
    with held_up(store):
        queued = store.insert([new()])
    assert done(queued)
    assert threads[0] is threading.current_thread() is not threads[1]


def test_nobody_waits_in_a_submit_for_the_turn_of_others(
    stores: NewStore, sqlite_url: str
) -> None:
    """If another process has its turn, the writer waits for it, and not the submit."""
    store, other = stores(sqlite_url), stores(sqlite_url)
    store.setup()
    with other.database.turn():
        future = store.insert([new()])
        assert not future.done()
    assert done(future)


def test_a_commit_is_synced_if_one_of_its_writes_is(
    store: SqlStore, commits: list[bool]
) -> None:
    """Claims do not wait for the disk, inserts do."""
    join(store, "me")
    commits.clear()
    done(store.claim("me", ["mail.send"], 1))
    done(store.insert([new()]))
    assert commits == [False, True]


@pytest.mark.parametrize("synced", [False, True])
def test_sqlite_syncs_what_must_be(
    stores: NewStore, sqlite_url: str, synced: bool
) -> None:
    """A synced transaction has ``synchronous = FULL``, any other ``NORMAL``."""
    with stores(sqlite_url).database.transaction(synced=synced) as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 1 + synced


@pytest.mark.parametrize("synced", [False, True])
def test_postgresql_syncs_what_must_be(
    stores: NewStore, postgresql_url: str, synced: bool
) -> None:
    """A synced transaction waits for the disk at its commit, any other does not."""
    with stores(postgresql_url).database.transaction(synced=synced) as db:
        shown = db.exec_driver_sql("SHOW synchronous_commit").scalar()
        assert shown == ("on" if synced else "off")
        level = db.exec_driver_sql("SHOW transaction_isolation").scalar()
        assert level == "read committed"


def test_a_write_that_fails_fails_alone(store: SqlStore) -> None:
    """Its neighbours in the same transaction are committed."""

    def refuse_two(db: Connection, values: t.Sequence[int]) -> t.Sequence[int]:
        if 2 in values:
            db.exec_driver_sql("SELECT nonsense FROM nowhere")
        return values

    with held_up(store):
        before = store.insert([new(uid="before")])
        numbers = [store._queue(refuse_two, number) for number in (1, 2, 3)]
        after = store.insert([new(uid="after")])
    assert [done(numbers[0]), done(numbers[2])] == [1, 3]
    assert "nowhere" in str(numbers[1].exception(LIMIT))
    for future, uid in ((before, "before"), (after, "after")):
        assert done(future)
        assert store.get("uid", uid) is not None


def test_a_write_that_was_cancelled_is_not_written(store: SqlStore) -> None:
    """Until its transaction begins, a queued write can be cancelled."""
    with held_up(store):
        future = store.insert([new(uid="a")])
        assert future.cancel()
        other = store.insert([new(uid="b")])
    assert done(other)
    assert store.get("uid", "a") is None


def test_writes_about_one_task_keep_their_order() -> None:
    """Items of one batch go together, except past another about the same task."""

    def begin(db: Connection, values: t.Sequence[t.Any]) -> t.Sequence[t.Any]:
        return values

    def finish(db: Connection, values: t.Sequence[t.Any]) -> t.Sequence[t.Any]:
        return values

    order = [(begin, 1), (finish, 1), (begin, 2), (begin, 1), (finish, 2), (finish, 1)]
    groups = grouped([Item(batch, about, about) for batch, about in order])
    told = [(group[0].batch, [item.value for item in group]) for group in groups]
    assert told == [(begin, [1, 2]), (finish, [1, 2]), (begin, [1]), (finish, [1])]


def test_one_task_may_begin_and_end_in_one_transaction(
    store: SqlStore, commits: list[bool]
) -> None:
    """What is queued about a task happens in that order, whatever else there is."""
    join(store, "me")
    fences = [running(store, "me") for _ in range(3)]
    commits.clear()
    with held_up(store):
        for fence in fences:
            progress = store.progress(fence, [1, 1, ""])
            store.finish(Finish(fence=fence, state="succeeded", result=RESULT))
            last = store.progress(fence, [9, 9, ""])
    assert (done(progress), done(last)) == (True, False)
    assert [state_of(store, fence.id) for fence in fences] == ["succeeded"] * 3
    assert len(commits) == 2


def test_the_thread_ends_when_there_is_nothing_to_write(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts again with the next write."""
    monkeypatch.setattr(writer, "_IDLE", 0.01)
    for _ in range(2):
        insert(store, new())
        thread = store._writer._thread
        if thread is not None:
            thread.join(LIMIT)
        assert store._writer._thread is None


def test_without_a_thread_the_caller_writes(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter no thread starts; ends are written nevertheless."""
    join(store, "me")
    fence = running(store, "me")
    assert store.close(LIMIT)
    store._writer._start_afresh()

    def refuse(*_: t.Any, **__: t.Any) -> t.NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(writer, "start_thread", refuse)
    assert store.finish(Finish(fence=fence, state="succeeded")).done()
    assert state_of(store, fence.id) == "succeeded"


def test_a_fault_of_ours_ends_neither_the_thread_nor_a_write(
    store: SqlStore,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What fails beside the transaction is printed, and the writer goes on."""
    store.setup()
    faults = iter([OSError("no locks available"), OSError("no locks available")])
    turn = store.database.turn

    def failing(*, wait: bool = True) -> t.Any:
        for fault in faults:
            raise fault
        return turn(wait=wait)

    def announce() -> t.NoReturn:
        raise RuntimeError("nobody hears")

    monkeypatch.setattr(store.database, "turn", failing)
    monkeypatch.setattr(store._writer, "_announce", announce)
    monkeypatch.setattr(store._writer, "_last_count", 2)
    assert done(store.insert([new()]))
    assert store.close(LIMIT)
    printed = capfd.readouterr().err
    assert printed.count("OSError: no locks available") == 2
    assert printed.count("RuntimeError: nobody hears") == 1


def test_closing_writes_what_is_queued(store: SqlStore, other: SqlStore) -> None:
    """Afterwards nothing is accepted."""
    with held_up(store):
        future = store.insert([new(uid="a")])
    assert store.close(LIMIT)
    assert future.done()
    assert other.get("uid", "a") is not None
    with pytest.raises(StoreUnavailable, match="it is closed"):
        done(store.insert([new()]))


@contextmanager
def before_its_turn(store: SqlStore, other: SqlStore) -> t.Iterator[None]:
    """Keep the writer of a store from writing what is queued."""
    is_sqlite = store.database.dialect == "sqlite"
    # There a fork waits for transactions, but not for those who wait for their turn.
    with other.database.turn() if is_sqlite else held_up(store):
        yield


def test_a_child_writes_by_itself(store: SqlStore, other: SqlStore) -> None:
    """A forked child has a writer and connections of its own, and an empty queue."""
    insert(store, new(uid="before"))

    def check() -> None:
        insert(store, new(uid="child"))
        assert store.get("uid", "before") is not None
        assert store.close(LIMIT)

    with before_its_turn(store, other):
        queued = store.insert([new(uid="queued")])
        child = in_child(check)
    assert done(queued)
    assert has_succeeded(child)
    assert sorted(task.uid for task in store.tasks()) == ["before", "child", "queued"]


def test_a_fork_may_come_at_any_moment(store: SqlStore) -> None:
    """While threads read, write and watch, children find a store that works."""
    store.watch(lambda: None)
    stopped = threading.Event()
    errors: list[BaseException] = []

    def repeat(call: t.Callable[[], object]) -> None:
        try:
            while not stopped.is_set():
                call()
        except BaseException as error:
            errors.append(error)

    calls = (lambda: insert(store, new()), lambda: store.tasks(limit=5), store.counts)
    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()

    def check() -> None:
        for number in range(3):
            name = f"{os.getpid()}-{number}"
            insert(store, new(key=name, uid=name))
        assert store.close(LIMIT)

    try:
        children = [in_child(check) for _ in range(4)]
        assert [has_succeeded(child) for child in children] == [True] * 4
    finally:
        stopped.set()
        for thread in threads:
            thread.join(LIMIT)
    assert errors == []
    assert store.count_keys() == 12


def test_an_unknown_commit_is_undone(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the reply to a commit is lost, the submitter is told that nothing was
    accepted; then the task is removed, unless it has begun.
    """
    join(store, "me")
    group = store.open_group("g")
    begin = store.database.transaction
    lost: list[int] = []

    @contextmanager
    def losing(**options: t.Any) -> t.Iterator[Connection]:
        with begin(**options) as db:
            yield db
        if not lost:
            lost.append(1)
            raise OperationalError("COMMIT", {}, Exception("the reply was lost"))

    monkeypatch.setattr(writer, "kind_of", lambda error: "away")
    monkeypatch.setattr(store.database, "transaction", losing)
    with pytest.raises(StoreUnavailable, match="the reply was lost"):
        done(store.insert([new(uid="a", group_id=group)]))
    insert(store, new(uid="b"))  # after what undoes it
    assert store.get("uid", "a") is None
    assert (found := store.group(group)) is not None
    assert found[:6] == (group, "g", 0, 0, 0, False)


def test_the_database_goes_away_and_comes_back(
    server: Server, postgresql_url: str, stores: NewStore
) -> None:
    """Reads and submits fail at once, ends are kept, and all of it works again."""
    store = stores(postgresql_url)
    join(store, "me")
    fence, retried = running(store, "me"), running(store, "me")
    server.stop()
    try:
        with pytest.raises(StoreUnavailable) as raised:
            store.get("uid", "a")
        assert f"127.0.0.1:{server.port}" in str(raised.value)
        assert "try again later" in str(raised.value)
        with pytest.raises(StoreUnavailable):
            done(store.insert([new(uid="refused")]))
        end = store.finish(Finish(fence=fence, state="succeeded", result=RESULT))
        until(lambda: store.away is not None)
        with pytest.raises(StoreUnavailable):
            done(store.begin(retried, synced=True))
        with pytest.raises(StoreUnavailable):
            store.renew("me", lease=30)
        assert not end.done()
    finally:
        server.start()
    assert done(end) is True
    assert store.away is None
    assert store.renew("me", lease=30) is not None
    assert get(store, fence.id).state == "succeeded"
    insert(store, new(uid="accepted"))
    assert store.get("uid", "refused") is None


def test_dead_connections_are_replaced(
    server: Server, postgresql_url: str, stores: NewStore
) -> None:
    """After a restart of the database the first read and the first write succeed."""
    store = stores(postgresql_url)
    insert(store, new(uid="a"))
    server.stop()
    server.start()
    assert store.get("uid", "a") is not None
    server.stop()
    server.start()
    insert(store, new(uid="b"))


def test_the_writes_that_are_kept_are_limited(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit a write fails at once, and says so."""
    monkeypatch.setattr(writer, "_KEPT", 2)
    with held_up(store):
        queued = [store.insert([new()]) for _ in range(2)]
        with pytest.raises(StoreUnavailable, match="2 writes are queued"):
            done(store.insert([new()]))
    assert all(done(future) for future in queued)


@contextmanager
def full_disk(path: Path, room: int) -> t.Iterator[None]:
    """Let no file of this process grow beyond that of the path, and some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(path.stat().st_size, Path(f"{path}-wal").stat().st_size) + room
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(
    stores: NewStore, sqlite_url: str, tmp_path: Path
) -> None:
    """Submits are refused while it is full, ends are kept, nothing is damaged."""
    store = stores(sqlite_url)
    join(store, "me")
    fences = [running(store, "me") for _ in range(3)]
    big = Sealed("json", b"x" * 300_000, b"")
    with full_disk(tmp_path / "tasks.db", room=100_000):
        with pytest.raises(StoreUnavailable):
            done(store.insert([new(uid="refused", payload=big)]))
        ends = [
            store.finish(Finish(fence=fence, state="succeeded", result=big))
            for fence in fences
        ]
        until(lambda: store.away is not None)
        assert store.get("uid", "refused") is None
        assert not any(end.done() for end in ends)
    assert [done(end) for end in ends] == [True] * 3
    assert store.result(fences[2].id) == big
    with store.database.engine.connect() as db:
        assert db.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
