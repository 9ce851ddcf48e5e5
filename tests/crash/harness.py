"""Servers that are killed while they run tasks, and a judge who looks at what is left.

``python tests/crash/harness.py sqlite 20`` kills twenty times, and says what it found.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
import typing as t
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "support")]

from chaos import Chaos  # noqa: E402
from crash_site import Site, Visitors  # noqa: E402
from databases import Server  # noqa: E402
from judge import Judge  # noqa: E402


def run(kind: str, kills: int, seed: int) -> dict[str, t.Any]:
    """Kill so many times; return what was done and what is wrong."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = None
        if kind == "postgresql":
            database = Server()
            stack.callback(database.remove)
        url = f"sqlite:///{folder}/tasks.db" if database is None else database.url
        site = Site(url, folder)
        stack.callback(site.stop)
        site.start()
        visitors, chaos = Visitors(site), Chaos(site, seed, database)
        with visitors:
            chaos.strike(kills)
        judge = judged(site, visitors.accepted, seed)
        ran_again = sum(len(epochs) > 1 for epochs in judge.epochs.values())
        return {
            "database": kind,
            "seed": seed,
            "done": dict(chaos.done),
            "accepted": len(visitors.accepted),
            "ran_again": ran_again,
            "faults": judge.faults,
            "log": site.log.read_text()[-4000:],
        }


def judged(site: Site, accepted: dict[str, tuple[str, str]], seed: int) -> Judge:
    """Wait until the tasks have ended, and look at them."""
    judge = Judge(site, accepted)
    judge.wait_for_the_end()
    keys = [key for _, key in accepted.values()]
    judge.compare(random.Random(seed).sample(keys, min(20, len(keys))))
    judge.look()
    judge.pop(keys[:5])
    return judge


def table(runs: int, kills: int) -> int:
    """Strike on both databases, and print a line for each run; 1 if anything failed."""
    print(f"{'database':10}  {'what was done':60}  accepted  ran again  faults")
    failed = 0
    for kind in ("sqlite", "postgresql"):
        for seed in range(runs):
            result = run(kind, kills, seed)
            counts = [f"{n} {what}" for what, n in sorted(result["done"].items())]
            numbers = result["accepted"], result["ran_again"], len(result["faults"])
            print(f"{kind:10}  {', '.join(counts):60}", end="")
            print("  {:8}  {:9}  {:6}".format(*numbers), flush=True)
            failed |= bool(result["faults"])
            for fault in result["faults"]:
                print(f"    {fault}")
    return int(failed)


def main(kind: str, *counts: str) -> int:
    """``table RUNS KILLS`` or ``DATABASE KILLS``."""
    if kind == "table":
        return table(*map(int, counts))
    result = run(kind, int(counts[0]), seed=random.randrange(10**6))
    log = result.pop("log")
    print(json.dumps(result, indent=2))
    if result["faults"]:
        print(log)
    return int(bool(result["faults"]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
