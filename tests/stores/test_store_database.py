"""Which databases can be a store, and what their tables are."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from limits import LIMIT
from sqlalchemy import Engine, create_engine
from stores import done, has_succeeded, in_child, insert, join, new

from flask_executor.stores.errors import (
    SchemaMismatch,
    StoreRefused,
    StoreUnavailable,
)
from flask_executor.stores.records import ENDS
from flask_executor.stores.sql import SqlStore, database, files, schema, turn
from flask_executor.stores.sql.turn import Turn

NewStore = t.Callable[..., SqlStore]

REFUSED = [
    ("mysql://u:secret@host/db", "mysql is not supported; use SQLite or PostgreSQL"),
    ("sqlite://", "other processes could not see it"),
    ("sqlite:///:memory:", "name a file, as sqlite:///tasks.db"),
    ("postgresql+psycopg2://u:secret@host/db", "use postgresql\\+psycopg://"),
    ("sqlite+aiosqlite:///tasks.db", "use sqlite:///"),
    ("tasks.db", "it is not a URL; use 'sqlite:///tasks.db'"),
]


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_other_databases_are_refused(url: str, reason: str) -> None:
    """The message says which, why, and what to use; it holds no password."""
    with pytest.raises(StoreRefused, match=reason) as raised:
        SqlStore(url)
    assert "EXECUTOR_STORE = " in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements need RETURNING, which came with SQLite 3.35."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(StoreRefused, match=r"3\.34\.1 has no RETURNING"):
        SqlStore("sqlite:///tasks.db")


def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks do not hold there."""
    mounts = tmp_path / "mounts"
    share = tmp_path / "a share"
    share.mkdir()
    escaped = str(share).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nhost:/x {escaped} nfs4 rw 0 0\n")
    monkeypatch.setattr(files, "_MOUNTS", str(mounts))
    with pytest.raises(StoreRefused, match=r"network file system \(nfs4\)"):
        SqlStore(f"sqlite:///{share}/tasks.db")
    SqlStore(f"sqlite:///{tmp_path}/tasks.db")
    monkeypatch.setattr(files, "_MOUNTS", str(tmp_path / "missing"))
    SqlStore(f"sqlite:///{share}/tasks.db")


def test_a_relative_path_begins_in_the_folder(stores: NewStore, tmp_path: Path) -> None:
    """The folder is made if there is none."""
    folder = tmp_path / "instance"
    insert(stores("sqlite:///tasks.db", folder=folder), new())
    assert (folder / "tasks.db").exists()


def test_two_threads_share_an_engine(url: str) -> None:
    """Threads that need the database first at the same time use one engine, so that
    none stays behind with its connections open.
    """
    shared, made = database.Database(url), []
    both = threading.Barrier(2)

    def slow(*args: t.Any) -> Engine:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # the other thread may come here, too
        made.append(create_engine(url))
        return made[-1]

    with mock.patch.object(database, "_make_engine", slow), ThreadPoolExecutor() as two:
        got = [two.submit(lambda: shared.engine) for _ in range(2)]
        assert got[0].result(LIMIT) is got[1].result(LIMIT)
    assert len(made) == 1


def test_an_engine_names_a_database(url: str, stores: NewStore) -> None:
    """An engine of the app is used for PostgreSQL; for SQLite we make another one."""
    engine = create_engine(url)
    store = stores(engine)
    insert(store, new())
    is_postgresql = store.database.dialect == "postgresql"
    assert (store.database.engine.pool is engine.pool) == is_postgresql
    assert store.close(LIMIT)
    with engine.connect() as connection:  # it is still open
        assert connection.exec_driver_sql("SELECT count(*) FROM executor_task").scalar()
    engine.dispose()


def test_a_url_without_a_driver_means_psycopg(
    postgresql_url: str, stores: NewStore
) -> None:
    """``postgresql://`` is enough, with any version of SQLAlchemy."""
    insert(stores(postgresql_url.replace("+psycopg", "")), new())


def as_nobody(check: t.Callable[[], object]) -> int:
    """Run a check in a child that may not write everywhere; return its id."""

    def check_it() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        check()

    return in_child(check_it)


