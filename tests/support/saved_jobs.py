"""Jobs at the top level of a module, for pools of worker processes."""

from __future__ import annotations

from flask import Flask, request

from flask_executor import Executor, current_task

executor = Executor()


def make_app() -> Flask:
    """Return the app of a worker process."""
    app = Flask("tests")
    app.config["SECRET_KEY"] = "tests"
    return app


@executor.job(name="double", guarantee="at_least_once")
def double(number: int) -> int:
    return 2 * number


@executor.job(name="look", guarantee="at_least_once")
def look(fails: int = 0) -> tuple[str, int]:
    if current_task.attempt <= fails:
        raise ValueError("again")
    return request.path, current_task.attempt
