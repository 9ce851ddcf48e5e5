"""The commands about all tasks together: ``status``, ``top`` and ``health``."""

from __future__ import annotations

import time
import typing as t
from datetime import UTC, datetime

import click

from ..store_errors import StoreUnavailable
from ..unclaimed import Unclaimed
from ..verbs.records import TaskRecord, WorkerInfo
from .common import NO, verb
from .showing import Out, ago, duration, escaped, number

_SLOW = 1.0
_ROWS = 20


class Overview(t.NamedTuple):
    """What is known of all tasks at one moment."""

    counts: dict[str, int]
    oldest_wait: float | None
    workers: list[WorkerInfo]
    problems: list[str]

    @classmethod
    def of(cls, executor: t.Any) -> Overview:
        """Ask for it."""
        workers = executor.workers()
        problems = [*_problems(Unclaimed.of(executor, workers))]
        return cls(executor.counts(), executor.oldest_wait(), workers, problems)

    def facts(self) -> dict[str, t.Any]:
        """Return it for programs."""
        slots = [worker.slots for worker in self.workers]
        return {
            "time": datetime.now(UTC),
            "healthy": not self.problems,
            "problems": self.problems,
            "tasks": self.counts,
            "oldest_wait": self.oldest_wait,
            "processes": len(self.workers),
            "runners": sum(worker.runs for worker in self.workers),
            "busy": sum(worker.busy for worker in self.workers),
            "slots": None if None in slots else sum(filter(None, slots)),
        }

    def lines(self, out: Out) -> t.Iterator[str]:
        """Yield it for people."""
        counts = [
            f"{number} {out.state(state)}"
            for state, number in self.counts.items()
            if number
        ]
        wait = "none"
        if self.oldest_wait is not None:
            wait = duration(self.oldest_wait)
        yield f"{'tasks':14}{', '.join(counts) or 'none'}"
        yield f"{'longest wait':14}{wait}"
        yield f"{'processes':14}{self._processes()}"
        for problem in self.problems:
            yield f"{'problem':14}{escaped(problem)}"

    def _processes(self) -> str:
        if not self.workers:
            return "none alive"
        facts = self.facts()
        slots = "" if facts["slots"] is None else f" of {facts['slots']}"
        runs = "runs" if facts["runners"] == 1 else "run"
        alive = f"{facts['processes']} alive, {facts['runners']} {runs} saved tasks"
        return f"{alive}; {facts['busy']}{slots} slots busy"


def _problems(found: Unclaimed) -> t.Iterator[str]:
    """Yield what somebody must do something about."""
    if found.tasks and not found.runners:
        waits = "waits" if found.tasks == 1 else "wait"
        yield (
            f"{number(found.tasks, 'task')} {waits}, and no process is there that runs"
            " saved tasks: start a server or a worker"
        )
        return
    for job in found.unknown:
        yield f"tasks wait of the job {job}, which no process knows that runs tasks"


@click.command("status")
@verb()
def status(executor: t.Any, out: Out) -> None:
    """Say if all is well; otherwise the exit code is 1.

    It is 1 if tasks wait and no process runs saved tasks, or none that does knows their
    job.
    """
    overview = Overview.of(executor)
    shown = "healthy" if not overview.problems else "unhealthy"
    out.tell(overview.facts(), shown, *overview.lines(out))
    if overview.problems:
        raise SystemExit(NO)


@click.command("health")
@verb()
def health(executor: t.Any, out: Out) -> None:
    """Ask if the store answers within a second.

    This is for the probe of a container: it looks at no task and no process.
    """
    start = time.monotonic()
    executor.counts(limit=1)
    took = time.monotonic() - start
    is_healthy = took < _SLOW
    text = f"The store answers, after {1000 * took:.0f} ms."
    out.tell({"healthy": is_healthy, "seconds": round(took, 6)}, text)
    if not is_healthy:
        raise SystemExit(NO)


@click.command("top")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--times",
    type=click.IntRange(min=1),
    help="How often to look. Default: until Ctrl-C; once if this is no terminal.",
)
@verb()
def top(executor: t.Any, out: Out, interval: float, times: int | None) -> None:
    """Show what runs, again and again, until Ctrl-C."""
    left = times or (None if out.is_terminal else 1)
    try:
        while left is None or left > 0:
            _show(executor, out, is_last=left == 1)
            left = None if left is None else left - 1
            if left != 0:
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _show(executor: t.Any, out: Out, *, is_last: bool) -> None:
    try:
        overview = Overview.of(executor)
        running = executor.tasks(state="running", limit=_ROWS)
    except StoreUnavailable as error:
        if is_last or not out.is_terminal:
            raise
        out.print("\x1b[H\x1b[2J" + escaped(error))
        return
    tasks = [{"id": one.id, "name": one.name} for one in running]
    if out.is_terminal:
        out.print("\x1b[H\x1b[2J" + f"{datetime.now(UTC):%H:%M:%S} UTC")
    out.tell(overview.facts() | {"running": tasks}, *overview.lines(out), "")
    if running:
        head = "id", "name", "for", "attempt", "progress"
        out.table(head, [_row(task) for task in running])


def _row(task: TaskRecord) -> tuple[str, ...]:
    done = ""
    if task.progress is not None:
        total = task.progress.total
        done = f"{task.progress.done:g}" + (f"/{total:g}" if total else "")
        done += f" {task.progress.message}" if task.progress.message else ""
    return task.id, task.name, ago(task.started_at), str(task.attempt), done


COMMANDS: dict[str, click.Command] = {"status": status, "top": top, "health": health}
