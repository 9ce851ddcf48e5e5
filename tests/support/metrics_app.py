"""An app with metrics for gunicorn: several processes, one store, one sum."""

from __future__ import annotations

import os
import threading

from flask import Flask
from notes import note

from flask_executor import Executor
from flask_executor.metrics import Metrics
from flask_executor.web import Health

app = Flask(__name__)
app.config.update(
    SECRET_KEY="tests",
    EXECUTOR_MAX_WORKERS=2,
    EXECUTOR_STORE=os.environ["METRICS_STORE"],
)
executor = Executor(app)
app.register_blueprint(Metrics(executor, authorize=lambda action: True))
app.register_blueprint(Health(executor), url_prefix="/health")
gate = threading.Event()


@executor.job(name="work")
def work() -> None:
    """The work."""


@executor.job(name="hold")
def hold() -> None:
    """Run until the process ends, or the test lets go."""
    note("holds")
    gate.wait(60)


@app.get("/")
def index() -> str:
    return str(os.getpid())


@app.post("/work")
def run_work() -> str:
    work.submit().result(60)
    return str(os.getpid())


@app.post("/saved")
def run_saved() -> str:
    work.using(guarantee="at_least_once").submit().result(60)
    return str(os.getpid())


@app.post("/hold")
def run_hold() -> str:
    hold.submit()
    return str(os.getpid())


@app.post("/free")
def free() -> str:
    gate.set()
    return str(os.getpid())
