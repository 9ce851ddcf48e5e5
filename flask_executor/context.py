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
import io
import logging
import operator
import pickle
import typing as t
from functools import lru_cache

import flask.ctx
import flask.globals
from flask import Flask
from flask.sessions import NullSession, SessionMixin
from flask.wrappers import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.routing import MapAdapter, Rule
from werkzeug.utils import cached_property

from .files import Content, Upload

T = t.TypeVar("T")
Scope = t.Callable[[BaseException | None], None]
"""Closes what a restore opened, with the exception of the call or None."""

_log = logging.getLogger("flask_executor")

_REBUILT = frozenset(
    {
        *("method", "scheme", "server", "root_path", "path", "query_string"),
        *("headers", "remote_addr", "environ", "shallow", "stream", "form", "files"),
        *("_cached_data", "_cached_json", "_parsed_content_type"),
    }
)
"""Attributes of a request that its own copy makes anew."""

_LAST = "_flask_executor_last"
"""The attribute of a context that holds its last snapshot."""

_SERVER_OWNED = (
    "werkzeug.request",
    "wsgi.input",
    "wsgi.input_terminated",
    "werkzeug.socket",
    "gunicorn.socket",
    "wsgi.file_wrapper",
)
"""What of a WSGI environment belongs to the connection, which ends with the view."""

_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_CONTAINERS = frozenset({dict, list, set, tuple, bytearray})


Seen = tuple[Flask, t.Any, t.Any]
"""What the running code sees: the app, its ``g``, and Flask's own context object that
has the request, or None."""


class _SplitContexts:
    """Flask 3.0 and 3.1: an app context and a request context."""

    def __init__(self) -> None:
        self._app_var: contextvars.ContextVar[t.Any] = flask.globals._cv_app
        self._request_var: contextvars.ContextVar[t.Any] = flask.globals._cv_request

    def app(self) -> Flask | None:
        context = self._app_var.get(None)
        return None if context is None else context.app

    def seen(self) -> Seen | None:
        context = self._app_var.get(None)
        if context is None:
            return None
        return context.app, context.g, self._request_var.get(None)

    def forget(self, variables: contextvars.Context) -> None:
        for variable in (self._app_var, self._request_var):
            _unset(variable, variables)

    def enter(
        self, app: Flask, g: dict[str, t.Any], request: RequestCopy | None
    ) -> Scope:
        context = app.app_context()
        if g:
            vars(context.g).update(g)
        context.push()
        if request is None:
            return context.pop
        inner = _LazyRequestContext(app, request)
        token = self._request_var.set(inner)
        # As its own push would note it: a nested push, as stream_with_context does,
        # must find that it is not the outermost one.
        inner._cv_tokens.append((token, None))

        def leave(error: BaseException | None) -> None:
            inner.close()
            context.pop(error)

        return leave


class _MergedContexts:
    """Flask 3.2: one ``AppContext``, with or without a request.

    :param context_class: ``flask.ctx.AppContext``.
    :param variable: ``flask.globals._cv_app``.
    """

    def __init__(
        self, context_class: t.Any, variable: contextvars.ContextVar[t.Any]
    ) -> None:
        self._variable = variable
        # The URL was matched in the view; matching again would replace view_args.
        self._context_class = type(
            "TaskContext", (context_class,), {"match_request": lambda self: None}
        )

    def app(self) -> Flask | None:
        context = self._variable.get(None)
        return None if context is None else context.app

    def seen(self) -> Seen | None:
        context = self._variable.get(None)
        if context is None:
            return None
        with_request = context if context.has_request else None
        return context.app, context.g, with_request

    def forget(self, variables: contextvars.Context) -> None:
        _unset(self._variable, variables)

    def enter(
        self, app: Flask, g: dict[str, t.Any], request: RequestCopy | None
    ) -> Scope:
        own = session = None
        if request is not None:
            own = request.open_request()
            session = request.open_session(app, lambda: own)
        context = self._context_class(app, request=own, session=session)
        vars(context.g).update(g)
        context.push()

        def leave(error: BaseException | None) -> None:
            if own is not None:
                _close(own)
                # No request ended: pop runs teardown_appcontext alone.
                context._request = None
            context.pop(error)

        return leave


