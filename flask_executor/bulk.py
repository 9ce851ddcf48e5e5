"""Cancelling and retrying many tasks at once: for the command line and for pages.

First :func:`count` says how many tasks it would be, then :func:`apply` does it.
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from .errors import InvalidOption, UnknownTask
from .verbs import TaskFilters
from .verbs.records import ENDS, STATES, TaskRecord

Action = t.Literal["cancel", "retry"]

MOST = 10_000
"""How many tasks one call counts, or changes."""
_BATCH = 500
_NAMED = 5
_STATES: dict[str, tuple[str, ...]] = {
    # What was cancelled was meant to be over.
    "retry": ("failed", "timed_out", "interrupted"),
    "cancel": tuple(state for state in STATES if state not in ENDS),
}
_REFUSED = (ValueError, TypeError, LookupError)
"""What ``retry`` raises about one task."""


class Applied(t.NamedTuple):
    """What became of many tasks.

    .. versionadded:: 2.0
    """

    done: int
    """How many were changed."""
    unchanged: int
    """How many were not: they had ended meanwhile, or were refused."""
    matched: int
    """How many there are to go through."""
    reasons: tuple[str, ...] = ()
    """Why some were refused: the first few sentences."""


def count(
    executor: t.Any, action: Action | None = None, **filters: t.Unpack[TaskFilters]
) -> int:
    """Return how many tasks the filters name, at most :data:`MOST`.

    :param executor: the executor, within the context of its app.
    :param action: count only those that :func:`apply` would go through.
    :param filters: those of :meth:`.Executor.tasks`.
    :raises InvalidOption: a :exc:`ValueError`, if there is no such state, or the action
        never applies to tasks in that state.
    :raises StoreUnavailable: if the database is away.
    """
    found = 0
    for one in _by_state(action, filters):
        found += executor.count(limit=MOST - found, **one) if found < MOST else 0
    return found


def apply(
    executor: t.Any,
    action: Action,
    *,
    told: t.Callable[[Applied], object] | None = None,
    **filters: t.Unpack[TaskFilters],
) -> Applied:
    """Cancel or retry all tasks that the filters name, oldest first.

    Without the filter ``state``, ``'cancel'`` goes through all that have not ended, and
    ``'retry'`` through those that failed, timed out or were interrupted. These are
    looked up first, so what comes meanwhile is left as it is. If there are more than
    :data:`MOST`, it takes so many; call it again for the rest.

    :param executor: the executor, within the context of its app.
    :param told: called after every few hundred with what was done so far. What it
        raises ends this, for example :exc:`.TaskCancelled`.
    :param filters: those of :meth:`.Executor.tasks`.
    :raises InvalidOption: as :func:`count`.
    :raises StoreUnavailable: if the database is away; a part may be done then.
    """
    return apply_to(executor, action, _matching(executor, action, filters), told)


def apply_to(
    executor: t.Any,
    action: Action,
    ids: t.Sequence[str],
    told: t.Callable[[Applied], object] | None = None,
) -> Applied:
    """Cancel or retry tasks, one after another; see :func:`apply`.

    :param ids: those of the tasks. One that is refused keeps no other from it.
    """
    so_far = Applied(0, 0, len(ids))
    for number, id in enumerate(ids, 1):
        so_far = _apply_one(executor, action, id, so_far)
        if told is not None and (number % _BATCH == 0 or number == len(ids)):
            told(so_far)
    return so_far


def _apply_one(executor: t.Any, action: Action, id: str, so_far: Applied) -> Applied:
    try:
        is_done = executor.cancel(id) if action == "cancel" else executor.retry(id)
    except _REFUSED as error:
        reasons = (*so_far.reasons, str(error))[:_NAMED]
        return so_far._replace(unchanged=so_far.unchanged + 1, reasons=reasons)
    if is_done is False:
        return so_far._replace(unchanged=so_far.unchanged + 1)
    return so_far._replace(done=so_far.done + 1)


def _by_state(action: Action | None, filters: TaskFilters) -> list[TaskFilters]:
    """Return filters for each state that an action goes through."""
    state, allowed = filters.get("state"), _STATES.get(action or "")
    if allowed is None:
        return [filters]
    if state is None:
        return [{**filters, "state": one} for one in allowed]
    if action == "cancel" and state in ENDS:
        raise InvalidOption("state", state, f"one of {', '.join(allowed)} to cancel")
    if action == "retry" and state not in ENDS:
        raise InvalidOption("state", state, f"one of {', '.join(ENDS)} to retry")
    return [filters]


def _matching(executor: t.Any, action: Action, filters: TaskFilters) -> list[str]:
    """Return the ids of the tasks, oldest first."""
    found: list[tuple[datetime, str]] = []
    for one in _by_state(action, filters):
        found += _newest(executor, MOST - len(found), one)
    return [id for _, id in sorted(found)]


def _newest(
    executor: t.Any, most: int, filters: TaskFilters
) -> list[tuple[datetime, str]]:
    """Return times and ids of tasks, page by page.

    Each page begins where the last one ended. If that task is gone, all come at once.
    """
    found: list[tuple[datetime, str]] = []
    before: str | None = None
    while len(found) < most:
        size = min(_BATCH, most - len(found))
        try:
            page = executor.tasks(before=before, limit=size, **filters)
        except UnknownTask:
            if before is None:
                raise
            return _known(executor.tasks(limit=most, **filters))
        found += _known(page)
        if len(page) < size:
            break
        before = page[-1].id
    return found


def _known(page: t.Iterable[TaskRecord]) -> list[tuple[datetime, str]]:
    return [(one.submitted_at, one.id) for one in page]
