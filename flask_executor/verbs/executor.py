"""The verbs of an executor about the tasks that are known."""

from __future__ import annotations

import typing as t

from ..errors import InvalidOption
from ..futures import TaskFuture
from ..groups import Group
from ..job_names import JobNames, job_name
from ..payload import name_of_class
from .base import AnyJob, TaskFilters, Verbs, Wanted
from .own import OwnTasks
from .reasons import Reason
from .records import STATES, TaskRecord, WorkerInfo
from .watching import Watched


class HasTasks(Watched):
    """An executor that tells about the tasks of the current app.

    With ``EXECUTOR_STORE`` these are the saved tasks of all processes: those that have
    a key, a ``unique`` value or a guarantee. Without it they are the tasks of this
    process that have not ended, and those whose futures are stored under a key.
    """

    def tasks(
        self,
        *,
        state: str | None = None,
        job: str | AnyJob | None = None,
        name: str | None = None,
        error: str | type[BaseException] | None = None,
        group: t.Any = None,
        parent: str | None = None,
        request: str | None = None,
        retried_from: str | None = None,
        before: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[TaskRecord]:
        """Return what is known of tasks, newest first.

        :param state: only tasks in this state.
        :param job: only those of this job, or of the job with this name.
        :param name: only those with this name.
        :param error: only those that failed with exactly this class of exception, or
            the class with this name: ``'ValueError'``, ``'shop.errors.NoMoney'``.
        :param group: only members of this group. With a store also one of
            :meth:`groups`, or a name: the newest group that has it.
        :param parent: only those that the task with this id has submitted; with a
            store.
        :param request: only those that come from the request with this id, which is
            :attr:`.TaskRecord.request`.
        :param retried_from: only those that repeat the task with this id.
        :param before: only tasks older than the one with this id: the next page.
        :param after: only tasks newer than the one with this id. The page is then that
            next to it.
        :param limit: how many at most.
        :raises UnknownTask: a :exc:`LookupError`, if ``before`` or ``after`` names no
            task that is known.
        :raises InvalidOption: a :exc:`ValueError`, if there is no such state.
        :raises StoreUnavailable: if the database is away.
        """
        wanted = self._wanted(
            state=state,
            job=job,
            name=name,
            error=error,
            group=group,
            parent=parent,
            request=request,
            retried_from=retried_from,
        )
        page = wanted._replace(before=before, after=after, limit=limit)
        return self._verbs().tasks(page)

    def count(self, *, limit: int = 10_000, **filters: t.Unpack[TaskFilters]) -> int:
        """Return how many tasks there are of those that the filters name.

        :param limit: the highest number that is counted to, so that it stays quick.
        :param filters: those of :meth:`tasks`: ``state``, ``job``, ``name``, ``error``,
            ``group``, ``parent``, ``request``, ``retried_from``.
        :raises InvalidOption: a :exc:`ValueError`, if there is no such state.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().count(self._wanted(**filters)._replace(limit=limit))

    def _wanted(self, **filters: t.Unpack[TaskFilters]) -> Wanted:
        given: dict[str, t.Any] = {**filters}
        state, error, job = (given.get(name) for name in ("state", "error", "job"))
        if state is not None and state not in STATES:
            raise InvalidOption("state", state, f"one of {', '.join(STATES)}")
        if isinstance(error, type):
            given["error"] = name_of_class(error)
        given["job"] = None if job is None else self._name_of_job(job)
        return Wanted(**given)

    def task(self, id: str) -> TaskRecord | None:
        """Return what is known of one task, or None.

        :param id: ``future.task.id``.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().task(id)

    def future(self, id: str) -> TaskFuture[t.Any] | None:
        """Return the future of a task that :meth:`task` knows, or None.

        If the task ended in another process, its result is read when it is first asked
        for.

        :param id: ``future.task.id``.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().future(id)

    def counts(self, limit: int = 10_000) -> dict[str, int]:
        """Return how many tasks are in each state.

        :param limit: the highest number that is counted to, so that it stays quick.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().counts(limit)

    def workers(self) -> list[WorkerInfo]:
        """Return the processes that are alive and have had tasks, newest first.

        Without a store that is this process.

        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().workers()

    def cancel(self, id: str) -> bool:
        """Cancel a task, or ask it to stop if it runs, in whichever process.

        :return: True if it is cancelled or was asked; False if it has ended or is
            unknown.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().cancel(id)

    def pause(self, job: str | AnyJob) -> None:
        """Begin no task of a job until :meth:`resume`; what runs goes on.

        With a store this counts for all processes within a second, and after a
        restart. Without one it counts for this process. What is shut down or drained
        meanwhile is cancelled, or with a guarantee stays in the store.

        :param job: the job or its name.
        :raises StoreUnavailable: if the database is away.
        """
        self._verbs().pause(self._name_of_job(job))

    def resume(self, job: str | AnyJob) -> None:
        """Begin tasks of a job again, within a second.

        :param job: the job or its name.
        :raises StoreUnavailable: if the database is away.
        """
        self._verbs().resume(self._name_of_job(job))

    def paused(self) -> list[str]:
        """Return the names of the jobs that are paused, in order.

        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().paused()

    def why(self, id: str) -> Reason:
        """Return why a task does not run: a code, and a sentence.

        If the database is away, the code is ``'store_away'``.

        :raises UnknownTask: a :exc:`LookupError`, if there is no such task.
        """
        return self._verbs().why(id)

    def retry(self, id: str) -> TaskFuture[t.Any]:
        """Run a saved task that has ended once more, as a new task.

        The new one has the arguments, the context and the options of the old one, and
        its key. Its :attr:`.TaskRecord.retried_from` is the id of the old one, which
        stays as it is except for the key.

        :return: the new future.
        :raises UnknownTask: a :exc:`LookupError`, if there is no such task.
        :raises RetryRefused: a :exc:`ValueError`, if it has not ended, or nothing of
            its arguments was saved.
        :raises PayloadRefused: a :exc:`ValueError`, if what was saved is forged or
            damaged.
        :raises NotUnique: a :exc:`ValueError`, if another task has its ``unique``
            value now.
        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().retry(id)

    def group_named(self, name: str) -> Group | None:
        """Return the newest group of that name, from whatever process; None: no such.

        It has the members that are saved, and those that are saved later. Its
        ``progress``, ``done()`` and ``cancel()`` ask the store, and read no result.
        ``progress`` counts the members that have ended. What it submits joins the
        group. Without a store no group is found.

        :raises StoreUnavailable: if the database is away.
        """
        return self._verbs().group_named(name, self)

    def _verbs(self) -> Verbs:
        me = t.cast(t.Any, self)
        dispatcher = me._state().dispatcher
        if dispatcher.node is not None:
            return t.cast(Verbs, dispatcher.node.verbs)
        return OwnTasks(dispatcher, lambda: me.futures, me._job_names)

    def _name_of_job(self, job: str | AnyJob) -> str:
        """Return the name under which the tasks of a job are saved."""
        names: JobNames = t.cast(t.Any, self)._job_names
        found = names.find(job) if isinstance(job, str) else job
        if found is None:  # perhaps another process knows it
            return t.cast(str, job)
        if (name := job_name(found)) is None:
            allowed = "a job with a name, as @executor.job(name='mail.send') gives it"
            raise InvalidOption("job", job, allowed)
        return name
