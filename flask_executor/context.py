"""Snapshots: taken where a call is submitted, restored where it runs.

This is the only room that knows Flask's context classes. Flask 3.0 and 3.1 have an app
context and a request context; the coming 3.2 has one class for both. Which of the two
shapes is there is detected once, by :func:`_detect`.

A copied context is not pushed as Flask would push it: that matches the URL again,
opens the session again, and on its way out closes the view's uploads and runs
``teardown_request`` for a request that did not end. A task gets a request, a session
and a ``g`` of its own instead, and only ``teardown_appcontext`` runs after it.
"""

from __future__ import annotations

import contextvars
import operator
import pickle
import typing as t

import flask.ctx
import flask.globals
from flask import Flask
from flask.sessions import SessionMixin
from flask.wrappers import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter
from werkzeug.utils import cached_property

from .current import Inside, running
from .files import keep_uploads as keep_uploads
from .files import open_uploads as open_uploads
from .request import PortableRequest, RequestCopy, close
from .values import packed, same, unpacked

T = t.TypeVar("T")
Scope = t.Callable[[BaseException | None], None]
"""Closes what a restore opened, with the exception of the call or None."""

_LAST = "_flask_executor_last"
"""The attribute of a context that holds its last snapshot."""

Seen = tuple[Flask, t.Any, t.Any]
"""What the running code sees: the app, its ``g``, and Flask's own context object that
has the request, or None."""


class _OnDemand:
    """What a task's context has of a request: made when the task first asks for it.

    Most tasks never do, and each part costs more than the rest of a restore. A
    subclass has Flask's own context class beside it.
    """

    app: Flask
    request: Request
    _copy: RequestCopy | None = None
    _request_entry: t.ClassVar[str]
    """Where its request is, once it is made."""

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
        """The URL was matched in the view; again would replace ``view_args``."""

    @property
    def untouched_copy(self) -> RequestCopy | None:
        """The copy it was made from, while the task has not looked at it."""
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

    def app(self) -> Flask | None:
        context = self._app_variable.get(None)
        return None if context is None else context.app

    def seen(self) -> Seen | None:
        context = self._app_variable.get(None)
        if context is None:
            return None
        return context.app, context.g, self._request_variable.get(None)

    def without_own(self, variables: contextvars.Context) -> contextvars.Context:
        return _without(variables, self._app_variable, self._request_variable, running)

    def enter(
        self, app: Flask, g: dict[str, t.Any], request: RequestCopy | None
    ) -> Scope:
        context = app.app_context()
        if g:
            vars(context.g).update(g)
        context.push()
        if request is None:
            return lambda error: _pop(context, error)
        inner = self._task_class(context, request)
        # As its own push would note it: a nested push, as stream_with_context does,
        # must find that it is not the outermost one.
        inner._cv_tokens = [(self._request_variable.set(inner), None)]
        return t.cast(Scope, inner.leave)


class _TaskRequestContext(_OnDemand):
    """A task's request context, in Flask 3.0 and 3.1."""

    _request_entry = "request"

    flashes: t.Any = None
    _cv_tokens: t.Sequence[t.Any]

    def __init__(self, app_context: t.Any, copy: RequestCopy) -> None:
        # Not Flask's own: it makes all of it.
        self.app = app_context.app
        self._app_context = app_context
        self._copy = copy
        self._after_request_functions: list[t.Any] = []

    def leave(self, error: BaseException | None) -> None:
        """End it, and the app context under it."""
        # A token refers to the context it was made in, and that to this: a cycle.
        self._cv_tokens = ()
        self.close_request()
        _pop(self._app_context, error)

    request = cached_property(_OnDemand._make_request, name="request")

    @property
    def session(self) -> SessionMixin:
        self._session.accessed = True
        return self._session

    def copy(self) -> t.Any:
        """As ``copy_current_request_context`` asks for it: one of Flask's own."""
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

    def app(self) -> Flask | None:
        context = self._variable.get(None)
        return None if context is None else context.app

    def seen(self) -> Seen | None:
        context = self._variable.get(None)
        if context is None:
            return None
        return context.app, context.g, context if context.has_request else None

    def without_own(self, variables: contextvars.Context) -> contextvars.Context:
        return _without(variables, self._variable, running)

    def enter(
        self, app: Flask, g: dict[str, t.Any], request: RequestCopy | None
    ) -> Scope:
        context = self._task_class(app)
        vars(context.g).update(g)
        # Both without a request: push would open all of it, pop would end it.
        context.push()
        if request is None:
            return lambda error: _pop(context, error)
        context.show(request)
        return t.cast(Scope, context.leave)


