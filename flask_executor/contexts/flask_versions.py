"""Flask's context classes: the only module that knows them.

Flask 3.0 and 3.1 have an app context and a request context; the coming 3.2 has one
class for both. Which of the two shapes is there is detected once, by :func:`_detect`.

A copied context is not pushed as Flask would push it: that matches the URL again,
opens the session again, and on its way out closes the view's uploads and runs
``teardown_request`` for a request that did not end. A task gets its own request,
session and ``g`` instead, and only ``teardown_appcontext`` runs after it.
"""

from __future__ import annotations

import contextvars
import typing as t

import flask.ctx
import flask.globals
from flask import (
    Flask,
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
)
from flask.ctx import AppContext
from flask.globals import _cv_app
from flask.sessions import SessionMixin
from flask.wrappers import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter
from werkzeug.utils import cached_property

from ..current import running
from .request import RequestCopy, close

Leave = t.Callable[[BaseException | None], None]
"""Ends a restored context, with the exception of the call or None."""

Seen = tuple[Flask, t.Any, t.Any]
"""The app of the running code, its ``g``, and Flask's own context object that has the
request, or None."""


class OnDemand:
    """The request and session of a task's context, each made when the task asks for it.

    Most tasks never ask, and each costs more than the rest of a restore. A subclass
    also inherits from Flask's own context class.
    """

    app: Flask
    request: Request
    _copy: RequestCopy | None = None
    _request_entry: t.ClassVar[str]
    """The name in its ``__dict__`` for its request, once that is made."""

    def _make_request(self) -> Request:
        return t.cast(RequestCopy, self._copy).open_request()

    @cached_property
    def _session(self) -> SessionMixin:
        copy = t.cast(RequestCopy, self._copy)
        return copy.open_session(self.app, lambda: self.request)

    @cached_property
    def url_adapter(self) -> MapAdapter | None:
        try:
            return self.app.create_url_adapter(self.request)
        except HTTPException:
            return None

    def match_request(self) -> None:
        """Do nothing.

        The view has matched the URL. Matching it again would replace ``view_args``.
        """

    @property
    def untouched_copy(self) -> RequestCopy | None:
        """The copy it was made from; None once the task has looked at the request."""
        touched = {self._request_entry, "_session"} & vars(self).keys()
        return None if touched else self._copy

    def close_request(self) -> None:
        """Close the uploads that this task has opened."""
        if self._request_entry in vars(self):
            close(self.request)


class _SplitContexts:
    """Flask 3.0 and 3.1: an app context and a request context."""

    def __init__(
        self,
        request_class: t.Any,
        app_variable: contextvars.ContextVar[t.Any],
        request_variable: contextvars.ContextVar[t.Any],
    ) -> None:
        self._task_class = type("TaskContext", (_TaskRequestContext, request_class), {})
        self._app_variable = app_variable
        self._request_variable = request_variable
        self._own_variables = frozenset({app_variable, request_variable, running})

    def app(self) -> Flask | None:
        """Return the app whose context is current, or None."""
        context = self._app_variable.get(None)
        return None if context is None else context.app

    def seen(self) -> Seen | None:
        context = self._app_variable.get(None)
        if context is None:
            return None
        return context.app, context.g, self._request_variable.get(None)

    def variables(self) -> contextvars.Context:
        """A copy of the context variables, without Flask's and our own."""
        variables = contextvars.copy_context()
        if self._own_variables.issuperset(variables):
            return _NO_VARIABLES  # most often
        return _without(variables, self._own_variables)

    def enter(
        self, app: Flask, g: dict[str, t.Any], request: RequestCopy | None
    ) -> Leave:
        context = app.app_context()
        if g:
            vars(context.g).update(g)
        if appcontext_pushed.receivers or type(context) is not AppContext:
            context.push()
        else:  # the same, without a signal that nobody hears: see _pop
            context._cv_tokens.append(self._app_variable.set(context))
        if request is None:
            return lambda error: _pop(context, error)
        inner: t.Any = self._task_class(context, request)
        # As its own push would note it: a nested push, as stream_with_context does,
        # must find that it is not the outermost one.
        inner._cv_tokens = [(self._request_variable.set(inner), None)]
        leave: Leave = inner.leave
        return leave


