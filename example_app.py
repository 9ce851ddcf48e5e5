"""Three things people do in the background of a Flask app, on one page.

A sign-up whose confirmation e-mail is sent by a thread, an uploaded CSV file of any
size that is summarised by a thread, and a Fibonacci number from a worker process::

    python example_app.py           # serve the page
    python example_app.py --demo    # do all three once, in the terminal

Mail goes to ``SMTP_HOST`` (``host`` or ``host:port``) where that is set, else to a
small SMTP server on loopback whose mail the page shows. Tasks and mail are kept in the
memory of one process: under gunicorn use one worker and several threads.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import math
import os
import re
import secrets
import smtplib
import socket
import time
import typing as t
from collections import deque
from concurrent.futures import Future
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from flask import Flask, abort, jsonify, request, url_for
from werkzeug.exceptions import BadRequest, HTTPException

from flask_executor import Executor

# There is no MAX_CONTENT_LENGTH here: an upload goes to disk, and is read by line.
app = Flask(__name__)
app.config.update(
    EXECUTOR_FUTURES_MAX_LENGTH=200,
    CPU_EXECUTOR_TYPE="process",
    CPU_EXECUTOR_MAX_WORKERS=2,
    CPU_EXECUTOR_FUTURES_MAX_LENGTH=200,
)
executor = Executor(app)
cpu = Executor(app, name="cpu")

LARGEST = 32
"""The largest Fibonacci number that the page computes: some seconds."""


# The jobs: plain functions that see the request they were submitted from.


@executor.job
def send_confirmation(address: str) -> str:
    """Send the confirmation e-mail, and say which server took it."""
    message = EmailMessage()
    message["From"] = "app@example.org"
    message["To"] = address
    message["Subject"] = "Please confirm"
    link = url_for("page", confirmed=address, _external=True)
    message.set_content(f"Hello, and welcome!\n\nPlease confirm: {link}\n")
    host, port = mail_server()
    with smtplib.SMTP(host, port, timeout=30) as smtp:
        smtp.send_message(message)
    return f"sent through {host}:{port}"


@executor.job
def summarise() -> dict[str, t.Any]:
    """Summarise the uploaded file of the request, by line, in constant memory."""
    file = request.files["table"]
    text = io.TextIOWrapper(t.cast(t.IO[bytes], file.stream), "utf-8-sig", newline="")
    try:
        return summary_of(csv.reader(lines(text)))
    except UnicodeDecodeError as error:
        raise ValueError("This is no text in UTF-8, so it is no CSV file.") from error
    except csv.Error as error:
        raise ValueError(f"This is no CSV file: {error}.") from error


@cpu.job
def fibonacci(n: int) -> int:
    """The n-th Fibonacci number, the slow way: a job may call itself."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


# Summaries.


class Column:
    """What is known of one column so far: a few numbers, however long it is."""

    BINS = 24

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf
        self._counts = [0] * self.BINS
        self._start = self._width = 0.0

    def add(self, cell: str) -> None:
        """Take in a cell; one that is no number does not count."""
        number = number_in(cell)
        if number is None:
            return
        self.count += 1
        self.total += number
        self.low = min(self.low, number)
        self.high = max(self.high, number)
        place = self._bin_of(number)  # first: it may make other bins
        self._counts[place] += 1

    def summary(self) -> dict[str, t.Any]:
        """The figures, and the chart: how many values are in each of equal ranges."""
        used = [i for i, count in enumerate(self._counts) if count]
        return {
            "name": self.name,
            "count": self.count,
            "mean": self.total / self.count,
            "min": self.low,
            "max": self.high,
            "chart": self._counts[used[0] : used[-1] + 1],
        }

    def _bin_of(self, number: float) -> int:
        if self.count == 1:
            self._start = number
            self._width = max(abs(number), 1.0) * 1e-9
        while not 0 <= (number - self._start) / self._width < self.BINS:
            self._widen(down=number < self._start)
        return int((number - self._start) / self._width)

    def _widen(self, *, down: bool) -> None:
        # Two bins become one, and there is as much room again, below or above.
        pairs = zip(self._counts[::2], self._counts[1::2], strict=True)
        merged = [one + other for one, other in pairs]
        room = [0] * len(merged)
        self._counts = room + merged if down else merged + room
        if down:
            self._start -= self._width * self.BINS
        self._width *= 2


