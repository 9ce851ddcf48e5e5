"""Fixtures: processes that share a store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import typing as t

import pytest
from processes import NewProcess, Process
from store_fixtures import empty_file, postgresql_url, server, sqlite_url, url

__all__ = ["empty_file", "postgresql_url", "server", "sqlite_url", "url"]


@pytest.fixture
def process(url: str) -> t.Iterator[NewProcess]:
    """Makes processes that share one empty store, and ends them."""
    made: list[Process] = []

    def make(**config: t.Any) -> Process:
        made.append(Process(url, **config))
        return made[-1]

    yield make
    for one in made:
        one.close(cancel_futures=True)  # a test that failed may leave some


@pytest.fixture
def one(process: NewProcess) -> Process:
    """A process that claims tasks."""
    return process().serve()


@pytest.fixture
def other(process: NewProcess) -> Process:
    """A process that runs only what it submits itself."""
    return process(EXECUTOR_STORE_RUN=False)