class _TaskRequestContext(OnDemand):
    """A task's request context, in Flask 3.0 and 3.1."""

    _request_entry = "request"

    flashes: t.Any = None
    _cv_tokens: t.Sequence[t.Any]

    def __init__(self, app_context: t.Any, copy: RequestCopy) -> None:
        # Not Flask's own: it makes all of it.
        self.app = app_context.app
        self._app_context = app_context
        self._copy = copy

    @cached_property
    def _after_request_functions(self) -> list[t.Any]:
        return []  # of after_this_request, which nobody calls in the end

    def leave(self, error: BaseException | None) -> None:
        """End this context, and the app context under it."""
        # A token refers to the context it was made in, and that to this: a cycle.
        self._cv_tokens = ()
        if "request" in vars(self):
            close(self.request)
        _pop(self._app_context, error)

    request = cached_property(OnDemand._make_request, name="request")

    @property
    def session(self) -> SessionMixin:
        self._session.accessed = True
        return self._session

    def copy(self) -> t.Any:
        """A context of Flask's own class, for ``copy_current_request_context``."""
        flask_class = type(self).__mro__[-2]
        environ, request = self.request.environ, self.request
        return flask_class(self.app, environ, request=request, session=self._session)


class _MergedContexts:
    """Flask 3.2: one context, with or without a request."""

    def __init__(
        self, context_class: t.Any, variable: contextvars.ContextVar[t.Any]
    ) -> None:
        self._task_class = type("TaskContext", (_TaskAppContext, context_class), {})
        self._variable = variable
        self._own_variables = frozenset({variable, running})

    def app(self) -> Flask | None:
        context = self._variable.get(None)
        return None if context is None else context.app

    def seen(self) -> Seen | None:
        context = self._variable.get(None)
        if context is None:
            return None
        return context.app, context.g, context if context.has_request else None

    def variables(self) -> contextvars.Context:
        """A copy of the context variables, without Flask's and our own."""
        variables = contextvars.copy_context()
        if self._own_variables.issuperset(variables):
            return _NO_VARIABLES  # most often
        return _without(variables, self._own_variables)

    def enter(
        self, app: Flask, g: dict[str, t.Any], request: RequestCopy | None
    ) -> Leave:
        context = self._task_class(app)
        vars(context.g).update(g)
        # Both without a request: push would open all of it, pop would end it.
        context.push()
        if request is None:
            return lambda error: _pop(context, error)
        context.show(request)
        return t.cast(Leave, context.leave)


class _TaskAppContext(OnDemand):
    """A task's context, in Flask 3.2."""

    _request_entry = "_request"

    _request = cached_property(OnDemand._make_request, name="_request")

    @property
    def has_request(self) -> bool:
        return vars(self).get("_request", self) is not None

    def show(self, copy: RequestCopy) -> None:
        """Set the request of this context."""
        self._copy = copy
        for entry in ("_request", "_session", "url_adapter"):
            del vars(self)[entry]

    def leave(self, error: BaseException | None) -> None:
        """End this context like one without a request, because no request ends."""
        self.close_request()
        vars(self)["_request"] = None
        _pop(self, error)


def _pop(context: t.Any, error: BaseException | None) -> None:
    """Pop a context, which runs ``teardown_appcontext``; the call's own error wins.

    Flask sends a signal at each push and pop, which costs a part of a whole task. If
    nobody hears it, and the context is as Flask 3.0 or 3.1 made it, this does the rest.
    """
    try:
        if (
            appcontext_popped.receivers
            or type(context) is not AppContext
            or len(tokens := context._cv_tokens) != 1
            or _cv_app.get(None) is not context
        ):
            context.pop(error)
            return
        app = context.app
        try:
            if (
                app.teardown_appcontext_funcs
                or appcontext_tearing_down.receivers
                or type(app).do_teardown_appcontext is not _DO_TEARDOWN
            ):
                app.do_teardown_appcontext(error)
        finally:
            _cv_app.reset(tokens.pop())
    except Exception as failure:
        if error is None:
            raise
        error.add_note(f"The teardown of its context failed, too: {failure!r}")


_DO_TEARDOWN = Flask.do_teardown_appcontext
"""As it is before anybody overrides or patches it."""


def session_of(context: t.Any) -> SessionMixin | None:
    # The public property marks the session as accessed, which adds a Vary header to
    # the view's response.
    has_own = hasattr(context, "_session")
    session: SessionMixin | None = context._session if has_own else context.session
    return session


def _detect() -> _SplitContexts | _MergedContexts:
    """Return the shape that this Flask has.

    The names of the other shape may warn, so they are not used.
    """
    app_variable = _cv_app
    request_variable = getattr(flask.globals, "_cv_request", None)
    if request_variable is None:
        return _MergedContexts(AppContext, app_variable)
    return _SplitContexts(flask.ctx.RequestContext, app_variable, request_variable)


contexts: _SplitContexts | _MergedContexts = _detect()
"""How this Flask keeps its contexts."""

current_app: t.Callable[[], Flask | None] = contexts.app
"""Returns the app whose context is current in this thread, or None."""


_NO_VARIABLES = contextvars.Context()


def _without(
    variables: contextvars.Context, own: t.Iterable[contextvars.ContextVar[t.Any]]
) -> contextvars.Context:
    # Only what is set: a variable that holds None is not the same as one without a
    # value to the proxies.
    for variable in own:
        if variable in variables:
            variables.run(variable.set, None)
    return variables
