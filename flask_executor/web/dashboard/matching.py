"""All tasks that match: first their number, then what is done to them."""

from __future__ import annotations

from flask import request
from werkzeug.wrappers import Response

from .pages.tasks import filters
from .rendering import page, refusal
from .site import Site


def view(site: Site) -> Response:
    """Ask if something is to be done to so many tasks; nothing is done."""
    return refusal(site, 501, "todo")


def do(site: Site) -> Response:
    """Do it in the background."""
    return refusal(site, 501, "todo")
