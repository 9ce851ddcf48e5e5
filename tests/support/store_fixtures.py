"""Fixtures for conftest files: each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import atexit
import functools
import shutil
import typing as t
from pathlib import Path

import pytest
from databases import Server
from limits import LIMIT
from stores import HandClock

from flask_executor.stores.sql import SqlStore
from flask_executor.stores.sql.schema import TABLES

NewStore = t.Callable[..., SqlStore]


@functools.cache
def the_server() -> Server:
    """Return the PostgreSQL of this session, however many folders use it."""
    server = Server()
    atexit.register(server.remove)
    return server


@pytest.fixture(scope="session")
def server() -> Server:
    return the_server()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of SQLite with our tables in it."""
    path = tmp_path_factory.mktemp("sqlite") / "tasks.db"
    store = SqlStore(f"sqlite:///{path}")
    store.setup()
    assert store.close(LIMIT)
    return path


@pytest.fixture
def sqlite_url(empty_file: Path, tmp_path: Path) -> str:
    shutil.copy(empty_file, tmp_path / "tasks.db")
    return f"sqlite:///{tmp_path / 'tasks.db'}"


@pytest.fixture
def postgresql_url(server: Server) -> str:
    """The URL of a database with empty tables, or none."""
    with server.connect() as connection:
        found = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        for [name] in found:
            if name.removeprefix("executor_") not in TABLES:
                connection.execute(f"DROP TABLE {name}")
            elif name != "executor_meta":
                connection.execute(f"DELETE FROM {name}")
    return server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store."""
    return t.cast(str, request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def stores() -> t.Iterator[t.Callable[..., SqlStore]]:
    """Makes stores, each as another process would, and closes them."""
    made: list[SqlStore] = []

    def make(url: str, **options: t.Any) -> SqlStore:
        made.append(SqlStore(url, **options))
        return made[-1]

    yield make
    for store in made:
        assert store.close(LIMIT)


@pytest.fixture
def store(url: str, stores: NewStore, clock: HandClock) -> SqlStore:
    """A store whose clock is moved by hand."""
    return stores(url, clock=clock)


@pytest.fixture
def other(store: SqlStore, url: str, stores: NewStore, clock: HandClock) -> SqlStore:
    """The same store, as another process sees it."""
    return stores(url, clock=clock)
