"""The harness of the figures works; what the figures are is not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent / "bench"
PATIENCE = 120
"""Seconds that a script may take."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_each_row_of_the_bench_names_a_measure_that_there_is() -> None:
    """A row that is renamed on one side only would end ``make bench`` half-way."""
    script = (
        "import contenders, peers, rivals, rows\n"
        "rows = [row for table in rows.TABLES.values() for row in table]\n"
        "wanted = {row.measure for row in rows} | {'synced'}\n"
        "unknown = wanted - set(contenders.MEASURES)\n"
        "assert rows and not unknown, unknown\n"
        "there = {row.peer for row in rows} & set(peers.RIVALS)\n"
        "assert there == set(peers.RIVALS) == set(rivals.SIDES), there\n"
        "queues = {row.measure for row in rows if row.peer in peers.RIVALS}\n"
        "assert queues <= set(rivals.MEASURES), queues\n"
    )
    done = run("-c", script)
    assert done.returncode == 0, done.stderr


def test_a_short_soak_on_threads_and_the_loop_loses_nothing() -> None:
    """All kinds of tasks end as they may, announced once and logged once."""
    done = run("soak.py", "--tasks", "4000", "--pools", "thread", "loop", "sync")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is lost" in done.stdout


def test_a_soak_notes_a_task_that_ends_as_it_must_not() -> None:
    """A check that notes nothing would find nothing."""
    script = (
        "import lanes, soak\n"
        "wrong = [kind._replace(ends='failed') for kind in lanes.LANES['sync'].kinds]\n"
        "lanes.LANES['sync'] = lanes.LANES['sync']._replace(kinds=wrong)\n"
        "raise SystemExit(soak.main(1000, 1, ['sync']))\n"
    )
    done = run("-c", script)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ended as succeeded" in done.stderr


SHORT = "import soak_store\nsoak_store.TENTHS = 2\n{}"
SHORT += "raise SystemExit(soak_store.main(200, 1, ['sqlite']))\n"
"""A soak of the store that takes seconds, after what is to be changed in it."""


def test_a_short_soak_of_the_store_loses_nothing() -> None:
    """Futures, the store and what has run agree, with workers that are killed."""
    done = run("-c", SHORT.format(""))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is lost" in done.stdout


def test_a_soak_of_the_store_notes_a_task_that_never_ran() -> None:
    """That a future has succeeded is not enough."""
    change = "soak_store.StoreSoak._read_runs = lambda self: {}\n"
    done = run("-c", SHORT.format(change))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "never ran" in done.stderr
