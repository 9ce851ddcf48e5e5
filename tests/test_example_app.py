"""The example: its four uses, progress, cancelling, priorities, whose tasks they are,
what bad input gets, with and without JavaScript.
"""

from __future__ import annotations

import io
import os
import re
import smtplib
import struct
import threading
import tracemalloc
import typing as t
import zlib
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from example_server import FOLDER
from flask import request
from flask.testing import FlaskClient
from limits import LIMIT
from scripts import workers_not_measured
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

import example_app
import example_work
from flask_executor import (
    Task,
    TaskFuture,
    TaskRecord,
    task_started,
    task_submitted,
)

JSON = {"Accept": "application/json"}
assert example_app.app.instance_path == FOLDER.name


@pytest.fixture(autouse=True)
def executors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    """Anew for each test: a process pool has threads, which a test must not leave."""
    monkeypatch.setattr(example_app.app, "instance_path", str(tmp_path))
    for executor in (example_app.executor, example_app.cpu):
        executor.init_app(example_app.app)
    with workers_not_measured():
        yield
    with example_app.app.app_context():
        for executor in (example_app.executor, example_app.cpu):
            executor.shutdown()
            t.cast(t.Any, executor)._state().dispatcher.leave()


@pytest.fixture
def client() -> FlaskClient:
    return example_app.app.test_client()


def send(client: FlaskClient, path: str, **form: t.Any) -> str:
    """Submit a form as the page's script does; the key of its task."""
    answer = client.post(path, data=form, headers=JSON)
    assert answer.status_code == 202, answer.get_json()
    return t.cast(str, answer.get_json()["tasks"][0]["key"])


def upload(client: FlaskClient, content: bytes, name: str = "a.csv") -> str:
    # Encoded here: what the client encodes itself it may leave in an open file.
    values = {"table": FileStorage(io.BytesIO(content), name)}
    boundary, body = encode_multipart(values)
    form = f"multipart/form-data; boundary={boundary}"
    answer = client.post("/summary", data=body, content_type=form, headers=JSON)
    return t.cast(str, answer.get_json()["tasks"][0]["key"])


def record_of(key: str) -> TaskRecord:
    """What the store knows of the task with a key, of any visitor."""
    with example_app.app.app_context():
        tasks = example_app.executor.tasks() + example_app.cpu.tasks()
    (found,) = (task for task in tasks if t.cast(t.Any, task.key or "  ")[1] == key)
    return found


def future_of(key: str) -> TaskFuture[t.Any]:
    with example_app.app.app_context():
        return example_app.future_of(record_of(key))


def status(client: FlaskClient, key: str) -> dict[str, t.Any]:
    """What the page is told of a task."""
    tasks = client.get("/status").get_json()["tasks"]
    return next(task for task in tasks if task["key"] == key)


def outcome(client: FlaskClient, key: str) -> dict[str, t.Any]:
    """What is known of a task, with its result, once it has ended."""
    wait([future_of(key)], LIMIT)
    with example_app.app.app_context():
        return {**status(client, key), **example_app.result_of(record_of(key))}


def cancel(client: FlaskClient, key: str) -> dict[str, t.Any]:
    answer = client.post(f"/tasks/{key}/cancel", headers=JSON)
    assert answer.status_code == 202
    return status(client, key)


@contextmanager
def heard(signal: t.Any, name: str) -> t.Iterator[tuple[list[Task], threading.Event]]:
    """The tasks of a job for which a signal is sent, and an event set by the first."""
    tasks: list[Task] = []
    first = threading.Event()

    def note(app: object, task: Task, **facts: object) -> None:
        if task.name.rpartition(".")[2] == name:
            tasks.append(task)
            first.set()

    with signal.connected_to(note, example_app.app):
        yield tasks, first


@contextmanager
def busy_threads(gate: threading.Event) -> t.Iterator[None]:
    """Both threads wait for the gate, which is opened at the end."""
    begun = threading.Barrier(3)

    def block() -> None:
        begun.wait(LIMIT)
        assert gate.wait(LIMIT)

    blocking = [example_app.executor.submit(block) for _ in range(2)]
    begun.wait(LIMIT)
    try:
        yield
    finally:
        gate.set()
    wait(blocking, LIMIT)


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

    monkeypatch.setattr(example_work, "number_in", number_in)
    return cells, reached


