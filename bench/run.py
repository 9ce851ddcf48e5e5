"""Measure every row of the project's numbers against its peer, in one run.

``make bench`` prints the tables, writes ``docs/bench.json`` and a chart beside it,
and exits non-zero where a bar is missed.

Every contender is a process of its own, which measures one round at a time when asked;
the rounds of the two sides alternate, so that what disturbs the machine disturbs both,
and the ratio is the median of the rounds' ratios, except where a figure is a difference
(:data:`DIFFERENCES`). Where the bar is close, the rounds are shared out to several
pairs of processes, for no two processes are equally fast. Beside rows that wait for the
disk stands what one synced write takes, measured in turn with them. The work is calls
of an empty function from inside a request context, with a window of 500 outstanding, on
two workers.
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

import databases
from chart import chart, holds
from machine import facts
from peers import (
    ROOT,
    command_of,
    folder_of,
    install_one,
    install_rivals,
    unpack_before,
)
from rows import BYTES, DIFFERENCES, ROUNDS, SYNCED, TABLES, Row

DOCS = ROOT / "docs"


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
    """Both sides of a row, their ratio, and what one sync takes, if they sync."""
    rounds = [one for _ in range(row.pairs) for one in rounds_of(row)]
    sides = zip(*rounds, strict=True)
    mine, theirs, *sync = (statistics.median(side) for side in sides)
    ratio = mine / theirs
    if row.measure not in DIFFERENCES:
        ratio = statistics.median(one / other for one, other, *_ in rounds)
    unit = "B" if row.measure in BYTES else "s"
    result = {**row._asdict(), "ours": mine, "peer": theirs, "ratio": ratio}
    return {**result, "sync": sync[0] if sync else None, "unit": unit}


def rounds_of(row: Row) -> list[tuple[float, ...]]:
    """The rounds of one process for each side, and of the disk, in turn."""
    sides = [(row.measure, row.ours), (row.measure, row.peer)]
    if row.measure in SYNCED:
        sides.append(("synced", row.ours.partition("-")[0]))
    contenders = [Contender(*side) for side in sides]
    count = row.rounds // row.pairs
    rounds = [tuple(one.round() for one in contenders) for _ in range(count)]
    for one in contenders:
        one.close()
    return rounds


def show(result: dict[str, t.Any]) -> str:
    """A result as a line of the table."""
    factor, unit = (1.0, "B ") if result["unit"] == "B" else (1e6, "us")
    bar, aim = ("-" if result[of] is None else result[of] for of in ("bar", "aim"))
    mark = "" if result["bar"] is None else "ok" if holds(result) else "MISSED"
    sync = "" if result["sync"] is None else f"{result['sync'] * 1e6:9.2f} us"
    return (
        f"{result['title']:49} {result['ours'] * factor:9.2f} {unit}"
        f" {result['peer'] * factor:9.2f} {unit} {sync:12} {result['ratio']:7.3f}"
        f"  bar {bar:<5.3} aim {aim:<5.3} {mark}"
    )


def measure(rows: list[Row], missing: dict[str, str]) -> list[dict[str, t.Any]]:
    """The results of some rows, each printed when it is there.

    :param missing: why there are no figures, by how the names of sides begin.
    """
    results = []
    for row in rows:
        if found := [why for side, why in missing.items() if row.has(side)]:
            print(f"{row.title:49} NOT MEASURED: {found[0]}", flush=True)
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


def find_missing() -> dict[str, str]:
    """What cannot be measured here, and why."""
    missing = {"before": unpack_before()}
    if not databases.is_there("postgresql"):
        missing["postgresql"] = "PostgreSQL is not installed"
    return {side: why for side, why in missing.items() if why is not None}


def main(only: str | None) -> int:
    """All tables, or the rows with a word in their title; 1 where a bar is missed."""
    start = time.monotonic()
    install_one()
    install_rivals()
    missing = find_missing()
    tables = {}
    for name, rows in TABLES.items():
        print(f"{name:49} {'ours':>12} {'peer':>12} {'a sync':>12} {'ratio':>7}")
        wanted = [row for row in rows if only is None or only in row.title]
        tables[name] = measure(wanted, missing)
    if only is None:
        write(tables, time.monotonic() - start)
    return int(not all(holds(result) for rows in tables.values() for result in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the rows with this word; nothing is written")
    sys.exit(main(parser.parse_args().only))
