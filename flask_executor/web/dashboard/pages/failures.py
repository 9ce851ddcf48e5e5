"""Failures: which errors, in which jobs, how often."""

from __future__ import annotations

import typing as t

from werkzeug.wrappers import Response

from ....verbs.records import TaskRecord
from ..rendering import page
from ..site import Site
from ..words import FAILURES

_LOOKED_AT = 200
"""At how many tasks of each state it looks."""


class Failure(t.NamedTuple):
    """The failures of one job by one error."""

    error_class: str | None
    job: str | None
    state: str
    tasks: int
    last: TaskRecord
    url: str
    """The page with these tasks."""
    retry: str
    """The page that asks if all of them are to run again."""


def view(site: Site) -> Response:
    """Show failures, those first that came last."""
    found: list[TaskRecord] = []
    for state in FAILURES:
        found += site.executor.tasks(state=state, limit=_LOOKED_AT)
    by: dict[t.Any, list[TaskRecord]] = {}
    for record in found:
        by.setdefault((record.error_class, record.job, record.state), []).append(record)
    failures = [_failure(site, records) for records in by.values()]
    failures.sort(key=lambda one: one.last.submitted_at, reverse=True)
    return page(site, "failures.html", failures=failures, looked_at=len(found))


def _failure(site: Site, records: list[TaskRecord]) -> Failure:
    last = records[0]
    given = {"state": last.state, "job": last.job, "error": last.error_class}
    return Failure(
        error_class=last.error_class,
        job=last.job,
        state=last.state,
        tasks=len(records),
        last=last,
        url=site.url("tasks", **given),
        retry=site.url("all_that_match", do="retry", **given),
    )
