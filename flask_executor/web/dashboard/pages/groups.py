"""Groups: how far each is."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..rendering import page
from ..site import Site

_ON_A_PAGE = 50


def view(site: Site) -> Response:
    """Show the groups, newest first."""
    before = site.asks("before") or ""
    place = int(before) if before.isascii() and before.isdigit() else None
    found = site.executor.groups(limit=_ON_A_PAGE + 1, before=place)
    shown = found[:_ON_A_PAGE]
    older = None
    if len(found) > _ON_A_PAGE:
        older = site.url("groups", before=shown[-1].id)
    return page(site, "groups.html", groups=shown, older=older)
