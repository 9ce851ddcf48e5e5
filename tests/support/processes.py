"""Apps on one store: each stands for a process of its own."""

from __future__ import annotations

import threading
import time
import typing as t

from flask import Flask
from limits import LIMIT

from flask_executor import Executor

NewProcess = t.Callable[..., "Process"]


class Process:
    """An app with an executor on a store that others share."""

    def __init__(
        self, url: str, executor: Executor | None = None, **config: t.Any
    ) -> None:
        self.app = Flask("tests")
        self.app.config.update(
            {
                "TESTING": True,
                "SECRET_KEY": "tests",
                "EXECUTOR_MAX_WORKERS": 2,
                "EXECUTOR_STORE": url,
                "EXECUTOR_LOG_EXCEPTIONS": False,
            }
            | config
        )
        self.executor = executor or Executor()
        self.executor.init_app(self.app)
        self._jobs: list[t.Any] = []  # an executor knows those that somebody holds

    @property
    def node(self) -> t.Any:
        return self.executor._state().dispatcher.node

    @property
    def store(self) -> t.Any:
        return self.node.store

    @property
    def futures(self) -> t.Any:
        return self.executor.futures

    def serve(self) -> Process:
        """Claim tasks from now on."""
        self.node.serve()
        return self

    def job(self, fn: t.Callable[..., t.Any], **options: t.Any) -> t.Any:
        """Declare a job that runs at least once, unless the options say otherwise."""
        options = {"name": "job", "guarantee": "at_least_once"} | options
        self._jobs.append(self.executor.job(**options)(fn))
        return self._jobs[-1]

    def record(self, future: t.Any) -> t.Any:
        return self.store.get("uid", future.task.id)

    def close(self, *, cancel_futures: bool = False) -> None:
        """End as a process does."""
        self.executor.shutdown(wait=True, cancel_futures=cancel_futures)
        self.node.leaving.close()


def declare(process: Process, fn: t.Callable[..., t.Any], **options: t.Any) -> t.Any:
    """Declare a job that its process knows until the end of the test."""
    job = process.job(fn, **options)
    process.app.extensions.setdefault("jobs", []).append(job)
    return job


def paused_in(process: Process) -> frozenset[str]:
    """The jobs of which a process knows that they are paused."""
    pauses = process.executor._state().dispatcher.pauses
    return frozenset() if pauses is None else t.cast("frozenset[str]", pauses.names)


def until(condition: t.Callable[[], t.Any], limit: float = LIMIT) -> t.Any:
    """Return what a condition returns, as soon as that is true."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found


def reached(event: threading.Event) -> None:
    assert event.wait(LIMIT)
