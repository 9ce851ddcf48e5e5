"""Measure every row of the project's numbers against its peer, in one run.

``make bench`` prints the tables, writes ``docs/bench.json`` and a chart beside it,
and exits non-zero where a bar is missed.

Every contender is a process of its own, which measures one round at a time when asked;
the rounds of the two sides alternate, so that what disturbs the machine disturbs both,
and the ratio is the median of the rounds' ratios, except where a figure is a difference
(:data:`DIFFERENCES`). Where the bar is close, the rounds are shared out to several
pairs of processes, for no two processes are equally fast. The work is calls of an empty
function from inside a request context, with a window of 500 outstanding, on two
workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import typing as t

from machine import facts
from peers import (
    ROOT,
    command_of,
    folder_of,
    install_one,
    install_rivals,
    unpack_before,
)

DOCS = ROOT / "docs"
ROUNDS = 15
DIFFERENCES = ("request_get", "request_post", "request_upload")
"""Measures that are what something costs more than without it. One round may be next to
nothing, or below it, so that its ratio would say nothing: here the medians count."""
BYTES = ("memory", "later_memory", "first_visit")
# The chart, in pixels: a letter at most, what is allowed, the column of figures; and
# how far beyond its bar, as a share of it, a ratio is drawn.
LETTER, ALLOWED, FIGURE, LONGEST = 8, 280, 112, 1.2
TOP, STEP = 44, 34


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
    *on_each(
        "start elsewhere, {}, against the bar",
        *("started", "-ours", "-bar", 1.0, 0.3, 7),
    ),
    *on_each(
        "a million ended: durable submit, {}",
        *("durable", "-million", "-ours", 1.2, 1.0, 9),
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


class Contender:
    """A process that measures one side, a round at a time."""

    def __init__(self, measure: str, side: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(folder_of(side))}
        self._process = subprocess.Popen(
            command_of(measure, side),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._expect("ready")

    def round(self) -> float:
        """The figure of one more round."""
        stdin = t.cast(t.IO[str], self._process.stdin)
        stdin.write("go\n")
        stdin.flush()
        return float(t.cast(t.IO[str], self._process.stdout).readline())

    def _expect(self, word: str) -> None:
        line = t.cast(t.IO[str], self._process.stdout).readline().strip()
        if line != word:
            raise SystemExit(f"a contender said {line!r}, not {word!r}")

    def close(self) -> None:
        """Let it go."""
        self._process.communicate()


def compare(row: Row) -> dict[str, t.Any]:
    """Both sides of a row, and their ratio."""
    rounds = [both for _ in range(row.pairs) for both in pair(row)]
    mine, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratio = mine / theirs
    if row.measure not in DIFFERENCES:
        ratio = statistics.median(one / other for one, other in rounds)
    unit = "B" if row.measure in BYTES else "s"
    return {**row._asdict(), "ours": mine, "peer": theirs, "ratio": ratio, "unit": unit}


def pair(row: Row) -> list[tuple[float, float]]:
    """The rounds of two processes, one for each side."""
    ours, peer = Contender(row.measure, row.ours), Contender(row.measure, row.peer)
    rounds = [(ours.round(), peer.round()) for _ in range(row.rounds // row.pairs)]
    ours.close()
    peer.close()
    return rounds


def holds(result: dict[str, t.Any]) -> bool:
    """Whether there is no bar, or it is kept."""
    return result["bar"] is None or result["ratio"] <= result["bar"]


def show(result: dict[str, t.Any]) -> str:
    """A result as a line of the table."""
    factor, unit = (1.0, "B ") if result["unit"] == "B" else (1e6, "us")
    bar, aim = ("-" if result[of] is None else result[of] for of in ("bar", "aim"))
    mark = "" if result["bar"] is None else "ok" if holds(result) else "MISSED"
    return (
        f"{result['title']:44} {result['ours'] * factor:9.2f} {unit}"
        f" {result['peer'] * factor:9.2f} {unit} {result['ratio']:7.3f}"
        f"  bar {bar:<5.3} aim {aim:<5.3} {mark}"
    )


def chart(results: list[dict[str, t.Any]]) -> str:
    """Draw each ratio as a share of its bar, on one scale, the closest to it first.

    Figures stand in a column right of all bars, so that none touches a line.
    """
    rows = sorted(results, key=lambda row: row["ratio"] / row["bar"], reverse=True)
    left = LETTER * max(len(row["title"]) for row in rows)
    right, bottom = left + LONGEST * ALLOWED + FIGURE, TOP + len(rows) * STEP
    return (
        '<svg xmlns="http://www.w3.org/2000/svg"'
        f' viewBox="0 0 {right:.0f} {bottom + 8}"'
        ' font-family="sans-serif" font-size="14" fill="currentColor" role="img"'
        ' aria-label="Ratios as shares of what is allowed">'
        + "".join(_mark(left, share, bottom) for share in (0, 0.5, 1))
        + "".join(_bar(row, left, TOP + n * STEP) for n, row in enumerate(rows))
        + "</svg>\n"
    )


def _mark(left: float, share: float, bottom: int) -> str:
    """A line of the scale, with its name above it."""
    x, dashes = left + share * ALLOWED, ' stroke-dasharray="3 4"' if share < 1 else ""
    name = f"{share:.0%}" + (" of the bar" if share == 1 else "")
    return (
        f'<line x1="{x:.0f}" y1="{TOP - 14}" x2="{x:.0f}" y2="{bottom}"'
        f' stroke="currentColor"{dashes}/>'
        f'<text x="{x:.0f}" y="{TOP - 20}" text-anchor="middle">{name}</text>'
    )


def _bar(row: dict[str, t.Any], left: float, y: int) -> str:
    width = min(row["ratio"] / row["bar"], LONGEST) * ALLOWED
    colour = "#2a7" if holds(row) else "#c33"
    figure = f"{row['ratio']:.2f} of {row['bar']:g}"
    right = left + LONGEST * ALLOWED + FIGURE - 4
    return (
        f'<text x="0" y="{y + 14}">{row["title"]}</text>'
        f'<rect x="{left:.0f}" y="{y}" width="{width:.0f}" height="18"'
        f' fill="{colour}"/>'
        f'<text x="{right:.0f}" y="{y + 14}" text-anchor="end">{figure}</text>'
    )


def measure(rows: list[Row], left_out: dict[str, str]) -> list[dict[str, t.Any]]:
    """The results of some rows, each printed when it is there.

    :param left_out: why there are no figures, by side.
    """
    results = []
    for row in rows:
        if row.peer in left_out:
            print(f"{row.title:44} NOT MEASURED: {left_out[row.peer]}", flush=True)
            continue
        results.append(compare(row))
        print(show(results[-1]), flush=True)
    return results


def write(tables: dict[str, list[dict[str, t.Any]]], seconds: float) -> None:
    """Keep the results for the page that shows them."""
    machine = facts(rounds=ROUNDS, minutes=f"{seconds / 60:.1f}")
    report = {"machine": machine, "tables": tables}
    (DOCS / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    (DOCS / "_static" / "bench.svg").write_text(chart(tables["contract"]))


def main(only: str | None) -> int:
    """All tables, or the rows with a word in their title; 1 where a bar is missed."""
    start = time.monotonic()
    install_one()
    install_rivals()
    missing = unpack_before()
    left_out = {} if missing is None else {"before": missing}
    tables = {}
    for name, rows in TABLES.items():
        print(f"{name:44} {'ours':>12} {'peer':>12} {'ratio':>7}")
        wanted = [row for row in rows if only is None or only in row.title]
        tables[name] = measure(wanted, left_out)
    if only is None:
        write(tables, time.monotonic() - start)
    return int(not all(holds(result) for rows in tables.values() for result in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the rows with this word; nothing is written")
    sys.exit(main(parser.parse_args().only))
