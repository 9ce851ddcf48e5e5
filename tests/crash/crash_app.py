"""The app that is killed: each task notes in a file that it has run, and where."""

from __future__ import annotations

import os
import time
import typing as t

from flask import Flask, request

from flask_executor import Executor, current_task, task_succeeded
from flask_executor.store_errors import StoreUnavailable

app = Flask(__name__)
app.secret_key = "crash"
app.config.update(
    EXECUTOR_STORE=os.environ["CRASH_STORE"],
    EXECUTOR_STORE_LEASE=os.environ["CRASH_LEASE"],
    EXECUTOR_STORE_MAX_LOST=1000,  # each death here is innocent
    EXECUTOR_MAX_WORKERS=4,
)
executor = Executor(app)
EFFECTS = os.environ["CRASH_EFFECTS"]


def note(*words: object) -> None:
    """Append one line, which no other process can tear apart."""
    line = " ".join(map(str, words)) + "\n"
    file = os.open(EFFECTS, os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def epoch_here() -> int:
    """Return how often the task that runs here was claimed."""
    node: t.Any = executor._state().dispatcher.node
    uid = current_task.id
    return next(s.fence.epoch for s in node.holding.mine() if s.task.id == uid)


def work(seconds: float) -> str:
    """Have an effect that can be counted."""
    note("ran", current_task.id, epoch_here(), os.getpid())
    time.sleep(seconds)
    return current_task.id


@executor.job(name="again", guarantee="at_least_once")
def again(seconds: float) -> str:
    return work(seconds)


@executor.job(name="once", guarantee="at_most_once")
def once(seconds: float) -> str:
    return work(seconds)


@executor.job(name="brief")
def brief(seconds: float) -> str:
    return work(seconds)


@executor.every(1)
@executor.job(name="tick", guarantee="at_least_once")
def tick() -> None:
    note("ran", current_task.id, epoch_here(), os.getpid())


@task_succeeded.connect_via(app)
def ended(app: Flask, task: t.Any, **_: t.Any) -> None:
    """Note who has ended a task: at most one process."""
    note("ended", task.id, 0, os.getpid())


JOBS = {"again": again, "once": once, "brief": brief}


@app.post("/submit/<job>")
def submit(job: str) -> str:
    """Submit a task, and answer with its id once it is accepted.

    An ephemeral task may run while the database is away: the answer is empty then.
    """
    seconds = float(request.args["s"])
    future: t.Any = JOBS[job].submit_stored(request.args["key"], seconds)
    uid: str = future.task.id
    return uid if job != "brief" or is_saved(uid) else ""


def is_saved(uid: str) -> bool:
    """Return True if the store knows a task."""
    node: t.Any = executor._state().dispatcher.node
    try:
        return node.store.get("uid", uid) is not None
    except StoreUnavailable:
        return False


@app.get("/state/<key>")
def state(key: str) -> dict[str, t.Any]:
    """What this process says of a key."""
    future: t.Any = executor.futures.get(key)
    return {"state": None if future is None else future.task.state}


@app.post("/pop/<key>")
def pop(key: str) -> dict[str, bool]:
    """Tell if this request was the one that got it."""
    return {"won": executor.futures.pop(key) is not None}
