"""The example: its three uses, what bad input gets, the terminal and the server."""

from __future__ import annotations

import io
import signal
import smtplib
import subprocess
import sys
import tracemalloc
import typing as t
from pathlib import Path

import pytest
from conftest import LIMIT
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

import example_app

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
    example_app.future_of(key).exception(LIMIT)
    return client.get(f"/tasks/{key}").get_json()


def test_sign_up(client: FlaskClient) -> None:
    """The e-mail arrives by SMTP, with a link that the request's host is in."""
    example_app.inbox.clear()
    answer = client.post("/sign-up", data={"address": "ada@example.org"})
    assert answer.get_json()["title"] == "ada@example.org"
    ended = outcome(client, answer)
    assert ended["state"] == "done"
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
    assert ended["state"] == "done"
    price, unnamed = ended["result"]["columns"]
    assert ended["result"]["rows"] == 4
    figures = {"name": "price", "count": 2, "mean": 2.75, "min": 1.0, "max": 4.5}
    assert {name: price[name] for name in figures} == figures
    assert (unnamed["name"], unnamed["count"]) == ("(no name)", 1)


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
    """A file is not read as a whole: the memory stays far below its size."""
    rows = b"".join(b"%d,%d\n" % (n, n % 7) for n in range(100_000))
    content = io.BytesIO(b"number,rest\n" + rows)
    text = io.TextIOWrapper(content, "utf-8", newline="")
    tracemalloc.start()
    try:
        found = example_app.summary_of(example_app.csv.reader(example_app.lines(text)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["rows"] == 100_000
    assert peak < len(rows) / 10


def test_fibonacci(client: FlaskClient) -> None:
    """The number comes from a worker process."""
    ended = outcome(client, client.post("/fibonacci", data={"n": "15"}))
    assert ended == {"state": "done", "result": 610}


@pytest.mark.parametrize("n", ["", "x", "-1", "33", "2.5"])
def test_bad_number(client: FlaskClient, n: str) -> None:
    """What is out of range is refused, with the range."""
    answer = client.post("/fibonacci", data={"n": n})
    assert answer.status_code == 400
    assert answer.get_json()["error"] == "n must be a whole number from 0 to 32."


def test_unknown_task(client: FlaskClient) -> None:
    """A key that no future has is not found."""
    answer = client.get("/tasks/nobody")
    assert answer.status_code == 404
    assert "'nobody'" in answer.get_json()["error"]


def test_demo() -> None:
    """``--demo`` does all three, prints what happened and ends well."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--demo"],
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("'Please confirm' for ada@example.org", "count 100000", "46368"):
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
