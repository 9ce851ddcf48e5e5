"""Pages and files as responses.

The templates have an environment of their own: nothing that the app does to its own
templates, such as context processors, filters or another autoescape, counts here.
"""

from __future__ import annotations

import hashlib
import typing as t
from functools import cache
from pathlib import Path

from flask import request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from werkzeug.wrappers import Response

from .site import Site
from .words import FILTERS, STATES

FOLDER = Path(__file__).parent
FILES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""The files that pages load, and their types."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow",
}
"""What every answer has."""


def page(site: Site, template: str, status: int = 200, **facts: t.Any) -> Response:
    """Return a page, or 304 if the browser has the same one.

    :param template: the name of its file.
    :param facts: what the template shows.
    """
    found = _environment().get_template(template)
    html = found.render(site=site, file=address_of, words=STATES, **facts).encode()
    response = Response(html, status, mimetype="text/html")
    response.headers["Cache-Control"] = "no-store"
    response.vary.add("Cookie")
    response.set_etag(hashlib.sha256(html).hexdigest()[:32])
    if site.forms.can_be_sent:
        site.forms.keep(response)
    return response.make_conditional(request.environ) if status == 200 else response


def refusal(site: Site, status: int, sentence: str) -> Response:
    """Return a page that says why there is no other one."""
    return page(site, "problem.html", status, sentence=sentence)


def file(name: str) -> Response:
    """Return one of our own files."""
    response = Response(_content(name), mimetype=FILES[name])
    # Its address has a hash of it, so a browser never has an old one.
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.set_etag(_hash(name))
    return response.make_conditional(request.environ)


def protect(response: Response) -> Response:
    """Add the headers that keep other sites out."""
    response.headers.update(HEADERS)
    return response


def address_of(site: Site, name: str) -> str:
    """Return the address of one of our own files."""
    return site.url("file", name=name, v=_hash(name))


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(FILTERS)
    return made


@cache
def _content(name: str) -> bytes:
    return (FOLDER / "static" / name).read_bytes()


@cache
def _hash(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:16]
