"""The commands about single tasks: ``list``, ``show`` and ``why``."""

from __future__ import annotations

import functools
import json
import typing as t
from datetime import datetime

import click

from ..verbs.records import STATES, AttemptInfo, TaskRecord
from .common import id_of, verb
from .showing import Out, ago, duration, escaped, facts_of, indented

_FILTERS = (
    click.option("--state", type=click.Choice(STATES), help="Only in this state."),
    click.option("--job", metavar="NAME", help="Only of this job."),
    click.option("--name", "named", metavar="NAME", help="Only with this name."),
    click.option("--error", metavar="CLASS", help="Only with this class of exception."),
    click.option("--group", metavar="NAME", help="Only of the newest such group."),
    click.option("--parent", metavar="ID", help="Only what this task has submitted."),
    click.option("--request", metavar="ID", help="Only what this request has started."),
)


def filters(fn: t.Callable[..., None]) -> t.Callable[..., None]:
    """Give a command the options that filter tasks, as a mapping ``wanted``."""

    @functools.wraps(fn)
    def run(*args: t.Any, **given: t.Any) -> None:
        names = {"named": "name"}
        wanted = {
            names.get(one, one): given.pop(one)
            for one in ("state", "job", "named", "error", "group", "parent", "request")
        }
        fn(*args, wanted={k: v for k, v in wanted.items() if v is not None}, **given)

    made: t.Callable[..., None] = run
    for option in reversed(_FILTERS):
        made = option(made)
    return made


@click.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--before", metavar="ID", help="Only older ones: the next page.")
@verb()
@filters
def list_tasks(
    executor: t.Any, out: Out, wanted: t.Any, limit: int, before: str | None
) -> None:
    """List tasks, newest first."""
    found = executor.tasks(limit=limit, before=before, **wanted)
    for record in found if out.as_json else ():
        out.tell(facts_of(record))
    if not found:
        out.print("No tasks.")
        return
    head = "id", "state", "age", "name", "key", "error"
    out.table(head, [_row(record) for record in found])
    if len(found) == limit:
        out.print(f"For older ones add: --before {found[-1].id}")


def _row(one: TaskRecord) -> tuple[str, ...]:
    key = "" if one.key is None else repr(one.key)
    age = ago(one.submitted_at)
    return one.id, one.state, age, one.name, key, one.error_class or ""


@click.command("show")
@click.argument("task")
@verb()
def show(executor: t.Any, out: Out, task: str) -> None:
    """Show all that is known of a task.

    Give its id, or its key if that is a text. Its arguments and its result are not
    shown.
    """
    id = id_of(executor, task)
    record, attempts = executor.task(id), executor.attempts(id)
    reason = executor.why(id)
    facts = facts_of(record)
    listed = [facts_of(attempt) for attempt in attempts]
    why = {"code": reason.code, "sentence": reason.sentence}
    out.tell(facts | {"attempts": listed, "why": why})
    out.print(*_described(out, record))
    out.print(f"{'why':16}{escaped(reason)}")
    if attempts:
        out.print("attempts")
        out.print(*map(_attempt, attempts))
    if record.traceback:
        out.print("traceback", *indented(record.traceback))


def _described(out: Out, record: TaskRecord) -> t.Iterator[str]:
    """Yield a line for each thing that is known, except texts of many lines."""
    for name, value in facts_of(record).items():
        if value in (None, "") or name in ("traceback", "lost", "cancel_requested"):
            continue
        if name == "state":
            text = out.state(str(value))
        elif name in ("meta", "source"):
            text = escaped(json.dumps(value, ensure_ascii=False))
        elif name in ("key", "unique"):
            text = escaped(repr(value))
        elif isinstance(value, datetime):
            text = f"{value:%Y-%m-%d %H:%M:%S} UTC"
        else:
            text = escaped(value)
        yield f"{name:16}{text}"
    if record.lost:
        yield f"{'lost':16}{record.lost}"
    if record.cancel_requested:
        yield f"{'asked to stop':16}yes"


def _attempt(one: AttemptInfo) -> str:
    took = ""
    if one.started_at is not None and one.finished_at is not None:
        took = f" after {duration((one.finished_at - one.started_at).total_seconds())}"
    error = f": {one.error_class}: {one.error}" if one.error_class else ""
    return f"    {one.number}  {one.end or 'running'}{took}{escaped(error)}"


@click.command("why")
@click.argument("task")
@verb()
def why(executor: t.Any, out: Out, task: str) -> None:
    """Say why a task does not run.

    Give its id, or its key if that is a text.
    """
    id = id_of(executor, task)
    reason = executor.why(id)
    facts = {"code": reason.code, "sentence": reason.sentence, "facts": reason.facts}
    out.tell({"id": id, **facts}, escaped(reason))


COMMANDS: dict[str, click.Command] = {"list": list_tasks, "show": show, "why": why}
