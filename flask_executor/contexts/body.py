"""The body of a request: shared between the view and its tasks, read or not."""

from __future__ import annotations

import io
import typing as t

from flask.wrappers import Request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wsgi import LimitedStream

from .uploads import Content, Upload


class ParsedForm(t.NamedTuple):
    """A form that the view had parsed already, with its uploads."""

    form: t.Any
    files_class: t.Any
    files: list[tuple[str, Upload]]
    data: bytes | None

    def open(self) -> dict[str, t.Any]:
        """Return the entries for the ``__dict__`` of a new request."""
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


def was_read(request: Request) -> bool:
    """Return True if its body or its form is kept in memory by now."""
    state = vars(request)
    return "form" in state or "_cached_data" in state


def body_of(request: Request) -> tuple[Content | None, ParsedForm | None]:
    """Return the body, or the form that the view has parsed.

    The view's own stream stays readable. Both are None if there is no body.

    :raises werkzeug.exceptions.HTTPException: if the body is too large, or the client
        broke it off.
    """
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
    # HTTP/2 needs neither: reading ends by itself, at once if there is no body.
    return "wsgi.input_terminated" in environ and environ.get("REQUEST_METHOD") in (
        "POST",
        "PUT",
        "PATCH",
    )


def _share_body(request: Request) -> Content | None:
    """Read a body that nobody has read, and give the view its own reader."""
    if "stream" in vars(request):
        return _rest_of(request.stream)
    body = Content.rest_of(request.stream, request.content_length)
    if request.content_length is not None and body.size < request.content_length:
        raise ClientDisconnected()  # some servers do not raise it themselves
    reader = body.open()
    request.environ["wsgi.input"] = reader
    request.environ["wsgi.input_terminated"] = True
    request.stream = reader
    return body


def _rest_of(stream: t.Any) -> Content | None:
    """Return what is left of a stream that the view may still be reading.

    The view can go on reading. It is None if what was read cannot be given back.
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
