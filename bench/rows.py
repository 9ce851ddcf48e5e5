"""The rows of all tables: who is measured against whom, and how much is allowed."""

from __future__ import annotations

import typing as t

ROUNDS = 15
DIFFERENCES = ("request_get", "request_post", "request_upload")
"""Measures that are what something costs more than without it. One round may be next to
nothing, or below it, so that its ratio would say nothing: here the medians count."""
BYTES = ("memory", "later_memory", "first_visit")
SYNCED = ("durable", "durable_32", "ended", "started", "watched")
"""Measures that wait for the disk: what one sync takes is measured beside them."""


class Row(t.NamedTuple):
    """One line of a table: who against whom, and how much is allowed.

    Without a bar it is there to be known, and decides nothing.
    """

    title: str
    measure: str
    ours: str
    peer: str
    bar: float | None = None
    aim: float | None = None
    rounds: int = ROUNDS
    pairs: int = 1

    def has(self, side: str) -> bool:
        """Return True if a side has this name, or one that begins with it."""
        return self.ours.startswith(side) or self.peer.startswith(side)


CONTRACT = [
    Row("submit, against a bare thread pool", "submit", "ours", "bare", 3.5, 2.0),
    Row("submit, against 1.0.0", "submit", "ours", "one", 0.5, 0.33),
    Row("submit, against copying by hand", "submit", "ours", "hand", 0.85, 0.5),
    Row(
        "submit, against before the new middle",
        *("submit", "ours", "before", 1.02, 0.9, 60, 5),
    ),
    Row("map by 1000, against a bare pool's", "map", "ours", "bare", 0.2, 0.1, 9),
    Row(
        "process pool, against a bare one", "process", "ours", "bare", 1.5, 1.15, 15, 3
    ),
    Row("10,000 coroutines, against asyncio", "loop", "ours", "bare", 1.3, 0.8),
    Row(
        "memory of a waiting task, against 1.0.0", "memory", "ours", "one", 1.0, 0.7, 9
    ),
    Row("in futures, 100,000 against 10", "lookup", "ours", "few", 2.0, 1.0),
    Row("one request, a GET", "request_get", "ours", "hand", 0.9, 0.6, 15, 3),
    Row("one request, a form", "request_post", "ours", "hand", 0.9, 0.6, 15, 3),
    Row("one request, an upload", "request_upload", "ours", "hand", 1.2, 1.0, 15, 3),
]

DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def on_each(title: str, measure: str, ours: str, peer: str, *rest: t.Any) -> list[Row]:
    """A row for each database; sides are of that database, except what has no dash."""

    def side(kind: str, name: str) -> str:
        return kind + name if name.startswith("-") else name

    return [
        Row(title.format(name), measure, side(kind, ours), side(kind, peer), *rest)
        for kind, name in DATABASES.items()
    ]


STORE = [
    *on_each(
        "durable submit, {}, against an INSERT",
        *("durable", "-ours", "-hand", 1.5, 1.2, 9),
    ),
    *on_each(
        "the same from 32 threads, against one, {}",
        *("durable_32", "-many", "-one", 0.2, 0.1, 7),
    ),
    *on_each(
        "status by key, {}, against a point read",
        *("durable_read", "-ours", "-hand", 2.0, 1.25, 9),
    ),
    Row(
        "tasks to their end, against django-tasks-db",
        *("ended", "sqlite-ours", "django-tasks-db", 1 / 3, 0.1, 7),
    ),
    Row(
        "tasks to their end, against Procrastinate",
        *("ended", "postgresql-ours", "procrastinate", 1.0, 1 / 3, 7),
    ),
    Row(
        "tasks to their end, against Huey",
        *("ended", "sqlite-ours", "huey-sqlite"),
        rounds=7,
    ),
    Row(
        "durable submit, against django-tasks-db",
        *("durable", "sqlite-ours", "django-tasks-db"),
        rounds=7,
    ),
    Row(
        "durable submit, against Procrastinate",
        *("durable", "postgresql-ours", "procrastinate"),
        rounds=7,
    ),
    Row(
        "durable submit, against Huey",
        *("durable", "sqlite-ours", "huey-sqlite"),
        rounds=7,
    ),
    *on_each(
        "start elsewhere, {}, against the bar",
        *("started", "-ours", "-bar", 1.0, 0.3, 7),
    ),
    *on_each(
        "a million ended: durable submit, {}",
        *("durable", "-million", "-ours", 1.2, 1.0, 9),
    ),
    *on_each(
        "a million ended: from 32 threads, {}",
        *("durable_32", "-million", "-many", 1.2, 1.0, 7),
    ),
    *on_each(
        "a million ended: start elsewhere, {}",
        *("started", "-million", "-ours", 1.2, 1.0, 7),
    ),
    *on_each(
        "a million ended: status by key, {}",
        *("durable_read", "-million", "-ours", 1.2, 1.0, 9),
    ),
    *on_each(
        "a million ended: tasks to their end, {}",
        *("ended", "-million", "-ours", 1.2, 1.0, 7),
    ),
    Row(
        "submit of what is not saved, with a store",
        *("beside_store", "store", "none", 1.02, 1.0, 30, 3),
    ),
]

