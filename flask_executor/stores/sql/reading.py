"""What can be read, on the thread that asks, each statement by itself."""

from __future__ import annotations

import typing as t

from ..base import By, Lookups
from ..records import AttemptRecord, Record, Sealed, State
from .core import Core
from .lists import Lists
from .locks import Locks


class SqlLookups(Core, Lookups):
    """What can be read of tasks."""

    def _prepare(self) -> None:
        super()._prepare()
        self._lists = Lists(self.sql)
        self._locks = Locks(self.database, self.sql)

    def get(self, by: By, value: int | str) -> Record | None:
        """Return one task, or None."""
        return self._read(lambda db: self._lists.get(db, by, value))

    def state_of(self, key: str) -> tuple[str, State] | None:
        """Return the public id and the state of the task with that key, or None."""
        return self._read(lambda db: self._lists.state_of(db, key))

    def get_many(self, by: By, values: t.Collection[int | str]) -> list[Record]:
        """Return those of these tasks that are there, in no order."""
        return self._read(lambda db: self._lists.get_many(db, by, values))

    def result(self, id: int) -> Sealed | None:
        """Return the result of a task that has succeeded, or None."""
        return self._read(lambda db: self._lists.sealed(db, "result", id))

    def payload(self, id: int) -> Sealed | None:
        """Return the payload of a task, or None if it has none."""
        return self._read(lambda db: self._lists.sealed(db, "payload", id))

    def tasks(
        self,
        *,
        state: str | None = None,
        keyed: bool = False,
        limit: int = 100,
        **filters: t.Any,
    ) -> list[Record]:
        """Return tasks, newest first."""
        return self._read(
            lambda db: self._lists.tasks(db, state, keyed, limit, filters)
        )

    def counts(self, limit: int = 10_000) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""
        return self._read(lambda db: self._lists.counts(db, limit))

    def count(
        self, *, state: str | None = None, limit: int = 10_000, **filters: t.Any
    ) -> int:
        """Return how many tasks :meth:`tasks` would find, at most ``limit``."""
        return self._read(lambda db: self._lists.count(db, state, limit, filters))

    def count_ended(self, state: State, older: float, limit: int = 10_000) -> int:
        """Return how many tasks ended in a state so many seconds ago, or earlier."""
        return self._read(lambda db: self._lists.count_ended(db, state, older, limit))

    def count_keys(self) -> int:
        """Return how many tasks have a key."""
        return self._read(self._lists.count_keys)

    def ahead(self, id: int, limit: int = 10_000) -> int:
        """Return how many waiting tasks come before this one, at most ``limit``."""
        return self._read(lambda db: self._lists.ahead(db, id, limit))

    def oldest_wait(self, limit: int = 1000) -> float | None:
        """Return the seconds for which the task has waited that waits longest."""
        return self._read(lambda db: self._lists.oldest_wait(db, limit))

    def attempts(self, id: int) -> list[AttemptRecord]:
        """Return the attempts of a task that did not succeed, in order."""
        return self._read(lambda db: self._lists.attempts(db, id))

    def is_locked(self, id: int) -> bool:
        """Return True if another transaction keeps a task from being claimed."""
        self.setup()
        return self._locks.is_locked(id)
