"""Submitting a task that is saved: into the store first, then into the pool.

A task is saved if it has a key, a ``unique`` value, or a guarantee. The process that
submits it holds it from the start if it has room, so the usual case needs no claim.
"""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import wait

from ..calls import Call
from ..contexts import Snapshot, current_app, keep_uploads
from ..contexts.safe import source_of
from ..current import running
from ..errors import DuplicateKey, NotUnique
from ..futures import Callback
from ..options import NoKey, Options
from ..stores.errors import StoreLocked, StoreUnavailable
from ..stores.keys import encode_key
from ..stores.records import Fence, Inserted, NewTask, Sealed, Taken
from ..task import Task, name_of
from .futures import StoredFuture
from .restoring import retry_numbers
from .saved import SavedTask

_PATIENCE = 5.0
"""Seconds until a task that was cancelled has ended in the database."""


class Accepting:
    """Accepts the calls whose tasks are saved.

    :param node: has the store, and the dispatcher that runs them.
    """

    def __init__(self, node: t.Any) -> None:
        self._node = node

    def accept(
        self,
        call: Call,
        options: Options,
        key: t.Any,
        job: t.Any,
        callbacks: t.Sequence[Callback],
    ) -> StoredFuture[t.Any]:
        """Save a call and return its future.

        :param key: :class:`.NoKey`, or the key for its future.
        :param job: the job that was submitted, or None.
        :raises DuplicateKey: if any process has a task with that key.
        :raises NotUnique: if the ``unique`` value is taken, and stays so.
        :raises StoreUnavailable: if the database is away, unless it is ephemeral.
        """
        node, uid = self._node, os.urandom(16).hex()
        self._refuse_own_lock(call)
        snapshot = Snapshot.take(node.app, copy_g=node.dispatcher.g_carried)
        name, payload = self._seal(uid, call, options, job, snapshot)
        future: StoredFuture[t.Any] = StoredFuture(
            node.app, None if key is NoKey else key
        )
        task = None
        if self._holds(options):
            task = node.dispatcher.register(future, call, options)
            task._id = uid
        try:
            new = self._new(uid, call, options, key, name, payload, snapshot, task)
            outcome = self._insert(new, options)
        except BaseException:
            if task is not None:
                node.dispatcher.withdraw(task)
            raise
        if isinstance(outcome, Taken):
            if task is not None:
                node.dispatcher.withdraw(task)
            if self._has_made_way(outcome, options):
                return self.accept(call, options, key, job, callbacks)
            return self._instead(outcome, options, key)
        if task is None:
            future.task = self._elsewhere(uid, call, options, future)
            return self._follow(future, snapshot, callbacks)
        if outcome is not None and outcome.fence is not None:
            self._hold(task, future, outcome.fence, name or task.name)
        self._submit(task, callbacks, job)
        return future

    def _hold(
        self, task: Task, future: StoredFuture[t.Any], fence: Fence, label: str
    ) -> None:
        node = self._node
        task._saved = saved = SavedTask(node, task, fence, label, careful=False)
        node.take_over(saved, future)
        node.feeding.start()

    def _refuse_own_lock(self, call: Call) -> None:
        """Refuse a call if saving it would wait for this thread's own transaction."""
        node = self._node
        extension = node.app.extensions.get("sqlalchemy")
        if extension is None or current_app() is not node.app:
            return
        from ..stores.sql import sessions

        if sessions.has_write_lock(extension, node.store.database):
            raise StoreLocked(name_of(call.fn), node.store.database.shown)

    def _seal(
        self, uid: str, call: Call, options: Options, job: t.Any, snapshot: Snapshot
    ) -> tuple[str | None, Sealed | None]:
        """Return the name and the payload of a task, and give its call what it sees."""
        node = self._node
        if options.guarantee != "ephemeral":
            name: str = node.names.name_to_save(call.fn if job is None else job)
            context = node.payloads.context_of(snapshot, options.request)
            payload = node.payloads.seal_call(
                uid, name, call.args, call.kwargs, context
            )
            call.snapshot = context.restore(node.app)
        else:
            name, payload = t.cast(t.Any, None), None
            call.snapshot = snapshot
        call.args, call.kwargs = keep_uploads(call.args), keep_uploads(call.kwargs)
        if node.dispatcher.pool.runs_in_caller and current_app() is not None:
            call.snapshot = None
        return name, payload

    def _holds(self, options: Options) -> bool:
        """Return True if this process is to run the task, and may begin it soon."""
        node, pool = self._node, self._node.dispatcher.pool
        if options.guarantee == "ephemeral" or pool.runs_in_caller:
            return True
        node.work_if_allowed()
        if options.wait(node.dispatcher._time()):
            return False
        if running.get() is not None:  # a task that waits for it lends its worker
            return True
        # A script keeps what it submits: maybe there is no other process.
        return bool(node.runs and (not node.serves or node.room() > 0))

    def _new(
        self,
        uid: str,
        call: Call,
        options: Options,
        key: t.Any,
        name: str | None,
        payload: Sealed | None,
        snapshot: Snapshot,
        task: t.Any,
    ) -> NewTask:
        parent = running.get()
        run_at = options.run_at
        return NewTask(
            uid=uid,
            name=options.name or name_of(call.fn),
            guarantee=t.cast(t.Any, options.guarantee),
            owner=None if task is None else self._me(options),
            job=name,
            key=None if key is NoKey else encode_key(key),
            meta=options.meta,
            priority=options.priority,
            delay=options.delay,
            due=None if run_at is None else run_at.timestamp(),
            parent=None if parent is None else parent.id,
            source=source_of(snapshot),
            timeout=options.timeout,
            retry=retry_numbers(options.retry),
            unique_key=_unique_key(options),
            replace=options.on_taken == "replace",
            payload=payload,
        )

    def _me(self, options: Options) -> str | None:
        try:
            return t.cast(str, self._node.presence.join())
        except StoreUnavailable:
            if options.guarantee != "ephemeral":
                raise
            return None

    def _insert(self, new: NewTask, options: Options) -> Inserted | Taken | None:
        """Insert a task; None: the database is away, and the task does not need it."""
        node, tick = self._node, self._node.ticks.take()
        if tick is not None:
            return t.cast("Inserted | Taken", node.ticks.insert(tick, new))
        try:
            [outcome] = node.store.wait(node.store.insert([new]))
        except StoreUnavailable:
            if options.guarantee != "ephemeral":
                raise
            return None
        return t.cast("Inserted | Taken", outcome)

    def _has_made_way(self, taken: Taken, options: Options) -> bool:
        """Cancel the task that is to be replaced, if it waits in this process.

        What nobody has claimed, the insert has replaced already.
        """
        if taken.what != "unique" or options.on_taken != "replace":
            return False
        for saved in self._node.mine():
            task, future = saved.task, saved.task.future
            if task.id == taken.uid and self._node.dispatcher.cancel(task):
                wait([] if future is None else [future], _PATIENCE)
                return True
        return False

    def _instead(
        self, taken: Taken, options: Options, key: t.Any
    ) -> StoredFuture[t.Any]:
        """Return the future of the task that is there instead, or refuse this one."""
        if taken.what == "key":
            raise DuplicateKey(key)
        if options.on_taken == "return":
            record = self._node.find("uid", taken.uid)
            if record is not None:
                return t.cast("StoredFuture[t.Any]", self._node.future_of(record))
        found = self._node.find("uid", taken.uid)
        holder = f"task {taken.uid}" if found is None else f"{found.name} ({taken.uid})"
        raise NotUnique(options.unique, holder, taken.state, options.on_taken)

    def _elsewhere(
        self, uid: str, call: Call, options: Options, future: StoredFuture[t.Any]
    ) -> Task:
        """Return what is known of a task that runs elsewhere, or later."""
        node, nothing = self._node, t.cast(t.Any, None)
        now = node.dispatcher._time()
        task = Task(future, nothing, node.remote_owner, options, future.key, now)
        task._id, task._name = uid, options.name or name_of(call.fn)
        task.state = "delayed" if options.wait(now) else "waiting"
        return task

    def _follow(
        self,
        future: StoredFuture[t.Any],
        snapshot: Snapshot,
        callbacks: t.Sequence[Callback],
    ) -> StoredFuture[t.Any]:
        """Return the future of a task that does not run here, or not yet."""
        for callback in callbacks:
            future.add_callback_in(snapshot, callback)
        node = self._node
        node.following.add(t.cast(Task, future.task).id, future)
        node.feeding.start()
        node.feeding.wake()
        return future

    def _submit(self, task: t.Any, callbacks: t.Sequence[Callback], job: t.Any) -> None:
        node, key = self._node, task.key
        try:
            declared = None if job is None else job.declared
            node.dispatcher.submit(task, callbacks, job=declared)
        except BaseException:
            node.dispatcher.withdraw(task)
            if task._saved is not None:
                node.withdraw(task._saved, key)
            raise


def _unique_key(options: Options) -> str | None:
    return None if options.unique is None else encode_key(options.unique)
