"""Thousands of saved tasks in several processes, some of which are killed.

``make soak`` takes some minutes for it, prints its figures and writes
``docs/soak_store.json``. For each database there is this process, which submits tasks
as a server does, and some ``flask executor worker``, which run them, and are killed and
replaced. The tasks succeed, fail, are tried again, run into timeouts, are cancelled
while they wait and while they run, report progress, and submit others and wait for
them.

It exits non-zero where a task did not end or is still open, ended otherwise than it
could, or was not counted alike by futures and by the store; where a task that runs at
most once has run twice, or one that has succeeded never ran; where a process has logged
a traceback; or where a thread or a process is left.
"""

from __future__ import annotations

import argparse
import atexit
import faulthandler
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import typing as t
from collections import Counter
from pathlib import Path

import databases
import soak_app
from killer import Killer
from lanes import SAVED, Kind, Lane
from ledger import LIMIT, Ledger, Log, show
from leftovers import Gauges, left_over, start_again_frugally
from machine import facts
from runner import Asker, Runner

REPORT = Path(__file__).resolve().parent.parent / "docs" / "soak_store.json"
TENTHS = 10
WHOLE = 15_000
SUBMITTERS = 3
WORKERS = 3
ENDS = ("succeeded", "failed", "timed_out", "cancelled", "interrupted")
PAGE = 500
LANE = Lane("thread", 1.0, 200, 2, SAVED)


class Saver(Runner):
    """Submits tasks that are saved.

    :param numbers: the numbers of blocks, which several of them share.
    """

    def __init__(self, *given: t.Any, numbers: itertools.count[int]) -> None:
        super().__init__(*given)
        self._numbers = numbers

    def _submit_of(self, kind: Kind) -> t.Callable[[int], t.Any]:
        job = soak_app.JOBS[id(kind)]
        if kind.how == "stored":
            return lambda number: job.submit_stored(("soak", number), number)
        return lambda number: job.submit(number)


class Fleet:
    """Processes that only run saved tasks.

    :param log: the file for what they say.
    """

    def __init__(self, log: Path, ledger: Ledger) -> None:
        self._log = log
        self._ledger = ledger
        self._workers = [self._new() for _ in range(WORKERS)]
        atexit.register(self._kill)

    def _new(self) -> subprocess.Popen[bytes]:
        words = ["--app", "soak_app:make_app", "executor", "worker"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flask", *words],
                cwd=Path(__file__).parent,
                stdout=log,
                stderr=log,
            )

    def pids(self) -> list[int]:
        """The processes; who was killed is replaced first, as a supervisor would."""
        for place, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self._check(worker, -signal.SIGKILL)
                self._workers[place] = self._new()
        return [worker.pid for worker in self._workers]

    def stop(self) -> None:
        """Let them end by themselves."""
        alive = [worker for worker in self._workers if worker.poll() is None]
        for worker in alive:
            worker.terminate()
        for worker in alive:
            worker.wait(LIMIT)
            self._check(worker, 0)
        said = self._log.read_text()
        if "Traceback" in said:
            self._ledger.note(f"logged: {said[said.index('Traceback') :][:4000]}")

    def _kill(self) -> None:
        """Leave none behind where the soak has ended half-way."""
        for worker in self._workers:
            worker.kill()

    def _check(self, worker: subprocess.Popen[bytes], expected: int) -> None:
        if worker.returncode != expected:
            self._ledger.note(f"a worker has ended with {worker.returncode}")