class _LazyRequestContext(flask.ctx.RequestContext):
    """A request context whose parts are made when the task first asks for them.

    Most tasks never do, and each part costs more than the rest of a restore.
    """

    def __init__(self, app: Flask, copy: RequestCopy) -> None:
        self.app = app
        self.flashes = None
        self._copy = copy
        self._after_request_functions = []
        self._cv_tokens = []

    @cached_property
    def request(self) -> Request:
        return self._copy.open_request()

    @cached_property
    def _session(self) -> SessionMixin:
        return self._copy.open_session(self.app, lambda: self.request)

    @property
    def session(self) -> SessionMixin:
        self._session.accessed = True
        return self._session

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
        return None if {"request", "_session"} & vars(self).keys() else self._copy

    def close(self) -> None:
        """Close the uploads that this task has opened."""
        # A token refers to the context it was made in, and that to this: a cycle.
        self._cv_tokens.clear()
        if "request" in vars(self):
            _close(self.request)


def _close(request: Request) -> None:
    """Close a task's own request: its uploads, and the cycle of it and its environ."""
    request.close()
    request.environ["werkzeug.request"] = None


def _open_session(context: t.Any) -> SessionMixin | None:
    # The public property marks the session as accessed, which adds a Vary header to
    # the view's response.
    if hasattr(context, "_session"):
        return t.cast("SessionMixin | None", context._session)
    return t.cast("SessionMixin | None", context.session)


def _detect() -> _SplitContexts | _MergedContexts:
    if hasattr(flask.globals, "_cv_request"):
        return _SplitContexts()
    return _MergedContexts(flask.ctx.AppContext, flask.globals._cv_app)


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
        if isinstance(context, _LazyRequestContext) and context.untouched_copy:
            untouched = context.untouched_copy
            return cls(seen_app, _copy_g(g, copy_g), untouched, variables)
        session = _open_session(context)
        view = _View(context.request, session, g, variables, copy_g)
        last: _LastSnapshot | None = getattr(context, _LAST, None)
        if last is not None and last.still_shows(view):
            return last.snapshot
        earlier = None if last is None else last.request
        request = RequestCopy.of(context.request, session, earlier)
        snapshot = cls(seen_app, _copy_g(g, copy_g), request, variables)
        # On the context, which the request does not refer to: no cycle.
        setattr(context, _LAST, _LastSnapshot(view, snapshot, request))
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
        self, fn: t.Callable[..., T], args: t.Sequence[t.Any], kwargs: dict[str, t.Any]
    ) -> T:
        """Call a function in a fresh restore, on this thread."""
        return self._variables.copy().run(self._run, fn, args, kwargs)

    def _run(
        self, fn: t.Callable[..., T], args: t.Sequence[t.Any], kwargs: dict[str, t.Any]
    ) -> T:
        leave = self.enter()
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
            travels = PortableSnapshot(_portable(self._g, "g"), request)
            self._packed = pickle.dumps(travels)
        return self._packed


class PortableSnapshot(t.NamedTuple):
    """A snapshot as it travels: it pickles, and knows no app."""

    g: dict[str, t.Any]
    request: PortableRequest | None

    def land(self, app: Flask) -> Snapshot:
        """The snapshot again, in a process that has made its own app."""
        request = self.request.land(app) if self.request is not None else None
        return Snapshot(app, _landed(self.g), request, _variables())


