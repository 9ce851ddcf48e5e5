"""Four things people do in the background of a Flask app, on one page.

A thread sends the e-mail that confirms a sign-up, a thread summarises an uploaded CSV
file of any size, a worker process computes a Fibonacci number, and worker processes
draw twenty thumbnails, which a coroutine collects as one group. Each can be urgent,
tells how far it is where it knows, and can be cancelled while it runs::

    python example_app.py           # serve the page
    python example_app.py --demo    # do all four once, in the terminal

Mail goes to ``SMTP_HOST`` (``host`` or ``host:port``) where that is set, else to a
small SMTP server on loopback whose mail the page shows. Tasks and mail are kept in the
memory of one process: under gunicorn use one worker and several threads.
"""

from __future__ import annotations

import argparse
import base64
import cmath
import csv
import functools
import io
import itertools
import math
import os
import re
import secrets
import smtplib
import socket
import struct
import time
import typing as t
from collections import deque
from concurrent.futures import wait
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from zlib import compress, crc32

from flask import Flask, abort, jsonify, request, url_for
from werkzeug.exceptions import BadRequest, HTTPException

from flask_executor import Executor, ExecutorJob, Task, TaskFuture, current_task

# There is no MAX_CONTENT_LENGTH here: an upload goes to disk, and is read by line.
# The workers are few, so that one can see what waits, and what is urgent go first.
app = Flask(__name__)
app.config.update(
    EXECUTOR_MAX_WORKERS=2,
    EXECUTOR_FUTURES_MAX_LENGTH=200,
    CPU_EXECUTOR_TYPE="process",
    CPU_EXECUTOR_MAX_WORKERS=2,
    CPU_EXECUTOR_FUTURES_MAX_LENGTH=200,
)
executor = Executor(app)
cpu = Executor(app, name="cpu")

LARGEST = 35
"""The largest n of the page: a worker process computes for some ten seconds."""

THUMBNAILS = 20

URGENT = 10
"""The priority of what is urgent; that of the rest is 0."""


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
    try:
        return summary_of(rows_in(t.cast(t.IO[bytes], request.files["table"].stream)))
    except UnicodeDecodeError as error:
        raise ValueError("This is no text in UTF-8, so it is no CSV file.") from error
    except csv.Error as error:
        raise ValueError(f"This is no CSV file: {error}.") from error


@cpu.job
def fibonacci(n: int) -> int:
    """The n-th Fibonacci number, the slow way: a job may call itself."""
    if n == 20:  # now and then: to ask takes time, too
        current_task.raise_if_cancelled()
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@cpu.job
def thumbnail(number: int) -> str:
    """Draw a Julia set, and give the picture as a data URL."""
    c = 0.7885 * cmath.exp(0.5j * math.pi * (1 + number / THUMBNAILS))
    picture = png([row_of(c, y) for y in current_task.track(range(HEIGHT))])
    return "data:image/png;base64," + base64.b64encode(picture).decode()


@executor.job
async def thumbnails() -> list[str]:
    """Have worker processes draw all thumbnails, and tell how many are there.

    Where this is cancelled, or one of them fails, the others are cancelled.
    """
    async with cpu.using(priority=priority()).group("thumbnails") as group:
        group.map(thumbnail, range(THUMBNAILS))
        current_task.progress(*group.progress)
        async for _ in group:
            current_task.progress(*group.progress)
    return group.results()


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


def rows_in(stream: t.IO[bytes]) -> t.Iterator[list[str]]:
    """The rows of a file, whose cells are separated as in its first line."""
    rest = lines_in(stream)
    first = next(rest, "")
    separator = max(",;\t", key=first.count)
    return csv.reader(itertools.chain([first], rest), delimiter=separator)


