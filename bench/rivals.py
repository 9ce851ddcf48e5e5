"""Task queues of others on a database, each in a venv of its own: see ``peers.py``.

``python rivals.py MEASURE SIDE`` makes ready, says so, and then measures one round for
each line that it reads: seconds for each of many empty tasks, for its submit
(``durable``) or from the first submit to the last end (``ended``).
"""

from __future__ import annotations

import asyncio
import atexit
import sys
import time
import typing as t

import databases

SUBMITS = 100
TASKS = 300
Round = t.Callable[[], float]


class Rival(t.NamedTuple):
    """What one queue does."""

    submit: t.Callable[[int], object]
    """Submits so many tasks, one by one."""
    end: t.Callable[[], object]
    """Runs all that were submitted."""


def procrastinate() -> Rival:
    """Procrastinate on PostgreSQL, with the number of workers that is fastest here."""
    from procrastinate import App, PsycopgConnector

    url = databases.url_of("postgresql").replace("+psycopg", "")
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="nothing")
    async def nothing() -> None:
        """The work."""

    async def submit(count: int) -> None:
        for _ in range(count):
            await nothing.defer_async()

    def end() -> None:
        work = {"wait": False, "concurrency": 10, "install_signal_handlers": False}
        runner.run(app.run_worker_async(**work))

    async def make() -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()

    runner = asyncio.Runner()
    runner.run(make())
    atexit.register(lambda: runner.run(app.close_async()))
    return Rival(lambda count: runner.run(submit(count)), end)


def django_tasks_db() -> Rival:
    """django-tasks-db on SQLite, synced at each commit."""
    import django
    from django.conf import settings

    path = databases.url_of("sqlite").removeprefix("sqlite:///")
    pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {"init_command": pragmas, "transaction_mode": "IMMEDIATE"},
    }
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django_tasks", "django_tasks_db"],
        TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django_tasks import task

    call_command("migrate", verbosity=0)
    # A worker looks for the task under the name of its function.
    job = globals()["nothing"] = task()(nothing)
    work = {"batch": True, "interval": 0.1, "startup_delay": False, "verbosity": 0}
    return Rival(
        lambda count: _repeat(job.enqueue, count),
        lambda: call_command("db_worker", **work),
    )


def huey() -> Rival:
    """Huey on SQLite, synced at each commit.

    One thread runs the tasks as a consumer does, but never pauses: its pauses would be
    all that is measured.
    """
    from huey import SqliteHuey

    path = databases.url_of("sqlite").removeprefix("sqlite:///")
    queue = SqliteHuey(filename=path, fsync=True)
    task = queue.task()(nothing)

    def end() -> None:
        while (one := queue.dequeue()) is not None:
            queue.execute(one)

    return Rival(lambda count: _repeat(task, count), end)


def nothing() -> None:
    """The work."""


def _repeat(fn: t.Callable[[], object], count: int) -> None:
    for _ in range(count):
        fn()


def submits(one: Rival) -> Round:
    """Seconds for each submit."""

    def measured() -> float:
        start = time.perf_counter()
        one.submit(SUBMITS)
        seconds = time.perf_counter() - start
        one.end()  # or it would wait in the next round
        return seconds / SUBMITS

    return measured


def ends(one: Rival) -> Round:
    """Seconds for each task, from the first submit to the last end."""

    def measured() -> float:
        start = time.perf_counter()
        one.submit(TASKS)
        one.end()
        return (time.perf_counter() - start) / TASKS

    return measured


MEASURES = {"durable": submits, "ended": ends}
SIDES = {
    "procrastinate": procrastinate,
    "django-tasks-db": django_tasks_db,
    "huey-sqlite": huey,
}


def main(measure: str, side: str) -> None:
    """Measure a round for each line."""
    one = MEASURES[measure](SIDES[side]())
    one()  # a round to warm up
    print("ready", flush=True)
    for _ in sys.stdin:
        print(one(), flush=True)


if __name__ == "__main__":
    import rivals  # under the name by which a worker finds the task

    rivals.main(*sys.argv[1:])
