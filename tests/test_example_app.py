"""The example: its four uses, progress, cancelling and priorities, what bad input gets,
the terminal and the server.
"""

from __future__ import annotations

import base64
import io
import signal
import smtplib
import struct
import subprocess
import sys
import threading
import tracemalloc
import typing as t
import zlib
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import request
from flask.testing import FlaskClient
from limits import LIMIT
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

import example_app
from flask_executor import Task, task_started, task_submitted

SCRIPT = Path(example_app.__file__)


@pytest.fixture(autouse=True)
def executors() -> t.Iterator[None]:
    """Anew for each test: a process pool has minders, which a test must not leave."""
    for executor in (example_app.executor, example_app.cpu):
        executor.init_app(example_app.app)
    yield
    for executor in (example_app.executor, example_app.cpu):
        executor.shutdown()


@pytest.fixture
def client() -> FlaskClient:
    return example_app.app.test_client()


def upload(client: FlaskClient, content: bytes, name: str = "a.csv") -> t.Any:
    # Encoded here: what the client encodes itself it may leave in an open file.
    values = {"table": FileStorage(io.BytesIO(content), name)}
    boundary, body = encode_multipart(values)
    return client.post(
        "/summary", data=body, content_type=f"multipart/form-data; boundary={boundary}"
    )


def outcome(client: FlaskClient, response: t.Any) -> t.Any:
    """What the page is told once the task has ended."""
    assert response.status_code == 202, response.get_json()
    key = response.get_json()["key"]
    wait([example_app.future_of(key)], LIMIT)
    return client.get(f"/tasks/{key}").get_json()


def task_of(response: t.Any) -> Task:
    """The task behind an answer."""
    return t.cast(Task, example_app.future_of(response.get_json()["key"]).task)


@contextmanager
def heard(signal: t.Any, job: t.Any) -> t.Iterator[tuple[list[Task], threading.Event]]:
    """The tasks of a job for which a signal is sent, and an event set by the first."""
    tasks: list[Task] = []
    first = threading.Event()

    def note(app: object, task: Task, **facts: object) -> None:
        if task.name.endswith(f".{job.__name__}"):
            tasks.append(task)
            first.set()

    with signal.connected_to(note, example_app.app):
        yield tasks, first


