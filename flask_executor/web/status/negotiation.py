"""Which form of an answer a request wants, and for how long it would wait."""

from __future__ import annotations

import re
import typing as t

from flask import Request

Form = t.Literal["json", "fragment", "page", "events"]

_FORMS: dict[str, Form] = {
    "application/json": "json",
    "text/html": "page",
    "text/event-stream": "events",
}
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})")


def form_of(request: Request) -> Form:
    """Return the form that a request wants; JSON if it does not say."""
    if _wants_fragment(request):
        return "fragment"
    accept = request.headers.get("Accept", "*/*")
    if accept == "*/*":  # most polls; to parse it takes as long as all the rest
        return "json"
    return _FORMS[request.accept_mimetypes.best_match([*_FORMS], "application/json")]


def seconds_to_wait(request: Request) -> int:
    """Return the n of ``Prefer: wait=n`` (RFC 7240), or 0."""
    found = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return int(found[1]) if found else 0


def _wants_fragment(request: Request) -> bool:
    """Return True for HTMX, unless it loads a whole page."""
    headers = request.headers
    if headers.get("HX-Request") != "true":
        return False
    whole = ("HX-Boosted", "HX-History-Restore-Request")
    if any(headers.get(name) == "true" for name in whole):
        return False
    return headers.get("HX-Request-Type") != "full"  # htmx 4
