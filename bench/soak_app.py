"""The app of the soak of the store, in each of its processes.

Each run of a task adds a line to a file: which task, and in which process.
"""

from __future__ import annotations

import functools
import inspect
import os
import typing as t

import chores
from flask import Flask
from lanes import FAMILY, SAVED, Kind

from flask_executor import Executor, current_task

LEASE = 2.0
"""Seconds after which a process counts as dead."""

executor = Executor()


def make_app() -> Flask:
    """The app; what it needs is in the environment."""
    app = chores.make_app()
    app.config.update(
        EXECUTOR_STORE=os.environ["SOAK_STORE"],
        EXECUTOR_STORE_LEASE=LEASE,
        EXECUTOR_STORE_MAX_LOST=1000,  # each death here is innocent
        EXECUTOR_MAX_WORKERS=4,
        EXECUTOR_LOG_EXCEPTIONS=False,
    )
    executor.init_app(app)
    return app


def note() -> None:
    """Append one line, which no other process can tear apart."""
    file = os.open(os.environ["SOAK_RUNS"], os.O_APPEND | os.O_WRONLY)
    try:
        os.write(file, f"{current_task.id} {os.getpid()}\n".encode())
    finally:
        os.close(file)


def noted(chore: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """A chore that notes that it has begun."""
    if inspect.iscoroutinefunction(chore):

        @functools.wraps(chore)
        async def awaited(number: int) -> int:
            note()
            return t.cast(int, await chore(number))

        return awaited

    @functools.wraps(chore)
    def called(number: int) -> int:
        note()
        return t.cast(int, chore(number))

    return called


def family(number: int) -> int:
    """Submit three others, and wait for them."""
    child = JOBS[id(SAVED[0])]
    futures = [child.submit(number) for _ in range(3)]
    return number if {future.result() for future in futures} == {number} else -1


def declare(number: int, kind: Kind) -> t.Any:
    """The job of one kind of tasks."""
    chore = family if kind.chore is FAMILY else kind.chore
    name = f"{number} {chore.__name__}"
    return executor.job(name=name, **kind.options)(noted(chore))


JOBS = {id(kind): declare(number, kind) for number, kind in enumerate(SAVED)}
"""A job for each kind of tasks."""
