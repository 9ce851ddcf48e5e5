"""What the store costs, against a database that is used by hand.

The peer of a durable submit is one committed INSERT of the same row, through SQLAlchemy
Core, on the same kind of database, synced to disk.
"""

from __future__ import annotations

import atexit
import os
import statistics
import subprocess
import sys
import threading
import time
import typing as t
from concurrent.futures import wait
from pathlib import Path

import databases
import millions
from flask import Flask
from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
)

Round = t.Callable[[], float]
SUBMITS = 100
READS = 2_000
ENDS = 300
STARTS = 10
PATIENCE = 60
"""Seconds that a task may take to begin, before it counts as lost."""
BARS = {"sqlite": 0.020, "postgresql": 0.010}
"""Seconds that a task may take to begin in another process."""


def nothing() -> None:
    """The work."""


def now() -> float:
    """When it ran, by the clock of the machine."""
    return time.time()


class Stored:
    """An executor with a store.

    :param url: the database.
    :param runs: this process runs its tasks; otherwise nobody does.
    """

    def __init__(self, url: str, *, runs: bool = False) -> None:
        from flask_executor import Executor

        self.url = url
        self.app = Flask("bench")
        self.app.secret_key = "bench"
        self.app.config["EXECUTOR_STORE"] = url
        self.app.config["EXECUTOR_STORE_RUN"] = runs
        self.app.config["EXECUTOR_MAX_WORKERS"] = 2
        self.executor = Executor(self.app)
        saved = self.executor.job(guarantee="at_least_once", name="nothing")
        self.job = saved(nothing)
        self.now = self.executor.job(guarantee="at_least_once", name="now")(now)

    def submit(self) -> t.Any:
        """Submit one durable task."""
        with self.app.app_context():
            return self.job.submit()

    def lookup(self) -> t.Callable[[], object]:
        """What tells the state of a task of another process by its key."""
        with self.app.app_context():
            self.job.submit_stored("wanted")
        other = Stored(self.url)  # which knows no more of it than another process
        futures = other.executor._state().futures
        return lambda: futures._state("wanted")


class ByHand:
    """A table with the same row, used through SQLAlchemy Core."""

    def __init__(self, kind: str) -> None:
        self._engine = create_engine(databases.url_of(kind))
        if kind == "sqlite":
            event.listen(self._engine, "connect", _synced)
        texts = ("uid", "key", "job", "name", "state", "guarantee", "owner", "source")
        self._table = Table(
            "task",
            MetaData(),
            Column("id", Integer, primary_key=True),
            *(Column(name, String, index=name in ("uid", "key")) for name in texts),
            Column("priority", Integer),
            Column("epoch", Integer),
            Column("submitted", Float),
            Column("payload", LargeBinary),
        )
        self._table.metadata.create_all(self._engine)
        self._insert = insert(self._table)
        self._number = 0

    def submit(self) -> None:
        """Insert one row, and commit."""
        self._number += 1
        row = {
            "uid": f"{self._number:032}",
            "key": f"s:{self._number}",
            "job": "nothing",
            "name": "nothing",
            "state": "waiting",
            "guarantee": "at_least_once",
            "priority": 0,
            "epoch": 0,
            "submitted": time.time(),
            "payload": b"x" * 150,
        }
        with self._engine.begin() as db:
            db.execute(self._insert, row)

    def lookup(self) -> t.Callable[[], object]:
        """A point read by an indexed column."""
        self.submit()
        query = select(self._table.c.state).where(self._table.c.key == "s:1")

        def read() -> object:
            with self._engine.connect() as db:
                return db.execute(query).scalar()

        return read


def _synced(connection: t.Any, _: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def side(name: str, *, runs: bool = False) -> t.Any:
    """A side of a row, as ``'sqlite-ours'``."""
    kind, _, who = name.partition("-")
    if who == "hand":
        return ByHand(kind)
    one = Stored(databases.url_of(kind), runs=runs)
    if who == "million":
        millions.fill(one)
    return one


def worker_app() -> Flask:
    """The app of the worker that another process feeds."""
    one = Stored(os.environ["BENCH_STORE"], runs=True)
    one.app.extensions["bench"] = one  # an executor knows the jobs that somebody holds
    return one.app


def submits(one: t.Any, threads: int = 1) -> Round:
    """Seconds for each durable submit, from so many threads."""

    def measured() -> float:
        each = max(SUBMITS // threads, 10)
        start = time.perf_counter()
        if threads == 1:
            _repeat(one.submit, each)
        else:
            runs = [
                threading.Thread(target=_repeat, args=(one.submit, each))
                for _ in range(threads)
            ]
            for run in runs:
                run.start()
            for run in runs:
                run.join()
        return (time.perf_counter() - start) / (each * threads)

    return measured


def reads(one: t.Any) -> Round:
    """Seconds for each look at the state of a task by its key."""
    look = one.lookup()

    def measured() -> float:
        start = time.perf_counter()
        _repeat(look, READS)
        return (time.perf_counter() - start) / READS

    return measured


def ends(one: Stored) -> Round:
    """Seconds for each durable task, from the first submit to the last end."""

    def measured() -> float:
        start = time.perf_counter()
        wait([one.submit() for _ in range(ENDS)])
        return (time.perf_counter() - start) / ENDS

    return measured


def starts(name: str) -> Round:
    """Seconds from a submit until another process begins the task; the median."""
    kind, _, who = name.partition("-")
    if who == "bar":
        return lambda: BARS[kind]
    one = side(name)
    words = ["--app", "stored:worker_app", "executor", "worker"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "flask", *words],
        cwd=Path(__file__).parent,
        env=os.environ | {"BENCH_STORE": one.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what it says of itself
    )
    atexit.register(worker.kill)

    def measured() -> float:
        return statistics.median(_start_of(one) for _ in range(STARTS))

    return measured


def _start_of(one: Stored) -> float:
    time.sleep(0.2)  # most often a worker has nothing to do
    with one.app.app_context():
        before = time.time()
        return t.cast(float, one.now.submit().result(PATIENCE)) - before


def _repeat(fn: t.Callable[[], object], count: int) -> None:
    for _ in range(count):
        fn()