def test_a_read_only_file_is_refused(empty_file: Path) -> None:
    """The message says what this process needs."""
    folder = Path(tempfile.mkdtemp(prefix="read-only-"))

    def check() -> None:
        with pytest.raises(StoreRefused, match="it is read-only; let this process"):
            SqlStore(f"sqlite:///{folder}/tasks.db").setup()

    try:
        shutil.copy(empty_file, folder)
        (folder / "tasks.db").chmod(0o444)
        folder.chmod(0o555)
        assert has_succeeded(as_nobody(check))
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_transaction_of_the_caller_is_named_as_the_reason(
    stores: NewStore, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody holds the file's write lock, a submit fails and says so."""
    monkeypatch.setattr(database, "PATIENCE", 0.1)
    store = stores(sqlite_url)
    store.setup()
    view = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    view.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"pass its session, using\(session"):
        done(store.insert([new()]))
    view.rollback()
    view.close()
    insert(store, new())


def test_the_tables_are_made_at_first_use(url: str, stores: NewStore) -> None:
    """Whoever comes first makes them, and of several at once each finds them."""
    several = [stores(url, prefix="mail_executor_") for _ in range(4)]
    start = threading.Barrier(len(several))
    errors: list[BaseException] = []

    def use(store: SqlStore) -> None:
        try:
            start.wait(LIMIT)
            insert(store, new())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(store,)) for store in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert errors == []
    assert several[0].counts()["waiting"] == 4
    assert several[0].check() == []


def test_two_executors_share_a_database(url: str, stores: NewStore) -> None:
    """Each has tables of its own, by the prefix."""
    one, two = stores(url), stores(url, prefix="two_executor_")
    insert(one, new(key="k"))
    insert(two, new(key="k"))
    assert (one.count_keys(), two.count_keys()) == (1, 1)


def set_version(store: SqlStore, version: int) -> None:
    statement = store.sql.text("UPDATE {meta} SET version = :version")
    store.database.write(lambda db: store.sql.run(db, statement, version=version))


