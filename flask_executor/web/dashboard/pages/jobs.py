"""Jobs: what each did in the last hour, who knows it, and if it is paused."""

from __future__ import annotations

import typing as t

from werkzeug.wrappers import Response

from ....verbs.records import MinuteStatistics
from ..rendering import page
from ..site import Site
from ..words import FAILURES


class Job(t.NamedTuple):
    """What is known of a job."""

    name: str
    ended: int
    failed: int
    wait: float | None
    """Seconds, on average."""
    run: float | None
    processes: int
    """How many know it, of those that run tasks."""
    paused: bool


def view(site: Site) -> Response:
    """Show the jobs by name."""
    by: dict[str, list[MinuteStatistics]] = {}
    for one in site.executor.statistics(minutes=60):
        if one.job:
            by.setdefault(one.job, []).append(one)
    paused = set(site.executor.paused())
    known = {name for worker in site.workers for name in worker.jobs}
    names = sorted({*by, *known, *paused})
    jobs = [_job(site, name, by.get(name, []), name in paused) for name in names]
    return page(site, "jobs.html", jobs=jobs)


def _job(site: Site, name: str, found: list[MinuteStatistics], paused: bool) -> Job:
    ended = sum(one.count for one in found)
    ran = sum(sum(one.runs) for one in found)
    return Job(
        name=name,
        ended=ended,
        failed=sum(one.count for one in found if one.end in FAILURES),
        wait=sum(one.wait_sum for one in found) / ended if ended else None,
        run=sum(one.run_sum for one in found) / ran if ran else None,
        processes=sum(name in one.jobs for one in site.workers if one.runs),
        paused=paused,
    )
