"""The store in a SQL database: the contract, put together."""

from __future__ import annotations

from ..base import Store
from .reading import SqlLookups
from .upkeep import SqlUpkeep


class SqlStore(SqlUpkeep, SqlLookups, Store):
    """A store in SQLite or PostgreSQL; see :class:`.Core` for its parameters."""
