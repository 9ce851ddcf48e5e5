"""The part of a snapshot that is saved with a task, without what others must not read.

A saved context lies in a database for as long as its task is known, and in the backups
of that database. So it holds no credentials, and the body only on request. What a task
sees is the same if it runs at once or after a crash: :meth:`Context.restore` is used in
both cases.
"""

from __future__ import annotations

import contextvars
import typing as t
from functools import lru_cache

from flask import Flask

from .copying import PLAIN
from .pickling import serialize
from .request import PortableRequest, RequestCopy
from .sessions import PortableSession
from .snapshot import PortableSnapshot, Snapshot

CREDENTIALS = (
    *("auth", "cookie", "token", "secret", "passw", "pwd", "key", "session", "csrf"),
    *("xsrf", "credential", "jwt", "signature", "assertion", "cert", "oidc", "saml"),
    *("remote-user", "forwarded-user", "forwarded-email"),
)
"""A header is not saved if its name contains one of these, in any case."""

_ENVIRON = frozenset(
    {
        *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR"),
        *("REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"),
        *("wsgi.url_scheme", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"),
    }
)
"""Names in a WSGI environment that are saved. Servers and proxies add others, such as
``REMOTE_USER`` and ``SSL_CLIENT_CERT``, so what is not listed is left out."""

_OF_THE_BODY = ("CONTENT_", "HTTP_CONTENT_", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT")
"""How the names of headers begin that describe the body."""

_CONTAINERS = (list, tuple, set, frozenset)

Carries = t.Callable[[t.Any], bool]
"""Returns True if a format can save a value unchanged."""


class Context(PortableSnapshot):
    """What a saved task sees. It can be pickled, and refers to no app."""

    __slots__ = ()

    def restore(self, app: Flask, request_id: str | None = None) -> Snapshot:
        """Return it as a snapshot, for a call of that app.

        :param request_id: the id of the request, which the row of the task has.

        It has no context variables: those of the submitter are not saved. The runs of
        one snapshot share the values of ``g``, so make one for each attempt.
        """
        snapshot = self.rebuild(app, contextvars.Context())
        if snapshot._request is not None:
            snapshot._request.set_id(request_id)
        return snapshot

    def size_of_body(self) -> int:
        """Return how many bytes its body and its uploaded files have."""
        if self.request is None:
            return 0
        size = 0 if self.request.body is None else self.request.body.size
        if (parsed := self.request.parsed) is not None:
            size += len(parsed.data or b"")
            size += sum(upload.size for _, upload in parsed.files)
        return size


def reduced(snapshot: Snapshot, what: str, carries: Carries) -> Context:
    """Return the part of a snapshot that is saved.

    :param what: ``'safe'``, ``'all'`` (with the body and the uploaded files) or
        ``'none'`` (an app context alone).
    """
    if what == "none":
        return Context({}, None)
    g = {
        name: value
        for name, value in snapshot._g.items()
        if _is_saved(name) and is_plain(value) and carries(value)
    }
    copy = snapshot._request
    if copy is None:
        return Context(serialize(g, "g"), None)
    request = _reduced_request(snapshot.app, copy, what == "all", carries)
    return Context(serialize(g, "g"), request)


def is_credential(header: str) -> bool:
    """Return True if a header must not be saved.

    :param header: its name, as in HTTP or as in a WSGI environment.
    """
    name = header.removeprefix("HTTP_").replace("_", "-").lower()
    return any(word in name for word in CREDENTIALS)


def is_plain(value: t.Any) -> bool:
    """Return True for texts, numbers, bytes, True, False, None, and containers of them.

    The containers are lists, tuples, sets and dicts, at any depth.
    """
    try:
        return _is_plain(value)
    except RecursionError:  # it holds itself
        return False


def _is_plain(value: t.Any) -> bool:
    kind = type(value)
    if kind in PLAIN:
        return True
    if kind is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return kind in _CONTAINERS and all(map(_is_plain, value))


def _reduced_request(
    app: Flask, copy: RequestCopy, with_body: bool, carries: Carries
) -> PortableRequest:
    environ = {
        name: value
        for name, value in copy._environ.items()
        if _is_seen(name, with_body) and type(value) in PLAIN
    }
    attributes = copy._attributes
    rule, args = attributes.get("url_rule"), attributes.get("view_args")
    if args is not None:
        args = {name: value for name, value in args.items() if carries(value)}
    return PortableRequest(
        environ,
        serialize({"view_args": args}, "request attributes"),
        None if rule is None else (rule.endpoint, rule.rule),
        _reduced_session(app, copy, carries),
        copy._body if with_body else None,
        copy._parsed if with_body else None,
    )


@lru_cache(maxsize=1024)  # most requests have the same headers
def _is_seen(name: str, with_body: bool) -> bool:
    if name.startswith(_OF_THE_BODY):
        return with_body and not is_credential(name)
    return name in _ENVIRON or (name.startswith("HTTP_") and not is_credential(name))


def _reduced_session(
    app: Flask, copy: RequestCopy, carries: Carries
) -> PortableSession:
    """Return the data of the session alone: attributes may hold its id, or a lock."""
    # Opened here if the view had not: the task will have no cookie to open it from.
    session = copy.open_session(app, copy.open_request)
    data = {
        name: value
        for name, value in session.items()
        if _is_saved(name) and carries(value)
    }
    return serialize(data, "session"), {}


def _is_saved(name: object) -> bool:
    """Return False for a token that forms are checked with, as Flask-WTF has it."""
    word = str(name).lower()
    return "csrf" not in word and "xsrf" not in word
