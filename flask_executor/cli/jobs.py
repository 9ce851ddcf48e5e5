"""The commands about jobs: ``run``, ``pause`` and ``resume``."""

from __future__ import annotations

import difflib
import json
import typing as t

import click

from .common import NO, NOT_FOUND, Ended, node_of, verb
from .showing import Out, escaped

_NOBODY = ("no_process", "unknown_job", "paused")
"""Why a task waits that was just submitted, and would not begin soon."""


@click.command("run")
@click.argument("job")
@click.argument("args", nargs=-1)
@verb(needs_store=False)
def run(executor: t.Any, out: Out, job: str, args: tuple[str, ...]) -> None:
    """Submit a declared job, by its name.

    Each further word is an argument: a JSON value if it is one, otherwise a text.

    A job with a guarantee is saved, and runs in a server or a worker; the command says
    its id. Any other job runs here: the command waits for it, and fails if it does.
    """
    found = executor._job_names.find(job)
    if found is None:
        known = sorted(executor._job_names.known())
        raise Ended(NOT_FOUND, _not_declared(job, known))
    future = found.submit(*map(_value, args))
    id = future.task.id
    if node_of(executor) is None or future.done() or not _is_saved(executor, id):
        _wait_for(out, future)
        return
    reason = executor.why(id)
    out.tell({"id": id, "state": future.task.state}, f"Task {id} is saved.")
    if reason.code in _NOBODY:
        click.echo(escaped(reason), err=True)


def _is_saved(executor: t.Any, id: str) -> bool:
    record = executor.task(id)
    return record is not None and record.guarantee != "ephemeral"


def _wait_for(out: Out, future: t.Any) -> None:
    """Wait for a task that runs in this process, and say how it has ended."""
    error = None if future.cancelled() else future.exception()
    task = future.task
    facts = {"id": task.id, "state": task.state}
    if error is not None:
        facts |= {"error_class": type(error).__name__, "error": str(error)}
    out.tell(facts, f"Task {task.id} has ended: it is {out.state(task.state)}.")
    if error is not None or future.cancelled():
        why = "" if error is None else f": {type(error).__name__}: {error}"
        raise Ended(NO, f"{task.name} has not succeeded{why}")


def _value(word: str) -> t.Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


@click.command("pause")
@click.argument("job")
@verb()
def pause(executor: t.Any, out: Out, job: str) -> None:
    """Let no task of a job begin, in any process, until it is resumed."""
    _require_known(executor, job)
    executor.pause(job)
    _tell(out, job, paused=True)


@click.command("resume")
@click.argument("job")
@verb()
def resume(executor: t.Any, out: Out, job: str) -> None:
    """Let tasks of a job begin again."""
    _require_known(executor, job)
    executor.resume(job)
    _tell(out, job, paused=False)


def _tell(out: Out, job: str, *, paused: bool) -> None:
    what = "paused" if paused else "resumed"
    out.tell({"job": job, "paused": paused}, f"The job {escaped(job)} is {what}.")


def _require_known(executor: t.Any, job: str) -> None:
    """Refuse a name that no process knows: it is a slip."""
    known = {*executor._job_names.known(), *node_of(executor).store.paused()}
    for worker in executor.workers():
        known |= {*worker.jobs}
    if job not in known:
        raise Ended(NOT_FOUND, _not_declared(job, sorted(known)))


def _not_declared(job: str, known: t.Sequence[str]) -> str:
    if not known:
        return f"No job is declared with the name {job!r}, nor with any other."
    near = difflib.get_close_matches(job, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
    return f"No job is declared with the name {job!r}; {hint}"


COMMANDS: dict[str, click.Command] = {"run": run, "pause": pause, "resume": resume}
