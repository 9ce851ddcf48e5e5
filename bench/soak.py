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
import contextlib
import ctypes
import faulthandler
import gc
import itertools
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import typing as t
from collections import defaultdict, deque
from concurrent.futures import CancelledError, Future
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from queue import SimpleQueue

import chores
from chores import BLOCK
from flask import Flask
from lanes import FAMILY, LANES, Kind, Lane
from machine import facts, resident

from flask_executor import Executor, signals
from flask_executor.errors import TaskTimeout, WorkerLost

SOAK = Path(__file__).resolve().parent.parent / "docs" / "soak.json"
TENTHS = 10
LIMIT = 180
"""Seconds after which a task that has not ended is lost."""
WHOLE = 1_000_000
GROWTH = 1.05
"""How much memory may grow in a whole soak: a short one is over before all pools have
seen their worst."""
KILLS = 4
"""How many workers are killed from outside in each tenth."""
LEFT_IN_LINE = 200
"""How many tasks that are not due each pool has when it is drained."""
ENDS = ("succeeded", "failed", "timed_out", "cancelled")


class Ledger:
    """What is counted, by futures, by signals and by the log; and what is wrong.

    :param tasks: how many there may be.
    """

    def __init__(self, tasks: int) -> None:
        self._counters: defaultdict[tuple[str, ...], itertools.count[int]]
        self._counters = defaultdict(itertools.count)
        self._numbers = itertools.count()
        # One byte each, how often it has ended; not 0, so that the memory is taken now.
        self._ended = bytearray(b"\1") * tasks
        self.wrong: list[str] = []

    def count(self, *what: str) -> None:
        """One more of these; from any thread."""
        next(self._counters[what])

    def counted(self, *what: str) -> int:
        """How many there were."""
        # Only its representation tells how far a counter is: "count(5)".
        return int(repr(self._counters[what])[6:-1]) if what in self._counters else 0

    def note(self, message: str) -> None:
        """Something is wrong."""
        self.wrong.append(message)
        if len(self.wrong) <= 20:
            print(f"WRONG: {message}", file=sys.stderr, flush=True)

    def listen(self) -> None:
        """Count what is announced."""
        signals.task_submitted.connect(self._submitted, weak=False)
        signals.task_started.connect(self._started, weak=False)
        signals.task_retrying.connect(self._retrying, weak=False)
        signals.task_progressed.connect(self._progressed, weak=False)
        for end in ENDS:
            receiver = self._receiver_of(end)
            getattr(signals, f"task_{end}").connect(receiver, weak=False)

    def _submitted(self, app: Flask, task: t.Any) -> None:
        task.number = next(self._numbers)
        self.count("signal", task._pool.kind, "submitted")

    def _started(self, app: Flask, task: t.Any, **facts: t.Any) -> None:
        self.count("signal", task._pool.kind, "started")
        if self._ended[task.number] != 1:
            self.note(f"{task!r} started after its end")

    def _retrying(self, app: Flask, task: t.Any, **facts: t.Any) -> None:
        self.count("signal", task._pool.kind, "retrying")

    def _progressed(self, app: Flask, task: t.Any, **facts: t.Any) -> None:
        self.count("signal", task._pool.kind, "progressed")

    def _receiver_of(self, end: str) -> t.Callable[..., None]:
        def ended(app: Flask, task: t.Any, **facts: t.Any) -> None:
            self._ended[task.number] += 1
            self.count("signal", task._pool.kind, end)

        return ended

    def judge(self, lane: str, kind: Kind, number: int, future: t.Any) -> None:
        """Count how a future ended, and whether it could have."""
        end, error = self._end_of(future)
        self.count("future", lane, end)
        if end != future.task.state:
            self.note(f"{future.task!r}: its future has {end}")
        if end == "succeeded" and (value := future.result()) != number:
            self.note(f"{future.task!r} of {number} returned {value!r}")
        if end == "failed" and isinstance(error, WorkerLost):
            self.count("lost", lane)
            if lane in ("process", "pebble"):
                return
        if end not in kind.ends.split() or (
            end == "failed" and not isinstance(error, kind.error)
        ):
            self.note(f"{lane}: {kind} ended as {end}, with {error!r}")

    def _end_of(self, future: t.Any) -> tuple[str, BaseException | None]:
        try:
            error = future.exception(LIMIT)
        except CancelledError:
            return "cancelled", None
        except TimeoutError:
            give_up(f"{future.task!r} has not ended: {vars(future.task)}")
        if error is None:
            return "succeeded", None
        return ("timed_out" if isinstance(error, TaskTimeout) else "failed"), error

    def check(self, lanes: t.Iterable[str]) -> dict[str, dict[str, int]]:
        """The counts of each pool; what does not add up is noted."""
        table = {lane: self._checked(lane) for lane in lanes}
        submitted = sum(row["submitted"] for row in table.values())
        for number, ended in enumerate(self._ended[:submitted]):
            if ended != 2:
                self.note(f"task {number} announced its end {ended - 1} times")
        self._check_log(table)
        return table

    def _checked(self, lane: str) -> dict[str, int]:
        kind = "event loop" if lane == "loop" else lane
        row = {"submitted": self.counted("future", lane, "submitted")}
        for end in ("submitted", *ENDS):
            row[end] = self.counted("future", lane, end)
            if (told := self.counted("signal", kind, end)) != row[end]:
                self.note(f"{lane}: {row[end]} futures {end}, {told} signals")
        if row["submitted"] != sum(row[end] for end in ENDS):
            self.note(f"{lane}: what was submitted and what ended differ: {row}")
        row["retries"] = self.counted("signal", kind, "retrying")
        row["workers lost"] = self.counted("lost", lane)
        return row

    def _check_log(self, table: dict[str, dict[str, int]]) -> None:
        for what, start in LOGGED.items():
            there = sum(row[what] for row in table.values())
            if (logged := self.counted("log", start)) != there:
                self.note(f"{there} {what}, {logged} in the log")


