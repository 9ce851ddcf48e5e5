"""The part of a snapshot that is saved with a task, without what others must not read.

A saved context lies in a database for as long as its task is known, and in the backups
of that database. So it holds no credentials, and the body only on request. What a task
sees is the same if it runs at once or after a crash: :meth:`Context.restore` is used in
both cases.
"""

from __future__ import annotations

import contextvars
import io
import typing as t
from functools import lru_cache

from flask import Flask
from flask.json.tag import TaggedJSONSerializer
from werkzeug.datastructures import FileStorage, Headers, ImmutableMultiDict

from .body import ParsedForm
from .copying import PLAIN
from .pickling import _Pickled, deserialize, serialize
from .request import PortableRequest, PortableSession, RequestCopy
from .snapshot import PortableSnapshot, Snapshot
from .uploads import Content, Upload

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

    def restore(self, app: Flask) -> Snapshot:
        """Return it as a snapshot, for a call of that app.

        It has no context variables: those of the submitter are not saved. The runs of
        one snapshot share the values of ``g``, so make one for each attempt.
        """
        request = None if self.request is None else self.request.rebuild(app)
        return Snapshot(app, deserialize(self.g), request, contextvars.Context())

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
    session = copy._session
    if session is None:  # opened here: the task will have no cookie to open it from
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


class PickledContexts:
    """Contexts for a store that pickles.

    What is saved is made of dicts and plain values, not of our own classes, so that
    another version of this package can read it.
    """

    def reduce(self, snapshot: Snapshot, what: str) -> Context:
        """Return the part of a snapshot that is saved."""
        return reduced(snapshot, what, lambda value: True)

    def dump(self, context: Context) -> t.Any:
        """Return a context as an object to be pickled."""
        return _as_dict(context, _packed)

    def load(self, data: t.Any) -> Context:
        """Return the context again."""
        return _context_of(data, _unpacked)


class JsonContexts:
    """Contexts for a store that unpickles nothing.

    They hold what Flask's own session cookie carries unchanged: plain values, tuples,
    bytes, UUIDs, ``Markup``, and times in UTC without fractions of a second.
    """

    _json = TaggedJSONSerializer()

    def reduce(self, snapshot: Snapshot, what: str) -> Context:
        """Return the part of a snapshot that is saved."""
        return reduced(snapshot, what, self._carries)

    def _carries(self, value: t.Any) -> bool:
        if type(value) in PLAIN:
            return True
        try:
            back = self._json.loads(self._json.dumps(value))
        except (TypeError, ValueError, RecursionError):
            return False
        return bool(type(back) is type(value) and back == value)

    def dump(self, context: Context) -> str:
        """Return a context as JSON."""
        return self._json.dumps(_as_dict(context, deserialize))

    def load(self, data: str) -> Context:
        """Return the context again."""
        return _context_of(self._json.loads(data), lambda values: serialize(values, ""))


Values = dict[str, t.Any]


def _packed(values: Values) -> Values:
    """Return values that :func:`serialize` made, with tuples of bytes for pickles.

    All others are plain, so none of them is a tuple.
    """
    return {n: (v.data,) if isinstance(v, _Pickled) else v for n, v in values.items()}


def _unpacked(values: Values) -> Values:
    return {n: _Pickled(*v) if type(v) is tuple else v for n, v in values.items()}


def _as_dict(context: Context, out: t.Callable[[Values], Values]) -> Values:
    """Return a context as nested dicts.

    :param out: takes values that :func:`serialize` made.
    """
    saved: Values = {"g": out(context.g)}
    if (request := context.request) is not None:
        session, body, parsed = request.session, request.body, request.parsed
        saved["request"] = {
            "environ": request.environ,
            "attributes": out(request.attributes),
            "rule": request.rule,
            "session": {} if session is None else out(session[0]),
            "body": None if body is None else body.open().read(),
            "form": None if parsed is None else _form_as_dict(parsed),
        }
    return saved


def _context_of(saved: Values, into: t.Callable[[Values], Values]) -> Context:
    """Return the context again.

    :param into: gives the values that :func:`deserialize` takes.
    """
    if (data := saved.get("request")) is None:
        return Context(into(saved["g"]), None)
    request = PortableRequest(
        data["environ"],
        into(data["attributes"]),
        data["rule"],
        (into(data["session"]), {}),
        None if data["body"] is None else Content(data["body"]),
        None if data["form"] is None else _form_of(data["form"]),
    )
    return Context(into(saved["g"]), request)


def _form_as_dict(parsed: ParsedForm) -> Values:
    return {
        "fields": list(parsed.form.items(multi=True)),
        "files": [(name, _file_as_dict(upload)) for name, upload in parsed.files],
        "data": parsed.data,
    }


def _file_as_dict(upload: Upload) -> Values:
    file = upload.open()
    return {
        "content": b"" if upload.was_closed else file.read(),
        "filename": file.filename,
        "name": file.name,
        "headers": list(file.headers),
    }


def _form_of(data: Values) -> ParsedForm:
    return ParsedForm(
        ImmutableMultiDict(data["fields"]),
        ImmutableMultiDict,
        [(name, _file_of(**file)) for name, file in data["files"]],
        data["data"],
    )


def _file_of(
    content: bytes, filename: str, name: str, headers: list[tuple[str, str]]
) -> Upload:
    stream = io.BytesIO(content)
    return Upload(FileStorage(stream, filename, name, headers=Headers(headers)))
