"""What an error of a database means."""

from __future__ import annotations

import typing as t

from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

Fault = t.Literal["collision", "away", "other"]
"""``collision``: others were in the way, so try the same again at once. ``away``: the
database cannot be used now. ``other``: the statement, or what was given to it."""

_COLLISIONS = ("40001", "40P01")
_SQLITE_AWAY = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
    "SQLITE_PROTOCOL",
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_NOMEM",
)
_NOT_NOW = ("25006", "25P03", "57P01", "57P02", "57P03", "53")
"""PostgreSQL's codes of a database that is read-only, stops, starts, or is full, and of
a transaction that was idle for too long."""


def kind_of(error: BaseException) -> Fault:
    """Return what an error means for the transaction in which it was raised."""
    if isinstance(error, TimeoutError) or lost_connection(error):
        return "away"  # no connection became free, or this one is gone
    original = getattr(error, "orig", error)
    if (sqlite := getattr(original, "sqlite_errorname", None)) is not None:
        return "away" if sqlite.startswith(_SQLITE_AWAY) else "other"
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate in _COLLISIONS:
        return "collision"
    if isinstance(error, OperationalError):  # without a code it could not connect
        return "away"
    return "away" if (sqlstate or "").startswith(_NOT_NOW) else "other"


def reason_of(error: BaseException) -> str:
    """Return what the database said, in one line."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines() or [type(original).__name__]
    if getattr(original, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
        lines[0] += (
            ": another transaction holds the file's write lock; if it is that of this"
            " view, pass its session, using(session=...), or commit it before"
        )
    return lines[0]


def lost_connection(error: BaseException) -> bool:
    """Return True if the connection was dead, perhaps long before it was used."""
    return isinstance(error, DBAPIError) and error.connection_invalidated
