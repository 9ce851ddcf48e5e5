"""The errors of a store."""

from __future__ import annotations

import typing as t


class StoreUnavailable(ConnectionError):
    """The database of the store cannot be used at the moment.

    A read or a submit that raises it has changed nothing. Try again later: the store
    reconnects by itself.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(
            f"The store {where} is not available ({reason}). Nothing was accepted;"
            " try again later. The store reconnects by itself."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.reason)


class StoreRefused(ValueError):
    """``EXECUTOR_STORE`` names a database that cannot be a store."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"EXECUTOR_STORE = {where!r} cannot be used: {reason}.")

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.reason)


class SchemaMismatch(RuntimeError):
    """The tables of the store are of another version than this code."""

    def __init__(self, where: str, found: int, known: int) -> None:
        self.where = where
        self.found = found
        self.known = known
        if found < known:
            what = "older than this code: run 'flask executor store upgrade'"
        else:
            what = "newer than this code: install the Flask-Executor that made them"
        super().__init__(
            f"The tables in {where} have version {found}, and this code needs version"
            f" {known}. They are {what}."
        )

    def __reduce__(self) -> tuple[t.Any, ...]:
        return type(self), (self.where, self.found, self.known)