class _TaskAppContext(_OnDemand):
    """A task's context, in Flask 3.2."""

    _request_entry = "_request"

    _request = cached_property(_OnDemand._make_request, name="_request")

    @property
    def has_request(self) -> bool:
        return vars(self).get("_request", self) is not None

    def show(self, copy: RequestCopy) -> None:
        """Have a request from now on."""
        self._copy = copy
        for entry in ("_request", "_session", "url_adapter"):
            del vars(self)[entry]

    def leave(self, error: BaseException | None) -> None:
        """End it: as a context without a request, for no request ends."""
        self.close_request()
        vars(self)["_request"] = None
        _pop(self, error)


def _pop(context: t.Any, error: BaseException | None) -> None:
    """Pop a context, which runs ``teardown_appcontext``; the call's own error wins."""
    try:
        context.pop(error)
    except Exception as failure:
        if error is None:
            raise
        error.add_note(f"The teardown of its context failed, too: {failure!r}")


def _open_session(context: t.Any) -> SessionMixin | None:
    # The public property marks the session as accessed, which adds a Vary header to
    # the view's response.
    if hasattr(context, "_session"):
        return t.cast("SessionMixin | None", context._session)
    return t.cast("SessionMixin | None", context.session)


def _detect() -> _SplitContexts | _MergedContexts:
    """Which of the two shapes Flask has; the names of the other one are not touched,
    for they may warn.
    """
    app_variable = flask.globals._cv_app
    request_variable = getattr(flask.globals, "_cv_request", None)
    if request_variable is None:
        return _MergedContexts(flask.ctx.AppContext, app_variable)
    return _SplitContexts(flask.ctx.RequestContext, app_variable, request_variable)


contexts: _SplitContexts | _MergedContexts = _detect()
"""How this Flask keeps its contexts."""


def current_app() -> Flask | None:
    """The app whose context is current in this thread, or None."""
    return contexts.app()


class Snapshot:
    """What a call sees: the app, ``g``, the request, the session, context variables.

    Taken once, it can be restored any number of times, on any thread; each restore is
    a fresh context that shares nothing with the view or with another restore.
    """

    __slots__ = ("_g", "_packed", "_request", "_variables", "app")

    def __init__(
        self,
        app: Flask,
        g: dict[str, t.Any],
        request: RequestCopy | None,
        variables: contextvars.Context,
    ) -> None:
        self.app: Flask = app
        self._g = g
        self._request = request
        self._variables = variables
        self._packed: bytes | None = None

    @classmethod
    def take(cls, app: Flask, *, copy_g: str = "safe") -> Snapshot:
        """Copy what the running code sees now.

        Where a view submits again and nothing has changed, the snapshot taken then
        serves again: less to keep, and less for the garbage collector to walk.

        :param app: the app to use where no context is current.
        :param copy_g: ``'safe'``, ``'all'`` or ``'none'``.
        :raises werkzeug.exceptions.HTTPException: where a body that nobody has read
            yet cannot be read: it is too large, or the client broke it off.
        """
        variables = _variables()
        seen = contexts.seen()
        if seen is None:
            return cls(app, {}, None, variables)
        seen_app, g, context = seen
        if context is None:
            return cls(seen_app, _copy_g(g, copy_g), None, variables)
        if isinstance(context, _OnDemand) and context.untouched_copy:
            untouched = context.untouched_copy
            return cls(seen_app, _copy_g(g, copy_g), untouched, variables)
        session = _open_session(context)
        request: Request = context.request
        names, values = _rows_of(request, session, g, variables, copy_g)
        last: _LastSnapshot | None = getattr(context, _LAST, None)
        if last is not None and last.still_shows(request.environ, names, values):
            return last.snapshot
        copy = RequestCopy.of(request, session, None if last is None else last.copy)
        snapshot = cls(seen_app, _copy_g(g, copy_g, session), copy, variables)
        noted = _LastSnapshot(snapshot, copy, names, values, request, session)
        # On the context, which the request does not refer to: no cycle.
        setattr(context, _LAST, noted)
        return snapshot

    def variables(self) -> contextvars.Context:
        """A copy of the submitter's context variables, without Flask's."""
        return self._variables.copy()

    def enter(self) -> Scope:
        """Make the copies current, within a context from :meth:`variables`.

        :return: what must be called at the end, with the exception of the call or
            None; it runs the app's ``teardown_appcontext`` functions.
        """
        return contexts.enter(self.app, self._g, self._request)

    def run(
        self,
        fn: t.Callable[..., T],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        inside: Inside | None = None,
    ) -> T:
        """Call a function in a fresh restore, on this thread.

        :param inside: the task whose code this is, or None.
        """
        return self._variables.copy().run(self._run, fn, args, kwargs, inside)

    def _run(
        self,
        fn: t.Callable[..., T],
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        inside: Inside | None,
    ) -> T:
        running.set(inside)
        leave = contexts.enter(self.app, self._g, self._request)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            leave(error)
            raise
        leave(None)
        return result

    def packed(self) -> bytes:
        """The part of it that travels to another process, pickled; made once.

        It unpickles to a :class:`PortableSnapshot`.
        """
        if self._packed is None:
            request = None if self._request is None else self._request.portable()
            travels = PortableSnapshot(packed(self._g, "g"), request)
            self._packed = pickle.dumps(travels)
        return self._packed


