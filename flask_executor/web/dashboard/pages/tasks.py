"""Tasks: a list with filters, in pages; or one task by its id or key."""

from __future__ import annotations

import typing as t
from functools import partial

from flask import redirect
from werkzeug.wrappers import Response

from ....verbs.records import STATES, TaskRecord
from ..rendering import page, refusal
from ..site import Site

LIMIT = 10_000
FILTERS = (
    *("state", "job", "name", "error", "group"),
    *("parent", "request", "retried_from"),
)
_ON_A_PAGE = 50


def view(site: Site) -> Response:
    """Show a page of tasks."""
    if (asked := site.asks("open")) is not None:
        return opened(site, asked)
    wanted = filters(site.asks)
    records, newer, older = paged(site, wanted, partial(site.url, "tasks", **wanted))
    return page(
        site,
        "tasks.html",
        records=records,
        given=wanted,
        wanted=dict.fromkeys(FILTERS, "") | wanted,
        counts=site.executor.counts(limit=LIMIT),
        limit=LIMIT,
        jobs=sorted({name for one in site.workers for name in one.jobs}),
        newer=newer,
        older=older,
    )


def filters(asks: t.Callable[[str], str | None]) -> dict[str, str]:
    """Return the filters that are set; a state that does not exist is left out."""
    found = {name: value for name in FILTERS if (value := asks(name)) is not None}
    if found.get("state", STATES[0]) not in STATES:
        del found["state"]
    return found


def opened(site: Site, text: str) -> Response:
    """Go to the task that has this id, or this key."""
    if site.executor.task(text) is not None:
        return redirect(site.url("task", id=text), 303)
    # To try keys is to learn them, so it needs the right to see them.
    found = _with_key(site, text) if site.may("details") else None
    if found is None:
        return refusal(site, 404, "There is no such task, or it is gone.")
    return redirect(site.url("task", id=found), 303)


def _with_key(site: Site, text: str) -> str | None:
    """Return the id of the task that has a key, which may also be a number."""
    keys: list[t.Any] = [text]
    keys += [int(text)] if text.isascii() and text.lstrip("-").isdigit() else []
    for key in keys:
        future = site.executor.futures.get(key)
        if future is not None and future.task is not None:
            return t.cast(str, future.task.id)
    return None


def paged(
    site: Site, wanted: dict[str, str], url: t.Callable[..., str]
) -> tuple[list[TaskRecord], str | None, str | None]:
    """Return the tasks of a page, and the addresses of the pages beside it.

    :param url: returns the address of a page, for ``before`` or ``after``.
    """
    before, after = site.asks("before"), site.asks("after")
    asked: dict[str, t.Any] = dict(wanted)
    # One more than is shown tells if there is another page.
    found: list[TaskRecord] = site.executor.tasks(
        before=before, after=after, limit=_ON_A_PAGE + 1, **asked
    )
    more = len(found) > _ON_A_PAGE
    shown = found[-_ON_A_PAGE:] if after else found[:_ON_A_PAGE]
    newer = before or (after and more)
    older = after or more
    return (
        shown,
        url(after=shown[0].id) if newer and shown else None,
        url(before=shown[-1].id) if older and shown else None,
    )
