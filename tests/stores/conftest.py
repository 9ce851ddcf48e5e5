"""Fixtures: each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def server() -> t.Iterator[Server]:
    server = Server()
    yield server
    server.remove()


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
        connection.execute(";".join(_emptied(name) for [name] in found))
    return server.url


def _emptied(table: str) -> str:
    """Return what empties one of our tables, or removes one of an earlier test."""
    if table.removeprefix("executor_") not in TABLES:
        return f"DROP TABLE {table}"
    return "SELECT 1" if table == "executor_meta" else f"DELETE FROM {table}"


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
