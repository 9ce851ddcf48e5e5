"""Submitting a task that is saved: into the store first, then into the pool.

A task is saved if it has a key, a ``unique`` value, or a guarantee. The process that
submits it holds it from the start if it has room, so the usual case needs no claim.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t
from concurrent.futures import wait

from ..calls import Call
from ..contexts import Snapshot, current_app, keep_uploads
from ..current import running
from ..errors import DuplicateKey, ExecutorShutDown, NotUnique
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


@dataclasses.dataclass
class Submission:
    """A call that is being accepted."""

    uid: str
    call: Call
    options: Options
    key: t.Any
    job: t.Any
    callbacks: t.Sequence[Callback]
    snapshot: Snapshot
    future: StoredFuture[t.Any]
    name: str | None = None
    """The name of its job, if another process may run it."""
    payload: Sealed | None = None
    source: dict[str, str] = dataclasses.field(default_factory=dict)
    """Where it comes from: the request, and what sinks have added."""
    request: str | None = None
    """The id of that request."""

    @property
    def is_ephemeral(self) -> bool:
        """True if the task ends with its process."""
        return self.options.guarantee == "ephemeral"


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
        held_by: object = None,
    ) -> StoredFuture[t.Any]:
        """Save a call and return its future.

        :param key: :class:`.NoKey`, or the key for its future.
        :param job: the job that was submitted, or None.
        :param held_by: the object that has reserved the key in this process, or None.
        :raises DuplicateKey: if any process has a task with that key.
        :raises NotUnique: if the ``unique`` value is taken, and stays so.
        :raises StoreUnavailable: if the database is away, unless it is ephemeral.
        """
        self._refuse_own_lock(call)
        one = self._submission(call, options, key, job, callbacks)
        futures = self._node.futures
        if key is NoKey:
            return self._accept(one)
        futures.reserve_here(key, one.future, instead_of=held_by)
        try:
            return self._accept(one)
        finally:
            futures.discard_reserved(key, one.future)

    def _refuse_own_lock(self, call: Call) -> None:
        """Refuse a call if saving it would wait for this thread's own transaction."""
        node = self._node
        extension = node.app.extensions.get("sqlalchemy")
        if extension is None or current_app() is not node.app:
            return
        from ..stores.sql import sessions

        if sessions.has_write_lock(extension, node.store.database):
            raise StoreLocked(name_of(call.fn), node.store.database.shown)

    def _accept(self, one: Submission) -> StoredFuture[t.Any]:
        if self._holds(one.options):
            return self._hold(one)
        outcome = self._insert(one, None)
        if isinstance(outcome, Taken):
            return self._instead(outcome, one)
        return self._hand_in(one)

    def _submission(
        self,
        call: Call,
        options: Options,
        key: t.Any,
        job: t.Any,
        callbacks: t.Sequence[Callback],
    ) -> Submission:
        """Take the context of a call, and the bytes of it that are saved."""
        node = self._node
        if node.dispatcher.table.closed:
            raise ExecutorShutDown(name_of(call.fn))
        snapshot = Snapshot.take(node.app, copy_g=node.dispatcher.g_carried)
        future: StoredFuture[t.Any] = StoredFuture(
            node.app, None if key is NoKey else key
        )
        uid = os.urandom(16).hex()
        one = Submission(uid, call, options, key, job, callbacks, snapshot, future)
        if (origin := snapshot.origin) is None:
            one.request = _request_of_parent()
        else:
            one.request, one.source = origin
            if (options.request or node.dispatcher.settings.store_request) == "none":
                del one.source["path"]  # a secret may be in it
        name = options.name or name_of(call.fn)
        node.dispatcher.events.saving(uid, name, one.source)
        call.snapshot = snapshot
        if not one.is_ephemeral:
            self._seal(one)
        call.args, call.kwargs = keep_uploads(call.args), keep_uploads(call.kwargs)
        if node.dispatcher.pool.runs_in_caller and current_app() is not None:
            call.snapshot = None
        return one

    def _seal(self, one: Submission) -> None:
        """Make the payload of a task, and let its call see what others would see."""
        node, call = self._node, one.call
        name = node.names.name_to_save(call.fn if one.job is None else one.job)
        context = node.payloads.context_of(one.snapshot, one.options.request)
        one.name = name
        one.payload = node.payloads.seal_call(
            one.uid, name, call.args, call.kwargs, context
        )
        call.snapshot = context.restore(node.app, one.request)

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
        return bool(node.runs and (not node.serves or node.holding.room() > 0))

    def _hold(self, one: Submission) -> StoredFuture[t.Any]:
        """Save a task that this process has from the start, and run it."""
        dispatcher = self._node.dispatcher
        task = dispatcher.register(one.future, one.call, one.options)
        task._id = one.uid
        try:
            me = self._join(one)
            outcome = None if me is None else self._insert(one, me)
        except BaseException:
            dispatcher.withdraw(task)
            raise
        if isinstance(outcome, Taken):
            dispatcher.withdraw(task)
            return self._instead(outcome, one)
        if outcome is None:
            self._keep_here(one)
        elif outcome.fence is None:  # we have lost it since, before the reply came
            dispatcher.table.forget(task)
            return self._hand_in(one)
        else:
            self._save(one, task, outcome.fence)
        self._submit(one, task)
        return one.future

    def _join(self, one: Submission) -> str | None:
        try:
            me = t.cast(str, self._node.presence.join())
            self._node.know_pauses()
            return me
        except StoreUnavailable:
            if one.is_ephemeral:
                return None
            raise

    def _insert(self, one: Submission, me: str | None) -> Inserted | Taken | None:
        """Insert a task; None: the database is away, and the task does not need it."""
        store, ticks = self._node.store, self._node.ticks
        tick, new = ticks.take(), self._new(one, me)
        if tick is not None:
            return t.cast("Inserted | Taken", ticks.insert(tick, new))
        try:
            [outcome] = store.wait(store.insert([new]))
        except StoreUnavailable:
            if one.is_ephemeral:
                return None
            raise
        if isinstance(outcome, Taken) and self._has_made_way(outcome, one.options):
            return self._insert(one, me)
        return t.cast("Inserted | Taken", outcome)

    def _has_made_way(self, taken: Taken, options: Options) -> bool:
        """Cancel the task that is to be replaced, if it waits in this process.

        What nobody has claimed, the insert has replaced already.
        """
        if taken.what != "unique" or options.on_taken != "replace":
            return False
        for saved in self._node.holding.mine():
            task, future = saved.task, saved.task.future
            if task.id == taken.uid and self._node.dispatcher.cancel(task):
                wait([] if future is None else [future], _PATIENCE)
                return True
        return False

    def _new(self, one: Submission, me: str | None) -> NewTask:
        options, parent = one.options, running.get()
        run_at, unique = options.run_at, options.unique
        return NewTask(
            uid=one.uid,
            name=options.name or name_of(one.call.fn),
            guarantee=t.cast(t.Any, options.guarantee),
            owner=me,
            job=one.name,
            key=None if one.key is NoKey else encode_key(one.key),
            meta=options.meta,
            priority=options.priority,
            delay=options.delay,
            due=None if run_at is None else run_at.timestamp(),
            parent=None if parent is None else parent.id,
            source=one.source or None,
            request=one.request,
            timeout=options.timeout,
            retry=retry_numbers(options.retry),
            unique_key=None if unique is None else encode_key(unique),
            replace=options.on_taken == "replace",
            group_id=self._node.grouping.current(opens=options.session is None),
            payload=one.payload,
        )

    def _save(self, one: Submission, task: Task, fence: Fence) -> None:
        node = self._node
        saved = SavedTask(node, task, fence, one.name or task.name, careful=False)
        task._saved, saved.source, saved.request = saved, one.source, one.request
        node.holding.take(saved, one.future)
        node.feeding.start()

    def _keep_here(self, one: Submission) -> None:
        """Store the future for this process alone: the database is away."""
        futures = self._node.futures
        if one.key is not NoKey:
            futures.add_here(one.key, one.future)

    def _submit(self, one: Submission, task: Task) -> None:
        node = self._node
        try:
            declared = None if one.job is None else one.job.declared
            node.dispatcher.submit(task, one.callbacks, job=declared)
        except BaseException:
            saved = task._saved
            node.dispatcher.withdraw(task)
            if saved is not None:
                node.holding.withdraw(saved, one.key)
            elif one.key is not NoKey:
                node.futures.discard(one.key, one.future)
            raise

    def _hand_in(self, one: Submission) -> StoredFuture[t.Any]:
        """Return the future of a task that runs elsewhere, or later."""
        node, future = self._node, one.future
        for callback in one.callbacks:
            future.add_callback_in(one.snapshot, callback)
        node.following.follow(future, self._like(one))
        node.dispatcher.events.submitted(t.cast(Task, future.task))
        if node.runs:
            node.feeding.wake()
        return future

    def _like(self, one: Submission) -> Task:
        """Return what is known of a task that does not run here, or not yet."""
        now, nothing = self._node.dispatcher._time(), t.cast(t.Any, None)
        options = dataclasses.replace(one.options, session=None)  # it is not to be kept
        like = Task(one.future, nothing, nothing, options, one.future.key, now)
        like._id, like._name = one.uid, options.name or name_of(one.call.fn)
        like.state = "delayed" if options.wait(now) else "waiting"
        return like

    def _instead(self, taken: Taken, one: Submission) -> StoredFuture[t.Any]:
        """Return the future of the task that is there instead, or refuse this one."""
        if taken.what == "key":
            raise DuplicateKey(one.key)
        options, found = one.options, self._node.find("uid", taken.uid)
        if options.on_taken == "return" and found is not None:
            return t.cast("StoredFuture[t.Any]", self._node.future_of(found))
        state = "waiting" if taken.state == "held" else taken.state
        holder = f"task {taken.uid}" if found is None else f"{found.name} ({taken.uid})"
        raise NotUnique(options.unique, holder, state, options.on_taken)


def _request_of_parent() -> str | None:
    """Return the id of the request that the running task comes from, or None.

    A task that was saved with ``EXECUTOR_STORE_REQUEST = 'none'`` sees no request, and
    what it submits comes from one.
    """
    task: Task | None = getattr(running.get(), "task", None)
    return None if task is None or task._saved is None else task._saved.request
