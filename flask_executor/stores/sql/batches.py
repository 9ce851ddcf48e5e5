"""Items to be written, and the batches that write them."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future

from sqlalchemy import Connection

from .faults import kind_of

Batch = t.Callable[[Connection, t.Sequence[t.Any]], t.Sequence[t.Any]]
"""A function that writes values, and returns an outcome for each."""


class Item:
    """One thing to be written.

    :param about: items about the same thing are written in order.
    :param synced: its commit waits for the disk.
    :param must: it is kept while the database is away.
    :param announced: other processes are told of it.
    :param awaited: its submitter waits for it.
    """

    __slots__ = (
        "about",
        "announced",
        "awaited",
        "batch",
        "future",
        "must",
        "synced",
        "value",
    )

    def __init__(
        self,
        batch: Batch,
        value: t.Any,
        about: object = None,
        *,
        synced: bool = False,
        must: bool = False,
        announced: bool = False,
        awaited: bool = False,
    ) -> None:
        self.batch: Batch = batch
        self.value: t.Any = value
        self.about: object = about
        self.synced: bool = synced
        self.must: bool = must
        self.announced: bool = announced
        self.awaited: bool = awaited
        self.future: Future[t.Any] = Future()


def together(db: Connection, items: t.Sequence[Item]) -> list[t.Any]:
    """Write items, those of one batch together; return their outcomes."""
    outcomes: dict[Item, t.Any] = {}
    for group in grouped(items):
        found = group[0].batch(db, [item.value for item in group])
        outcomes.update(zip(group, found, strict=True))
    return [outcomes[item] for item in items]


def grouped(items: t.Iterable[Item]) -> list[list[Item]]:
    """Return items in groups of one batch; never one before another about the same."""
    groups: list[list[Item]] = []
    latest: dict[Batch, int] = {}
    last_about: dict[object, int] = {}
    for item in items:
        place = latest.get(item.batch, -1)
        after = -1 if item.about is None else last_about.get(item.about, -1)
        if place < 0 or place <= after:
            place = latest[item.batch] = len(groups)
            groups.append([])
        groups[place].append(item)
        if item.about is not None:
            last_about[item.about] = place
    return groups


def one_by_one(db: Connection, items: t.Sequence[Item]) -> list[t.Any]:
    """Write items each by itself; the outcome of one that fails is its error."""
    outcomes: list[t.Any] = []
    for item in items:
        db.exec_driver_sql("SAVEPOINT item")
        try:
            outcomes += item.batch(db, [item.value])
        except Exception as error:
            if kind_of(error) != "other":  # it is not the fault of this item
                raise
            db.exec_driver_sql("ROLLBACK TO SAVEPOINT item")
            outcomes.append(error)
        db.exec_driver_sql("RELEASE SAVEPOINT item")
    return outcomes
