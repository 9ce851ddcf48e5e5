"""All tasks that match: first their number, then what is done to them.

What is done is a task of its own, so that no request waits for it: a coroutine, which
takes no worker. It runs also if all workers hang, when somebody wants to cancel.
"""

from __future__ import annotations

import asyncio
import typing as t

from flask import request
from werkzeug.wrappers import Response

from ... import bulk
from ...current import current_task
from ...errors import InvalidOption
from .actions import done
from .pages.tasks import filters
from .rendering import page, refusal
from .site import Site

_TITLES = {"cancel": "Cancel all", "retry": "Run all again"}


def view(site: Site) -> Response:
    """Ask if something is to be done to so many tasks; nothing is done."""
    return _checked(site, _confirmation, site.asks)


def do(site: Site) -> Response:
    """Do it in the background, and show the task that does."""
    return _checked(
        site, _begin, lambda name: request.form.get(name, "").strip() or None
    )


async def apply(executor: t.Any, action: bulk.Action, wanted: dict[str, t.Any]) -> str:
    """Cancel or retry all tasks that match; the task that a dashboard submits.

    :return: what became of them, as a sentence.
    """

    def told(so_far: bulk.Applied) -> None:
        current_task.raise_if_cancelled()
        passed = so_far.done + so_far.unchanged
        current_task.progress(passed, so_far.matched, f"{so_far.done:,} done")

    # The verbs ask the database, and so must not run on the event loop.
    found = await asyncio.to_thread(bulk.apply, executor, action, told=told, **wanted)
    return f"{found.done:,} of {found.matched:,} done"


def _checked(
    site: Site,
    answer: t.Callable[[Site, bulk.Action, dict[str, str], int], Response],
    asks: t.Callable[[str], str | None],
) -> Response:
    """Answer, if there is such an action and this request may do it."""
    action: t.Any = asks("do")
    if action not in _TITLES:
        return refusal(site, 400, "Choose what to do with these tasks.")
    if site.access.answer(action) is not True:
        return refusal(site, 403, f"You may not do this here: {action}.")
    wanted = filters(asks)
    try:
        count = bulk.count(site.executor, action, **t.cast(t.Any, wanted))
    except InvalidOption:
        return refusal(site, 400, "Tasks in this state cannot be changed like that.")
    return answer(site, action, wanted, count)


def _confirmation(
    site: Site, action: bulk.Action, wanted: dict[str, str], count: int
) -> Response:
    return page(
        site,
        "confirm.html",
        title=_TITLES[action],
        action=action,
        wanted=wanted,
        count=count,
        most=bulk.MOST,
    )


def _begin(
    site: Site, action: bulk.Action, wanted: dict[str, str], count: int
) -> Response:
    # The value of unique lets the store show it, and sends one who asks twice to it.
    words = " ".join(f"{name}={value}" for name, value in sorted(wanted.items()))
    using = site.executor.using(
        name=f"dashboard.{action}_all",
        unique=f"dashboard.{action} {words}",
        on_taken="return",
    )
    future = using.submit(apply, site.executor, action, wanted)
    return done(site, "task", "started", count, id=future.task.id)