COUNTED = b"n\n" + b"".join(b"%d\n" % n for n in range(50_000))


def test_sign_up(client: FlaskClient) -> None:
    """The e-mail arrives by SMTP, with a link that the request's host is in."""
    ended = outcome(client, send(client, "/sign-up", address="ada@example.org"))
    assert (ended["title"], ended["state"]) == ("ada@example.org", "succeeded")
    assert ended["result"].startswith("127.0.0.1:")
    mail = ended["mail"]
    assert (mail["To"], mail["Subject"]) == ("ada@example.org", "Please confirm")
    assert "http://localhost/?confirmed=ada@example.org" in mail.get_content()
    html = client.get("/?confirmed=ada@example.org").text
    assert "Thank you: ada@example.org is confirmed." in html


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("", "Enter an e-mail address."),
        *(
            (bad, f"{bad!r} is not an e-mail address. It needs one @.")
            for bad in ("ada", "a b@example.org", "a@b\nBcc: all@example.org", "@")
        ),
    ],
)
def test_bad_address(client: FlaskClient, address: str, error: str) -> None:
    """What is not an address is refused in a sentence, with the field it is about."""
    answer = client.post("/sign-up", data={"address": address}, headers=JSON)
    assert answer.status_code == 400
    assert answer.get_json() == {"error": error, "field": "address"}


