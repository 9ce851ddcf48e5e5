"""Copies of a request and its session: one is kept, and each task opens it again."""

from __future__ import annotations

import io
import sys
import typing as t
from functools import lru_cache

from flask import Flask
from flask.sessions import NullSession, SessionMixin
from flask.wrappers import Request
from werkzeug.routing import Rule
from werkzeug.utils import cached_property

from .body import ParsedForm, body_of, was_read
from .copying import own_copy, own_values, same
from .pickling import deserialize, serialize
from .uploads import Content

_REBUILT = frozenset(
    {
        *("method", "scheme", "server", "root_path", "path", "query_string"),
        *("headers", "remote_addr", "environ", "shallow", "stream", "form", "files"),
        *("_cached_data", "_parsed_content_type"),
    }
)
"""Attributes of a request that its own copy makes anew."""

_SERVER_OWNED = frozenset(
    {
        *("werkzeug.request", "werkzeug.socket", "gunicorn.socket"),
        *("wsgi.input", "wsgi.input_terminated", "wsgi.file_wrapper"),
        "wsgi.version",
    }
)
"""Names in a WSGI environment that belong to the connection, which ends with the view,
or that have the same value in each.
"""


class RequestCopy:
    """A request as it was, and its session; each task opens it again."""

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
        cls,
        request: Request,
        session: SessionMixin | None,
        last: RequestCopy | None = None,
    ) -> RequestCopy:
        """Copy a request and its session; the view's own stream stays readable.

        :param last: an earlier copy of this request, which has its body already.
        """
        body, parsed = (last._body, last._parsed) if last else (None, None)
        if body is None and parsed is None:
            body, parsed = body_of(request)
        return cls(
            type(request),
            _seen_environ(request),
            _seen_attributes(request),
            None if session is None else copy_session(session),
            body,
            parsed,
        )

    def shows(self, request: Request, session: SessionMixin | None) -> bool:
        """Return True if its request and session still look like this copy."""
        if self._body is None and self._parsed is None and was_read(request):
            return False
        return (
            same(self._attributes, _seen_attributes(request))
            and same(self._environ, _seen_environ(request))
            and same_session(self._session, session)
        )

    def changeable(
        self, request: Request, session: SessionMixin | None
    ) -> list[tuple[t.Any, t.Any]]:
        """Return the parts of the request and session that can be changed in place.

        Each is paired with its copy. The request and session were just copied.
        """
        environ, attributes = request.environ, vars(request)
        views = [environ[name] for name in self._environ]
        views += [attributes[name] for name in self._attributes]
        ours = [*self._environ.values(), *self._attributes.values()]
        if session is not None and self._session is not None:
            views += (*vars(session).values(), *session.values())
            ours += (*vars(self._session).values(), *self._session.values())
        return [(v, own) for v, own in zip(views, ours, strict=False) if v is not own]

    def open_request(self) -> Request:
        """Return a new request."""
        environ = own_copy(self._environ)
        environ["wsgi.version"] = (1, 0)
        environ["wsgi.input"] = self._body.open() if self._body else io.BytesIO()
        # Our readers end where the body ends, even if the server's did not.
        environ["wsgi.input_terminated"] = True
        request = self._class(environ)
        vars(request).update(own_copy(self._attributes))
        if self._parsed is not None:
            vars(request).update(self._parsed.open())
        return request

    def open_session(
        self, app: Flask, request: t.Callable[[], Request]
    ) -> SessionMixin:
        """Return a new session; it is opened now if the view had not opened one."""
        if self._session is not None:
            return copy_session(self._session)
        return _new_session(app, request())

    def portable(self) -> PortableRequest:
        """Return the part of it that is sent to another process."""
        environ, attributes = dict(self._environ), dict(self._attributes)
        # The worker has its own of both.
        environ.pop("wsgi.errors", None)
        attributes.pop("json_module", None)
        # A rule belongs to the URL map of its app.
        rule: Rule | None = attributes.pop("url_rule", None)
        return PortableRequest(
            serialize(environ, "WSGI environment"),
            serialize(attributes, "request attributes"),
            None if rule is None else (rule.endpoint, rule.rule),
            self._portable_session(),
            self._body,
            self._parsed,
        )

    def _portable_session(self) -> PortableSession | None:
        if self._session is None:
            return None
        return (
            serialize(dict(self._session), "session"),
            serialize(vars(self._session), "session attributes"),
        )