LOGGED = {
    "failed": "Task %s failed",
    "retries": "Task %s failed in attempt",
    "timed_out": "Task %s ran into",
}
"""What the log says of each task to which it happens."""


class Log(logging.Handler):
    """Counts what is logged, and notes what was not expected."""

    EXPECTED = (
        *LOGGED.values(),
        "Task %s has returned",
        "Executor %s is",
        "Executor %s waits",
    )

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record under the beginning of its message."""
        message = str(record.msg)
        if message == LOGGED["failed"]:
            self._ledger.count("log", message)
            return
        for start in self.EXPECTED[1:]:
            if message.startswith(start):
                self._ledger.count("log", start)
                return
        self._ledger.note(f"logged: {self.format(record)}")


class Asker:
    """Asks tasks to stop, some milliseconds after their submit, from its own thread."""

    PAUSE = 0.005

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[float, Future[t.Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self, future: Future[t.Any]) -> None:
        """Have a task asked soon."""
        self._asked.put((time.monotonic() + self.PAUSE, future))

    def stop(self) -> None:
        """End the thread when all have been asked."""
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (entry := self._asked.get()) is not None:
            due, future = entry
            time.sleep(max(0.0, due - time.monotonic()))
            t.cast(t.Any, future).request_cancel()
            del entry, future


class Runner:
    """Has one pool do its share, from a thread of its own.

    :param name: of its lane.
    :param executor: submits to the pool.
    """

    def __init__(
        self, name: str, lane: Lane, executor: Executor, ledger: Ledger, asker: Asker
    ) -> None:
        self._name = name
        self._lane = lane
        self._executor: t.Any = executor
        self._ledger = ledger
        self._asker = asker
        self._numbers = itertools.count()
        self._submits = {id(kind): self._submit_of(kind) for kind in lane.kinds}
        self._outstanding: deque[tuple[Kind, int, t.Any]] = deque()

    def _submit_of(self, kind: Kind) -> t.Callable[[int], t.Any]:
        chore, options = kind.chore, kind.options
        if chore is FAMILY:
            return lambda number: self._executor.submit(self._family, number)
        if kind.how == "job":
            job = self._executor.job(**options)(chore)
            if self._name in ("process", "pebble"):
                # As a decorator would: by this name it is sent away.
                setattr(chores, chore.__name__, job)
            return lambda number: job.submit(number)
        view = self._executor.using(**options)
        if kind.how == "stored":
            return lambda number: view.submit_stored(("soak", number), chore, number)
        return lambda number: view.submit(chore, number)

    def _family(self, number: int) -> int:
        """A task that waits for tasks of its own executor."""
        kind = self._lane.kinds[0]
        children = [self._submit(kind, number) for _ in range(3)]
        for child in children:
            self._ledger.judge(self._name, kind, number, child)
        return number

    def run(self, app: Flask, count: int, chance: random.Random) -> None:
        """Submit so many tasks, and see each to its end."""
        kinds, weights = self._lane.kinds, [kind.weight for kind in self._lane.kinds]
        plan = iter(chance.choices(kinds, weights, k=count))
        while block := list(itertools.islice(plan, BLOCK)):
            self._run_block(app, block)
        while self._outstanding:
            self._judge_oldest()

    def _run_block(self, app: Flask, block: list[Kind]) -> None:
        first = next(self._numbers) * BLOCK
        with app.test_request_context(f"/?block={first // BLOCK}"):
            for number, kind in enumerate(block, first):
                future = self._submit(kind, number)
                self._outstanding.append((kind, number, future))
                self._act(kind, future)
        while len(self._outstanding) > self._lane.window:
            self._judge_oldest()

    def _submit(self, kind: Kind, number: int) -> t.Any:
        self._ledger.count("future", self._name, "submitted")
        return self._submits[id(kind)](number)

    def _act(self, kind: Kind, future: t.Any) -> None:
        if kind.act == "ask":
            self._asker.ask(future)
        elif kind.act == "cancel" and future.cancel() != future.cancelled():
            self._ledger.note(f"{future.task!r} said otherwise when cancelled")

    def _judge_oldest(self) -> None:
        kind, number, future = self._outstanding.popleft()
        self._ledger.judge(self._name, kind, number, future)
        if kind.how == "stored":
            popped = self._executor.futures.pop(("soak", number))
            if popped is not future:
                self._ledger.note(f"{popped!r} was stored in place of {future!r}")

    def drain(self, app: Flask) -> None:
        """End with tasks in line that are not due."""
        kind = Kind(chores.echo, "cancelled", 1)
        view = self._executor.using(delay=3600)
        with app.app_context():
            if self._lane.kind == "sync":  # which passes delays over
                self._executor.shutdown()
                return
            futures = [view.submit(kind.chore, n) for n in range(LEFT_IN_LINE)]
            drained = self._executor.drain(LIMIT)
        pool = "thread" if self._name == "loop" else self._name
        for number, future in enumerate(futures):
            self._ledger.count("future", pool, "submitted")
            self._ledger.judge(pool, kind, number, future)
        if drained.running or len(drained.cancelled) != LEFT_IN_LINE:
            self._ledger.note(f"{self._name}: drained {drained}")
        self._executor.shutdown()


def give_up(message: str) -> t.NoReturn:
    """A task is lost: tell where every thread stands, and wait for nothing more."""
    print(f"LOST: {message}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(1)


# What is left


def descendants() -> dict[int, int]:
    """The processes under this one, each with its parent; empty where none can tell."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    ours = {os.getpid()}
    while more := {pid for pid in parents if parents[pid] in ours} - ours:
        ours |= more
    return {pid: parents[pid] for pid in ours - {os.getpid()}}