class RequestCopy:
    """One request as it was, and its session: opened anew for each task."""

    __slots__ = ("_attributes", "_body", "_class", "_environ", "_parsed", "_session")

    def __init__(
        self,
        request_class: type[Request],
        environ: dict[str, t.Any],
        attributes: dict[str, t.Any],
        session: SessionMixin | None,
        body: Content | None,
        parsed: ParsedForm | None,
    ) -> None:
        self._class = request_class
        self._environ = environ
        self._attributes = attributes
        self._session = session
        self._body = body
        self._parsed = parsed

    @classmethod
    def of(
        cls, request: Request, session: SessionMixin | None, last: RequestCopy | None
    ) -> RequestCopy:
        """Copy a request and its session; the view's own stream stays readable.

        :param last: an earlier copy of this request, which has its body already.
        """
        body, parsed = (last._body, last._parsed) if last else _body_of(request)
        return cls(
            type(request),
            own_copy(_seen_environ(request)),
            own_copy(_seen_attributes(request)),
            None if session is None else copy_session(session),
            body,
            parsed,
        )

    def open_request(self) -> Request:
        """A request of its own."""
        environ = own_copy(self._environ)
        environ["wsgi.input"] = self._body.open() if self._body else io.BytesIO()
        # Our readers end where the body ends, whatever the server's did.
        environ["wsgi.input_terminated"] = True
        request = self._class(environ)
        vars(request).update(own_copy(self._attributes))
        if self._parsed is not None:
            vars(request).update(self._parsed.open())
        return request

    def open_session(
        self, app: Flask, request: t.Callable[[], Request]
    ) -> SessionMixin:
        """A session of its own; opened anew where the view had opened none yet."""
        if self._session is not None:
            return copy_session(self._session)
        return _new_session(app, request())

    def portable(self) -> PortableRequest:
        """The part of it that travels to another process, by value."""
        session = None
        if self._session is not None:
            session = (
                _portable(dict(self._session), "session"),
                _portable(vars(self._session), "session attributes"),
            )
        attributes = dict(self._attributes)
        # A rule belongs to the URL map of its app.
        rule: Rule | None = attributes.pop("url_rule", None)
        return PortableRequest(
            _portable(self._environ, "WSGI environment"),
            _portable(attributes, "request attributes"),
            None if rule is None else (rule.endpoint, rule.rule),
            session,
            self._body,
            self._parsed,
        )


class _View:
    """All that a snapshot copies, in two flat rows and the WSGI environment."""

    __slots__ = ("environ", "names", "request", "values")

    def __init__(
        self,
        request: Request,
        session: SessionMixin | None,
        g: t.Any,
        variables: contextvars.Context,
        copy_g: str,
    ) -> None:
        self.request = request
        self.environ = request.environ
        attributes, of_g = vars(request), vars(g)
        flags: dict[str, t.Any] = {} if session is None else vars(session)
        data: t.Mapping[str, t.Any] = {} if session is None else session
        self.names = (*attributes, *of_g, *variables, *flags, *data)
        self.values = (
            *(copy_g, session),
            *attributes.values(),
            *of_g.values(),
            *variables.values(),
            *flags.values(),
            *data.values(),
        )


class _LastSnapshot:
    """A snapshot, and what tells whether the view still looks like that: the very same
    objects, and containers with the same content.
    """

    __slots__ = ("_containers", "_environ", "_names", "_values", "request", "snapshot")

    def __init__(self, view: _View, snapshot: Snapshot, request: RequestCopy) -> None:
        self.snapshot = snapshot
        self.request = request
        self._names = view.names
        self._values = view.values
        self._environ = dict(view.environ)
        ours = (view.environ, vars(view.request).get("_cached_json"))
        self._containers = [
            (value, own_copy(value))
            for value in (*view.values, *view.environ.values())
            if _can_change(value) and not any(value is own for own in ours)
        ]

    def still_shows(self, view: _View) -> bool:
        """Whether nothing has changed."""
        return (
            view.names == self._names
            and all(map(operator.is_, view.values, self._values))
            # WSGI has plain values there, which may as well be equal.
            and view.environ == self._environ
            and self._containers_same()
        )

    def _containers_same(self) -> bool:
        for value, copy in self._containers:
            if (value or copy) and not _same(copy, value):
                return False
        return True


def _variables() -> contextvars.Context:
    """A copy of the context variables, without Flask's."""
    variables = contextvars.copy_context()
    contexts.forget(variables)
    return variables


def _unset(variable: contextvars.ContextVar[t.Any], among: contextvars.Context) -> None:
    # Only what is set: a variable that holds None is not the same as one without a
    # value to the proxies.
    if among.get(variable) is not None:
        among.run(variable.set, None)