SURFACES = [
    Row(
        "submit, every surface imported, none used",
        *("surface", "imported", "plain", 1.02, 1.0, 30, 3),
    ),
    Row(
        "with metrics, against without and 2 us",
        *("surface", "metrics", "and 2 us", 1.0, 0.95, 30, 3),
    ),
    Row(
        "in multiprocess mode, against without and 5 us",
        *("surface", "multiprocess", "and 5 us", 1.0, 0.9, 30, 3),
    ),
    Row("with tracing, no provider", "surface", "tracing", "plain", rounds=9),
    Row("status as JSON, against a bare view", "status", "ours", "bare", 1.65, 1.4, 9),
    *on_each(
        "a million ended: slowest page, {}, against 50 ms",
        *("dashboard", "-million", "-bar", 1.0, 0.5, 5),
    ),
    Row(
        "first visit to the dashboard, against 60 kB",
        *("first_visit", "ours", "bar", 1.0, 0.5, 1),
    ),
    *on_each(
        "durable submit, {}, ten dashboards open",
        *("watched", "-ten", "-none", 1.05, 1.0, 24, 3),
    ),
]

OPTIONS = [
    Row("priority", "option", "priority", "plain", rounds=9),
    Row("timeout", "option", "timeout", "plain", rounds=9),
    Row("delay, of a microsecond", "option", "delay", "plain", rounds=9),
    Row("retry, of a call that succeeds", "option", "retry", "plain", rounds=9),
    Row("max_concurrency of 2", "option", "max_concurrency", "plain", rounds=9),
    Row("max_concurrency of 1", "option", "max_concurrency_1", "plain", rounds=9),
    Row("name", "option", "name", "plain", rounds=9),
    Row("key (submit_stored)", "option", "key", "plain", rounds=9),
    Row("using(), made anew for each call", "option", "using", "plain", rounds=9),
    Row(
        "10,000 waiting: 201 priorities, against one",
        "line",
        "mixed",
        "single",
        rounds=7,
    ),
    Row("100,000 delayed, against waiting", "later", "delayed", "waiting", rounds=3),
    Row("their memory", "later_memory", "delayed", "waiting", rounds=1),
    Row("10,000 due at once, against let go", "due", "delayed", "held", rounds=5),
    Row("progress: process, against thread", "progress", "process", "thread"),
    Row("storing beyond the length, 100,000 against 100", "beyond", "many", "few"),
    Row("expiry of 100,000, against 100", "expiry", "many", "few"),
]

PEERS = [
    Row("APScheduler: add_job that runs now", "counted", "ours", "apscheduler"),
    Row(
        "APScheduler: 5,000 due in an hour",
        "scheduled",
        "ours",
        "apscheduler",
        rounds=5,
    ),
    Row("Huey, in memory, consumer threads", "counted", "ours", "huey"),
    Row("Huey, immediate, against sync", "inline", "ours", "huey"),
    Row("Starlette BackgroundTasks, 500", "response", "ours", "starlette"),
    Row("Pebble's ProcessPool, against pebble", "pebble", "ours", "pebble", rounds=7),
]

TABLES = {
    "contract": CONTRACT,
    "store": STORE,
    "surfaces": SURFACES,
    "options": OPTIONS,
    "peers": PEERS,
}
