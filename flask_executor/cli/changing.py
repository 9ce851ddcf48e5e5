"""The commands ``cancel`` and ``retry``: for one task, or for all that match."""

from __future__ import annotations

import typing as t

import click

from .. import bulk
from ..errors import UnknownTask
from .common import CONFLICT, NO, Ended, explained, id_of, verb
from .looking import filters
from .showing import Out, escaped, number

_DONE = {"cancel": "cancelled, or asked to stop", "retry": "run again"}


def _changing(fn: t.Callable[..., None]) -> t.Callable[..., None]:
    """Give a command tasks by id, or filters with ``--yes``."""
    made = click.option("--yes", is_flag=True, help="Do it, after the number is known.")
    named = click.argument("tasks", nargs=-1)
    return named(made(verb()(filters(fn))))


@click.command("cancel")
@_changing
def cancel(
    executor: t.Any, out: Out, wanted: t.Any, tasks: tuple[str, ...], yes: bool
) -> None:
    """Cancel some tasks, or all that filters name.

    Give ids or keys, or filters. What waits is cancelled at once, what runs is asked to
    stop. With filters this says how many these are, and changes nothing without --yes.
    It goes through 10,000 at most.
    """
    _change(executor, out, "cancel", wanted, tasks, yes)


@click.command("retry")
@_changing
def retry(
    executor: t.Any, out: Out, wanted: t.Any, tasks: tuple[str, ...], yes: bool
) -> None:
    """Run tasks again that have ended: some, or all that match.

    Give ids or keys, or filters. Each becomes a new task. Without --state these are the
    ones that have failed, timed out or were interrupted. With filters this says how
    many these are, and changes nothing without --yes. It goes through 10,000 at most.
    """
    _change(executor, out, "retry", wanted, tasks, yes)


def _change(
    executor: t.Any,
    out: Out,
    action: bulk.Action,
    wanted: t.Any,
    tasks: tuple[str, ...],
    yes: bool,
) -> None:
    if bool(tasks) == bool(wanted):
        raise click.UsageError("Give either tasks, or filters such as --state.")
    if not tasks:
        _change_many(executor, out, action, wanted, yes)
        return
    one_by_one = _cancel_one if action == "cancel" else _retry_one
    worst = 0
    for task in tasks:
        try:
            with explained():
                one_by_one(executor, out, id_of(executor, task))
        except Ended as error:  # the others are tried, too
            if len(tasks) == 1:
                raise
            error.show()
            worst = max(worst, error.exit_code)
    if worst:
        raise SystemExit(worst)


def _cancel_one(executor: t.Any, out: Out, id: str) -> None:
    is_done, record = executor.cancel(id), executor.task(id)
    if record is None:
        raise UnknownTask(id)
    if not is_done:
        raise Ended(CONFLICT, f"Task {id} has ended: it is {record.state}.")
    is_over = record.state == "cancelled"
    what = "is cancelled" if is_over else "was asked to stop"
    out.tell({"id": id, "state": record.state}, f"Task {id} {what}.")


def _retry_one(executor: t.Any, out: Out, id: str) -> None:
    new = executor.retry(id).task.id
    out.tell({"id": new, "retried_from": id}, f"Task {id} runs again as {new}.")


def _change_many(
    executor: t.Any, out: Out, action: bulk.Action, wanted: t.Any, yes: bool
) -> None:
    found = bulk.count(executor, action, **wanted)
    if not (yes and found):
        _tell_number(out, action, found)
        return
    applied = bulk.apply(executor, action, **wanted)
    facts = applied._asdict()
    del facts["reasons"]
    out.tell(
        {**facts, "reasons": applied.reasons},
        f"{number(applied.done, 'task')} of {applied.matched} {_DONE[action]}.",
        *(escaped(reason) for reason in applied.reasons),
    )
    if applied.unchanged:
        left = number(applied.unchanged, "task")
        raise Ended(CONFLICT, f"{left} not: ended meanwhile, or refused.")


def _tell_number(out: Out, action: str, found: int) -> None:
    """Say how many tasks match; the command ends with 1 if there are any."""
    or_more = " or more" if found >= bulk.MOST else ""
    matches = "matches" if found == 1 else "match"
    lines = [f"{number(found, 'task')}{or_more} {matches}."]
    if found:
        them = "it" if found == 1 else "them"
        lines.append(f"Nothing was changed: add --yes to {action} {them}.")
    out.tell({"matched": found, "done": 0}, *lines)
    if found:
        raise SystemExit(NO)


COMMANDS: dict[str, click.Command] = {"cancel": cancel, "retry": retry}