class StoreSoak:
    """All of it, on one database.

    :param tasks: how many this process submits.
    :param seed: of what is left to chance.
    """

    def __init__(self, kind: str, tasks: int, seed: int, ledger: Ledger) -> None:
        self._kind = kind
        self._tasks = tasks
        self._seed = seed
        self._ledger = ledger
        self._gauges = Gauges()
        folder = databases.new_folder("sqlite")
        self._runs = folder / "runs"
        self._runs.touch()
        os.environ["SOAK_STORE"] = databases.url_of(kind)
        os.environ["SOAK_RUNS"] = str(self._runs)
        self._app = soak_app.make_app()
        self._app.config["EXECUTOR_STORE_RUN"] = False  # the others are killed
        self._app.logger.handlers = [Log(self._ledger)]
        self._app.logger.propagate = False
        threading.excepthook = ledger.note_uncaught
        self._fleet = Fleet(folder / "log", self._ledger)
        self._asker = Asker()
        numbers = itertools.count()
        given = kind, LANE, soak_app.executor, self._ledger, self._asker
        self._savers = [Saver(*given, numbers=numbers) for _ in range(SUBMITTERS)]

    def run(self) -> dict[str, int]:
        """All tenths, and the end; the figures of this database."""
        start = time.monotonic()
        for tenth in range(TENTHS):
            self._run_tenth(tenth)
            self._measure(tenth, time.monotonic() - start)
        self._asker.stop()
        if self._tasks >= WHOLE:
            self._gauges.check(self._ledger)
        with self._app.app_context():
            self._wait_until_nothing_is_open()
            row = self._checked()
            self._fleet.stop()
            self._leave()
        return row

    def _run_tenth(self, tenth: int) -> None:
        chance = random.Random(f"{self._seed} {tenth}")
        count = self._tasks // (TENTHS * SUBMITTERS)
        threads = [
            threading.Thread(target=saver.run, args=(self._app, count, own))
            for saver in self._savers
            for own in [random.Random(chance.random())]
        ]
        with Killer(chance, self._fleet.pids, self._ledger):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _measure(self, tenth: int, seconds: float) -> None:
        self._gauges.read()
        print(
            f"{self._kind}: {(tenth + 1) / TENTHS:4.0%} after {seconds:5.0f} s:"
            f" {self._gauges}, {self._ledger.counted('killed')} killed,"
            f" {len(self._ledger.wrong)} wrong",
            flush=True,
        )

    def _wait_until_nothing_is_open(self) -> None:
        """Tasks that a killed one had submitted may still run, for nobody."""
        deadline = time.monotonic() + LIMIT
        while left := open_now():
            if time.monotonic() > deadline:
                self._ledger.note(f"still open: {left}")
                return
            time.sleep(0.1)

    def _checked(self) -> dict[str, int]:
        """Compare what futures, the store and the runs say; return the figures."""
        runs, here = self._read_runs(), str(os.getpid())
        row = {"submitted": self._ledger.counted("future", self._kind, "submitted")}
        row |= {end: self._ledger.counted("future", self._kind, end) for end in ENDS}
        stored: Counter[str] = Counter()
        row |= {"children": 0, "elsewhere": 0, "orphaned": 0}
        for record in all_records():
            ran = runs.get(record.id, [])
            self._check(record, len(ran))
            stored[record.state] += record.parent is None
            row["children"] += record.parent is not None
            row["elsewhere"] += any(process != here for process in ran)
            row["orphaned"] += record.lost > 0
        futures = Counter({end: row[end] for end in ENDS})
        if stored != futures or futures.total() != row["submitted"]:
            self._ledger.note(f"futures ended as {row}, the store has {stored}")
        return row

    def _check(self, record: t.Any, ran: int) -> None:
        if record.guarantee == "at_most_once" and ran > 1:
            self._ledger.note(f"{record} has run {ran} times")
        if record.state == "succeeded" and not ran:
            self._ledger.note(f"{record} never ran")

    def _read_runs(self) -> dict[str, list[str]]:
        """The processes in which each task has begun."""
        runs: dict[str, list[str]] = {}
        for line in self._runs.read_text().splitlines():
            task, process = line.split()
            runs.setdefault(task, []).append(process)
        return runs

    def _leave(self) -> None:
        node = soak_app.executor._state().dispatcher.node
        soak_app.executor.shutdown()
        node.leaving.close()


def open_now() -> dict[str, int]:
    """How many tasks have not ended, by state."""
    counts = soak_app.executor.counts().items()
    return {state: count for state, count in counts if count and state not in ENDS}


def all_records() -> t.Iterator[t.Any]:
    """All tasks that the store knows."""
    before = None
    while page := soak_app.executor.tasks(limit=PAGE, before=before):
        yield from page
        before = page[-1].id


def databases_here() -> list[str]:
    """The databases that can run here."""
    if databases.is_there("postgresql"):
        return [*databases.PARENTS]
    print("NOTICE: there is no PostgreSQL here, so it is left out", flush=True)
    return ["sqlite"]


def soak(kinds: list[str], tasks: int, seed: int) -> dict[str, t.Any]:
    """One database after another; what there is to tell."""
    start, threads = time.monotonic(), set(threading.enumerate())
    ledger, rows = Ledger(0), {}
    for kind in kinds:
        rows[kind] = StoreSoak(kind, tasks, seed, ledger).run()
        databases.close()
    left = left_over(threads)
    if any(left.values()):
        ledger.note(f"left behind: {left}")
    return {
        "machine": facts(seed=seed, minutes=f"{(time.monotonic() - start) / 60:.1f}"),
        "pools": rows,
        "killed": ledger.counted("killed"),
        "left": left,
        "wrong": ledger.wrong,
    }


def main(tasks: int, seed: int, kinds: list[str]) -> int:
    """Run it; 1 where anything was lost."""
    faulthandler.enable()
    report = soak(kinds, tasks, seed)
    print(show(report))
    if tasks >= WHOLE and len(kinds) == len(databases.PARENTS):
        REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return int(bool(report["wrong"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=WHOLE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--databases", nargs="+", choices=databases.PARENTS)
    given = parser.parse_args()
    start_again_frugally()
    sys.exit(main(given.tasks, given.seed, given.databases or databases_here()))