class PortableRequest(t.NamedTuple):
    """A request as it travels: it pickles, and knows no app."""

    environ: dict[str, t.Any]
    attributes: dict[str, t.Any]
    rule: tuple[str, str] | None
    session: tuple[dict[str, t.Any], dict[str, t.Any]] | None
    body: Content | None
    parsed: ParsedForm | None

    def land(self, app: Flask) -> RequestCopy:
        """The request again, of the app's own classes."""
        attributes = {
            "json_module": app.json,
            "url_rule": _land_rule(app, self.rule),
            **_landed(self.attributes),
        }
        copy = _LandedRequest(
            app.request_class,
            _landed(self.environ),
            attributes,
            None,
            self.body,
            self.parsed,
        )
        copy.travelled = self.session
        return copy


class _LandedRequest(RequestCopy):
    """A request in another process than its own."""

    __slots__ = ("travelled",)

    travelled: tuple[dict[str, t.Any], dict[str, t.Any]] | None
    """What the session held, and its attributes; None where the view had none."""

    def open_session(
        self, app: Flask, request: t.Callable[[], Request]
    ) -> SessionMixin:
        """A session of the app's own class, with what the view's held."""
        session = _new_session(app, request())
        if self.travelled is not None and not isinstance(session, NullSession):
            data, attributes = map(_landed, self.travelled)
            session.clear()
            session.update(data)
            vars(session).update(attributes)
        return session


def _new_session(app: Flask, request: Request) -> SessionMixin:
    interface = app.session_interface
    session = interface.open_session(app, request)
    return interface.make_null_session(app) if session is None else session


def _land_rule(app: Flask, rule: tuple[str, str] | None) -> Rule | None:
    """The app's own rule of that endpoint and pattern."""
    if rule is None:
        return None
    endpoint, pattern = rule
    try:
        rules = app.url_map.iter_rules(endpoint)
    except KeyError:
        return None
    return next((own for own in rules if own.rule == pattern), None)


class ParsedForm(t.NamedTuple):
    """A form that the view had parsed already, with its uploads."""

    form: t.Any
    files_class: t.Any
    files: list[tuple[str, Upload]]
    data: bytes | None

    def open(self) -> dict[str, t.Any]:
        """The entries for the ``__dict__`` of a request of its own."""
        entries = {
            "form": type(self.form)(self.form),
            "files": self.files_class(
                [(name, upload.open()) for name, upload in self.files]
            ),
            "stream": io.BytesIO(),
        }
        if self.data is not None:
            entries["_cached_data"] = self.data
        return entries


def _body_of(request: Request) -> tuple[Content | None, ParsedForm | None]:
    state = vars(request)
    if "form" in state:
        return None, _parsed_form(request)
    if "_cached_data" in state:
        return Content(state["_cached_data"]), None
    if not _has_body(request.environ) or request.shallow:
        return None, None
    return _share_body(request), None


def _has_body(environ: t.Mapping[str, t.Any]) -> bool:
    if environ.get("CONTENT_LENGTH") not in (None, "", "0"):
        return True
    return "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()


def _share_body(request: Request) -> Content:
    """Read a body that nobody has read, and give the view a reader of its own."""
    body = Content.rest_of(request.stream)
    if request.content_length is not None and body.size < request.content_length:
        raise ClientDisconnected()  # where the server does not tell itself
    reader = body.open()
    request.environ["wsgi.input"] = reader
    request.environ["wsgi.input_terminated"] = True
    request.stream = reader
    return body


def _parsed_form(request: Request) -> ParsedForm:
    files = request.files
    return ParsedForm(
        request.form,
        type(files),
        [(name, Upload(file)) for name, file in files.items(multi=True)],
        vars(request).get("_cached_data"),
    )


def _seen_environ(request: Request) -> dict[str, t.Any]:
    environ = dict(request.environ)
    for key in _SERVER_OWNED:
        environ.pop(key, None)
    return environ


def _seen_attributes(request: Request) -> dict[str, t.Any]:
    """What the app and its extensions set on the request, and Flask's routing."""
    leave = _left_out(t.cast(t.Hashable, type(request)))
    return {k: v for k, v in vars(request).items() if k not in leave}


@lru_cache(maxsize=64)
def _left_out(request_class: t.Any) -> frozenset[str]:
    computed = {
        name
        for cls in request_class.__mro__
        for name, value in vars(cls).items()
        if isinstance(value, cached_property)
    }
    return _REBUILT | computed


