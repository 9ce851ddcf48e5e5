"""Groups that every process knows by their name."""

from __future__ import annotations

import threading
import typing as t
import weakref

from ..current import Progress, running
from ..groups import Group, joining
from ..members import Members
from ..stores.records import GroupRecord, Record
from ..submitter import Submitter

_PAGE = 500


class Grouping:
    """Knows the rows of groups.

    A group has a row as soon as a member is saved, if it has a name.

    :param node: has the store.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._ids: weakref.WeakKeyDictionary[Members, int] = weakref.WeakKeyDictionary()

    def current(self, *, opens: bool) -> int | None:
        """Return the id of the group whose ``submit`` runs on this thread, or None.

        :param opens: make its row if there is none.
        :raises StoreUnavailable: if the database is away.
        """
        joined = joining.get()
        # A task may run within that submit, and what it submits is no member.
        if joined is None or joined.by is not running.get():
            return None
        with self._lock:
            found = self._ids.get(joined.members)
            if found is None and opens:
                found = self._node.store.open_group(joined.name)
                self._ids[joined.members] = found
        return found

    def named(self, name: str, submitting: Submitter) -> SharedGroup | None:
        """Return the newest group of a name, or None.

        :raises StoreUnavailable: if the database is away.
        """
        record: GroupRecord | None = self._node.store.group_named(name)
        if record is None:
            return None
        members = Members()
        self._ids[members] = record.id
        return SharedGroup(submitting, record, members, self._node)


class SharedGroup(Group):
    """A group whose members are saved, maybe by other processes.

    :attr:`progress`, :meth:`done` and :meth:`cancel` ask the store, and read no result.
    """

    def __init__(
        self, submitting: Submitter, record: GroupRecord, members: Members, node: t.Any
    ) -> None:
        self._id = record.id
        self._node = node
        self._loading = threading.Lock()
        self._last = 0
        super().__init__(submitting, record.name, members)

    @property
    def _members(self) -> Members:
        """The members, including those that have come since this was asked last."""
        with self._loading:
            self._load(after=self._last)
            # Of two rows, the one with the lower id may have been committed later.
            if len(self._loaded.futures) < self._record().total:
                self._load(after=0)
        return self._loaded

    @_members.setter
    def _members(self, members: Members) -> None:
        self._loaded = members

    def _load(self, after: int) -> None:
        for record in self._rows(after):
            self._loaded.add(self._node.future_of(record))
            self._last = max(self._last, record.id)

    def _rows(self, after: int = 0) -> t.Iterator[Record]:
        tasks = self._node.store.tasks
        while page := tasks(group=self._id, after=after, limit=_PAGE):
            yield from sorted(page, key=lambda record: record.id)
            after = max(record.id for record in page)

    @property
    def progress(self) -> Progress:
        """How many of the members have ended, as the store knows it."""
        record = self._record()
        return Progress(record.done, record.total)

    def done(self) -> bool:
        """Return True if all members have ended, also if there are none."""
        record = self._record()
        return record.done >= record.total

    def cancel(self) -> bool:
        """Cancel the members that wait, and ask those that run to stop.

        :return: False if all had ended already.
        """
        cancel = self._node.verbs.cancel
        asked = [cancel(one.uid) for one in self._rows() if one.finished is None]
        return any(asked)

    def _record(self) -> GroupRecord:
        found: GroupRecord | None = self._node.store.group(self._id)
        # Removed long after its last member has ended.
        return found or GroupRecord(self._id, self.name, 0, 0, 0, True)

    def __repr__(self) -> str:
        return f"<Group {self.name!r} in the store>"
