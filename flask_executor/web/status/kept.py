"""The tasks of this process whose status can be asked for.

An executor without a store forgets a task that has ended, unless its future is stored
under a key. So the API keeps what it shows of it.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from concurrent.futures import Future

from flask import Flask

from ...errors import DuplicateKey
from ...futures import FutureCollection, TaskFuture
from ...settings import Settings
from ...task import Task
from .messages import message_of


class Kept(Future[None]):
    """What is kept of a task; it ends when the task ends.

    What the task returned may be large, so it is kept only if it is to be shown.

    :param with_result: True if it is.
    """

    def __init__(self, future: TaskFuture[t.Any], *, with_result: bool) -> None:
        super().__init__()
        self.task: Task = t.cast(Task, future.task)
        """The task."""
        self.future: TaskFuture[t.Any] | None = future
        """Its future; None once it is no longer needed."""
        self.message: str | None = None
        """What users may read of its failure."""
        self._with_result = with_result
        # Without a context of its own: it needs none, and to copy one takes its time.
        future.add_callback_in(None, self._ended)

    def _ended(self, future: t.Any) -> None:
        if not future.cancelled():
            self.message = message_of(future.exception())
        if not self._with_result:
            self.future = None
        self.set_result(None)


class KeptTasks:
    """What one process keeps for one app, by the ids of the tasks.

    As in ``executor.futures``, ``EXECUTOR_FUTURES_TTL`` and
    ``EXECUTOR_FUTURES_MAX_LENGTH`` say how long and how many.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._pid = os.getpid()
        length, ttl = settings.futures_max_length or None, settings.futures_ttl
        self._kept = FutureCollection(length, ttl=ttl, app=app)

    @property
    def is_of_this_process(self) -> bool:
        """False in a forked child, where none of these tasks runs."""
        return self._pid == os.getpid()

    def add(self, future: TaskFuture[t.Any], *, with_result: bool) -> None:
        """Keep a task; nothing happens if it is kept already."""
        id = t.cast(Task, future.task).id
        if id in self._kept:
            return
        with contextlib.suppress(DuplicateKey):  # another thread was first
            self._kept.add(id, Kept(future, with_result=with_result))

    def get(self, id: str) -> Kept | None:
        """Return what is kept of a task, or None."""
        return t.cast("Kept | None", self._kept.get(id))
