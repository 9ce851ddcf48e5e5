"""An app for real servers; its periodic job tells the test in which process it is."""

from __future__ import annotations

import os

from flask import Flask
from notes import note

from flask_executor import Executor

app = Flask(__name__)
executor = Executor(app)


@executor.every(0.2)
def tick() -> None:
    note("tick")


@app.get("/")
def index() -> str:
    return str(os.getpid())


note("imported")
