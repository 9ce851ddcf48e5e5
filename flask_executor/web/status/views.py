"""What is answered at the URL of a task."""

from __future__ import annotations

import typing as t
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial

from flask import Response, current_app, request

from ...executor import Executor
from ...futures import TaskFuture
from ...store_errors import StoreUnavailable
from ...task import Task
from ...verbs.records import TaskRecord
from ..origins import is_from_elsewhere
from ..problems import Problem
from .answers import answer, refusal
from .events import Event, come_back, event_of, events, over, pause, stream
from .finding import RETRY, Finder, away, gone, unknown
from .messages import sentence_for
from .negotiation import Form, form_of, seconds_to_wait
from .owners import Owner
from .shown import Shown, shown
from .slots import take_slot
from .subjects import Subject
from .tokens import Tokens


class Views:
    """Shows tasks to their owners; see :class:`.StatusAPI` for the parameters."""

    def __init__(
        self,
        executor: Executor,
        owner: Owner,
        tokens: Tokens,
        finder: Finder,
        authorize: t.Callable[[TaskRecord], object] | None,
        result: t.Callable[[t.Any], t.Any] | None,
    ) -> None:
        self._executor = executor
        self._owner = owner
        self._tokens = tokens
        self._finder = finder
        self._authorize = authorize
        self._result = result

    def task(self, token: str) -> Response:
        """Answer a request for the status of a task, or cancel it."""
        form = form_of(request)
        try:
            return self._answer(self._subject(token), form)
        except StoreUnavailable:
            problem = away()
        except Problem as found:
            problem = found
        if form == "events" and problem.status == 503:
            return come_back(RETRY)
        return refusal(problem, form)

    def _subject(self, token: str) -> Subject:
        """Return the task of a token, for its owner.

        :raises Problem: if there is none, or it is not shown here.
        """
        owner = self._owner.now()
        app = t.cast(t.Any, current_app)._get_current_object()
        ticket = None if owner is None else self._tokens.read(app, owner, token)
        if ticket is None:
            raise unknown()
        return self._finder.find(ticket)

    def _answer(self, subject: Subject, form: Form) -> Response:
        location = request.script_root + request.path
        if request.method in ("POST", "DELETE"):
            return self._cancel(subject, form, location)
        found = self._look(subject, location)
        if form == "events":
            return self._events(subject, found)
        if not found.done and self._wait(subject):
            found = self._look(subject, location)
        return answer(found, form)

    def _look(self, subject: Subject, location: str) -> Shown:
        """Return the status as it is now.

        :raises Problem: if nothing is to be shown.
        """
        record = subject.record()
        if record is None:
            raise gone()
        if not self._may(record):
            raise unknown()
        return self._shown(subject, record, location)

    def shown_at_first(
        self, subject: Subject, future: TaskFuture[t.Any], location: str
    ) -> Shown:
        """Return the status of a task that was just submitted.

        The store may not show it: its row is in a transaction that is still open, or
        the database is away and the task needs none.
        """
        with suppress(StoreUnavailable):
            if (record := subject.record()) is not None:
                return self._shown(subject, record, location)
        return shown(_first_record(future), location, None)

    def _shown(self, subject: Subject, record: TaskRecord, location: str) -> Shown:
        is_failure = sentence_for(record.state) is not None
        message = subject.message(record) if is_failure else None
        if self._result is None:
            return shown(record, location, message)
        return shown(record, location, message, self._result_of(subject, record))

    def _result_of(self, subject: Subject, record: TaskRecord) -> t.Any:
        if record.state != "succeeded":
            return None
        try:
            found = t.cast(t.Any, self._result)(subject.result())
            current_app.json.dumps(found)  # raises here and not where it is sent
            return found
        except StoreUnavailable:
            raise
        except (Exception, CancelledError):
            # The task itself has succeeded, and who polls should learn that.
            current_app.logger.exception("The result of %s is not shown", record.name)
            return None

    def _may(self, record: TaskRecord) -> bool:
        if self._authorize is None:
            return True
        try:
            return self._authorize(record) is True
        except Exception:
            current_app.logger.exception("authorize failed, so the task is not shown")
            return False

    def _cancel(self, subject: Subject, form: Form, location: str) -> Response:
        if is_from_elsewhere(request):
            raise Problem(403, "Only a page of this site can cancel the task.")
        form = "json" if form == "events" else form
        found = self._look(subject, location)
        if found.done or not subject.cancel():
            if form == "json":
                raise Problem(409, "The task has already ended.")
            return answer(self._look(subject, location), form, 409)
        found = self._look(subject, location)
        return answer(found, form, 200 if found.done else 202)

    def _wait(self, subject: Subject) -> bool:
        """Wait for the end as long as the client would; False if it would not."""
        seconds = seconds_to_wait(request)
        slot = take_slot(self._executor, request.environ) if seconds else None
        if slot is None:
            return False
        try:
            pause(subject.future(), min(seconds, self._longest))
        finally:
            slot.release()
        return True

    @property
    def _longest(self) -> float:
        return self._executor._state().settings.events_seconds

    def _events(self, subject: Subject, found: Shown) -> Response:
        event = event_of(found)
        if event.is_last:
            known = request.headers.get("Last-Event-ID") == event.id
            return over() if known else events(event.text)
        if (slot := take_slot(self._executor, request.environ)) is None:
            return events(event.text)
        look = partial(self._look_again, subject, found.location, _outside())
        response = events(stream(event, look, subject.future(), self._longest))
        # Not at the end of the stream: one that was never begun has no end.
        response.call_on_close(slot.release)
        return response

    def _look_again(
        self, subject: Subject, location: str, context: t.Callable[[], t.Any]
    ) -> Event | None:
        """Return the next event of a stream, in a context of its own.

        One context for the whole stream would keep the connections of the app for it.
        """
        with context():
            try:
                return event_of(self._look(subject, location))
            except (Problem, StoreUnavailable):
                return None


def _outside() -> t.Callable[[], t.Any]:
    """Return what makes a new context of the current request."""
    app = t.cast(t.Any, current_app)._get_current_object()
    return partial(app.request_context, request.environ)


def _first_record(future: TaskFuture[t.Any]) -> TaskRecord:
    task = t.cast(Task, future.task)
    facts = task.id, task.name, task.state, task.submitted_at
    names = "id", "name", "state", "submitted_at"
    return TaskRecord(**t.cast(t.Any, dict(zip(names, facts, strict=True))))
