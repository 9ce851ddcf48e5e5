"""A process that runs a periodic job until its standard input ends."""

from __future__ import annotations

import os
import sys

from flask import Flask

from flask_executor import Executor, current_task

url, effects = sys.argv[1:]
app = Flask("ticks")
app.config.update(
    SECRET_KEY="tests",
    EXECUTOR_STORE=url,
    EXECUTOR_STORE_LEASE=1.0,
    EXECUTOR_MAX_WORKERS=2,
)
executor = Executor(app)


@executor.every(0.25, missed="all")
@executor.job(name="tick")
def tick() -> None:
    line = f"{current_task.id}\n".encode()
    number = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(number, line)
    os.close(number)


if __name__ == "__main__":
    with app.app_context():
        executor.periodic.start()
        executor._state().dispatcher.node.serve()
    print("runs", flush=True)
    sys.stdin.read()
