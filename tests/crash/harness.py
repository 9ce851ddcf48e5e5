"""Servers that are killed while they run tasks, and a judge who looks at what is left.

``python tests/crash/harness.py sqlite 20`` kills twenty times, and says what it found.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import urllib.request
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent / "support")]

from databases import Server, free_port  # noqa: E402

LEASE = 2.0
OPEN = ("delayed", "waiting", "held", "running", "retrying")


class Site:
    """Gunicorn with four workers, and two dedicated ones, on one store.

    :param url: the store.
    :param folder: where the effects of tasks are noted.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.port = free_port()
        self.effects = folder / "effects"
        self.effects.touch()
        self._env = os.environ | {
            "CRASH_STORE": url,
            "CRASH_EFFECTS": str(self.effects),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        }
        self._log = open(folder / "log", "ab")  # noqa: SIM115
        self.server: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int = 2) -> None:
        """Start the server, and the dedicated workers that are not there."""
        words = ["-w", "4", "-b", f"127.0.0.1:{self.port}", "--threads", "4"]
        command = [sys.executable, "-m", "gunicorn", *words, "crash_app:app"]
        self.server = self._start(command)
        self.workers += [self.new_worker() for _ in range(workers)]
        self.wait_until_it_answers()

    def new_worker(self) -> subprocess.Popen[bytes]:
        """Start a dedicated worker."""
        words = ["--app", "crash_app:app", "executor", "worker"]
        return self._start([sys.executable, "-m", "flask", *words])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self._env, stdout=self._log, stderr=self._log, cwd=HERE
        )

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while self.ask("GET", "/state/none") is None:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)

    def ask(self, method: str, path: str) -> str | None:
        """Return the answer; None if there was none."""
        url = f"http://127.0.0.1:{self.port}{path}"
        asked = urllib.request.Request(url, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=15) as answer:
                return t.cast(str, answer.read().decode())
        except (http.client.HTTPException, OSError, ValueError):
            return None

    def processes(self) -> list[int]:
        """Return the processes that run tasks."""
        assert self.server is not None
        path = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        with contextlib.suppress(OSError):
            forked = [int(pid) for pid in path.read_text().split()]
            alive = [one.pid for one in self.workers if one.poll() is None]
            return forked + alive
        return []

    def replace_the_dead(self) -> None:
        """Start again what a supervisor would."""
        dead = [one for one in self.workers if one.poll() is not None]
        self.workers = [one for one in self.workers if one.poll() is None]
        self.workers += [self.new_worker() for _ in dead]
        if self.server is not None and self.server.poll() is not None:
            self.start(workers=0)

    def kill_server(self) -> None:
        """Kill the arbiter; its workers notice, and end."""
        assert self.server is not None
        children = self.processes()
        self.server.kill()
        self.server.wait()
        for pid in children:
            if pid not in [one.pid for one in self.workers]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop everything."""
        if self.server is not None and self.server.poll() is None:
            self.kill_server()
        for one in self.workers:
            one.kill()
            one.wait()
        self._log.close()


class Visitors:
    """Submits tasks all the time, and remembers which were accepted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ended = threading.Event()
        self._number = 0
        self.accepted: dict[str, tuple[str, str]] = {}
        """The job and the key of each task that was accepted, by its id."""
        self._threads = [threading.Thread(target=self._visit) for _ in range(3)]
        self._lock = threading.Lock()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _visit(self) -> None:
        rng = random.Random()
        while not self._ended.is_set():
            with self._lock:
                self._number += 1
                key = f"k{self._number}"
            job = rng.choice(["again", "again", "once", "brief"])
            seconds = rng.choice([0, 0, 0.01, 0.2])
            path = f"/submit/{job}?key={key}&s={seconds}"
            uid = self._site.ask("POST", path)
            if uid is not None:
                self.accepted[uid] = job, key
            time.sleep(0.01)


class Chaos:
    """Kills and stops processes at random.

    :param database: a PostgreSQL that is restarted at times, or None.
    """

    def __init__(self, site: Site, seed: int, database: Server | None) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._database = database
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """Do one bad thing."""
        what = self._random.choice(self._bad_things())
        self.done[what] += 1
        getattr(self, what)()
        self._site.replace_the_dead()

    def _bad_things(self) -> list[str]:
        common = ["kill"] * 6 + ["freeze"] * 2 + ["kill_arbiter"]
        return common + (["restart_database"] if self._database else [])

    def kill(self) -> None:
        if processes := self._site.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(processes), signal.SIGKILL)
        time.sleep(self._random.uniform(0.1, 0.6))

    def freeze(self) -> None:
        """Stop a process until others have declared it dead, and let it go on."""
        if not (processes := self._site.processes()):
            return
        pid = self._random.choice(processes)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(LEASE + 2)
            os.kill(pid, signal.SIGCONT)

    def kill_arbiter(self) -> None:
        self._site.kill_server()

    def restart_database(self) -> None:
        assert self._database is not None
        self._database.stop()
        time.sleep(0.3)
        self._database.start()


