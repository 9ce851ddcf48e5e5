"""A million mixed tasks over all pools: nothing may be lost, and nothing may be left.

``make soak`` takes some minutes, prints its figures and writes ``docs/soak.json``. The
tasks succeed, fail, are tried again, run into timeouts, are cancelled while they wait
and while they run, report progress, wait for each other, and have their workers killed.

It exits non-zero where a task did not end, ended otherwise than it could, or was not
counted alike by futures, by signals and by the log; where a thread or a process is
left; or where memory has grown by more than 5 % since the first tenth of a million.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import random
import sys
import threading
import time
import typing as t
from importlib.util import find_spec
from pathlib import Path

import chores
from flask import Flask
from killer import Killer
from lanes import LANES
from ledger import LIMIT, Ledger, Log, show
from leftovers import Gauges, left_over, start_again_frugally, workers
from machine import facts
from runner import Asker, Runner

from flask_executor import Executor

SOAK = Path(__file__).resolve().parent.parent / "docs" / "soak.json"
TENTHS = 10
WHOLE = 1_000_000


class Soak:
    """All of it.

    :param tasks: how many, if all pools take part.
    :param seed: of what is left to chance.
    :param pools: which take part.
    """

    def __init__(self, tasks: int, seed: int, pools: list[str]) -> None:
        self._tasks = tasks
        self._seed = seed
        self._threads = set(threading.enumerate())
        self.ledger = Ledger(int(tasks * 1.1) + 10_000)
        self._gauges = Gauges()
        self._app = self._make_app()
        self._asker = Asker()
        self._runners = {name: self._runner(name) for name in pools}

    def _make_app(self) -> Flask:
        app = chores.make_app()
        for name, lane in LANES.items():
            prefix = f"{name.upper()}_EXECUTOR_"
            app.config[prefix + "TYPE"] = lane.kind
            app.config[prefix + "MAX_WORKERS"] = lane.workers
            app.config[prefix + "APP"] = "chores:make_app"
        app.logger.handlers = [Log(self.ledger)]
        app.logger.propagate = False
        app.logger.setLevel(logging.INFO)
        logging.getLogger().addHandler(Log(self.ledger))
        threading.excepthook = self.ledger.note_uncaught
        return app

    def _runner(self, name: str) -> Runner:
        executor = Executor(self._app, name=name)
        return Runner(name, LANES[name], executor, self.ledger, self._asker)

    def run(self) -> dict[str, t.Any]:
        """All tenths, and the end; what there is to tell."""
        start = time.monotonic()
        self.ledger.listen()
        for tenth in range(TENTHS):
            self._run_tenth(tenth)
            self._measure(tenth, time.monotonic() - start)
        self._close()
        left = left_over(self._threads)
        return self._report(time.monotonic() - start, left)

    def _run_tenth(self, tenth: int) -> None:
        chance = random.Random(f"{self._seed} {tenth}")
        threads = [
            threading.Thread(target=runner.run, args=args, name=f"submitter {name}")
            for name, runner in self._runners.items()
            for args in [(self._app, self._count(name), self._chance(name, tenth))]
        ]
        with Killer(chance, workers, self.ledger):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _count(self, name: str) -> int:
        return round(self._tasks * LANES[name].share / TENTHS)

    def _chance(self, name: str, tenth: int) -> random.Random:
        return random.Random(f"{self._seed} {name} {tenth}")

    def _measure(self, tenth: int, seconds: float) -> None:
        self._gauges.read()
        print(
            f"{(tenth + 1) / TENTHS:4.0%} after {seconds:5.0f} s: {self._gauges},"
            f" {threading.active_count()} threads, {len(workers())} workers,"
            f" {self.ledger.counted('killed')} killed, {len(self.ledger.wrong)} wrong",
            flush=True,
        )

    def _close(self) -> None:
        self._asker.stop()
        faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
        for runner in self._runners.values():
            runner.drain(self._app)
        faulthandler.cancel_dump_traceback_later()

    def _report(self, seconds: float, left: dict[str, int]) -> dict[str, t.Any]:
        table = self.ledger.check(self._runners)
        if self._tasks >= WHOLE:
            self._gauges.check(self.ledger)
        if any(left.values()):
            self.ledger.note(f"left behind: {left}")
        return {
            "machine": facts(seed=self._seed, minutes=f"{seconds / 60:.1f}"),
            "pools": table,
            "killed": self.ledger.counted("killed"),
            **self._gauges.report(),
            "left": left,
            "wrong": self.ledger.wrong,
        }


def pools_here() -> list[str]:
    """The pools that can run here."""
    if find_spec("pebble") and find_spec("flask_executor.pools.pebble"):
        return list(LANES)
    print("NOTICE: there is no pebble here, so its pool is left out", flush=True)
    return [name for name in LANES if name != "pebble"]


def main(tasks: int, seed: int, pools: list[str]) -> int:
    """Run it; 1 where anything was lost."""
    faulthandler.enable()
    report = Soak(tasks, seed, pools).run()
    print(show(report))
    if tasks >= WHOLE and pools == list(LANES):
        SOAK.write_text(json.dumps(report, indent=2) + "\n")
    return int(bool(report["wrong"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=WHOLE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pools", nargs="+", choices=LANES)
    given = parser.parse_args()
    start_again_frugally()
    sys.exit(main(given.tasks, given.seed, given.pools or pools_here()))
