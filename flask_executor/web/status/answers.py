"""Answers: a status or a problem, as JSON, as a fragment or as a page."""

from __future__ import annotations

import typing as t
from hashlib import sha256

from flask import Response, current_app, render_template, request

from ..problems import Problem
from .negotiation import Form
from .shown import Shown

_TEMPLATES = "flask_executor/status/"
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


_HEADERS = {
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept, HX-Request",
}
_OF_PAGES = {
    "Content-Security-Policy": _POLICY,
    # The URL is for its owner. With "no-referrer", forms would send no Origin.
    "Referrer-Policy": "same-origin",
}


def answer(shown: Shown, form: Form, status: int = 200) -> Response:
    """Return a status in a form; 304 if the client has the same already."""
    body, kind = _written(shown, form)
    headers = {} if shown.done else {"Retry-After": str(shown.retry_after)}
    if status == 200:
        tag = tag_of(body)
        # Not make_conditional of the response: it takes longer than all of this.
        if request.headers.get("If-None-Match") and tag in request.if_none_match:
            body, status = "", 304
        headers["ETag"] = f'"{tag}"'
    return made(body, status, kind, form, headers)


def refusal(problem: Problem, form: Form) -> Response:
    """Return a problem in a form."""
    if form in ("json", "events"):
        body = current_app.json.dumps(problem.as_json())
        kind = "application/problem+json"
        return made(body, problem.status, kind, form, problem.headers)
    here = request.script_root + request.path
    location = here if "Retry-After" in problem.headers else None
    name = f"{_TEMPLATES}problem_{form}.html"
    body = render_template(name, problem=problem, location=location)
    return made(body, problem.status, "text/html", form, problem.headers)


def made(
    body: t.Iterable[str] | str,
    status: int,
    kind: str,
    form: Form,
    headers: t.Mapping[str, str],
) -> Response:
    """Return a response with the headers that all of them have."""
    added = _OF_PAGES if form == "page" else {}
    return Response(body, status, {**_HEADERS, **added, **headers}, mimetype=kind)


def json_of(shown: Shown) -> str:
    """Return a status as JSON on one line."""
    return _sendable(current_app.json.dumps(shown.as_json()))


def _sendable(text: str) -> str:
    """Return a text that can be sent: names of files may hold halves of characters."""
    return text.encode(errors="replace").decode()


def tag_of(body: str) -> str:
    """Return what differs between any two bodies."""
    return sha256(body.encode()).hexdigest()[:20]


def _written(shown: Shown, form: Form) -> tuple[str, str]:
    if form == "json":
        return json_of(shown), "application/json"
    name = f"{_TEMPLATES}{form}.html"
    body = render_template(name, shown=shown, as_text=_as_text)
    return _sendable(body), "text/html"


def _as_text(value: object) -> str:
    """Return a JSON value as people read it."""
    return current_app.json.dumps(value, indent=2, ensure_ascii=False)