class Judge:
    """Looks at the store and the effects, and says what must not be.

    :param accepted: job and key of each task that was accepted, by id.
    """

    def __init__(self, site: Site, accepted: dict[str, tuple[str, str]]) -> None:
        from flask_executor.stores.sql import SqlStore

        self._site = site
        self._accepted = accepted
        self._store: t.Any = SqlStore(site.url)
        self.faults: list[str] = []
        self.epochs: dict[str, list[int]] = defaultdict(list)

    def wait_for_the_end(self) -> None:
        """Wait until nothing is open, three leases at most."""
        deadline = time.monotonic() + 3 * LEASE + 20
        while time.monotonic() < deadline:
            counts = self._store.counts()
            if not any(counts.get(state) for state in OPEN):
                return
            time.sleep(0.2)
        self.faults.append(f"open after three leases: {self._store.counts()}")

    def look(self) -> list[str]:
        """Return what is wrong."""
        for line in self._site.effects.read_text().splitlines():
            _, uid, epoch, _ = line.split()
            self.epochs[uid].append(int(epoch))
        for uid, (job, key) in self._accepted.items():
            self._look_at(uid, job, key)
        self._store.close()
        return self.faults

    def _look_at(self, uid: str, job: str, key: str) -> None:
        record, epochs = self._store.get("uid", uid), self.epochs[uid]
        if record is None:
            self.faults.append(f"{job} {key} was accepted, and is gone")
            return
        if record.finished is None:
            self.faults.append(f"{job} {key} is {record.state}")
        if job == "again" and record.state != "succeeded":
            self.faults.append(f"again {key} ended as {record.state}")
        if job == "again" and not epochs:
            self.faults.append(f"again {key} had no effect")
        if job in ("once", "brief") and len(epochs) > 1:
            self.faults.append(f"{job} {key} ran {len(epochs)} times")
        if record.state == "succeeded" and self._epoch_of(uid) < max(epochs, default=0):
            self.faults.append(f"{job} {key}: an older claim has finished it")

    def _epoch_of(self, uid: str) -> int:
        from sqlalchemy import text

        statement = text("SELECT epoch FROM executor_task WHERE uid = :uid")
        with self._store.database.engine.connect() as db:
            return t.cast(int, db.execute(statement, {"uid": uid}).scalar())


def agree(site: Site, keys: list[str]) -> list[str]:
    """Return the keys of which the processes say different things."""
    different = []
    for key in keys:
        said = {site.ask("GET", f"/state/{key}") for _ in range(8)}
        if len(said) != 1:
            different.append(f"the processes do not agree on {key}: {said}")
    return different


def popped_once(site: Site, keys: list[str]) -> list[str]:
    """Return the keys that were popped by none or by several."""
    faults = []
    for key in keys:
        ask = partial(site.ask, "POST", f"/pop/{key}")
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask) for _ in range(4)]
        answers = [one.result() for one in asked]
        won = sum(json.loads(one)["won"] for one in answers if one is not None)
        if won != 1:
            faults.append(f"{key} was popped {won} times")
    return faults


def run(kind: str, strikes: int, seed: int) -> dict[str, t.Any]:
    """Strike so many times; return what was done and what is wrong."""
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
        visitors.start()
        try:
            for _ in range(strikes):
                chaos.strike()
        finally:
            visitors.stop()
        site.replace_the_dead()
        judge = Judge(site, visitors.accepted)
        judge.wait_for_the_end()
        keys = [key for _, key in visitors.accepted.values()]
        faults = agree(site, random.Random(seed).sample(keys, min(20, len(keys))))
        faults += judge.look()
        faults += popped_once(site, keys[:5])
        ran_again = sum(len(epochs) > 1 for epochs in judge.epochs.values())
        return {
            "database": kind,
            "seed": seed,
            "done": dict(chaos.done),
            "accepted": len(visitors.accepted),
            "ran_again": ran_again,
            "faults": faults,
            "log": (folder / "log").read_text()[-4000:],
        }


def table(runs: int, strikes: int) -> int:
    """Strike on both databases, and print a line for each run; 1 if anything failed."""
    print(f"{'database':12} {'bad things done':52} accepted  ran again  faults")
    failed = 0
    for kind in ("sqlite", "postgresql"):
        for seed in range(runs):
            result = run(kind, strikes, seed)
            done = ", ".join(f"{n} {what}" for what, n in result["done"].items())
            counts = result["accepted"], result["ran_again"], len(result["faults"])
            print(f"{kind:12} {done:52} {counts[0]:8}  {counts[1]:9}  {counts[2]:6}")
            failed |= bool(result["faults"])
            for fault in result["faults"]:
                print(f"    {fault}")
    return int(failed)


def main(kind: str, *counts: str) -> int:
    """``table RUNS STRIKES`` or ``DATABASE STRIKES``."""
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
