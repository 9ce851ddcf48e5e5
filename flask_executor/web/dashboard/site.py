"""One request to a dashboard: whose tasks, what it may do, where its pages are."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime
from functools import cached_property
from urllib.parse import urlsplit

from flask import current_app, request, url_for

from ...verbs.records import TaskRecord, WorkerInfo
from ..access import Access, Action
from .posts import Forms
from .words import took

DID = {
    "cancel": ("Cancelled or asked to stop: {}.", "Nothing was left to cancel."),
    "retry": ("Run again: {}.", "Nothing could be run again."),
    "started": ("Started in the background, for up to {} tasks.", ""),
    "pause": ("Paused.", ""),
    "resume": ("Resumed.", ""),
    "run": ("Submitted.", ""),
}
"""What was done, by the code in the address of the page that follows it. The address
holds a number and no text, so that nobody can send you a link that lies."""


class Site:
    """What the pages know of the request that asks for them.

    :param executors: those of the dashboard, by name.
    :param which: the name of the one that was asked about.
    """

    def __init__(
        self,
        executors: t.Mapping[str, t.Any],
        which: str,
        access: Access,
    ) -> None:
        self.executors = executors
        self.which = which
        self.executor: t.Any = executors[which]
        self.access = access
        self.now: datetime = datetime.now(UTC)

    def may(self, action: Action) -> bool:
        """Return True if this request may do something."""
        return self.access.may(action)

    def may_change(self, action: Action) -> bool:
        """Return True if a form for it is shown."""
        return self.may(action) and self.forms.can_be_sent

    @cached_property
    def forms(self) -> Forms:
        """The forms of this request."""
        app = t.cast(t.Any, current_app)._get_current_object()
        return Forms(
            app,
            t.cast(t.Any, request),
            self.url("overview", which=next(iter(self.executors))),
        )

    def url(self, page: str, **values: t.Any) -> str:
        """Return the address of a page about the same executor."""
        given = {name: one for name, one in values.items() if one not in (None, "")}
        given.setdefault("which", self.which)
        return url_for(f"{request.blueprint}.{page}", **given)

    def asks(self, name: str) -> str | None:
        """Return a parameter of the address; None if it is missing or empty."""
        return request.args.get(name, "").strip() or None

    @property
    def here(self) -> str:
        """The address that was asked for: its path and parameters, as they are sent."""
        parts = urlsplit(request.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    @property
    def page(self) -> str:
        """The name of the page that was asked for."""
        return (request.endpoint or "").rpartition(".")[2]

    @cached_property
    def workers(self) -> list[WorkerInfo]:
        """The processes that are alive, newest first."""
        return t.cast("list[WorkerInfo]", self.executor.workers())

    @cached_property
    def knows_all(self) -> bool:
        """False if there is no store, so that other processes are not seen."""
        return not self.workers or self.workers[0].alive_until is not None

    def worker_name(self, id: str | None) -> str:
        """Return what a process is called."""
        for one in self.workers:
            if one.id == id:
                return name_of(one)
        return "a process that is gone"

    def took(self, record: TaskRecord) -> float | None:
        """Return for how many seconds the last attempt of a task runs, or ran."""
        return took(record, self.now)

    def did(self) -> str | None:
        """Return a sentence about what the form did that led here."""
        many, none = DID.get(request.args.get("did", ""), ("", ""))
        count = request.args.get("n", 1, type=int)
        return (many if count else none).format(f"{count:,}") or None


def name_of(worker: WorkerInfo) -> str:
    """Return what people call a process."""
    return worker.name or f"{worker.host}:{worker.pid}"