def number_in(cell: str) -> float | None:
    """The number that a cell holds, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None


def lines(text: t.TextIO, longest: int = 1_000_000) -> t.Iterator[str]:
    """The lines of a file, none of which may fill the memory."""
    while line := text.readline(longest):
        if len(line) == longest:
            raise ValueError(f"A line is longer than {longest:,} characters.")
        yield line


def summary_of(rows: t.Iterator[list[str]]) -> dict[str, t.Any]:
    """The summary of each column that holds numbers."""
    columns = [Column(name.strip() or "(no name)") for name in next(rows, [])]
    if not columns:
        raise ValueError("The file is empty: its first line must name the columns.")
    count = 0
    for row in rows:
        count += bool(row)
        for column, cell in zip(columns, row, strict=False):
            column.add(cell)
    numeric = [column.summary() for column in columns if column.count]
    if not numeric:
        raise ValueError(f"No column holds numbers: {count} rows were read.")
    return {"rows": count, "columns": numeric}


# Mail.

inbox: deque[dict[str, str]] = deque(maxlen=20)
"""What the SMTP server on loopback has received."""


class Inbox:
    """What the SMTP server does with a message."""

    async def handle_DATA(self, server: t.Any, session: t.Any, envelope: t.Any) -> str:
        """Keep it."""
        message = message_from_bytes(envelope.content, policy=policy.default)
        text = t.cast(EmailMessage, message).get_content()
        inbox.appendleft(
            {"to": message["To"], "subject": message["Subject"], "text": text}
        )
        return "250 OK"


def mail_server() -> tuple[str, int]:
    """Where mail goes: ``SMTP_HOST``, or the server on loopback."""
    host, _, port = os.environ.get("SMTP_HOST", "").partition(":")
    return (host, int(port or 25)) if host else loopback_mail_server()


@functools.cache
def loopback_mail_server() -> tuple[str, int]:
    """Start the server, once."""
    from aiosmtpd.controller import Controller

    with socket.create_server(("127.0.0.1", 0)) as probe:
        host, port = probe.getsockname()
    Controller(Inbox(), hostname=host, port=port).start()
    return host, port


# The views: each submits a call, and answers at once with the key of its future.


@app.get("/")
def page() -> str:
    """The page itself."""
    return (Path(__file__).parent / "example_page.html").read_text("utf-8")


@app.post("/sign-up")
def sign_up() -> t.Any:
    """Have the confirmation e-mail sent."""
    address = request.form.get("address", "").strip()
    if not re.fullmatch(r"[^@\s]{1,64}@[^@\s]{1,255}", address):
        raise BadRequest(f"{address!r} is no e-mail address.")
    key = new_key()
    send_confirmation.submit_stored(key, address)
    return accepted(key, address)


@app.post("/summary")
def summary() -> t.Any:
    """Have the uploaded file summarised."""
    file = request.files.get("table")
    if file is None or not file.filename:
        raise BadRequest("Choose a CSV file first.")
    key = new_key()
    summarise.submit_stored(key)
    return accepted(key, file.filename)


@app.post("/fibonacci")
def number() -> t.Any:
    """Have a Fibonacci number computed."""
    n = request.form.get("n", type=int)
    if n is None or not 0 <= n <= LARGEST:
        raise BadRequest(f"n must be a whole number from 0 to {LARGEST}.")
    key = new_key()
    fibonacci.submit_stored(key, n)
    return accepted(key, f"fibonacci({n})")


@app.get("/tasks/<key>")
def status(key: str) -> t.Any:
    """How a task is doing: waiting, running, done or failed."""
    future = future_of(key)
    if not future.done():
        return {"state": "running" if future.running() else "waiting"}
    error = future.exception()
    if error is not None:
        return {"state": "failed", "error": str(error) or type(error).__name__}
    return {"state": "done", "result": future.result()}


@app.get("/inbox")
def received() -> t.Any:
    """The mail that the server on loopback has received, newest first."""
    return jsonify(list(inbox))


@app.errorhandler(HTTPException)
def refused(error: HTTPException) -> t.Any:
    """Say what was wrong, in the way the page reads it."""
    return {"error": error.description}, error.code


def new_key() -> str:
    """A name for a future that nobody guesses."""
    return secrets.token_urlsafe(8)


def accepted(key: str, title: str) -> t.Any:
    """The answer to who asked for a task."""
    return {"key": key, "title": title}, 202


def future_of(key: str) -> Future[t.Any]:
    """The future stored under a key."""
    future = executor.futures.get(key) or cpu.futures.get(key)
    if future is None:
        abort(404, f"There is no task {key!r} here, or not any more.")
    return t.cast("Future[t.Any]", future)


# The terminal.


def demo() -> None:
    """Do all three once, and print what happened."""
    rows = "".join(f"{n},{n * n % 97}\n" for n in range(100_000))
    table = (io.BytesIO(b"number,square\n" + rows.encode()), "squares.csv")
    print("Three calls in the background of a Flask app:\n")
    show("send an e-mail", "/sign-up", {"address": "ada@example.org"})
    print(f"   received: {inbox[0]['subject']!r} for {inbox[0]['to']}\n")
    for column in show("summarise a CSV", "/summary", {"table": table})["columns"]:
        print("   {name:7} count {count}, mean {mean}, {min} to {max}".format(**column))
    print()
    show("compute in a worker process", "/fibonacci", {"n": "24"})
    executor.shutdown()
    cpu.shutdown()


def show(title: str, path: str, form: dict[str, t.Any]) -> t.Any:
    """Post a form as the page would, and print what comes of it."""
    start = time.perf_counter()
    with app.test_client() as client:
        answer = client.post(path, data=form, content_type="multipart/form-data")
    submitted = time.perf_counter()
    result = future_of(answer.get_json()["key"]).result(60)
    ended = time.perf_counter()
    print(f" * {title}: {answer.get_json()['title']}")
    print(f"   the view answered after {(submitted - start) * 1000:.0f} ms, the task")
    print(f"   was done after {(ended - start) * 1000:.0f} ms: {shortened(result)}")
    return result


def shortened(result: t.Any) -> str:
    """A result in one line."""
    return f"{result['rows']:,} rows" if isinstance(result, dict) else str(result)


def main() -> None:
    """Serve the page, or run the demo."""
    parser = argparse.ArgumentParser(description="The Flask-Executor example.")
    parser.add_argument("--demo", action="store_true", help="run all three once")
    parser.add_argument("--port", type=int, default=5000, help="of the page")
    options = parser.parse_args()
    if options.demo:
        demo()
    else:
        print(f"The page is at http://127.0.0.1:{options.port} (Ctrl+C ends it)")
        app.run(port=options.port)


if __name__ == "__main__":
    main()
