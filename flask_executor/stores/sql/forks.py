"""Forks of a process that has an SQLite file open.

SQLite remembers for each process which locks it has on a file. A forked child inherits
that memory, but not the locks. So it would believe in locks that it does not have, and
wait for ever for others that a thread of its parent had. Even connections of its own
would not help it. So before a fork everything of ours that has the file open is closed.
Afterwards the parent opens it again, and the child for the first time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t
import weakref

_PATIENCE = 5.0
"""Seconds for which a fork waits for transactions."""


class Uses:
    """Counts who uses a file, so that a fork can wait until nobody does.

    :param close: closes all connections; called when nobody uses them.
    """

    def __init__(self, close: t.Callable[[], object]) -> None:
        self._closes = [close]
        self.forget()
        _everywhere.add(self)

    def forget(self) -> None:
        """Begin as new: in a child, all who have used it are gone."""
        # The old lock may be held by a thread that is not there any more.
        self._changed = threading.Condition()
        self._count = 0
        self._is_forking = False

    @contextlib.contextmanager
    def closing(self, connection: t.Any) -> t.Iterator[None]:
        """Close a connection at the end of the block, or before a fork."""
        with self._changed:
            self._closes.append(connection.close)
        try:
            yield
        finally:
            with self._changed:
                self._closes.remove(connection.close)
            connection.close()

    @contextlib.contextmanager
    def use(self) -> t.Iterator[None]:
        """Use the file within the block; it must not be nested."""
        with self._changed:
            while self._is_forking:
                self._changed.wait()
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until nobody uses the file, and close it."""
        with self._changed:
            self._is_forking = True
            # After a transaction that takes too long, the child has to see for itself.
            if self._changed.wait_for(lambda: not self._count, _PATIENCE):
                for close in self._closes:
                    close()

    def after_fork(self) -> None:
        """Let others use it again."""
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()


_everywhere: weakref.WeakSet[Uses] = weakref.WeakSet()


def _before() -> None:
    for uses in [*_everywhere]:
        uses.before_fork()


def _in_parent() -> None:
    for uses in [*_everywhere]:
        uses.after_fork()


def _in_child() -> None:
    for uses in [*_everywhere]:
        uses.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_in_parent, after_in_child=_in_child
    )