def test_mail_server_that_is_not_there(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail server that refuses makes a failed task, with the error as it is."""
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1:1")
    ended = outcome(client, send(client, "/sign-up", address="a@b"))
    assert ended["state"] == "failed"
    assert "refused" in ended["error"]


def test_mail_server_that_refuses(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an SMTP server answers is what the page shows."""

    async def refuse(self: t.Any, *args: t.Any) -> str:
        return "552 The mailbox is full"

    monkeypatch.setattr(example_app.Inbox, "handle_DATA", refuse)
    key = send(client, "/sign-up", address="a@b")
    assert "The mailbox is full" in outcome(client, key)["error"]
    assert "The mailbox is full" in client.get("/").text
    assert isinstance(future_of(key).exception(), smtplib.SMTPDataError)


def test_dashboard(client: FlaskClient) -> None:
    """The page links to it on this machine; for all others it is not there."""
    link = "/executor/"
    assert f'href="{link}"' in client.get("/").text
    assert "Running now" in client.get(link).text
    assert "Running now" in client.get("/executor/in/cpu/").text
    for environ in ({"REMOTE_ADDR": "10.0.0.9"}, {"HTTP_HOST": "evil.example"}):
        assert link not in client.get("/", environ_overrides=environ).text
        assert client.get(link, environ_overrides=environ).status_code == 404


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


def test_sample(client: FlaskClient) -> None:
    """The sample is summarised as an upload is, with no file chosen."""
    ended = outcome(client, send(client, "/summary", sample="yes"))
    assert (ended["title"], ended["state"]) == ("visitors.csv", "succeeded")
    assert ended["result"]["rows"] == 400_000
    names = [column["name"] for column in ended["result"]["columns"]]
    assert names == ["day", "visitors", "minutes"]


def test_progress_of_a_summary(
    client: FlaskClient,
    gate: threading.Event,
    half_way: tuple[list[str], threading.Event],
) -> None:
    """A summary reports the share of the bytes it has read, and how many lines."""
    key = upload(client, COUNTED)
    assert half_way[1].wait(LIMIT)
    # That it runs, and how far it is, is written beside the run.
    wait_until(lambda: status(client, key)["fraction"] is not None)
    found = status(client, key)
    gate.set()
    assert (found["state"], found["ended"]) == ("running", False)
    assert re.fullmatch(r"Running, \d+ s", found["label"])
    # What comes within a fifth of a second is shown with the next report.
    assert found["message"] in ("0 lines", "100 lines")
    assert 0 <= found["fraction"] < 0.1
    ended = outcome(client, key)
    assert (ended["state"], ended["ended"], ended["fraction"]) == ("succeeded", True, 1)
    assert re.fullmatch(r"Done in [\d.]+ m?s", ended["label"])


def test_cancelling_a_running_summary(
    client: FlaskClient,
    gate: threading.Event,
    half_way: tuple[list[str], threading.Event],
) -> None:
    """A summary that is cancelled while it runs reads no further than it has to."""
    key = upload(client, COUNTED)
    assert half_way[1].wait(LIMIT)
    asked = cancel(client, key)
    assert (asked["state"], asked["ended"]) == ("stopping", False)
    gate.set()
    ended = outcome(client, key)
    assert (ended["state"], ended["ended"]) == ("cancelled", True)
    assert re.fullmatch(r"Cancelled after [\d.]+ m?s", ended["label"])
    assert "result" not in ended
    assert "error" not in ended
    assert len(half_way[0]) < 300


def test_cancelling_what_waits(client: FlaskClient, gate: threading.Event) -> None:
    """A task that waits for a thread says so, is cancelled at once, and never runs."""
    with busy_threads(gate):
        key = send(client, "/sign-up", address="never@example.org")
        assert status(client, key)["label"] == "Waiting for a thread"
        found = cancel(client, key)
    assert (found["state"], found["label"]) == ("cancelled", "Cancelled")
    assert record_of(key).started_at is None


def test_cancelling_too_late(client: FlaskClient) -> None:
    """Cancelling a task that has ended changes nothing."""
    key = upload(client, b"a\n1\n")
    assert outcome(client, key)["state"] == "succeeded"
    assert cancel(client, key)["state"] == "succeeded"


def test_urgent_goes_first(client: FlaskClient, gate: threading.Event) -> None:
    """What is urgent overtakes what came before it and waits."""
    first = threading.Event()
    for event in (gate, first):
        example_app.executor.submit(event.wait, LIMIT)
    plain = send(client, "/sign-up", address="a@b")
    urgent = send(client, "/sign-up", address="c@d", urgent="on")
    assert [status(client, key)["urgent"] for key in (plain, urgent)] == [False, True]
    first.set()  # one of the two threads has to run both
    assert [outcome(client, one)["state"] for one in (plain, urgent)] == (
        ["succeeded"] * 2
    )
    ended, began = record_of(urgent).started_at, record_of(plain).started_at
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
    column = example_work.Column("n")
    for number in numbers:
        column.add(repr(number))
    chart = column.summary()["chart"]
    assert sum(chart) == len(numbers)
    assert chart[0] and chart[-1]
    assert len(chart) <= example_work.Column.BINS


def test_chart_shows_the_shape() -> None:
    """Where the numbers are many the bins are high."""
    column = example_work.Column("n")
    for number in [*range(64)] * 2 + [*range(32, 64)] * 10:
        column.add(str(number))
    chart = column.summary()["chart"]
    half = len(chart) // 2
    assert sum(chart[half:]) > 4 * sum(chart[:half])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "The file is empty: its first line must name the columns."),
        (b"a,b\n", "No column holds numbers. Rows read: 0."),
        (b"a,b\nx,y\n", "No column holds numbers. Rows read: 1."),
        (b"a\n\xff\xfe\n", "This is not a CSV file: it is not text in UTF-8."),
        (b"a\n" + b"1" * 200_000, "This is not a CSV file: field larger than field"),
        (b"a\n" + b"1," * 600_000, "A line is longer than 1,000,000 characters."),
    ],
    ids=["empty", "no rows", "no numbers", "not UTF-8", "long field", "long line"],
)
def test_bad_file(client: FlaskClient, content: bytes, error: str) -> None:
    """What cannot be summarised makes a failed task that says why."""
    ended = outcome(client, upload(client, content))
    assert ended["state"] == "failed"
    assert re.fullmatch(r"Failed after [\d.]+ m?s", ended["label"])
    assert ended["error"].startswith(error)


