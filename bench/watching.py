"""What open dashboards cost the server that they look at.

The app submits durable tasks in a view, on one thread of a gthread worker; the same
process answers the dashboards on its other threads, as where an app has one process.
Nobody runs the tasks, so that there is nothing in the figure except their submits.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

import databases
import served
import stored
from flask import Flask

SECONDS = 2.0
"""The pause of dashboard.js while a page changes, and a round: each dashboard asks once
in it. A page that does not change would ask less often."""
PAGES = ("/", "/tasks", "/failures", "/jobs", "/workers") * 2


def make_app() -> Flask:
    """The app: a view that submits, and a dashboard that everybody may see."""
    from flask_executor.web import Dashboard

    one = stored.Stored(os.environ["BENCH_STORE"])
    dashboard = Dashboard(one.executor, authorize=lambda action: True)
    one.app.register_blueprint(dashboard)

    @one.app.post("/submits")
    def submits() -> str:
        count, start = 0, time.perf_counter()
        while time.perf_counter() < start + SECONDS:
            one.job.submit()
            count += 1
        return str((time.perf_counter() - start) / count)

    return one.app


class Page:
    """A page of the dashboard in somebody's browser: it asks as dashboard.js does.

    :param after: seconds after which it asks first, as each was opened at its time.
    """

    def __init__(self, port: int, path: str, after: float) -> None:
        self._port = port
        self._path = f"/executor{path}"
        self._after = after
        self._headers = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}

    def stay_open(self, closed: threading.Event) -> int:
        """Ask until it is closed; return how often."""
        asked, pause = 0, self._after
        while not closed.wait(pause):
            self._ask()
            asked, pause = asked + 1, SECONDS
        return asked

    def _ask(self) -> None:
        # Until the next time, gunicorn would have closed a connection that is kept.
        answer, _ = ask(self._port, "GET", self._path, self._headers)
        if answer.status == 200:
            self._headers["If-None-Match"] = str(answer.getheader("ETag"))
        if cookie := answer.getheader("Set-Cookie"):
            self._headers["Cookie"] = cookie.partition(";")[0]


def ask(
    port: int, method: str, path: str, headers: t.Mapping[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    """The answer to a request, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=served.PATIENCE)
    connection.request(method, path, headers=dict(headers))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status not in (200, 304):
        raise SystemExit(f"{method} {path} was answered with {answer.status}")
    return answer, body


def submits(kind: str, who: str) -> t.Callable[[], float]:
    """Seconds for each durable submit.

    :param who: ``'ten'`` dashboards are open meanwhile, or ``'none'``.
    """
    os.environ["BENCH_STORE"] = databases.url_of(kind)
    port = served.serve("watching:make_app()")
    paths = PAGES if who == "ten" else ()
    pages = [Page(port, path, n * SECONDS / 10) for n, path in enumerate(paths)]
    threads = ThreadPoolExecutor(len(PAGES))

    def measured() -> float:
        closed = threading.Event()
        visits = [threads.submit(page.stay_open, closed) for page in pages]
        _, seconds = ask(port, "POST", "/submits", {})
        closed.set()
        if not all(visit.result() for visit in visits):
            raise SystemExit("a dashboard was not open")
        return float(seconds)

    return measured
