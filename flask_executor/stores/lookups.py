"""The contract of a store: what can be read."""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod

from .records import (
    AttemptRecord,
    GroupRecord,
    Record,
    Schedule,
    Sealed,
    Stat,
    State,
)

By = t.Literal["id", "uid", "key"]


class Lookups(ABC):
    """What can be read. Each takes milliseconds beside a million tasks."""

    @abstractmethod
    def get(self, by: By, value: int | str) -> Record | None:
        """Return one task, or None."""

    @abstractmethod
    def state_of(self, key: str) -> tuple[str, State] | None:
        """Return the public id and the state of the task with that key, or None."""

    @abstractmethod
    def get_many(self, by: By, values: t.Collection[int | str]) -> list[Record]:
        """Return those of these tasks that are there, in no order."""

    @abstractmethod
    def result(self, id: int) -> Sealed | None:
        """Return the result of a task that has succeeded, or None."""

    @abstractmethod
    def payload(self, id: int) -> Sealed | None:
        """Return the payload of a task, or None if it has none."""

    @abstractmethod
    def tasks(
        self,
        *,
        state: str | None = None,
        job: str | None = None,
        name: str | None = None,
        error: str | None = None,
        group: int | None = None,
        parent: str | None = None,
        request: str | None = None,
        retried_from: str | None = None,
        keyed: bool = False,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Record]:
        """Return tasks, newest first.

        :param error: the class of the error.
        :param request: the id of the request that they come from.
        :param retried_from: the ``uid`` of the task that they repeat.
        :param keyed: only tasks that have a key.
        :param before: only ids below this one: the next page.
        :param after: only ids above this one. The page is then that next to it.
        """

    @abstractmethod
    def counts(self, limit: int = 10_000) -> dict[str, int]:
        """Return the number of tasks per state, each at most ``limit``."""

    @abstractmethod
    def count(
        self,
        *,
        state: str | None = None,
        job: str | None = None,
        name: str | None = None,
        error: str | None = None,
        group: int | None = None,
        parent: str | None = None,
        request: str | None = None,
        retried_from: str | None = None,
        limit: int = 10_000,
    ) -> int:
        """Return how many tasks :meth:`tasks` would find, at most ``limit``."""

    @abstractmethod
    def count_ended(self, state: State, older: float, limit: int = 10_000) -> int:
        """Return how many tasks ended in a state so many seconds ago, or earlier."""

    @abstractmethod
    def count_keys(self) -> int:
        """Return how many tasks have a key."""

    @abstractmethod
    def ahead(self, id: int, limit: int = 10_000) -> int:
        """Return how many waiting tasks come before this one, at most ``limit``."""

    @abstractmethod
    def attempts(self, id: int) -> list[AttemptRecord]:
        """Return the attempts of a task that did not succeed, in order."""

    @abstractmethod
    def group(self, id: int) -> GroupRecord | None:
        """Return a group."""

    @abstractmethod
    def group_named(self, name: str) -> GroupRecord | None:
        """Return the newest group of this name."""

    @abstractmethod
    def groups(
        self, *, before: int | None = None, limit: int = 100
    ) -> list[GroupRecord]:
        """Return groups, newest first.

        :param before: only ids below this one: the next page.
        """

    @abstractmethod
    def oldest_wait(self, limit: int = 1000) -> float | None:
        """Return for how many seconds the task has waited that waits longest, or None.

        A task waits from when it was submitted, or later became due, until it begins.

        :param limit: at how many of each state it looks; the oldest come first.
        """

    @abstractmethod
    def schedules(self) -> list[Schedule]:
        """Return the jobs that are periodic or paused, by name."""

    @abstractmethod
    def paused(self) -> list[str]:
        """Return the jobs that are paused, by name."""

    @abstractmethod
    def is_locked(self, id: int) -> bool:
        """Return True if the transaction of somebody else holds a task.

        It is asked for up to a fifth of a second: transactions of a store are shorter.
        """

    @abstractmethod
    def stats(self, since: float, job: str | None = None) -> list[Stat]:
        """Return the statistics of the minutes since then, oldest first."""
