"""Workers: which processes there are, and how busy they are."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..rendering import page
from ..site import Site


def view(site: Site) -> Response:
    """Show the processes that are alive."""
    return page(site, "workers.html")