def test_older_tables_are_brought_up_to_date(
    url: str, stores: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then they are refused, with the command that does it."""
    stores(url, prefix="old_executor_").setup()
    now = schema.VERSION
    monkeypatch.setattr(schema, "VERSION", now + 2)
    steps = {
        now: ("ALTER TABLE {meta} ADD COLUMN a INTEGER",),
        now + 1: ("ALTER TABLE {meta} ADD COLUMN b INTEGER", "UPDATE {meta} SET b = a"),
    }
    monkeypatch.setattr(schema, "UPGRADES", steps)
    store = stores(url, prefix="old_executor_")
    with pytest.raises(
        SchemaMismatch, match="'flask executor store upgrade'"
    ) as raised:
        store.setup()
    assert (raised.value.found, raised.value.known) == (now, now + 2)
    assert store.upgrade() == 2
    assert store.upgrade() == 0
    store.setup()


def write(store: SqlStore, statement: str) -> None:
    made = store.sql.text(statement)
    store.database.write(lambda db: store.sql.run(db, made))


def made_version_2(store: SqlStore) -> None:
    """Take away what version 3 of the tables has."""
    for index in ("request", "retried_from"):
        write(store, f"DROP INDEX {{task}}_{index}")
    write(store, "ALTER TABLE {task} DROP COLUMN request")
    set_version(store, 2)


def test_tables_of_version_1_get_what_they_lack(url: str, stores: NewStore) -> None:
    """Each step makes what the next version has; what is in the tables stays."""
    store = stores(url, prefix="first_executor_")
    store.setup()
    [id] = insert(store, new())
    made_version_2(store)
    write(store, "ALTER TABLE {attempt} DROP COLUMN error_text")
    set_version(store, 1)
    later = stores(url, prefix="first_executor_")
    with pytest.raises(SchemaMismatch, match="have version 1"):
        later.get("id", id)
    assert later.upgrade() == schema.VERSION - 1
    assert later.check() == []
    assert later.attempts(id) == []
    assert later.get("id", id) is not None


def test_tables_of_version_2_get_requests(url: str, stores: NewStore) -> None:
    """Tasks of before have no request; those of after are found by theirs."""
    store = stores(url, prefix="second_executor_")
    store.setup()
    [old] = insert(store, new())
    made_version_2(store)
    later = stores(url, prefix="second_executor_")
    with pytest.raises(SchemaMismatch, match="have version 2"):
        later.get("id", old)
    assert later.upgrade() == 1
    assert later.check() == []
    [id] = insert(later, new(request="r"))
    assert [one.id for one in later.tasks(request="r")] == [id]
    record = later.get("id", old)
    assert record is not None
    assert record.request is None


def test_newer_tables_are_refused(url: str, stores: NewStore) -> None:
    """Code that does not know them must not write into them."""
    store = stores(url, prefix="new_executor_")
    store.setup()
    set_version(store, schema.VERSION + 1)
    late = stores(url, prefix="new_executor_")
    with pytest.raises(SchemaMismatch, match="newer than this code"):
        done(late.insert([new()]))
    with pytest.raises(SchemaMismatch, match="newer than this code"):
        late.upgrade()


def test_an_upgrade_makes_what_is_not_there(url: str, stores: NewStore) -> None:
    """On an empty database it makes the tables."""
    store = stores(url, prefix="fresh_executor_")
    assert "table fresh_executor_task" in store.check()
    assert store.upgrade() == 1
    assert store.check() == []


def test_a_check_names_what_is_missing(url: str, stores: NewStore) -> None:
    """A column or an index that somebody has removed is named."""
    store = stores(url, prefix="less_executor_")
    store.setup()
    for statement in (
        "DROP INDEX less_executor_task_ready",
        "ALTER TABLE less_executor_worker DROP COLUMN pid",
    ):
        store.database.write(lambda db, s=statement: db.exec_driver_sql(s))
    assert sorted(store.check()) == [
        "column less_executor_worker.pid",
        "index less_executor_task_ready",
    ]


def test_the_index_of_failures_has_all_that_is_no_success() -> None:
    """Its condition names every end except ``succeeded``."""
    assert all((f"'{end}'" in schema.TROUBLED) == (end != "succeeded") for end in ENDS)


HOLDER = """
import sys
from flask_executor.stores.sql.turn import Turn
with Turn(sys.argv[1]).take():
    print("taken", flush=True)
    sys.stdin.read()
"""


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    """The kernel gives the turn to the next one when its holder is killed."""
    path = str(tmp_path / "turn")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == b"taken\n"
    taken = threading.Event()

    def take() -> None:
        with Turn(path).take():
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.05)
    holder.send_signal(signal.SIGKILL)
    assert taken.wait(LIMIT)
    thread.join(LIMIT)
    holder.communicate(timeout=LIMIT)


def test_a_child_does_not_keep_the_turn_of_its_parent(tmp_path: Path) -> None:
    """A child that is forked within a turn lets it end when the parent ends it."""
    path = str(tmp_path / "turn")
    ready, may_end = os.pipe(), os.pipe()
    with Turn(path).take():
        child = os.fork()
        if not child:
            os.write(ready[1], b"x")
            os.read(may_end[0], 1)
            os._exit(0)
        assert os.read(ready[0], 1) == b"x"
        # As if the parent were killed now: nobody releases the lock explicitly.
        for file in [*turn._open_files]:
            os.close(file.number)
            file.number = os.open(os.devnull, os.O_RDWR)
        with Turn(path).take():
            pass
    os.write(may_end[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*ready, *may_end):
        os.close(end)


@pytest.mark.parametrize("has_flock", [True, False])
def test_processes_that_write_at_once_all_succeed(
    stores: NewStore, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, has_flock: bool
) -> None:
    """Nobody finds the file locked, however many write, also without ``flock``."""
    if not has_flock:
        monkeypatch.setattr(turn, "fcntl", None)
    store = stores(sqlite_url)
    join(store, "me")

    def write(number: int) -> None:
        for i in range(20):
            insert(store, new(uid=f"{number}-{i}"))

    children = [in_child(partial(write, number)) for number in range(4)]
    assert [has_succeeded(child) for child in children] == [True] * 4
    assert store.counts()["waiting"] == 80


WITHOUT = """
import sys
from flask import Flask
from flask_executor import Executor
Executor(Flask(__name__)).submit(print).result()
ours = {name for name in sys.modules if name.startswith("flask_executor.stores.sql")}
print(sorted(ours | ({"sqlalchemy", "psycopg", "sqlite3"} & {*sys.modules})))
"""


def test_without_a_store_none_of_it_is_imported() -> None:
    """Neither the store nor a library of a database, also after a submit."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
    )
    assert done.stdout.strip() == "[]", done
