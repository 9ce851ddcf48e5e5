"""The commands about processes: ``stacks`` and ``drain``."""

from __future__ import annotations

import typing as t

import click

from ..errors import UnknownWorker
from ..store_errors import NoAnswer
from ..verbs.records import ThreadStack, WorkerInfo
from .common import NO, NOT_FOUND, Ended, node_of, verb
from .showing import Out, escaped, facts_of, indented

_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for an answer. Default: a third of EXECUTOR_STORE_LEASE.",
)


@click.command("stacks")
@click.argument("processes", nargs=-1)
@_timeout
@verb()
def stacks(
    executor: t.Any, out: Out, processes: tuple[str, ...], timeout: float | None
) -> None:
    """Show what the threads of processes do.

    These are all processes, or those that you name: by id, name or HOST:PID. A process
    answers when it renews its lease, within 5 seconds by default.
    """
    silent = 0
    for worker in _chosen(executor, processes):
        out.print(escaped(_title(worker)))
        try:
            found = executor.stacks(worker.id, timeout=timeout)
        except (NoAnswer, UnknownWorker) as error:  # the others are asked, too
            click.echo(f"Error: {escaped(error)}", err=True)
            silent += 1
            continue
        for one in found:
            facts = {"worker": worker.id, "host": worker.host, "pid": worker.pid}
            out.tell(facts | facts_of(one), *_lines(one))
    if silent:
        raise SystemExit(NO)


def _lines(one: ThreadStack) -> list[str]:
    text = f"  {one.thread}"
    if one.task_id is not None:
        text += f" runs {one.task_name} ({one.task_id})"
        text += ", whose timeout is over" if one.overran else ""
    return [escaped(text), *indented(one.stack)]


def _title(worker: WorkerInfo) -> str:
    return f"{worker.host}:{worker.pid} {worker.name or worker.id}"


@click.command("drain")
@click.argument("processes", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All dedicated workers.")
@_timeout
@verb()
def drain(
    executor: t.Any,
    out: Out,
    processes: tuple[str, ...],
    everyone: bool,
    timeout: float | None,
) -> None:
    """Let dedicated workers end, as SIGTERM does.

    Name them by id, name or HOST:PID, or give --all. What runs there has
    EXECUTOR_DRAIN_TIMEOUT seconds, the rest goes back to the store. A process that
    serves requests is left as it is: stop it with its server.
    """
    if bool(processes) == everyone:
        raise click.UsageError("Give either processes, or --all.")
    drained = [
        _drain(executor, out, worker, timeout, is_named=not everyone)
        for worker in _chosen(executor, processes)
    ]
    if everyone and not any(drained):
        raise Ended(NOT_FOUND, "No dedicated worker is alive that answers.")
    if not (everyone or all(drained)):
        raise SystemExit(NO)


def _drain(
    executor: t.Any,
    out: Out,
    worker: WorkerInfo,
    timeout: float | None,
    *,
    is_named: bool,
) -> bool:
    """Ask one process to end; return True if it does."""
    try:
        drains: bool = node_of(executor).questions.drain(worker.id, timeout)
    except (NoAnswer, UnknownWorker) as error:  # the others are asked, too
        click.echo(f"Error: {escaped(error)}", err=True)
        return False
    what = "drains" if drains else "is no dedicated worker, and goes on"
    facts = {"worker": worker.id, "host": worker.host, "pid": worker.pid}
    if drains or is_named:
        text = f"{_title(worker)} {what}."
        out.tell({**facts, "drains": drains}, escaped(text))
    return drains


def _chosen(executor: t.Any, words: tuple[str, ...]) -> list[WorkerInfo]:
    """Return the processes that are named, or all that are alive."""
    alive = executor.workers()
    unknown = [
        word for word in words if not any(_is_called(one, word) for one in alive)
    ]
    if unknown:
        raise UnknownWorker(unknown[0])
    if not alive:
        raise Ended(NOT_FOUND, "No process is alive that has saved tasks.")
    if not words:
        return t.cast("list[WorkerInfo]", alive)
    return [one for one in alive if any(_is_called(one, word) for word in words)]


def _is_called(worker: WorkerInfo, word: str) -> bool:
    place = f"{worker.host}:{worker.pid}"
    return word in (worker.id, place) or bool(worker.name and word == worker.name)


COMMANDS: dict[str, click.Command] = {"stacks": stacks, "drain": drain}
