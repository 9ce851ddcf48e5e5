"""Copies of a request and its session: one is kept, and opened anew for each task."""

from __future__ import annotations

import io
import sys
import typing as t
from functools import lru_cache

from flask import Flask
from flask.sessions import NullSession, SessionMixin
from flask.wrappers import Request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import ClientDisconnected
from werkzeug.routing import Rule
from werkzeug.utils import cached_property
from werkzeug.wsgi import LimitedStream

from .copying import own_copy, own_values, same
from .pickling import packed, unpacked
from .uploads import Content, Upload

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
"""What of a WSGI environment belongs to the connection, which ends with the view, or is
the same in each.
"""


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
            body, parsed = _body_of(request)
        return cls(
            type(request),
            _seen_environ(request),
            _seen_attributes(request),
            None if session is None else copy_session(session),
            body,
            parsed,
        )

    def shows(self, request: Request, session: SessionMixin | None) -> bool:
        """Return True if the request it was made of, and the session, still look like
        this.
        """
        if self._body is None and self._parsed is None and _was_read(request):
            return False
        return (
            same(self._attributes, _seen_attributes(request))
            and same(self._environ, _seen_environ(request))
            and same_session(self._session, session)
        )

    def changeable(
        self, request: Request, session: SessionMixin | None
    ) -> list[tuple[t.Any, t.Any]]:
        """What of a request and session just copied can be changed where it is, each
        with its copy.
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
        """A request of its own."""
        environ = own_copy(self._environ)
        environ["wsgi.version"] = (1, 0)
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
        environ, attributes = dict(self._environ), dict(self._attributes)
        # The worker has its own of both.
        environ.pop("wsgi.errors", None)
        attributes.pop("json_module", None)
        # A rule belongs to the URL map of its app.
        rule: Rule | None = attributes.pop("url_rule", None)
        return PortableRequest(
            packed(environ, "WSGI environment"),
            packed(attributes, "request attributes"),
            None if rule is None else (rule.endpoint, rule.rule),
            self._portable_session(),
            self._body,
            self._parsed,
        )

    def _portable_session(self) -> PortableSession | None:
        if self._session is None:
            return None
        return (
            packed(dict(self._session), "session"),
            packed(vars(self._session), "session attributes"),
        )


PortableSession = tuple[dict[str, t.Any], dict[str, t.Any]]
"""What a session holds, and its attributes."""


class PortableRequest(t.NamedTuple):
    """A request as it travels: it pickles, and knows no app."""

    environ: dict[str, t.Any]
    attributes: dict[str, t.Any]
    rule: tuple[str, str] | None
    session: PortableSession | None
    body: Content | None
    parsed: ParsedForm | None

    def land(self, app: Flask) -> RequestCopy:
        """The request again, of the app's own classes."""
        attributes = {
            "json_module": app.json,
            "url_rule": _land_rule(app, self.rule),
            **unpacked(self.attributes),
        }
        environ = unpacked(self.environ)
        # Flask's own log handler asks for it.
        environ["wsgi.errors"] = sys.stderr
        copy = _LandedRequest(
            app.request_class,
            environ,
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

    travelled: PortableSession | None
    """What the session held; None where the view had none."""

    def open_session(
        self, app: Flask, request: t.Callable[[], Request]
    ) -> SessionMixin:
        """A session of the app's own class, with what the view's held."""
        session = _new_session(app, request())
        if self.travelled is not None and not isinstance(session, NullSession):
            data, attributes = map(unpacked, self.travelled)
            session.clear()
            session.update(data)
            vars(session).update(attributes)
        return session

    def _portable_session(self) -> PortableSession | None:
        return self.travelled


class ParsedForm(t.NamedTuple):
    """A form that the view had parsed already, with its uploads."""

    form: t.Any
    files_class: t.Any
    files: list[tuple[str, Upload]]
    data: bytes | None

    def open(self) -> dict[str, t.Any]:
        """The entries for the ``__dict__`` of a request of its own."""
        entries = {
            "form": _own_form(self.form),
            "files": self.files_class(
                [(name, upload.open()) for name, upload in self.files]
            ),
            "stream": io.BytesIO(),
        }
        if self.data is not None:
            entries["_cached_data"] = self.data
        return entries


def close(request: Request) -> None:
    """Close a task's own request: its uploads, and the cycle of it and its environ."""
    request.close()
    request.environ["werkzeug.request"] = None


def copy_session(session: SessionMixin) -> SessionMixin:
    """A session of the same class and data, however deep; nothing is saved by it."""
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


def _was_read(request: Request) -> bool:
    state = vars(request)
    return "form" in state or "_cached_data" in state


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
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        return True
    # HTTP/2 needs neither; reading ends by itself, at once where there is no body.
    return "wsgi.input_terminated" in environ and environ.get("REQUEST_METHOD") in (
        "POST",
        "PUT",
        "PATCH",
    )


def _share_body(request: Request) -> Content | None:
    """Read a body that nobody has read, and give the view a reader of its own."""
    if "stream" in vars(request):
        return _rest_of(request.stream)
    body = Content.rest_of(request.stream, request.content_length)
    if request.content_length is not None and body.size < request.content_length:
        raise ClientDisconnected()  # where the server does not tell itself
    reader = body.open()
    request.environ["wsgi.input"] = reader
    request.environ["wsgi.input_terminated"] = True
    request.stream = reader
    return body


def _rest_of(stream: t.Any) -> Content | None:
    """What is left of a stream that the view may be reading, and go on to read; None
    where it cannot be given back.
    """
    if isinstance(stream, LimitedStream):
        position = stream.tell()
        body = Content.rest_of(t.cast("t.IO[bytes]", stream))
        stream._stream, stream._pos = body.open(), position
        return body
    if isinstance(stream, io.IOBase) and stream.seekable():
        position = stream.tell()
        body = Content.rest_of(t.cast("t.IO[bytes]", stream))
        stream.seek(position)
        return body
    return None


def _parsed_form(request: Request) -> ParsedForm:
    form, files = request.form, request.files
    return ParsedForm(
        _own_form(form),
        type(files),
        [(name, Upload(file)) for name, file in files.items(multi=True)],
        vars(request).get("_cached_data"),
    )


def _own_form(form: t.Any) -> t.Any:
    return form if type(form) is ImmutableMultiDict else type(form)(form)


def _seen_environ(request: Request) -> dict[str, t.Any]:
    """A copy of all that may outlive the connection."""
    environ = request.environ.copy()
    for key in environ.keys() & _SERVER_OWNED:
        del environ[key]
    own_values(environ)
    return environ


def _seen_attributes(request: Request) -> dict[str, t.Any]:
    """A copy of what the app and its extensions set on the request, and of Flask's
    routing.
    """
    state = vars(request).copy()
    request_class: t.Any = type(request)
    kept = _kept(request_class, tuple(state))
    attributes = {name: state[name] for name in kept}
    own_values(attributes)
    return attributes


@lru_cache(maxsize=256)
def _kept(request_class: t.Any, names: tuple[str, ...]) -> list[str]:
    # There are few such tuples, by what of its request a view has looked at.
    leave = _left_out(request_class)
    return [name for name in names if name not in leave]


@lru_cache(maxsize=64)
def _left_out(request_class: t.Any) -> frozenset[str]:
    computed = {
        name
        for cls in request_class.__mro__
        for name, value in vars(cls).items()
        if isinstance(value, cached_property)
    }
    return _REBUILT | computed
