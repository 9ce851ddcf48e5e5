"""From what a token says to the task, or to the reason why it is not shown."""

from __future__ import annotations

import threading
import typing as t
import weakref

from flask import Flask, current_app

from ...errors import InvalidOption
from ...executor import Executor
from ...futures import TaskFuture
from ...settings import config_key, prefix_of
from ..problems import Problem
from .kept import KeptTasks
from .subjects import OwnTask, SavedTask, Subject
from .tokens import ANY_PROCESS, Ticket, this_process

RETRY = "5"
"""Seconds after which to ask another time, if this process cannot answer."""

_ELSEWHERE = (
    "A poll for the status of a task was answered with 503, because another process has"
    " the task, and %s. This is logged once per process."
)
_NO_STORE = "without a store no other process knows it. Set %s, or run one process"
_NOT_SAVED = (
    "it is not in the store (%s): tasks with a guarantee or a key are. Give its job a"
    " guarantee"
)


def unknown() -> Problem:
    """Return the answer for all that is unknown, forged, or of somebody else."""
    return Problem(404, "There is no such task.")


def gone() -> Problem:
    """Return the answer for a task that is not kept any more."""
    return Problem(410, "The task has ended, and nothing is kept of it any more.")


def away() -> Problem:
    """Return the answer for a task of which nothing can be said at the moment."""
    return Problem(503, "Its state is not known at the moment.", Retry_After=RETRY)


class Finder:
    """Finds the tasks of one executor, for any of its apps.

    :param with_result: True if results are to be shown.
    """

    def __init__(self, executor: Executor, *, with_result: bool) -> None:
        self._executor = executor
        self._with_result = with_result
        self._kept: weakref.WeakKeyDictionary[Flask, KeptTasks] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def ticket_for(self, future: object) -> Ticket:
        """Return what a token for a task says; the task is kept if no store has it.

        :raises InvalidOption: if no executor made the future.
        """
        if not isinstance(future, TaskFuture) or future.task is None:
            allowed = "a future that submit of this executor has returned"
            raise InvalidOption("future", future, allowed)
        if type(future) is not TaskFuture:  # a subclass: those of saved tasks
            return Ticket(future.task.id, ANY_PROCESS)
        self._kept_here().add(future, with_result=self._with_result)
        return Ticket(future.task.id, this_process())

    def find(self, ticket: Ticket) -> Subject:
        """Return the task of a ticket.

        :raises Problem: if it is gone, or another process has it.
        """
        if ticket.process == ANY_PROCESS:
            return SavedTask(self._executor, ticket.task)
        if ticket.process != this_process():
            self._tell()
            raise away()
        if (kept := self._kept_here().get(ticket.task)) is None:
            raise gone()
        return OwnTask(self._executor, kept)

    def _kept_here(self) -> KeptTasks:
        app = t.cast(t.Any, current_app)._get_current_object()
        found = self._kept.get(app)
        if found is None or not found.is_of_this_process:
            settings = self._executor._state().settings
            with self._lock:
                found = self._kept.get(app)
                if found is None or not found.is_of_this_process:
                    found = self._kept[app] = KeptTasks(app, settings)
        return found

    def _tell(self) -> None:
        """Say once per process what an operator can do."""
        if (process := this_process()) in self._told:
            return
        self._told.add(process)
        key = config_key(prefix_of(self._executor.name), "store")
        has_store = self._executor._state().settings.store is not None
        why = (_NOT_SAVED if has_store else _NO_STORE) % key
        current_app.logger.warning(_ELSEWHERE, why)