@pytest.mark.parametrize("data", [{}, {"table": (io.BytesIO(b"1"), "")}])
def test_no_file(client: FlaskClient, data: dict[str, t.Any]) -> None:
    """Without a file nothing is submitted."""
    answer = client.post("/summary", data=data, headers=JSON)
    assert (answer.status_code, answer.get_json()) == (
        *(400, {"error": "Choose a CSV file, or use the sample.", "field": "table"}),
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
        file = request.files["table"]  # parsed here, as in the view
        small = FileStorage(io.BytesIO(b"a\n1\n"))
        example_app.summarise.submit(example_app.saved(small)).result(LIMIT)
        tracemalloc.start()
        try:
            upload = example_app.saved(file)
            found = example_app.summarise.submit(upload).result(LIMIT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found["rows"] == 80_000
    assert peak < len(table) / 2


def test_fibonacci(client: FlaskClient) -> None:
    """The number comes from a worker process."""
    ended = outcome(client, send(client, "/fibonacci", n="15"))
    assert (ended["state"], ended["result"]) == ("succeeded", 610)
    assert ended["fraction"] is None


def test_cancelling_a_number(client: FlaskClient) -> None:
    """A worker process that computes stops when asked to, and is there for the next."""
    with heard(task_started, "fibonacci") as (_, begun):
        key = send(client, "/fibonacci", n="35")
        assert begun.wait(LIMIT)
    cancel(client, key)
    assert outcome(client, key)["state"] == "cancelled"
    assert outcome(client, send(client, "/fibonacci", n="21"))["result"] == 10946


def test_thumbnails(client: FlaskClient) -> None:
    """A group draws twenty different pictures, each a sound PNG file."""
    key = send(client, "/thumbnails")
    ended = outcome(client, key)
    assert (ended["state"], ended["fraction"]) == ("succeeded", 1)
    paths = re.findall(r'src="(.+?)"', client.get(f"/tasks/{key}").get_json()["html"])
    pictures = [client.get(path) for path in paths]
    assert {picture.mimetype for picture in pictures} == {"image/png"}
    assert len({picture.data for picture in pictures}) == example_app.THUMBNAILS == 20
    for picture in pictures:
        parts = dict(parts_of(picture.data))
        assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
        width, height = struct.unpack(">2I", parts[b"IHDR"][:8])
        assert len(zlib.decompress(parts[b"IDAT"])) == (width + 1) * height
    assert client.get(f"/tasks/{key}/20.png").status_code == 404


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
    with heard(task_submitted, "thumbnail") as (members, first):
        key = send(client, "/thumbnails", urgent="on")
        assert first.wait(LIMIT)
        cancel(client, key)
        outcome(client, key)
    assert {task.options.priority for task in members} == {example_app.URGENT}


def test_cancelling_thumbnails(client: FlaskClient) -> None:
    """With the group its members are cancelled: those that wait, and those that run."""
    with (
        heard(task_submitted, "thumbnail") as (members, _),
        heard(task_started, "thumbnail") as (_, begun),
    ):
        key = send(client, "/thumbnails")
        assert begun.wait(LIMIT)
        cancel(client, key)
        ended = outcome(client, key)
    assert (ended["state"], ended["ended"]) == ("cancelled", True)
    states = {task.state for task in members}
    assert "cancelled" in states <= {"cancelled", "succeeded"}


def test_a_group_that_waits_says_so(client: FlaskClient) -> None:
    """A group waits for a worker process as long as none of its members runs; the
    strip counts who runs and who waits.
    """
    with heard(task_started, "fibonacci") as (numbers, _):
        ahead = [send(client, "/fibonacci", n="35") for _ in range(2)]
        with heard(task_submitted, "thumbnail") as (members, _):
            key = send(client, "/thumbnails")
            wait_until(lambda: (len(numbers), len(members)) == (2, 20))
    assert status(client, key)["state"] == "running"
    assert status(client, key)["label"] == "Waiting for a worker process"
    wait_until(lambda: load_of(client) == (0, 2, 20))
    with heard(task_started, "thumbnail") as (_, begun):
        cancel(client, ahead[0])
        assert begun.wait(LIMIT)
    wait_until(lambda: status(client, key)["label"].startswith("Running, "))
    for one in (key, *ahead):
        cancel(client, one)
        outcome(client, one)
    wait_until(lambda: load_of(client) == (0, 0, 0))


def load_of(client: FlaskClient) -> tuple[int, int, int]:
    """How many threads and worker processes are busy, and how many tasks wait."""
    load = client.get("/status").get_json()["load"]
    return load["thread"]["busy"], load["worker process"]["busy"], load["waiting"]


def wait_until(condition: t.Callable[[], bool]) -> None:
    """Return once the condition holds; it changes on other threads."""
    pause = threading.Event()
    for _ in range(LIMIT * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("It did not come true")


@pytest.mark.parametrize("n", ["", "x", "-1", "36", "2.5"])
def test_bad_number(client: FlaskClient, n: str) -> None:
    """What is out of range is refused, with the range."""
    answer = client.post("/fibonacci", data={"n": n}, headers=JSON)
    assert answer.status_code == 400
    assert answer.get_json() == {
        "error": "Enter a whole number from 0 to 35.",
        "field": "n",
    }


def test_all_four(client: FlaskClient) -> None:
    """One click starts all four, and the number is urgent."""
    answer = client.post("/all", headers=JSON).get_json()
    jobs = {task["job"]: task["urgent"] for task in answer["tasks"]}
    names = ("send_confirmation", "summarise", "thumbnails", "fibonacci")
    assert jobs == {name: name == "fibonacci" for name in names}
    for task in answer["tasks"]:
        cancel(client, task["key"])
        assert outcome(client, task["key"])["state"] in ("cancelled", "succeeded")


def test_the_page_shows_its_own_code(client: FlaskClient) -> None:
    """Behind each card are the lines of this very file that do its work."""
    html = client.get("/").text
    for line in ("@cpu.job", "def fibonacci(n: int)", "group.map(thumbnail,"):
        assert line in html
    assert "async def thumbnails" in example_app.code_of(["thumbnails"])


# Visitors.


def test_tasks_are_on_the_server(client: FlaskClient, gate: threading.Event) -> None:
    """A page that is loaded again shows the tasks again, and can cancel them. Its
    cookie outlives the browser, is out of reach for scripts and not sent by other
    sites.
    """
    with busy_threads(gate):
        answer = client.post("/sign-up", data={"address": "a@b"}, headers=JSON)
        cookie = answer.headers["Set-Cookie"]
        assert all(word in cookie for word in ("Expires=", "HttpOnly", "SameSite=Lax"))
        key = answer.get_json()["tasks"][0]["key"]
        html = client.get("/").text
        assert html.count(f'data-key="{key}"') == 1
        assert "Waiting for a thread" in html
        assert f'action="/tasks/{key}/cancel"' in html
        assert cancel(client, key)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/tasks/{}", "GET"),
        ("/tasks/{}/cancel", "POST"),
        ("/tasks/{}/0.png", "GET"),
    ],
)
def test_nobody_elses_tasks(client: FlaskClient, path: str, method: str) -> None:
    """A visitor neither sees nor cancels the tasks of another, even with their keys."""
    with heard(task_started, "fibonacci") as (_, begun):
        key = send(client, "/fibonacci", n="35")
        assert begun.wait(LIMIT)
    other = example_app.app.test_client()
    assert other.get("/status").get_json()["tasks"] == []
    assert key not in other.get("/").text
    answer = other.open(path.format(key), method=method, headers=JSON)
    assert answer.status_code == 404
    assert repr(key) in answer.get_json()["error"]
    assert not record_of(key).cancel_requested
    cancel(client, key)
    assert outcome(client, key)["state"] == "cancelled"


@pytest.mark.parametrize("method", ["get", "post"])
def test_unknown_task(client: FlaskClient, method: str) -> None:
    """A key that no task has is not found, nor cancelled."""
    path = "/tasks/nobody" if method == "get" else "/tasks/nobody/cancel"
    answer = client.open(path, method=method, headers=JSON)
    assert answer.status_code == 404
    assert (
        answer.get_json()["error"] == "There is no task 'nobody' here, or it is gone."
    )


def test_forgotten_task(client: FlaskClient) -> None:
    """A task that is no longer known is not on the page, and cannot be cancelled."""
    key = send(client, "/fibonacci", n="1")
    outcome(client, key)
    with example_app.app.app_context():
        example_app.cpu.futures.pop(record_of(key).key)
    assert client.get("/status").get_json()["tasks"] == []
    assert key not in client.get("/").text
    assert client.post(f"/tasks/{key}/cancel").status_code == 404


def test_a_page_shows_the_newest_tasks(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many tasks the page shows the newest ones, the newest first."""
    monkeypatch.setattr(example_app, "TASKS", 2)
    keys = [send(client, "/fibonacci", n=str(n)) for n in range(3)]
    tasks = client.get("/status").get_json()["tasks"]
    assert [task["key"] for task in tasks] == keys[:0:-1]


def test_nightly_job(client: FlaskClient) -> None:
    """The nightly job removes what is older than a day, and can be run at once."""
    old, new = (example_app.file_in("uploads", name) for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"a\n1\n")
    os.utime(old, (0, 0))
    with example_app.app.app_context():
        (nightly,) = example_app.executor.periodic
        assert (nightly.name, nightly.schedule) == ("clean_up", "0 3 * * * (UTC)")
    ended = outcome(client, send(client, "/clean-up"))
    assert (ended["state"], ended["result"]) == ("succeeded", "Removed 1 of 2 files")
    assert (old.exists(), new.exists()) == (False, True)
    assert "Removed 1 of 2 files" in client.get("/").text


def test_a_form_that_is_sent_twice_submits_once(client: FlaskClient) -> None:
    """A second click, or a second try, has the same key, and starts nothing new."""
    form = {"n": "3", "key": "a-random-key"}
    answers = [client.post("/fibonacci", data=form, headers=JSON) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [len(answer.get_json()["tasks"]) for answer in answers] == [1, 1]
    next_key = answers[0].get_json()["key"]
    client.post("/fibonacci", data={"n": "3", "key": next_key}, headers=JSON)
    assert len(client.get("/status").get_json()["tasks"]) == 2


def test_bad_key(client: FlaskClient) -> None:
    """A key that the page would not make is refused."""
    answer = client.post("/fibonacci", data={"n": "3", "key": "a/b"}, headers=JSON)
    assert answer.status_code == 400
    assert answer.get_json()["error"] == (
        "'a/b' is not a key of this page. Load the page again."
    )


# Without JavaScript.


def test_forms_without_javascript(client: FlaskClient) -> None:
    """A plain form is answered with the page, which lists the task."""
    html = client.get("/").text
    key = re.search(r'name="key" value="([\w-]+)"', html)
    assert key is not None
    answer = client.post("/fibonacci", data={"n": "7", "key": key[1]})
    assert (answer.status_code, answer.location) == (303, "/")
    name = f"{key[1]}-fibonacci"
    assert outcome(client, name)["result"] == 13
    page = client.get("/")
    assert f'data-key="{name}"' in page.text
    assert page.headers["Cache-Control"] == "no-store"
    answer = client.post(f"/tasks/{name}/cancel")
    assert (answer.status_code, answer.location) == (303, "/")


def test_errors_without_javascript(client: FlaskClient) -> None:
    """A plain form that is refused gets the page, with what was wrong beside its field
    and what was typed.
    """
    answer = client.post("/sign-up", data={"address": "<ada>"})
    assert answer.status_code == 400
    assert "&#39;&lt;ada&gt;&#39; is not an e-mail address." in answer.text
    assert (
        'value="&lt;ada&gt;" aria-describedby="address-problem" aria-invalid="true"'
        in (answer.text)
    )
    assert answer.text.count('aria-invalid="true"') == 1


def test_numbers_as_people_read_them() -> None:
    """Figures have thousands separators and four digits that count."""
    figures = {2.0: "2", 400000: "400,000", 4.92249: "4.922", 1000.52: "1,000.5"}
    assert {number: example_app.short(number) for number in figures} == figures
    assert example_app.short(-1e299) == "-1e+299"