def workers() -> list[int]:
    """The worker processes: all but those which the standard library keeps."""
    kept = {
        getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None),
        getattr(resource_tracker._resource_tracker, "_pid", None),
    }
    return sorted(set(descendants()) - kept)


def left_over(threads: set[threading.Thread]) -> dict[str, int]:
    """How many threads and processes are there that were not there before."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        more = set(threading.enumerate()) - threads
        if not more and not workers():
            break
        time.sleep(0.1)
    for thread in more:
        print(f"LEFT: {thread!r}", file=sys.stderr)
    return {"threads": len(more), "processes": len(workers())}


def files() -> int:
    """How many files this process has open; 0 where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


class Killer:
    """Kills workers from outside while a tenth runs."""

    def __init__(self, chance: random.Random, ledger: Ledger) -> None:
        self._chance = chance
        self._ledger = ledger
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        for _ in range(KILLS):
            if self._over.wait(self._chance.uniform(0.5, 2)):
                return
            if there := workers():
                self._kill(self._chance.choice(there))

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._ledger.count("killed")


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
        self.memory: list[int] = []
        self.blocks: list[int] = []
        self.files: list[int] = []
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
        threading.excepthook = self._note_uncaught
        return app

    def _note_uncaught(self, args: t.Any) -> None:
        traceback.print_exception(args.exc_value)
        self.ledger.note(f"{args.thread!r} ended with {args.exc_value!r}")

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
        with Killer(chance, self.ledger):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _count(self, name: str) -> int:
        return round(self._tasks * LANES[name].share / TENTHS)

    def _chance(self, name: str, tenth: int) -> random.Random:
        return random.Random(f"{self._seed} {name} {tenth}")

    def _measure(self, tenth: int, seconds: float) -> None:
        time.sleep(0.1)  # for the runs that go on after their timeout
        give_back()
        self.memory.append(resident() or 0)
        self.blocks.append(sys.getallocatedblocks())
        self.files.append(files())
        print(
            f"{(tenth + 1) / TENTHS:4.0%} after {seconds:5.0f} s:"
            f" {self.memory[-1] / 2**20:6.1f} MiB, {self.files[-1]} files,"
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
        first, *_, last = self.memory
        if self._tasks >= WHOLE and last > first * GROWTH:
            self.ledger.note(f"memory has grown from {first} bytes to {last}")
        if any(left.values()):
            self.ledger.note(f"left behind: {left}")
        return {
            "machine": facts(seed=self._seed, minutes=f"{seconds / 60:.1f}"),
            "pools": table,
            "killed": self.ledger.counted("killed"),
            "memory": [round(size / 2**20, 1) for size in self.memory],
            "blocks": [self.blocks[0], self.blocks[-1]],
            "files": [self.files[0], self.files[-1]],
            "left": left,
            "wrong": self.ledger.wrong,
        }


def show(report: dict[str, t.Any]) -> str:
    """The figures as a table."""
    names = next(iter(report["pools"].values()))
    lines = [f"{'':8}" + "".join(f"{name:>13}" for name in names)]
    for pool, row in report["pools"].items():
        lines.append(f"{pool:8}" + "".join(f"{number:13,}" for number in row.values()))
    for name in ("machine", "killed", "memory", "blocks", "files", "left"):
        lines.append(f"{name}: {report[name]}")
    verdict = f"{len(report['wrong'])} wrong" if report["wrong"] else "nothing is lost"
    return "\n".join([*lines, verdict])


def pools_here() -> list[str]:
    """The pools that can run here."""
    if find_spec("pebble") and find_spec("flask_executor.pools.pebble"):
        return list(LANES)
    print("NOTICE: there is no pebble here, so its pool is left out", flush=True)
    return [name for name in LANES if name != "pebble"]


TUNABLES = "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0"


def start_again_frugally() -> None:
    """Have glibc keep little of what is freed, which it can be told only at its start.

    What each thread keeps for itself, by default, grows for a million tasks on end and
    counts as in use, so it would pass for a leak of ours.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        env = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.argv], env)


def give_back() -> None:
    """Collect garbage, and have glibc give back to the system what was freed."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another system
        ctypes.CDLL(None).malloc_trim(0)


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