@pytest.fixture
def half_way(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> tuple[list[str], threading.Event]:
    """A summary stops at the cell ``150`` until the gate opens; the cells so far, and
    an event set there.
    """
    cells: list[str] = []
    reached = threading.Event()

    def number_in(cell: str) -> float:
        cells.append(cell)
        if cell == "150":
            reached.set()
            assert gate.wait(LIMIT)
        return float(cell)

    monkeypatch.setattr(example_app, "number_in", number_in)
    return cells, reached


COUNTED = b"n\n" + b"".join(b"%d\n" % n for n in range(50_000))


def test_sign_up(client: FlaskClient) -> None:
    """The e-mail arrives by SMTP, with a link that the request's host is in."""
    example_app.inbox.clear()
    answer = client.post("/sign-up", data={"address": "ada@example.org"})
    assert answer.get_json()["title"] == "ada@example.org"
    ended = outcome(client, answer)
    assert ended["state"] == "succeeded"
    assert ended["result"].startswith("sent through 127.0.0.1:")
    (mail,) = client.get("/inbox").get_json()
    assert (mail["to"], mail["subject"]) == ("ada@example.org", "Please confirm")
    assert "http://localhost/?confirmed=ada@example.org" in mail["text"]


@pytest.mark.parametrize(
    "address", ["", "ada", "a b@example.org", "a@b\nBcc: all@example.org", "@"]
)
def test_bad_address(client: FlaskClient, address: str) -> None:
    """What is no address is refused, with the reason."""
    answer = client.post("/sign-up", data={"address": address})
    assert answer.status_code == 400
    assert answer.get_json()["error"] == f"{address!r} is no e-mail address."


def test_mail_server_that_is_not_there(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail server that refuses makes a failed task, with the error as it is."""
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1:1")
    ended = outcome(client, client.post("/sign-up", data={"address": "a@b"}))
    assert ended["state"] == "failed"
    assert "refused" in ended["error"]


def test_mail_server_that_refuses(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an SMTP server answers is what the page shows."""

    async def refuse(self: t.Any, *args: t.Any) -> str:
        return "552 The mailbox is full"

    monkeypatch.setattr(example_app.Inbox, "handle_DATA", refuse)
    response = client.post("/sign-up", data={"address": "a@b"})
    ended = outcome(client, response)
    assert ended["state"] == "failed"
    assert "The mailbox is full" in ended["error"]
    future = example_app.future_of(response.get_json()["key"])
    assert isinstance(future.exception(), smtplib.SMTPDataError)


def test_summary(client: FlaskClient) -> None:
    """Columns of numbers are summarised; text, gaps and short rows do not count."""
    table = b"\xef\xbb\xbfname,price,\r\nx,1,5\r\n\r\ny,,oops\r\nz\r\nw,4.5,nan\r\n"
    ended = outcome(client, upload(client, table))
    assert ended["state"] == "succeeded"
    price, unnamed = ended["result"]["columns"]
    assert ended["result"]["rows"] == 4
    figures = {"name": "price", "count": 2, "mean": 2.75, "min": 1.0, "max": 4.5}
    assert {name: price[name] for name in figures} == figures
    assert (unnamed["name"], unnamed["count"]) == ("(no name)", 1)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(client: FlaskClient, separator: str) -> None:
    """Cells may be separated as spreadsheets do it; the first line tells."""
    table = separator.join("ab") + "\n" + separator.join("12") + "\n"
    ended = outcome(client, upload(client, table.encode()))
    assert [column["mean"] for column in ended["result"]["columns"]] == [1, 2]


def test_progress_of_a_summary(
    client: FlaskClient,
    gate: threading.Event,
    half_way: tuple[list[str], threading.Event],
) -> None:
    """A summary tells which share of the bytes it has read, and how many lines."""
    answer = upload(client, COUNTED)
    assert half_way[1].wait(LIMIT)
    found = example_app.status(answer.get_json()["key"])
    gate.set()
    assert (found["state"], found["ended"]) == ("running", False)
    assert found["message"] == "100 lines"
    assert 0 < found["fraction"] < 0.1
    ended = outcome(client, answer)
    assert (ended["state"], ended["ended"]) == ("succeeded", True)
    assert ended["fraction"] == 1


def test_cancelling_a_running_summary(
    client: FlaskClient,
    gate: threading.Event,
    half_way: tuple[list[str], threading.Event],
) -> None:
    """A summary that is cancelled while it runs reads no further than it has to."""
    answer = upload(client, COUNTED)
    assert half_way[1].wait(LIMIT)
    asked = client.post(f"/tasks/{answer.get_json()['key']}/cancel").get_json()
    assert (asked["state"], asked["ended"]) == ("stopping", False)
    gate.set()
    ended = outcome(client, answer)
    assert (ended["state"], ended["ended"]) == ("cancelled", True)
    assert "result" not in ended
    assert "error" not in ended
    assert len(half_way[0]) < 300


def test_cancelling_what_waits(client: FlaskClient, gate: threading.Event) -> None:
    """A task that waits for a worker is cancelled at once, and never runs."""
    blocking = [example_app.executor.submit(gate.wait, LIMIT) for _ in range(2)]
    answer = client.post("/sign-up", data={"address": "never@example.org"})
    found = client.post(f"/tasks/{answer.get_json()['key']}/cancel").get_json()
    assert (found["state"], found["ended"]) == ("cancelled", True)
    gate.set()
    assert all(future.result(LIMIT) for future in blocking)
    assert task_of(answer).started_at is None


def test_cancelling_too_late(client: FlaskClient) -> None:
    """Who cancels a task that has ended changes nothing."""
    answer = upload(client, b"a\n1\n")
    assert outcome(client, answer)["state"] == "succeeded"
    found = client.post(f"/tasks/{answer.get_json()['key']}/cancel").get_json()
    assert (found["state"], found["result"]["rows"]) == ("succeeded", 1)


def test_urgent_goes_first(client: FlaskClient, gate: threading.Event) -> None:
    """What is urgent overtakes what came before it and waits."""
    first = threading.Event()
    for event in (gate, first):
        example_app.executor.submit(event.wait, LIMIT)
    plain = client.post("/sign-up", data={"address": "a@b"})
    urgent = client.post("/sign-up", data={"address": "c@d", "urgent": "on"})
    assert [answer.get_json()["urgent"] for answer in (plain, urgent)] == [False, True]
    first.set()  # one of the two threads has to run both
    assert [outcome(client, one)["state"] for one in (plain, urgent)] == (
        ["succeeded"] * 2
    )
    ended, began = task_of(urgent).finished_at, task_of(plain).started_at
    assert ended is not None
    assert began is not None
    assert ended <= began


@pytest.mark.parametrize(
    "numbers",
    [
        [5],
        [0, 0, 0],
        [1, -1],
        [*range(100)],
        [1e-12, 1e12, -1e12],
        [3, 2, 1, 0, -50],
        [1e299, -1e299],
    ],
)
def test_chart(numbers: list[float]) -> None:
    """Each number is in one bin, from the lowest to the highest, in order."""
    column = example_app.Column("n")
    for number in numbers:
        column.add(repr(number))
    chart = column.summary()["chart"]
    assert sum(chart) == len(numbers)
    assert chart[0] and chart[-1]
    assert len(chart) <= example_app.Column.BINS


def test_chart_shows_the_shape() -> None:
    """Where the numbers are many the bins are high."""
    column = example_app.Column("n")
    for number in [*range(64)] * 2 + [*range(32, 64)] * 10:
        column.add(str(number))
    chart = column.summary()["chart"]
    half = len(chart) // 2
    assert sum(chart[half:]) > 4 * sum(chart[:half])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "The file is empty: its first line must name the columns."),
        (b"a,b\n", "No column holds numbers: 0 rows were read."),
        (b"a,b\nx,y\n", "No column holds numbers: 1 rows were read."),
        (b"a\n\xff\xfe\n", "This is no text in UTF-8, so it is no CSV file."),
        (b"a\n" + b"1" * 200_000, "This is no CSV file: field larger than field"),
        (b"a\n" + b"1," * 600_000, "A line is longer than 1,000,000 characters."),
    ],
    ids=["empty", "no rows", "no numbers", "not UTF-8", "long field", "long line"],
)
def test_bad_file(client: FlaskClient, content: bytes, error: str) -> None:
    """What cannot be summarised makes a failed task that says why."""
    ended = outcome(client, upload(client, content))
    assert ended["state"] == "failed"
    assert ended["error"].startswith(error)


