"""What the forms do: each ends with the page that it came from, and one sentence."""

from __future__ import annotations

import typing as t

from flask import redirect, request
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from ... import bulk
from ...store_errors import PayloadRefused, RetryRefused
from .rendering import refusal
from .site import Site

_MOST = 100
"""How many may be chosen on one page."""


def cancel(site: Site, id: str) -> Response:
    """Cancel one task, or ask it to stop."""
    return done(site, "task", "cancel", int(site.executor.cancel(id)), id=id)


def retry(site: Site, id: str) -> Response:
    """Run one task again, and show the new one."""
    try:
        future = site.executor.retry(id)
    except (RetryRefused, PayloadRefused):
        sentence = "It cannot run again: it has not ended, or its call was not saved."
        return refusal(site, 409, sentence)
    except ValueError:
        sentence = "It cannot run again now: another task has its unique value."
        return refusal(site, 409, sentence)
    return done(site, "task", "retry", 1, id=future.task.id)


def chosen(site: Site) -> Response:
    """Cancel or retry the tasks that were chosen on a page."""
    action: t.Any = request.form.get("do", "")
    if action not in ("cancel", "retry"):
        return refusal(site, 400, "Choose what to do with these tasks.")
    if not site.may(action):
        return refusal(site, 403, f"You may not do this here: {action}.")
    ids = [*dict.fromkeys(request.form.getlist("id"))][:_MOST]
    changed = bulk.apply_to(site.executor, action, ids).done
    return done(site, "tasks", action, changed)


def pause(site: Site) -> Response:
    """Pause a job."""
    site.executor.pause(_field("job"))
    return done(site, "jobs", "pause")


def resume(site: Site) -> Response:
    """Resume a job."""
    site.executor.resume(_field("job"))
    return done(site, "jobs", "resume")


def run_now(site: Site) -> Response:
    """Submit a task of a periodic job now."""
    future = _periodic(site).run_now()
    id = future.task.id
    if site.executor.task(id) is not None:
        return done(site, "task", "run", id=id)
    return done(site, "periodic", "run")


def pause_ticks(site: Site) -> Response:
    """Leave out the ticks of a periodic job."""
    _periodic(site).pause()
    return done(site, "periodic", "pause")


def resume_ticks(site: Site) -> Response:
    """Run a periodic job at its times again."""
    _periodic(site).resume()
    return done(site, "periodic", "resume")


def _periodic(site: Site) -> t.Any:
    jobs, name = site.executor.periodic, _field("name")
    if name not in jobs:
        raise NotFound("There is no such periodic job here.")
    return jobs[name]


def _field(name: str) -> str:
    """Return a field of the form; a form without it is a bad request."""
    return request.form[name]


def done(site: Site, page: str, did: str, count: int = 1, **values: t.Any) -> Response:
    """Show a page, with a sentence about what was done."""
    number = {} if count == 1 else {"n": count}
    return redirect(site.url(page, did=did, **number, **values), 303)