class PortableSnapshot(t.NamedTuple):
    """A snapshot as it travels: it pickles, and knows no app."""

    g: dict[str, t.Any]
    request: PortableRequest | None

    def land(self, app: Flask) -> Snapshot:
        """The snapshot again, in a process that has made its own app."""
        request = self.request.land(app) if self.request is not None else None
        return Snapshot(app, unpacked(self.g), request, _variables())


def _rows_of(
    request: Request,
    session: SessionMixin | None,
    g: t.Any,
    variables: contextvars.Context,
    copy_g: str,
) -> tuple[tuple[t.Any, ...], tuple[t.Any, ...]]:
    """The names and the values of all that a snapshot copies, but for the WSGI
    environment.
    """
    attributes, of_g = vars(request), vars(g)
    flags: dict[str, t.Any] = {} if session is None else vars(session)
    data: t.Mapping[str, t.Any] = {} if session is None else session
    # What moves from one part to the next is a change.
    names = (*attributes, ..., *of_g, ..., *variables, ..., *flags, ..., *data)
    values = (
        *(copy_g, session),
        *attributes.values(),
        *of_g.values(),
        *variables.values(),
        *flags.values(),
        *data.values(),
    )
    return names, values


class _LastSnapshot:
    """A snapshot, and what tells whether the view still looks like that: the very same
    objects, and containers with the same content.
    """

    __slots__ = ("_containers", "_environ", "_names", "_values", "copy", "snapshot")

    def __init__(
        self,
        snapshot: Snapshot,
        copy: RequestCopy,
        names: tuple[t.Any, ...],
        values: tuple[t.Any, ...],
        request: Request,
        session: SessionMixin | None,
    ) -> None:
        self.snapshot = snapshot
        self.copy = copy
        self._names = names
        self._values = values
        self._environ = dict(request.environ)
        self._containers = copy.changeable(request, session)

    def still_shows(
        self,
        environ: dict[str, t.Any],
        names: tuple[t.Any, ...],
        values: tuple[t.Any, ...],
    ) -> bool:
        """Whether nothing has changed."""
        return (
            names == self._names
            and all(map(operator.is_, values, self._values))
            # WSGI has plain values there, which may as well be equal.
            and environ == self._environ
            and self._containers_same()
        )

    def _containers_same(self) -> bool:
        for value, copy in self._containers:
            if (value or copy) and not same(copy, value):
                return False
        return True


def _variables() -> contextvars.Context:
    """A copy of the context variables, without Flask's."""
    variables = contextvars.copy_context()
    return contexts.without_own(variables)


_NO_VARIABLES = contextvars.Context()


def _without(
    variables: contextvars.Context, *own: contextvars.ContextVar[t.Any]
) -> contextvars.Context:
    there = [variable for variable in own if variable in variables]
    if len(there) == len(variables):  # most often
        return _NO_VARIABLES
    # Only what is set: a variable that holds None is not the same as one without a
    # value to the proxies.
    for variable in there:
        variables.run(variable.set, None)
    return variables


def _copy_g(
    g: t.Any, which: str, session: SessionMixin | None = None
) -> dict[str, t.Any]:
    if which == "none":
        return {}
    names = vars(g)
    if which == "all":
        return dict(names)
    copy = {k: v for k, v in names.items() if not _has_close(v)}
    if "_login_user" in copy and _reloads(copy["_login_user"], session):
        del copy["_login_user"]
    return copy


def _has_close(value: t.Any) -> bool:
    try:
        return hasattr(value, "close")
    except Exception:  # a proxy of nothing
        return False


def _reloads(user: t.Any, session: SessionMixin | None) -> bool:
    """Whether Flask-Login loads that user again where its ``g`` has none.

    A model object belongs to the database session of the view: a task can neither
    load more of it nor commit it.
    """
    if session is None or not hasattr(user, "_sa_instance_state"):
        return False
    try:
        return bool(dict(session)["_user_id"] == user.get_id())
    except Exception:
        return False
