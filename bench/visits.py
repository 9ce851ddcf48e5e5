"""What one request pays that submits one task: whole requests through the WSGI app.

A view is measured with its task and without it, in turn; the difference is what the
task costs, from its submit to its end. Requests come one by one, as a worker of a
server handles them, with the environments made beforehand: those are the server's.

It is the processor time of all threads: the view's and the worker's take turns, and
what else the machine does is not in it.
"""

from __future__ import annotations

import io
import statistics
import time
import typing as t

from flask import Flask, g, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import FileStorage
from werkzeug.test import EnvironBuilder, encode_multipart

MEGABYTE = 1_000_000
BLOCKS = 15
"""Pairs of blocks in one round, of which the median counts."""

Submit = t.Callable[..., t.Any]
Environs = list[dict[str, t.Any]]


class Visits:
    """Requests of one kind, to a view with and without a task.

    :param submit: takes the task and its arguments, and gives a future.
    :param read: what the view does with the request; what it gives goes to the task.
    :param task: the work.
    :param make: the request's builder, for a URL.
    :param size: how many requests are one block.
    """

    def __init__(
        self,
        app: Flask,
        submit: Submit,
        make: t.Callable[[str], EnvironBuilder],
        read: t.Callable[[], tuple[t.Any, ...]],
        task: t.Callable[..., object],
        size: int = 100,
    ) -> None:
        self._app = app
        self._size = size
        self._futures: list[t.Any] = []
        self._cookie = _cookie(app)
        self._environs = {url: self._environ(make(url)) for url in ("/plain", "/task")}

        @app.route("/plain", methods=["GET", "POST"])
        def plain() -> str:
            _use()
            return ""

        @app.route("/task", methods=["GET", "POST"])
        def submitting() -> str:
            _use()
            self._futures.append(submit(task, *read()))
            return ""

    def _environ(self, builder: EnvironBuilder) -> tuple[dict[str, t.Any], bytes]:
        builder.headers["Cookie"] = self._cookie
        environ = builder.get_environ()
        return environ, environ["wsgi.input"].read()

    def round(self) -> float:
        """Seconds that one request pays for its task."""
        pairs = [(self._block("/task"), self._block("/plain")) for _ in range(BLOCKS)]
        task, plain = (statistics.median(side) for side in zip(*pairs, strict=True))
        return (task - plain) / self._size

    def _block(self, url: str) -> float:
        environ, body = self._environs[url]
        environs = [
            {**environ, "wsgi.input": io.BytesIO(body)} for _ in range(self._size)
        ]
        start = time.process_time()
        for one in environs:
            self._visit(one)
        for future in self._futures:
            future.result()
        seconds = time.process_time() - start
        self._futures.clear()
        return seconds

    def _visit(self, environ: dict[str, t.Any]) -> None:
        response = self._app.wsgi_app(environ, _start_response)
        for _ in response:
            pass
        t.cast(t.Any, response).close()


def _start_response(status: str, *args: object) -> t.Any:
    if status != "200 OK":
        raise SystemExit(f"the app answered {status}")


def _cookie(app: Flask) -> str:
    interface = t.cast(SecureCookieSessionInterface, app.session_interface)
    serializer = t.cast(t.Any, interface.get_signing_serializer(app))
    return f"session={serializer.dumps({'user': 'ada', 'cart': [1, 2, 3]})}"


def _use() -> None:
    """What a view does with its request."""
    g.user = session["user"]
    if request.method == "POST" and request.form["name"] != "Ada":
        raise SystemExit("the form is not there")


def get(url: str) -> EnvironBuilder:
    """A request without a body."""
    return EnvironBuilder(url, query_string="page=1", headers=HEADERS)


def post(url: str) -> EnvironBuilder:
    """A request with a form."""
    form = {"name": "Ada", "email": "ada@example.org", "text": "x" * 200}
    return EnvironBuilder(url, method="POST", data=form, headers=HEADERS)


def upload(url: str) -> EnvironBuilder:
    """A request with a form that has a file."""
    file = FileStorage(io.BytesIO(b"x" * MEGABYTE), "x.bin")
    boundary, body = encode_multipart({"name": "Ada", "file": file})
    return EnvironBuilder(
        url,
        method="POST",
        data=body,
        content_type=f"multipart/form-data; boundary={boundary}",
        headers=HEADERS,
    )


HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101",
    "Accept": "text/html,application/xhtml+xml",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
}


def nothing() -> tuple[()]:
    """What the task needs, if it needs nothing."""
    return ()


def content() -> tuple[bytes]:
    """The bytes of the file, read by the view."""
    return (request.files["file"].read(),)


def check(data: bytes) -> None:
    """The work of a task that is given the bytes."""
    if len(data) != MEGABYTE:
        raise SystemExit("the file is not whole")


def read_and_check() -> None:
    """The work of a task that reads the file itself."""
    check(*content())
