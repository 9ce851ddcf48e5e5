"""Task: its attempts on a line of time, why it waits, where it comes from."""

from __future__ import annotations

import typing as t
from datetime import datetime

from markupsafe import Markup
from werkzeug.wrappers import Response

from ....errors import UnknownTask
from ....verbs.records import AttemptInfo, TaskRecord
from ..charts import Span, timeline
from ..rendering import page
from ..site import Site
from ..words import duration, exact, moment, number
from ..words import state as state_word

_CHILDREN = 20
_PARENTS = 8


class Stage(t.NamedTuple):
    """A stretch of the life of a task."""

    what: str
    kind: str
    start: datetime
    end: datetime | None
    """None: it is not over."""
    seconds: float
    end_word: str = ""
    error_class: str | None = None
    error: str | None = None


def view(site: Site, id: str) -> Response:
    """Show one task.

    :raises UnknownTask: if there is no such task.
    """
    record: TaskRecord | None = site.executor.task(id)
    if record is None:
        raise UnknownTask(id)
    stages = stages_of(record, site.executor.attempts(id), site.now)
    below = site.executor.tasks(parent=id, limit=_CHILDREN + 1)
    again = site.executor.tasks(retried_from=id, limit=_CHILDREN + 1)
    return page(
        site,
        "task.html",
        record=record,
        why="" if record.has_ended else site.executor.why(id).sentence,
        stages=stages,
        drawing=_drawing(stages, site.now),
        facts=_facts(record),
        above=_above(site, record),
        below=below[:_CHILDREN],
        more=len(below) > _CHILDREN,
        again=again[:_CHILDREN],
        more_again=len(again) > _CHILDREN,
    )


def stages_of(
    record: TaskRecord, attempts: t.Sequence[AttemptInfo], now: datetime
) -> list[Stage]:
    """Return what became of a task, in order: waits and attempts."""
    found, since, what = [], record.submitted_at, "Waited"
    for one in attempts:
        if one.started_at is None:
            continue
        found.append(_stage(what, "off", since, one.started_at, now))
        end = one.finished_at
        word = state_word(one.end) if one.end else "Runs"
        kind = {"succeeded": "good", None: "running"}.get(one.end, "bad")
        stage = _stage(f"Attempt {one.number}", kind, one.started_at, end, now)
        found.append(
            stage._replace(end_word=word, error_class=one.error_class, error=one.error)
        )
        since, what = end or now, "Pause"
    if not record.has_ended and record.state != "running":
        found.append(_stage("Waits", "off", since, None, now))
    elif record.has_ended and not attempts:
        end = record.finished_at
        stage = _stage("Waited", "off", since, end, now)
        found.append(stage._replace(end_word=state_word(record.state)))
    return found


def _stage(
    what: str, kind: str, start: datetime, end: datetime | None, now: datetime
) -> Stage:
    seconds = max(0.0, ((end or now) - start).total_seconds())
    return Stage(what, kind, start, end, seconds)


def _drawing(stages: t.Sequence[Stage], now: datetime) -> Markup:
    spans = [
        Span(
            stage.start.timestamp(),
            (stage.end or now).timestamp(),
            stage.kind,
            f"{stage.what}: {duration(stage.seconds)}",
        )
        for stage in stages
    ]
    said = "; ".join(span.title for span in spans[:6])
    return timeline(spans, f"What became of it, over time. {said}")


def _facts(record: TaskRecord) -> list[tuple[str, t.Any]]:
    """Return what everybody sees who may see the page."""
    size = record.result_size if record.state == "succeeded" else None
    found: list[tuple[str, t.Any]] = [
        ("Id", record.id),
        ("Job", record.job),
        ("Guarantee", record.guarantee.replace("_", " ")),
        ("Submitted", _time(record.submitted_at)),
        ("Due", _time(record.due_at)),
        ("Ended", _time(record.finished_at)),
        ("Priority", record.priority or None),
        ("Timeout", None if record.timeout is None else duration(record.timeout)),
        ("Processes that died with it", record.lost or None),
        ("Size of the result", None if size is None else f"{number(size)} bytes"),
    ]
    return [(word, value) for word, value in found if value is not None]


def _time(at: datetime | None) -> Markup | None:
    if at is None:
        return None
    return Markup('<time datetime="{}">{}</time>').format(exact(at), moment(at))


def _above(site: Site, record: TaskRecord) -> list[TaskRecord]:
    """Return who submitted it, who submitted that one, and so on."""
    found: list[TaskRecord] = []
    parent = record.parent
    while parent is not None and len(found) < _PARENTS:
        above: TaskRecord | None = site.executor.task(parent)
        if above is None:
            break
        found.append(above)
        parent = above.parent
    return found
