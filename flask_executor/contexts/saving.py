"""Saved contexts as pickles and as JSON.

Both are made of dicts and plain values, not of our own classes, so that another version
of this package can read them.
"""

from __future__ import annotations

import io
import typing as t

from flask.json.tag import TaggedJSONSerializer
from werkzeug.datastructures import FileStorage, Headers, ImmutableMultiDict

from .body import ParsedForm
from .copying import PLAIN
from .pickling import _Pickled, deserialize, serialize
from .request import PortableRequest
from .safe import Context, reduced
from .snapshot import Snapshot
from .uploads import Content, Upload


class PickledContexts:
    """Contexts for a store that pickles."""

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