PortableSession = tuple[dict[str, t.Any], dict[str, t.Any]]
"""The content of a session, and its attributes."""


class PortableRequest(t.NamedTuple):
    """The part of a request that is sent to another process.

    It can be pickled, and refers to no app.
    """

    environ: dict[str, t.Any]
    attributes: dict[str, t.Any]
    rule: tuple[str, str] | None
    session: PortableSession | None
    body: Content | None
    parsed: ParsedForm | None

    def rebuild(self, app: Flask) -> RequestCopy:
        """Return the request again, made of the app's own classes."""
        attributes = {
            "json_module": app.json,
            "url_rule": _own_rule(app, self.rule),
            **deserialize(self.attributes),
        }
        environ = deserialize(self.environ)
        # Flask's own log handler asks for it.
        environ["wsgi.errors"] = sys.stderr
        copy = _TransferredRequest(
            app.request_class,
            environ,
            attributes,
            None,
            self.body,
            self.parsed,
        )
        copy.transferred = self.session
        return copy


class _TransferredRequest(RequestCopy):
    """A request that came from another process."""

    __slots__ = ("transferred",)

    transferred: PortableSession | None
    """The content of the session; None if the view had none."""

    def open_session(
        self, app: Flask, request: t.Callable[[], Request]
    ) -> SessionMixin:
        """Return a session of the app's own class, with the content of the view's."""
        session = _new_session(app, request())
        if self.transferred is not None and not isinstance(session, NullSession):
            data, attributes = map(deserialize, self.transferred)
            session.clear()
            session.update(data)
            vars(session).update(attributes)
        return session

    def _portable_session(self) -> PortableSession | None:
        return self.transferred


def close(request: Request) -> None:
    """Close a task's own request: its uploads, and the cycle of it and its environ."""
    request.close()
    request.environ["werkzeug.request"] = None


def copy_session(session: SessionMixin) -> SessionMixin:
    """Return a session of the same class with a deep copy of its data.

    Nothing is saved by it.
    """
    copy = session.__class__.__new__(session.__class__)
    attributes = vars(copy)
    attributes.update(vars(session))
    own_values(attributes)
    if isinstance(copy, dict) and isinstance(session, dict):
        # Not through the class's own methods: they note a change, or refuse one.
        dict.update(copy, session)
        own_values(copy)
    return copy


def same_session(own: SessionMixin | None, session: SessionMixin | None) -> bool:
    """Return True if a session still looks like its copy."""
    if own is None or session is None:
        return own is session
    return same(vars(own), vars(session)) and same(dict(own), dict(session))


def _new_session(app: Flask, request: Request) -> SessionMixin:
    interface = app.session_interface
    session = interface.open_session(app, request)
    return interface.make_null_session(app) if session is None else session


def _own_rule(app: Flask, rule: tuple[str, str] | None) -> Rule | None:
    """Return the app's own rule with that endpoint and pattern, or None."""
    if rule is None:
        return None
    endpoint, pattern = rule
    try:
        rules = app.url_map.iter_rules(endpoint)
    except KeyError:
        return None
    return next((own for own in rules if own.rule == pattern), None)


def _seen_environ(request: Request) -> dict[str, t.Any]:
    """Return a copy of everything that may outlive the connection."""
    environ = request.environ.copy()
    for key in environ.keys() & _SERVER_OWNED:
        del environ[key]
    own_values(environ)
    return environ


def _seen_attributes(request: Request) -> dict[str, t.Any]:
    """Return a copy of Flask's routing, and of what the app and extensions have set."""
    request_class: t.Any = type(request)
    leave = _left_out(request_class)
    state = vars(request).copy()
    attributes = {name: state[name] for name in state if name not in leave}
    own_values(attributes)
    return attributes


@lru_cache(maxsize=64)
def _left_out(request_class: t.Any) -> frozenset[str]:
    computed = {
        name
        for cls in request_class.__mro__
        for name, value in vars(cls).items()
        if isinstance(value, cached_property)
    }
    return _REBUILT | computed
