"""Periodic: when each job ran last, and when it runs next."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..rendering import page
from ..site import Site


def view(site: Site) -> Response:
    """Show the periodic jobs, in the order in which they were declared."""
    return page(site, "periodic.html", jobs=[*site.executor.periodic])
