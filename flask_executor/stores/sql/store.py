"""The store in a SQL database: the contract, put together."""

from __future__ import annotations

from .work import SqlWork


class SqlStore(SqlWork):
    """A store in SQLite or PostgreSQL; see :class:`.Core` for its parameters."""
