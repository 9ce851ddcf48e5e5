"""Sessions in a test: a captured task runs when its session commits.

For a store, only the database knows what was committed. Here the session says so. So a
commit counts that a test undoes later, together with all else that it has written.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import event
from sqlalchemy.orm import Session

Ended = t.Callable[[bool], object]


class Commit:
    """Waits for the end of the transaction in which a task was submitted.

    :param session: the session.
    :param ended: called once, with True if the session has committed.
    """

    def __init__(self, session: Session, ended: Ended) -> None:
        self._ended: Ended | None = ended
        # A task within a savepoint is undone with it.
        self._within: t.Any = session.get_nested_transaction()
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_soft_rollback", self._rolled_back)
        event.listen(session, "after_transaction_end", self._over)

    def _committed(self, session: Session) -> None:
        if session.get_nested_transaction() is None:  # it was no savepoint
            self._tell(True)

    def _rolled_back(self, session: Session, transaction: t.Any) -> None:
        around = self._within
        while around is not None and around is not transaction:
            around = around.parent
        if around is not None:
            self._tell(False)

    def _over(self, session: Session, transaction: t.Any) -> None:
        if transaction.parent is None:
            self._tell(False)

    def _tell(self, committed: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(committed)
