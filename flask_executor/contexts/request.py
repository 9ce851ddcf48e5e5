"""Copies of a request and its session: one is kept, and each task opens it again."""

from __future__ import annotations

import io
import random
import sys
import time
import typing as t
from functools import lru_cache

from flask import Flask
from flask.sessions import SessionMixin
from flask.wrappers import Request
from werkzeug.routing import Rule
from werkzeug.utils import cached_property

from .body import ParsedForm, body_of, was_read
from .copying import own_copy, own_values, same
from .pickling import deserialize, serialize
from .sessions import PortableSession, SessionCopy, TransferredSession, new_session
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


_random = random.Random()  # not the module's, which the app may have seeded
_ID = "_flask_executor_id"
"""The attribute of a request that holds its id; copies of it have it, too."""


class Origin(t.NamedTuple):
    """The request that a call comes from."""

    id: str | None
    """All that one request has started has the same; None if that is not known."""
    source: dict[str, str]
    """``method``, ``path`` and ``endpoint``."""


def give_id(request: Request) -> None:
    """Give a request an id, unless it has one."""
    attributes = vars(request)
    if _ID not in attributes:
        # It begins with the time, so that an index gets new ones at its end. What a
        # client or a proxy calls the request is not used: they may lie, or repeat it.
        # Of two threads of a view that are here at once, both get the first. Not
        # os.urandom: it lets other threads run first, which costs as much as the rest.
        made = f"{time.time_ns():016x}{_random.getrandbits(64):016x}"
        attributes.setdefault(_ID, made)


class RequestCopy:
    """A request as it was, and its session; each task opens both again.

    The view's own stream stays readable.

    :param last: an earlier copy of this request, which has its body already.
    """

    __slots__ = ("_attributes", "_body", "_class", "_environ", "_parsed", "_session")

    def __init__(
        self,
        request: Request,
        session: SessionMixin | None,
        last: RequestCopy | None = None,
    ) -> None:
        self._body: Content | None
        self._parsed: ParsedForm | None
        if last is None or (last._body is None and last._parsed is None):
            self._body, self._parsed = body_of(request)
        else:
            self._body, self._parsed = last._body, last._parsed
        self._class = type(request)
        self._environ = _seen_environ(request)
        self._attributes = _seen_attributes(request)
        self._session: SessionCopy | TransferredSession | None = (
            None if session is None else SessionCopy(session)
        )

    @property
    def origin(self) -> Origin:
        """What is known of the request."""
        rule = self._attributes.get("url_rule")
        source = {
            "method": str(self._environ.get("REQUEST_METHOD", "")),
            "path": str(self._environ.get("PATH_INFO", ""))[:500],
            "endpoint": "" if rule is None else str(rule.endpoint),
        }
        return Origin(self._attributes.get(_ID), source)

    def set_id(self, id: str | None) -> None:
        """Set the id of the request, which was saved apart from it."""
        self._attributes[_ID] = id

    def shows(self, request: Request, session: SessionMixin | None) -> bool:
        """Return True if its request and session still look like this copy."""
        if self._body is None and self._parsed is None and was_read(request):
            return False
        return (
            same(self._attributes, _seen_attributes(request))
            and same(self._environ, _seen_environ(request))
            and self._shows_session(session)
        )

    def _shows_session(self, session: SessionMixin | None) -> bool:
        own = t.cast("SessionCopy | None", self._session)
        if own is None or session is None:
            return own is None and session is None
        return own.shows(session)

    def changeable(
        self, request: Request, session: SessionMixin | None
    ) -> list[tuple[t.Any, t.Any]]:
        """Return the parts of the request and session that can be changed in place.

        Each is paired with its copy. The request and session were just copied.
        """
        environ, attributes = request.environ, vars(request)
        pairs = [(environ[name], own) for name, own in self._environ.items()]
        pairs += [(attributes[name], own) for name, own in self._attributes.items()]
        if session is not None and isinstance(self._session, SessionCopy):
            pairs += self._session.pairs(session)
        return [(value, own) for value, own in pairs if value is not own]

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
        if self._session is None:
            return new_session(app, request())
        return self._session.open(app, request)

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
            None if self._session is None else self._session.portable(),
            self._body,
            self._parsed,
        )


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
        copy = RequestCopy.__new__(RequestCopy)
        copy._class = app.request_class
        copy._environ = deserialize(self.environ)
        # Flask's own log handler asks for it.
        copy._environ["wsgi.errors"] = sys.stderr
        copy._attributes = attributes
        session = self.session
        copy._session = None if session is None else TransferredSession(session)
        copy._body, copy._parsed = self.body, self.parsed
        return copy


def close(request: Request) -> None:
    """Close a task's own request: its uploads, and the cycle of it and its environ."""
    request.close()
    request.environ["werkzeug.request"] = None


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
    state = vars(request).copy()
    request_class: t.Any = type(request)
    left_out = _left_out(request_class)
    attributes = {name: state[name] for name in state.keys() - left_out}
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
