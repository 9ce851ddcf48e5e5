"""StatusAPI: the blueprint, and what a view calls."""

from __future__ import annotations

import typing as t
import weakref
from datetime import timedelta

from flask import Blueprint, Flask, Response, current_app, request, url_for

from ...errors import InvalidOption, StatusRefused
from ...executor import Executor
from ...futures import TaskFuture
from ...store_errors import NoSecretKey
from ...verbs.records import TaskRecord
from .answers import answer, made
from .finding import Finder
from .negotiation import form_of
from .owners import OwnerCallable, owner_of
from .tokens import Tokens
from .views import Views

Authorize = t.Callable[[TaskRecord], bool]
Result = t.Callable[[t.Any], t.Any]


class StatusAPI(Blueprint):
    """URLs at which those who have started a task see its status, and can cancel it.

    ::

        status = StatusAPI(executor)
        app.register_blueprint(status)


        @app.post("/reports")
        def start():
            return status.accepted(make_report.submit(request.form["year"]))

    A URL has a signed token. By default only the browser session that got it can use
    it; for all others it does not exist. :doc:`/howto/status` shows all of it.

    :param executor: the executor whose tasks are shown; one for each blueprint.
    :param name: the name of the blueprint; another one for each of an app.
    :param url_prefix: where it lies; ``/tasks`` by default, or ``/tasks/mail`` for an
        executor with the name ``mail``.
    :param owner: who may ask. ``'session'``, the default, is the browser session; a
        function returns who makes the current request, such as the id of a user, or
        None for nobody; None is everybody who has the URL, and needs ``max_age``.
    :param max_age: how long a URL can be used, in seconds or as a timedelta; None: as
        long as the task is known.
    :param authorize: takes the :class:`.TaskRecord` in each request of the owner, and
        returns True if it may be shown. Anything else, or an exception, means that it
        does not exist. It cannot show a task to anybody else.
    :param result: takes what the task has returned, and returns what is shown of it, as
        a JSON value; a path of the app is shown as a link. Without it no result is
        read.
    :raises InvalidOption: a :exc:`ValueError`, if there is neither an owner nor an age.

    To register it on an app without a ``SECRET_KEY`` raises :exc:`.NoSecretKey`.

    .. versionadded:: 2.0
    """

    executor: Executor
    """The executor whose tasks are shown."""

    def __init__(
        self,
        executor: Executor,
        *,
        name: str = "status",
        url_prefix: str | None = None,
        owner: OwnerCallable | t.Literal["session"] | None = "session",
        max_age: float | timedelta | None = None,
        authorize: Authorize | None = None,
        result: Result | None = None,
    ) -> None:
        if url_prefix is None:
            url_prefix = f"/tasks/{executor.name}".rstrip("/")
        super().__init__(
            name,
            __name__,
            url_prefix=url_prefix,
            static_folder="static",
            static_url_path="/static",
            template_folder="templates",
        )
        self.executor = executor
        self._owner = owner_of(owner)
        seconds = _seconds(max_age, needed=owner is None)
        self._tokens = Tokens(f"{name}:{executor.name}", seconds)
        self._finder = Finder(executor, with_result=result is not None)
        self._endpoints: weakref.WeakKeyDictionary[Flask, str] = (
            weakref.WeakKeyDictionary()
        )
        facts = self._owner, self._tokens, self._finder
        self._views = Views(executor, *facts, authorize, result)
        methods = ["GET", "POST", "DELETE"]
        view = self._views.task
        self.add_url_rule("/<token>", "task", view, methods=methods)
        self.record(self._registered)

    def url(self, future: TaskFuture[t.Any]) -> str:
        """Return the URL of a task's status, for the one who makes the current request.

        Others can only use it with ``owner=None``.

        :param future: what ``submit`` of the executor has returned.
        :raises StatusRefused: a :exc:`RuntimeError`, if nobody is known who could ask.
        :raises InvalidOption: a :exc:`ValueError`, if no executor made the future.
        """
        endpoint = self._endpoint()
        owner = self._owner.made()
        ticket = self._finder.ticket_for(future)
        token = self._tokens.sign(_app(), owner, ticket)
        return url_for(f"{endpoint}.task", token=token)

    def accepted(self, future: TaskFuture[t.Any]) -> Response:
        """Return the response to the request that has started a task.

        It is 202 with ``Location`` and ``Retry-After``, and has the status as JSON, or
        for HTMX as a fragment. A plain form gets 303 to the page of the status.

        :param future: what ``submit`` of the executor has returned.
        :raises StatusRefused: see :meth:`url`.
        :raises InvalidOption: see :meth:`url`.
        """
        location = self.url(future)
        form = form_of(request)
        if form == "page":
            return made("", 303, "text/html", form, {"Location": location})
        subject = self._finder.find(self._finder.ticket_for(future))
        shown = self._views.shown_at_first(subject, future, location)
        response = answer(shown, "json" if form == "events" else form, 202)
        response.headers["Location"] = location
        return response

    def _endpoint(self) -> str:
        if (endpoint := self._endpoints.get(_app())) is None:
            raise StatusRefused(
                f"the blueprint {self.name!r} is not registered on this app. Call"
                " app.register_blueprint(status)"
            )
        return endpoint

    def _registered(self, state: t.Any) -> None:
        if not state.app.secret_key:
            needs = "the status API cannot sign its URLs"
            raise NoSecretKey(state.app.name, needs)
        name = f"{state.name_prefix}.{state.name}".lstrip(".")
        self._endpoints.setdefault(state.app, name)


def _app() -> Flask:
    return t.cast(Flask, t.cast(t.Any, current_app)._get_current_object())


def _seconds(max_age: float | timedelta | None, *, needed: bool) -> float | None:
    """Return the age of a token in seconds.

    :param needed: True if nothing else protects a task.
    """
    if isinstance(max_age, timedelta):
        max_age = max_age.total_seconds()
    if (max_age is None and not needed) or (max_age is not None and max_age > 0):
        return max_age
    allowed = "a number of seconds above 0, or a timedelta"
    if needed:
        allowed += "; with owner=None everybody who has a URL can use it for so long"
    raise InvalidOption("max_age", max_age, allowed)
