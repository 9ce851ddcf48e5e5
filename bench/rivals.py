"""Task queues of others on a database, each in a venv of its own: see ``peers.py``.

``python rivals.py SIDE`` makes ready, says so, and then measures one round for each
line that it reads: seconds for each of many empty tasks, from the first submit to the
last end.
"""

from __future__ import annotations

import asyncio
import sys
import time
import typing as t

import databases

TASKS = 300
Round = t.Callable[[], float]


def procrastinate() -> Round:
    """Procrastinate on PostgreSQL, with the number of workers that is fastest here."""
    from procrastinate import App, PsycopgConnector

    url = databases.url_of("postgresql").replace("+psycopg", "")
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="nothing")
    async def nothing() -> None:
        """The work."""

    async def make() -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def work() -> float:
        async with app.open_async():
            start = time.perf_counter()
            for _ in range(TASKS):
                await nothing.defer_async()
            await app.run_worker_async(
                wait=False, concurrency=10, install_signal_handlers=False
            )
            return (time.perf_counter() - start) / TASKS

    asyncio.run(make())
    return lambda: asyncio.run(work())


def django_tasks_db() -> Round:
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

    def measured() -> float:
        start = time.perf_counter()
        for _ in range(TASKS):
            job.enqueue()
        call_command("db_worker", **work)
        return (time.perf_counter() - start) / TASKS

    return measured


def nothing() -> None:
    """The work."""


SIDES = {"procrastinate": procrastinate, "django-tasks-db": django_tasks_db}


def main(side: str) -> None:
    """Measure a round for each line."""
    one = SIDES[side]()
    one()  # a round to warm up
    print("ready", flush=True)
    for _ in sys.stdin:
        print(one(), flush=True)


if __name__ == "__main__":
    import rivals  # under the name by which a worker finds the task

    rivals.main(sys.argv[1])