def _copy_g(g: t.Any, which: str) -> dict[str, t.Any]:
    if which == "none":
        return {}
    names = vars(g)
    if which == "all":
        return dict(names)
    return {k: v for k, v in names.items() if not hasattr(v, "close")}


def copy_session(session: SessionMixin) -> SessionMixin:
    """A session of the same class and data, however deep; nothing is saved by it."""
    copy = session.__class__.__new__(session.__class__)
    vars(copy).update(own_copy(vars(session)))
    if isinstance(copy, dict) and isinstance(session, dict):
        # Not through the class's own methods: they note a change, or refuse one.
        dict.update(copy, own_copy(dict(session)))
    return copy


def own_copy(value: T) -> T:
    """A copy of plain containers, however deep; other objects are shared."""
    return t.cast(T, _own_copy(value, {}))


def _own_copy(value: t.Any, memo: dict[int, t.Any]) -> t.Any:
    kind = type(value)
    if kind not in _CONTAINERS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict:
        copy: t.Any = {}
        memo[id(value)] = copy
        for key, item in value.items():
            copy[key] = item if type(item) in _PLAIN else _own_copy(item, memo)
        return copy
    if kind is list:
        copy = memo[id(value)] = []
        copy.extend(_own_copy(item, memo) for item in value)
        return copy
    if kind is tuple:
        return tuple(_own_copy(item, memo) for item in value)
    return kind(value)


def _can_change(value: t.Any) -> bool:
    if type(value) is tuple:
        return any(map(_can_change, value))
    return type(value) in _CONTAINERS


def _same(copy: t.Any, value: t.Any) -> bool:
    """Whether a value is still what an :func:`own_copy` of it shows."""
    kind = type(copy)
    if kind is not type(value):
        return False
    if kind is dict:
        return copy.keys() == value.keys() and all(
            _same(item, value[key]) for key, item in copy.items()
        )
    if kind in (list, tuple):
        return len(copy) == len(value) and all(map(_same, copy, value))
    if kind in _PLAIN or kind in _CONTAINERS:
        return bool(copy == value)
    return copy is value


class _Pickled:
    """A value in its own envelope: one that does not land takes no other along."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def _portable(values: t.Mapping[str, t.Any], where: str) -> dict[str, t.Any]:
    """What of a mapping can travel; what cannot is listed once in the debug log."""
    travels = {}
    for name, value in values.items():
        if type(value) in _PLAIN:
            travels[name] = value
            continue
        try:
            travels[name] = _Pickled(pickle.dumps(value))
        except Exception as error:
            _left_behind(where, name, type(value).__qualname__, str(error))
    return travels


def _landed(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    landed = {}
    for name, value in values.items():
        try:
            landed[name] = (
                pickle.loads(value.data) if isinstance(value, _Pickled) else value
            )
        except Exception as error:
            _left_behind("the worker", name, "pickle", str(error))
    return landed


@lru_cache(maxsize=256)
def _left_behind(where: str, name: str, kind: str, reason: str) -> None:
    _log.debug(
        "%r (%s) in %s does not travel to a worker process: %s",
        name,
        kind,
        where,
        reason,
    )


def keep_uploads(value: T) -> T:
    """Hold on to the uploaded files among arguments, so that they outlive the view."""
    return t.cast(T, _exchange(value, FileStorage, Upload) if value else value)


def open_uploads(value: T) -> T:
    """The arguments again, each uploaded file as a reader of its own."""
    return t.cast(T, _exchange(value, Upload, Upload.open) if value else value)


def _exchange(value: t.Any, kind: type, to: t.Callable[[t.Any], t.Any]) -> t.Any:
    if isinstance(value, kind):
        return to(value)
    shape = type(value)
    if shape in (list, tuple) and _holds(value, kind):
        return shape(_exchange(item, kind, to) for item in value)
    if shape is dict and _holds(value.values(), kind):
        return {key: _exchange(item, kind, to) for key, item in value.items()}
    return value


def _holds(items: t.Iterable[t.Any], kind: type) -> bool:
    return any(
        isinstance(item, kind)
        or (type(item) in (list, tuple) and _holds(item, kind))
        or (type(item) is dict and _holds(item.values(), kind))
        for item in items
    )
