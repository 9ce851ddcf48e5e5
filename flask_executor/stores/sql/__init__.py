"""A store in a SQL database: SQLite or PostgreSQL, through SQLAlchemy Core."""

from .store import SqlStore as SqlStore

__all__ = ["SqlStore"]
