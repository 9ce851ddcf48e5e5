"""What a dashboard costs: time of the server for its pages, bytes of a first visit."""

from __future__ import annotations

import gzip
import re
import time
import typing as t
from urllib.parse import quote

import stored

PAGES = (
    *(
        "/",
        "/tasks",
        "/tasks?state=succeeded",
        "/tasks?state=failed",
        "/tasks?job=none",
    ),
    *("/requests/request-7", "/tasks?request=request-7&state=succeeded"),
    *("/failures", "/jobs", "/groups", "/periodic", "/workers"),
    *("/matching?do=retry", "/matching?do=cancel&state=waiting"),
)
LIMIT = 0.05
"""Seconds that the contract allows for a page."""
MOST = 60_000
"""Bytes that it allows for a first visit, compressed."""
_ROUNDS = 5


def pages(side: str) -> t.Callable[[], float]:
    """Seconds of the server for the slowest page; the other side is the limit."""
    kind, _, who = side.partition("-")
    if who == "bar":
        return lambda: LIMIT
    one = stored.side(f"{kind}-million")
    ask = _visitor(one)
    with one.app.app_context():
        [newest] = one.executor.tasks(limit=1)
    paths = (*PAGES, f"/tasks/{quote(newest.id)}")
    for path in paths:  # templates are read once, and connections opened
        ask(path)

    def measured() -> float:
        return max(_median_of(ask, path) for path in paths)

    return measured


def first_visit(side: str) -> t.Callable[[], float]:
    """Bytes of the overview and all that it loads, compressed; or the limit."""
    if side == "bar":
        return lambda: MOST
    ask = _visitor(stored.side("sqlite-ours"))

    def measured() -> float:
        html = ask("/")
        found = re.findall(r'(?:src|href)="/executor(/files/[^"]+)"', html.decode())
        return float(sum(len(gzip.compress(one)) for one in (html, *map(ask, found))))

    return measured


def _visitor(one: t.Any) -> t.Callable[[str], bytes]:
    from flask_executor.web import Dashboard

    one.app.register_blueprint(Dashboard(one.executor, authorize=lambda action: True))
    client = one.app.test_client()

    def ask(path: str) -> bytes:
        answer = client.get(f"/executor{path}")
        assert answer.status_code == 200, (path, answer.status)
        return t.cast(bytes, answer.data)

    return ask


def _median_of(ask: t.Callable[[str], bytes], path: str) -> float:
    took = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        ask(path)
        took.append(time.perf_counter() - start)
    return sorted(took)[_ROUNDS // 2]
