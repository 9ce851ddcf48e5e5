"""Tasks in the transaction of a session: they exist if, and when, that commits.

What the end of a transaction was, only the database knows for certain: a savepoint may
have been rolled back, an outer transaction may go on, the reply to a commit may be
lost. So after the end of the session's transaction we look if the row is there.
"""

from __future__ import annotations

import logging
import typing as t
import weakref
from functools import partial

from ..calls import Call
from ..errors import UnsupportedOption
from ..futures import Callback
from ..options import Options
from ..stores.records import NewTask, Record, Taken
from ..task import Task
from . import following
from .accepting import Accepting, Submission
from .futures import StoredFuture
from .remote import RemoteTask, UncommittedOwner


class Pending:
    """A task whose transaction has not ended.

    :param future: its future.
    :param connection: that of the session.
    """

    def __init__(self, future: StoredFuture[t.Any], connection: t.Any) -> None:
        self.future: StoredFuture[t.Any] = future
        self.has_ended: bool = False
        """True after the end of the session's transaction."""
        # Weak: if the session is dropped, its transaction ends with the connection.
        self._connection = weakref.ref(connection)

    @property
    def goes_on(self) -> bool:
        """True while a transaction around that of the session has not ended."""
        connection = self._connection()
        if connection is None or connection.closed:
            return False
        return t.cast(bool, connection.in_transaction())


class Committing(Accepting):
    """Accepts the calls whose tasks are saved by a session of the app.

    :param node: has the store, and the dispatcher that runs them.
    """

    def __init__(self, node: t.Any) -> None:
        super().__init__(node)
        self._pending: dict[str, Pending] = {}
        self._owner: t.Any = UncommittedOwner(node)

    def accept(
        self,
        call: Call,
        options: Options,
        key: t.Any,
        job: t.Any,
        callbacks: t.Sequence[Callback],
        held_by: object = None,
    ) -> StoredFuture[t.Any]:
        """Save a call in the transaction of a session, and return its future.

        It raises what :meth:`.Accepting.accept` raises.

        :raises SessionRefused: if the session belongs to another database.
        :raises UnsupportedOption: if the task has no guarantee.
        """
        from ..stores.sql import sessions

        if options.guarantee == "ephemeral":
            instead = "use guarantee='at_least_once' or 'at_most_once'"
            raise UnsupportedOption("session", "a task without a guarantee", instead)
        one = self._submission(call, options, key, job, callbacks)
        session = sessions.session_of(options.session)
        new = self._new(one, None)
        taken = self._insert_with(session, new)
        if taken is not None:
            return self._instead(taken, one)
        future = one.future
        future.task = self._uncommitted(one)
        for callback in callbacks:
            future.add_callback_in(one.snapshot, callback)
        self._pending[one.uid] = Pending(future, session.connection())
        self._watch(session, new)
        return future

    def _uncommitted(self, one: Submission) -> Task:
        like = self._like(one)
        task = RemoteTask(one.future, like._call, self._owner, like.options, like.key)
        following.copy(like, task)
        return task

    def _insert_with(self, session: t.Any, new: NewTask) -> Taken | None:
        """Insert a task in the transaction of a session, unless it is taken."""
        from ..stores.sql import sessions

        connection = sessions.connection_of(session, self._node.store.database)
        [outcome] = self._node.store.insert_with(connection, [new])
        return outcome if isinstance(outcome, Taken) else None

    def _watch(self, session: t.Any, new: NewTask) -> None:
        from ..stores.sql import sessions

        sessions.at_end(session, partial(self._ended, new.uid))

    def _instead(self, taken: Taken, one: Submission) -> StoredFuture[t.Any]:
        pending = self._pending.get(taken.uid)
        is_wanted = taken.what == "unique" and one.options.on_taken == "return"
        return pending.future if pending and is_wanted else super()._instead(taken, one)

    def has_pending(self) -> bool:
        """Return True while transactions with tasks of this process go on."""
        return bool(self._pending)

    def pending(self, uid: str) -> StoredFuture[t.Any] | None:
        """Return the future of a task whose transaction has not ended, or None."""
        one = self._pending.get(uid)
        return None if one is None else one.future

    def _ended(self, uid: str) -> None:
        """Note the end of a transaction; on the thread of the session."""
        self._pending[uid].has_ended = True
        self._node.feeding.start()
        self._node.work_if_allowed()
        self._node.wake()

    def settle(self) -> None:
        """Look what became of the tasks whose transactions have ended.

        :raises StoreUnavailable: if the database is away; then call it again.
        """
        ended = {uid: one for uid, one in self._pending.copy().items() if one.has_ended}
        if not ended:
            return
        # Before the look: a transaction may commit between that and the question.
        over = {uid for uid, one in ended.items() if not one.goes_on}
        found = self._node.store.get_many("uid", [*ended])
        records: dict[str, Record] = {record.uid: record for record in found}
        for uid, one in ended.items():
            if uid in records:
                self._follow_committed(records[uid], one)
            elif uid in over:
                self._cancel(uid, one)
        if records:
            self._node.store.announce()

    def _follow_committed(self, record: Record, one: Pending) -> None:
        following = self._node.following
        following.follow(one.future, t.cast(Task, one.future.task))
        following.update(one.future, record)
        del self._pending[record.uid]
        # Aside: receivers take their time.
        tell = self._node.dispatcher.events.submitted
        self._node.deliveries.run(tell, one.future.task)

    def _cancel(self, uid: str, one: Pending) -> None:
        del self._pending[uid]
        future, task = one.future, t.cast(Task, one.future.task)
        task.state, task._finished = "cancelled", self._node.dispatcher._time()
        if future.end_elsewhere(None, failed=False):
            task.future = None
            message = "Task %s was not submitted: its transaction was rolled back"
            self._node.log.write(logging.DEBUG, message, task._label)
            self._node.deliveries.run(future.run_callbacks)
