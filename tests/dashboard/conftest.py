"""Fixtures: a dashboard over a store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import typing as t

import pytest
from dashboards import Visitor
from processes import Process
from store_fixtures import empty_file, postgresql_url, server, sqlite_url, url

from flask_executor.web import Dashboard
from flask_executor.web.access import ACTIONS

__all__ = ["empty_file", "postgresql_url", "server", "sqlite_url", "url"]


@pytest.fixture
def allowed() -> set[str]:
    """What the visitor may do; a test takes some of it away."""
    return {*ACTIONS}


@pytest.fixture
def new_process(url: str, allowed: set[str]) -> t.Iterator[t.Callable[..., Process]]:
    """Makes processes that share one store, each with a dashboard, and ends them."""
    made: list[Process] = []

    def make(**config: t.Any) -> Process:
        one = Process(url, **config)
        may = Dashboard(one.executor, authorize=lambda action: action in allowed)
        one.app.register_blueprint(may)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close(cancel_futures=True)


@pytest.fixture
def shop(new_process: t.Callable[..., Process]) -> Process:
    """A process that runs tasks."""
    return new_process().serve()


@pytest.fixture
def visitor(shop: Process) -> Visitor:
    return Visitor(shop.app)