@pytest.mark.parametrize("data", [{}, {"table": (io.BytesIO(b"1"), "")}])
def test_no_file(client: FlaskClient, data: dict[str, t.Any]) -> None:
    """Without a file nothing is submitted."""
    answer = client.post("/summary", data=data)
    assert (answer.status_code, answer.get_json()) == (
        *(400, {"error": "Choose a CSV file first."}),
    )


def test_a_large_file_in_constant_memory() -> None:
    """No part of the way from the request to the summary holds the file: the memory
    stays far below its size.
    """
    table = b"number,rest\n" + b"".join(b"%d,%d\n" % (n, n % 7) for n in range(80_000))
    values = {"table": FileStorage(io.BytesIO(table), "large.csv")}
    boundary, body = encode_multipart(values)
    form = f"multipart/form-data; boundary={boundary}"
    with example_app.app.test_request_context(
        method="POST", data=body, content_type=form
    ):
        assert request.files["table"].filename == "large.csv"  # as the view asks
        tracemalloc.start()
        try:
            found = example_app.summarise.submit().result(LIMIT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found["rows"] == 80_000
    assert peak < len(table) / 2


def test_fibonacci(client: FlaskClient) -> None:
    """The number comes from a worker process."""
    ended = outcome(client, client.post("/fibonacci", data={"n": "15"}))
    assert ended == {"ended": True, "state": "succeeded", "result": 610}


def test_cancelling_a_number(client: FlaskClient) -> None:
    """A worker process that computes stops when asked to, and is there for the next."""
    with heard(task_started, example_app.fibonacci) as (_, begun):
        answer = client.post("/fibonacci", data={"n": "35"})
        assert begun.wait(LIMIT)
    client.post(f"/tasks/{answer.get_json()['key']}/cancel")
    assert outcome(client, answer) == {"ended": True, "state": "cancelled"}
    ended = outcome(client, client.post("/fibonacci", data={"n": "21"}))
    assert ended["result"] == 10946


def test_thumbnails(client: FlaskClient) -> None:
    """A group draws twenty different pictures, each a sound PNG file."""
    ended = outcome(client, client.post("/thumbnails"))
    assert (ended["state"], ended["fraction"]) == ("succeeded", 1)
    assert len(set(ended["result"])) == example_app.THUMBNAILS == 20
    for source in ended["result"]:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        parts = dict(parts_of(base64.b64decode(data)))
        assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
        width, height = struct.unpack(">2I", parts[b"IHDR"][:8])
        assert len(zlib.decompress(parts[b"IDAT"])) == (width + 1) * height


def parts_of(picture: bytes) -> t.Iterator[tuple[bytes, bytes]]:
    """The name and content of each part of a PNG file, whose checksums are right."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    position = 8
    while position < len(picture):
        (size,) = struct.unpack_from(">I", picture, position)
        part = picture[position + 4 : position + 8 + size]
        (checksum,) = struct.unpack_from(">I", picture, position + 8 + size)
        assert checksum == zlib.crc32(part)
        yield part[:4], part[4:]
        position += 12 + size


def test_urgent_thumbnails(client: FlaskClient) -> None:
    """Where a group is urgent, each of its members is."""
    with heard(task_submitted, example_app.thumbnail) as (members, _):
        outcome(client, client.post("/thumbnails", data={"urgent": "on"}))
    assert [task.options.priority for task in members] == [example_app.URGENT] * 20


def test_cancelling_thumbnails(client: FlaskClient) -> None:
    """With the group its members are cancelled: those that wait, and those that run."""
    with (
        heard(task_submitted, example_app.thumbnail) as (members, _),
        heard(task_started, example_app.thumbnail) as (_, begun),
    ):
        answer = client.post("/thumbnails")
        assert begun.wait(LIMIT)
        client.post(f"/tasks/{answer.get_json()['key']}/cancel")
        ended = outcome(client, answer)
    assert (ended["state"], ended["ended"]) == ("cancelled", True)
    states = {task.state for task in members}
    assert "cancelled" in states <= {"cancelled", "succeeded"}


@pytest.mark.parametrize("n", ["", "x", "-1", "36", "2.5"])
def test_bad_number(client: FlaskClient, n: str) -> None:
    """What is out of range is refused, with the range."""
    answer = client.post("/fibonacci", data={"n": n})
    assert answer.status_code == 400
    assert answer.get_json()["error"] == "n must be a whole number from 0 to 35."


@pytest.mark.parametrize("method", ["get", "post"])
def test_unknown_task(client: FlaskClient, method: str) -> None:
    """A key that no future has is not found, nor cancelled."""
    path = "/tasks/nobody" if method == "get" else "/tasks/nobody/cancel"
    answer = client.open(path, method=method)
    assert answer.status_code == 404
    assert "'nobody'" in answer.get_json()["error"]


def test_demo() -> None:
    """``--demo`` does all four, cancels one, prints what happened and ends well."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--demo"],
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        *("'Please confirm' for ada@example.org", "100% 200,000 lines"),
        *("count 200000", "46368", "ms  cancelled", "20 pictures"),
    ):
        assert word in done.stdout


def test_serving_ends(tmp_path: Path) -> None:
    """The served page ends on Ctrl+C."""
    with subprocess.Popen(
        [sys.executable, "-u", str(SCRIPT), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "Press CTRL+C" in line:
                    break
            server.send_signal(signal.SIGINT)
            assert server.wait(LIMIT) in (0, -signal.SIGINT)
        finally:
            server.kill()
