"""Request: what one request started, and how that goes."""

from __future__ import annotations

import typing as t
from collections import Counter
from functools import partial

from werkzeug.wrappers import Response

from ....verbs.records import TaskRecord
from ..rendering import page, refusal
from ..site import Site
from ..words import STATES
from .tasks import LIMIT, paged

_COUNTED = 1000
"""Of so many tasks it says how many are in which state."""


class Branch(t.NamedTuple):
    """A task in a tree of those that submit each other."""

    record: TaskRecord
    depth: int
    """How many of the tasks above it are on the page."""
    under: TaskRecord | None
    """The task that submitted it, if that is on the page."""


def view(site: Site, id: str) -> Response:
    """Show a page of the tasks that come from one request."""
    url = partial(site.url, "request", id=id)
    records, newer, older = paged(site, {"request": id}, url)
    if not records:
        return refusal(site, 404, "There is no such request, or its tasks are gone.")
    is_all = newer is older is None
    total = len(records) if is_all else site.executor.count(request=id, limit=LIMIT)
    return page(
        site,
        "request.html",
        id=id,
        origin=next((one for one in records if one.source), records[0]),
        total=total,
        limit=LIMIT,
        states=_states(site, id, total, records if is_all else None),
        branches=tree(records),
        newer=newer,
        older=older,
    )


def tree(records: t.Sequence[TaskRecord]) -> list[Branch]:
    """Return tasks in their order, each followed by those that it has submitted."""
    by_id = {record.id: record for record in records}
    below: dict[str | None, list[TaskRecord]] = {}
    for record in records:
        above = record.parent if record.parent in by_id else None
        below.setdefault(above, []).append(record)
    left = [Branch(record, 0, None) for record in below.get(None, [])[::-1]]
    found: list[Branch] = []
    while left:
        found.append(branch := left.pop())
        mine, depth = branch.record, branch.depth + 1
        left += [Branch(one, depth, mine) for one in below.get(mine.id, [])[::-1]]
    return found


def _states(
    site: Site, id: str, total: int, records: list[TaskRecord] | None
) -> dict[str, int]:
    """Return how many tasks are in each state; nothing if it takes long to count.

    :param records: all of them, if they are known.
    """
    if records is not None:
        found: t.Mapping[str, int] = Counter(one.state for one in records)
    elif total < _COUNTED:
        count = partial(site.executor.count, request=id, limit=_COUNTED)
        found = {state: count(state=state) for state in STATES}
    else:
        found = {}
    return {state: found[state] for state in STATES if found.get(state)}
