"""The measures of the surfaces; each side imports what it needs."""

from __future__ import annotations

import gc
import time

from sides import (
    Round,
    in_request,
    make_executor,
    measure,
    windowed,
)


@measure
def surface(side: str) -> Round:
    """Submit to result with a surface in use; the other side may have an allowance.

    It is processor time: a microsecond is less than what the machine does beside it.
    Garbage collection leaves out what was imported.
    """
    import surfaces

    executor = make_executor("thread")
    surfaces.USES.get(side, bool)(executor)
    allowed = surfaces.ALLOWED.get(side, 0.0)
    gc.collect()
    gc.freeze()

    def measured() -> float:
        start = time.process_time()
        windowed(executor.submit, 5_000)
        return (time.process_time() - start) / 5_000 + allowed

    return in_request(executor.submit, measured)


@measure
def status(side: str) -> Round:
    """One answer of a gthread worker: the status of a task, or a bare view."""
    import served

    return served.answers(side)


@measure
def dashboard(side: str) -> Round:
    """The slowest page of a dashboard beside a million tasks."""
    import pages

    return pages.pages(side)


@measure
def first_visit(side: str) -> Round:
    """The bytes of a first visit to a dashboard."""
    import pages

    return pages.first_visit(side)


@measure
def watched(side: str) -> Round:
    """One durable submit of a server whose dashboards are open, or not."""
    import watching

    return watching.submits(*side.split("-"))
