"""Fixtures: each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from store_fixtures import (
    clock,
    empty_file,
    other,
    postgresql_url,
    server,
    sqlite_url,
    store,
    stores,
    url,
)

__all__ = [
    "clock",
    "empty_file",
    "other",
    "postgresql_url",
    "server",
    "sqlite_url",
    "store",
    "stores",
    "url",
]