def lines_in(stream: t.IO[bytes], longest: int = 1_000_000) -> t.Iterator[str]:
    """The lines of a file, none of which may fill the memory.

    On the way the task tells how far it is, and stops where it was asked to.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    for number, line in enumerate(iter(lambda: text.readline(longest), "")):
        if number % 100 == 0:
            current_task.raise_if_cancelled()
            current_task.progress(stream.tell(), size, f"{number:,} lines")
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


# Pictures.

WIDTH, HEIGHT, SHADES = 208, 156, 64


def row_of(c: complex, y: int) -> bytes:
    """A row of the Julia set of c, a byte for each of its points."""
    shades = bytearray()
    for x in range(WIDTH):
        z = complex(x - WIDTH / 2, y - HEIGHT / 2) * 3 / WIDTH
        shade = 0
        while shade < SHADES - 1 and abs(z) < 2:
            z = z * z + c
            shade += 1
        shades.append(shade)
    return bytes(shades)


def png(rows: list[bytes]) -> bytes:
    """A picture as a PNG file."""
    shares = [shade / (SHADES - 1) for shade in range(SHADES)]
    colours = [int(255 * share**power) for share in shares for power in (1.2, 0.4, 0.6)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(f">I4s{len(data)}sI", len(data), name, data, crc32(name + data))
        for name, data in (
            (b"IHDR", struct.pack(">2I5B", WIDTH, HEIGHT, 8, 3, 0, 0, 0)),
            (b"PLTE", bytes(colours)),
            (b"IDAT", compress(b"".join(b"\0" + row for row in rows))),
            (b"IEND", b""),
        )
    )


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


# The views: each submits a job, and answers at once with the key of its future.


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
    return submitted(send_confirmation, address, title=address)


@app.post("/summary")
def summary() -> t.Any:
    """Have the uploaded file summarised."""
    file = request.files.get("table")
    if file is None or not file.filename:
        raise BadRequest("Choose a CSV file first.")
    return submitted(summarise, title=file.filename)


@app.post("/fibonacci")
def number() -> t.Any:
    """Have a Fibonacci number computed."""
    n = request.form.get("n", type=int)
    if n is None or not 0 <= n <= LARGEST:
        raise BadRequest(f"n must be a whole number from 0 to {LARGEST}.")
    return submitted(fibonacci, n, title=f"fibonacci({n})")


@app.post("/thumbnails")
def gallery() -> t.Any:
    """Have the thumbnails drawn."""
    return submitted(thumbnails, title=f"{THUMBNAILS} thumbnails")


@app.get("/tasks/<key>")
def status(key: str) -> dict[str, t.Any]:
    """How a task is doing, and what came of it when it has ended."""
    future = future_of(key)
    ended, task = future.done(), t.cast(Task, future.task)
    stopping = task.cancel_requested and not ended
    found = {"ended": ended, "state": "stopping" if stopping else task.state}
    if task.progress is not None:
        found.update(fraction=task.progress.fraction, message=task.progress.message)
    if ended and not future.cancelled():
        if error := future.exception():
            found["error"] = str(error) or type(error).__name__
        else:
            found["result"] = future.result()
    return found


@app.post("/tasks/<key>/cancel")
def cancel(key: str) -> dict[str, t.Any]:
    """Cancel a task that waits, or ask one that runs to stop."""
    future_of(key).request_cancel()
    return status(key)


@app.get("/inbox")
def received() -> t.Any:
    """The mail that the server on loopback has received, newest first."""
    return jsonify(list(inbox))


@app.errorhandler(HTTPException)
def refused(error: HTTPException) -> t.Any:
    """Say what was wrong, in the way the page reads it."""
    return {"error": error.description}, error.code


def submitted(job: ExecutorJob[..., t.Any], *args: t.Any, title: str) -> t.Any:
    """Submit a job under a key that nobody guesses, and answer with that."""
    key = secrets.token_urlsafe(8)
    job.using(priority=priority()).submit_stored(key, *args)
    return {"key": key, "title": title, "urgent": priority() == URGENT}, 202


def priority() -> int:
    """As the form of the request says."""
    return URGENT if "urgent" in request.form else 0


def future_of(key: str) -> TaskFuture[t.Any]:
    """The future stored under a key."""
    future = executor.futures.get(key) or cpu.futures.get(key)
    if future is None:
        abort(404, f"There is no task {key!r} here, or not any more.")
    return future


# The terminal.


def demo() -> None:
    """Do all four once, and print what happens."""
    squares = "".join(f"{n},{n * n % 97}\n" for n in range(200_000))
    table = (io.BytesIO(b"number,square\n" + squares.encode()), "squares.csv")
    print("Four jobs in the background of a Flask app")
    show("A thread sends an e-mail", "/sign-up", address="ada@example.org")
    print(f"   received: {inbox[0]['subject']!r} for {inbox[0]['to']}")
    found = show("A thread summarises a CSV file", "/summary", table=table)
    for column in found["result"]["columns"]:
        print("   {name:7} count {count}, mean {mean}, {min} to {max}".format(**column))
    found = show("A worker process computes", "/fibonacci", n=24)
    print(f"   the result: {found['result']}")
    show("The same, cancelled while it runs", "/fibonacci", stop_after=0.5, n=35)
    found = show("A group draws thumbnails, at once", "/thumbnails", urgent="on")
    print(f"   the result: {len(found['result'])} pictures")
    executor.shutdown()
    cpu.shutdown()


def show(what: str, path: str, stop_after: float = math.inf, **form: t.Any) -> t.Any:
    """Post a form and ask for its task as the page does; print what is new."""
    start, client, shown = time.perf_counter(), app.test_client(), ""
    task = client.post(path, data=form, content_type="multipart/form-data").json
    print(f"\n * {what}: {task['title']}")
    while True:
        found, passed = status(task["key"]), time.perf_counter() - start
        share = (
            f" {found['fraction']:.0%} {found['message']}" if "message" in found else ""
        )
        if shown != (shown := found["state"] + share):
            print(f"   {passed * 1000:5.0f} ms  {shown}")
        if found["ended"]:
            return found
        if passed > stop_after:
            cancel(task["key"])
        wait([future_of(task["key"])], timeout=0.1)


def main() -> None:
    """Serve the page, or run the demo."""
    parser = argparse.ArgumentParser(description="The Flask-Executor example.")
    parser.add_argument("--demo", action="store_true", help="do all four once, here")
    parser.add_argument("--port", type=int, default=5000, help="of the page")
    options = parser.parse_args()
    if options.demo:
        demo()
    else:
        print(f"The page is at http://127.0.0.1:{options.port} (Ctrl+C ends it)")
        app.run(port=options.port)


if __name__ == "__main__":
    main()
