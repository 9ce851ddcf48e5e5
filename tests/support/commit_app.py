"""Submits a task in a transaction, and is killed before or after the commit."""

from __future__ import annotations

import os
import signal
import sys
import typing as t

from flask import Flask
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from flask_executor import Executor


def send(number: int) -> int:
    raise AssertionError("this process is dead")


def kill(*_: t.Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    url, when = sys.argv[1:]
    app = Flask("commits")
    app.config.update(SECRET_KEY="tests", EXECUTOR_STORE=url)
    executor = Executor(app)
    job = executor.job(name="send", guarantee="at_least_once")(send)
    engine = create_engine(url)
    with app.app_context(), Session(engine) as session:
        session.execute(text("INSERT INTO app_order (id) VALUES (1)"))
        job.using(session=session).submit(9)
        print("submitted", flush=True)
        if when == "before":
            kill()
        # At once: before anything of ours is told of the commit.
        event.listen(session, "after_commit", kill, insert=True)
        session.commit()
