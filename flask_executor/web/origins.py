"""Where a request that changes something comes from: our own pages, or those of others.

Browsers say so, and no script of a page can say something else. ``Sec-Fetch-Site`` is
sent over HTTPS and to this machine. Over plain HTTP there is only ``Origin``, which
browsers send with each request of another page that changes something.
"""

from __future__ import annotations

from flask import Request


def is_from_elsewhere(request: Request) -> bool:
    """Return True if a page of another origin, or nobody can say which, sent this.

    A request without both headers does not come from a browser. It carries no cookies
    that somebody else could misuse.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("Origin")
    return origin is not None and origin != request.host_url.rstrip("/")
