"""Bodies and uploads: many readers, each at its own pace, whatever the view does."""

from __future__ import annotations

import csv
import errno
import gc
import gzip
import io
import os
import pickle
import tempfile
import threading
import typing as t
from pathlib import Path

import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import LIMIT
from werkzeug.datastructures import (
    FileStorage,
    Headers,
    ImmutableMultiDict,
    MultiDict,
)
from werkzeug.test import encode_multipart

from flask_executor import Executor
from flask_executor.contexts import uploads
from flask_executor.contexts.uploads import (
    Content,
    Reader,
    Upload,
    keep_uploads,
    open_uploads,
)

SMALL = b"name,age\r\nada,36\r\ngrace,85\r\n"
BIG = bytes(range(256)) * 2800
"""More than Werkzeug, and we, keep in memory."""


@pytest.fixture
def on_disk() -> t.Iterator[Content]:
    """Content that is in a file."""
    yield Content.rest_of(io.BytesIO(BIG))


def open_fds() -> int:
    if not Path("/proc/self/fd").exists():
        pytest.skip("nothing lists the open files here")
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def post(app: Flask, *contents: bytes, url: str = "/") -> t.Any:
    """Post a form with a name and files."""
    # Encoded here: the test client leaves the file open that it makes of a large body.
    data: t.Any = MultiDict({"name": "Ada"})
    for number, content in enumerate(contents):
        data.add("file", FileStorage(io.BytesIO(content), f"{number}.csv"))
    boundary, body = encode_multipart(data)
    kind = f"multipart/form-data; boundary={boundary}"
    return app.test_client().post(url, data=body, content_type=kind)


# Content and its readers.


@pytest.mark.parametrize("data", [b"", SMALL, BIG])
def test_content_is_opened_as_often_as_asked(data: bytes) -> None:
    """Each reader begins at the first byte, and has all of them."""
    content = Content.rest_of(io.BytesIO(data))
    with content.open() as one, content.open() as two:
        assert one.read(3) == data[:3]
        assert two.read() == data
        assert one.read() == data[3:]
    with content.open() as three:
        assert three.read() == data
    assert content.size == len(data)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(-1, 900_000)),
            st.tuples(st.just("readline"), st.integers(-1, 300)),
            st.tuples(st.just("seek"), st.integers(0, 900_000)),
            st.tuples(st.just("back"), st.integers(0, 716_800)),
            st.tuples(st.just("tell"), st.just(0)),
        ),
        max_size=12,
    )
)
def test_a_reader_is_a_file(steps: list[tuple[str, int]]) -> None:
    """Whatever one does to it, a reader answers as a file in memory does."""
    content = Content.rest_of(io.BytesIO(BIG))
    with content.open() as reader, io.BytesIO(BIG) as file:
        for verb, number in steps:
            answers = []
            for one in (reader, file):
                if verb == "back":
                    answers.append(one.seek(-number, io.SEEK_END))
                elif verb == "tell":
                    answers.append(one.tell())
                else:
                    answers.append(getattr(one, verb)(number))
            assert answers[0] == answers[1]


def test_a_reader_cannot_write_nor_go_before_the_start(on_disk: Content) -> None:
    """It is for reading, and a position below zero is an error, as in a file."""
    with on_disk.open() as reader:
        assert reader.readable() and reader.seekable() and not reader.writable()
        assert reader.seek(5) == 5
        assert reader.seek(-2, io.SEEK_CUR) == 3
        with pytest.raises(ValueError, match="negative seek position -1"):
            reader.seek(-1 - len(BIG), io.SEEK_END)
        with pytest.raises(io.UnsupportedOperation):
            reader.write(b"x")


def test_text_over_a_reader(on_disk: Content) -> None:
    """Lines, text and csv work over it."""
    lines = b"a,b\n" * 200_000
    content = Content.rest_of(io.BytesIO(lines))
    with content.open() as reader:
        assert sum(1 for _ in reader) == 200_000
    with io.TextIOWrapper(content.open(), "utf-8", newline="") as text:
        assert sum(len(row) for row in csv.reader(text)) == 400_000


@pytest.mark.parametrize("data", [SMALL, BIG])
def test_content_is_transferred_by_value(data: bytes) -> None:
    """Unpickled, it is the same bytes, and needs no file."""
    content = pickle.loads(pickle.dumps(Content.rest_of(io.BytesIO(data))))
    with content.open() as reader:
        assert reader.read() == data
    assert isinstance(content.open(), io.BytesIO)


def filled(file: t.Any, data: bytes) -> t.Any:
    file.write(data)
    return file


def spooled(data: bytes) -> t.Any:
    return filled(tempfile.SpooledTemporaryFile(500_000, "rb+"), data)


def on_a_file(data: bytes) -> t.Any:
    return filled(tempfile.TemporaryFile(), data)


def named(data: bytes) -> t.Any:
    return filled(tempfile.NamedTemporaryFile(), data)


def unbuffered(data: bytes) -> t.Any:
    return filled(tempfile.TemporaryFile(buffering=0), data)


def zipped(data: bytes) -> t.Any:
    handle, path = tempfile.mkstemp()
    os.write(handle, gzip.compress(data))
    os.close(handle)
    try:
        return gzip.GzipFile(path)
    finally:
        os.unlink(path)


def reader(data: bytes) -> t.Any:
    return Content.rest_of(io.BytesIO(data)).open()


@pytest.mark.parametrize("data", [b"", SMALL, BIG])
@pytest.mark.parametrize(
    "make",
    [
        *(io.BytesIO, spooled, on_a_file, named),
        *(unbuffered, zipped, reader),
    ],
)
def test_content_behind_a_stream(make: t.Any, data: bytes) -> None:
    """It has all bytes, and the stream is where it was, whatever kind of file it is."""
    with make(data) as stream:
        stream.seek(min(7, len(data)))
        content = Content.behind(stream)
        assert stream.read() == data[7:]
        with content.open() as one:
            assert one.read() == data
    with content.open() as two:  # now that the other one is closed
        assert two.read() == data


def test_content_behind_a_file_just_written() -> None:
    """What is still on its way to the disk is there, too."""
    with on_a_file(SMALL) as file:
        with Content.behind(file).open() as reader:
            assert reader.read() == SMALL
        assert file.tell() == len(SMALL)


def test_what_is_on_disk_stays_there(
    on_disk: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large upload is neither read nor written again; nor is that of a task."""
    monkeypatch.setattr(Content, "rest_of", None)
    with spooled(BIG) as upload, on_disk.open() as of_task:
        assert isinstance(Content.behind(upload).open(), Reader)
        assert Content.behind(of_task) is on_disk
    with spooled(SMALL) as upload:
        Content.behind(upload)
        assert not upload._rolled  # nor does a small one go there


def test_without_preadv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one cannot read beside the position (Windows), bytes are in memory."""
    monkeypatch.delattr(os, "preadv")
    content = Content.rest_of(io.BytesIO(BIG))
    with on_a_file(BIG) as file:
        for one in (content, Content.behind(file)):
            stream = one.open()
            assert isinstance(stream, io.BytesIO)
            assert stream.read() == BIG


def test_readers_at_once(on_disk: Content) -> None:
    """Any number of threads read the same content at the same time."""
    start = threading.Barrier(8)
    found: list[bool] = []

    def read() -> None:
        with on_disk.open() as reader:
            start.wait(LIMIT)
            parts = iter(lambda: reader.read(1000), b"")
            found.append(b"".join(parts) == BIG)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert found == [True] * 8


def test_a_descriptor_is_closed_with_its_last_reader() -> None:
    """A file on disk takes one descriptor, for as long as somebody may read it."""
    before = open_fds()
    content = Content.rest_of(io.BytesIO(BIG))
    one = content.open()
    two = content.open()
    assert open_fds() == before + 1
    del content
    one.close()
    assert open_fds() == before + 1
    assert two.read() == BIG
    del one, two
    assert open_fds() == before


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised, and no descriptor stays open."""
    before = open_fds()

    class Full(io.FileIO):
        def write(self, data: t.Any, /) -> t.Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full() -> t.Any:
        return io.BufferedWriter(Full(os.open(os.devnull, os.O_WRONLY), "w"))

    monkeypatch.setattr(uploads.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        Content.rest_of(io.BytesIO(BIG))
    monkeypatch.undo()
    assert open_fds() == before


# Uploads, alone and among arguments.


def test_an_upload_is_opened_with_all_that_it_says() -> None:
    """Names and headers come along, as its own."""
    file = FileStorage(
        io.BytesIO(SMALL),
        "a.csv",
        "table",
        headers=Headers([("Content-Type", "text/csv"), ("X-Note", "1")]),
    )
    own = Upload(file).open()
    assert (own.filename, own.name, own.mimetype) == ("a.csv", "table", "text/csv")
    assert own.headers["X-Note"] == "1"
    own.headers["X-Note"] = "2"
    assert file.headers["X-Note"] == "1"


def test_an_upload_that_is_closed() -> None:
    """It is closed for the task, too; that is an error only where it is read."""
    file = FileStorage(io.BytesIO(SMALL), "a.csv")
    file.close()
    own = pickle.loads(pickle.dumps(Upload(file))).open()
    assert own.filename == "a.csv"
    with pytest.raises(ValueError, match="closed file"):
        own.read()


class Pair(t.NamedTuple):
    """Not a plain tuple."""

    one: t.Any
    two: t.Any


@pytest.mark.parametrize(
    ("wrap", "find"),
    [
        (lambda f: f, lambda v: v),
        (lambda f: [f], lambda v: v[0]),
        (lambda f: (1, (2, f)), lambda v: v[1][1]),
        (lambda f: {"a": [{"b": f}]}, lambda v: v["a"][0]["b"]),
        (lambda f: MultiDict([("a", 1), ("a", f)]), lambda v: v.getlist("a")[1]),
        (lambda f: [ImmutableMultiDict({"a": f})], lambda v: v[0]["a"]),
    ],
)
def test_uploads_among_arguments(
    wrap: t.Callable[[t.Any], t.Any], find: t.Callable[[t.Any], t.Any]
) -> None:
    """However deep in lists, tuples and dictionaries; each opening is a new reader, in
    a container of the same kind.
    """
    file = FileStorage(io.BytesIO(SMALL), "a.csv")
    given = wrap(file)
    kept = keep_uploads((given,))
    file.close()
    for _ in range(2):
        (value,) = open_uploads(kept)
        assert type(value) is type(given)
        assert find(value).read() == SMALL


def test_other_arguments_are_the_very_same() -> None:
    """What holds no upload is passed on as it is, cycles and all."""
    cycle: list[t.Any] = []
    cycle.append(cycle)
    args = (1, "a", [1, [2]], {"a": ()}, {1}, Pair(1, [2]), cycle, MultiDict({"a": 1}))
    assert keep_uploads(args) is args
    assert open_uploads(args) is args
    assert keep_uploads(()) == ()


# In a view and its tasks.


@pytest.mark.parametrize("data", [SMALL, BIG])
def test_all_the_ways_to_read(app: Flask, executor: Executor, data: bytes) -> None:
    """Tasks that run at once read, save, iterate and seek, each from the first byte,
    while the view is somewhere else in the file.
    """
    start = threading.Barrier(4)

    def task(way: t.Callable[[FileStorage], bytes]) -> bytes:
        start.wait(LIMIT)
        return way(request.files["file"])

    def save(file: FileStorage) -> bytes:
        target = io.BytesIO()
        file.save(target)
        return target.getvalue()

    def seek(file: FileStorage) -> bytes:
        file.seek(3)
        tail = file.read()
        file.stream.seek(0)
        return file.stream.read(3) + tail

    ways: list[t.Callable[[FileStorage], bytes]] = [
        lambda file: file.read(),
        lambda file: b"".join(file),
        save,
        seek,
    ]

    @app.post("/")
    def view() -> bytes:
        request.files["file"].read(5)
        futures = [executor.submit(task, way) for way in ways]
        rest = request.files["file"].read()
        assert [future.result(LIMIT) == data for future in futures] == [True] * 4
        return rest

    assert post(app, data).data == data[5:]


def test_csv_over_an_upload(app: Flask, executor: Executor) -> None:
    """A wrapper that closes the view's file when it goes takes nothing from a task."""

    def rows() -> list[list[str]]:
        text = io.TextIOWrapper(request.files["file"].stream, "utf-8", newline="")
        return list(csv.reader(text))

    futures = []

    @app.post("/")
    def view() -> str:
        futures.append(executor.submit(rows))
        seen = len(rows())
        assert request.files["file"].closed
        # One task more, which does not look at it.
        futures.append(executor.submit(lambda: [[request.form["name"]]]))
        return str(seen)

    assert post(app, SMALL).text == "3"
    assert futures[0].result(LIMIT)[1] == ["ada", "36"]
    assert futures[1].result(LIMIT) == [["Ada"]]


def test_several_files_of_one_name(app: Flask, executor: Executor) -> None:
    """All of them are there, in order, whether passed or found."""

    def sizes(given: t.Any) -> list[int]:
        found = request.files.getlist("file")
        return [len(file.read()) for file in (*given.getlist("file"), *found)]

    @app.post("/")
    def view() -> t.Any:
        return executor.submit(sizes, request.files).result(LIMIT)

    assert post(app, SMALL, BIG).json == [len(SMALL), len(BIG)] * 2


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("data", [SMALL, BIG])
def test_a_task_of_a_task(
    app: Flask, executor: Executor, data: bytes, touched: bool
) -> None:
    """It has the upload, found and passed, from the first byte, after the task that
    submitted it has ended.
    """
    gate = threading.Event()

    def inner(file: FileStorage | None) -> list[bytes]:
        assert gate.wait(LIMIT)
        found = request.files["file"].read()
        return [found, found if file is None else file.read()]

    def outer() -> t.Any:
        file = request.files["file"] if touched else None
        if file is not None:
            file.read(2)
        return executor.submit(inner, file)

    futures: list[t.Any] = []

    @app.post("/")
    def view() -> str:
        futures.append(executor.submit(outer))
        return ""

    post(app, data)
    task = futures[0].result(LIMIT)
    gate.set()
    assert [found == data for found in task.result(LIMIT)] == [True, True]


Body = tuple[bytes, str, t.Callable[[], t.Any]]

BODIES: list[Body] = [
    (b'{"a": [1]}', "application/json", lambda: request.get_json()),
    (b"a=1&a=2", "application/x-www-form-urlencoded", lambda: request.form.to_dict(0)),
    (b"\x00raw" * 3, "application/octet-stream", lambda: request.get_data().hex()),
    (BIG, "application/octet-stream", lambda: len(request.stream.read())),
]


@pytest.mark.parametrize("how", ["length", "chunked", "terminated"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[1].split("/")[1])
def test_a_body_that_nobody_has_read(
    app: Flask, executor: Executor, body: Body, how: str
) -> None:
    """Tasks have it, and so has the view when it reads after it has submitted, however
    the server tells its length.
    """
    data, kind, read = body
    futures = []

    @app.post("/")
    def view() -> t.Any:
        futures.extend(executor.submit(read) for _ in range(2))
        return [read()]

    environ: dict[str, t.Any] = {}
    if how != "length":
        environ |= {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    if how == "chunked":
        environ["HTTP_TRANSFER_ENCODING"] = "Chunked"
    response = app.test_client().post(
        "/", data=data, content_type=kind, environ_overrides=environ
    )
    expected = response.json[0]
    assert expected
    assert [future.result(LIMIT) for future in futures] == [expected] * 2


@pytest.mark.parametrize(
    "read",
    [
        lambda: request.get_data(),
        lambda: request.get_json(),
        lambda: request.get_data(cache=False) and None,
    ],
    ids=["data", "json", "uncached"],
)
def test_a_body_that_the_view_has_read(
    app: Flask, executor: Executor, read: t.Callable[[], t.Any]
) -> None:
    """A task sees what the view would see if it read once more."""

    @app.post("/")
    def view() -> str:
        read()
        task = executor.submit(lambda: request.get_data())
        assert task.result(LIMIT) == request.get_data()
        return "done"

    assert app.test_client().post("/", json={"a": 1}).text == "done"


def test_a_form_that_was_read_as_data_first(app: Flask, executor: Executor) -> None:
    """Both the data and the form are there for the task."""

    @app.post("/")
    def view() -> t.Any:
        seen = request.get_data().decode(), request.form["a"]
        task = executor.submit(lambda: (request.data.decode(), request.form["a"]))
        assert task.result(LIMIT) == seen
        return list(seen)

    assert app.test_client().post("/", data={"a": "1"}).json == ["a=1", "1"]


@pytest.mark.parametrize("data", [b"one\ntwo\nthree\n", b"%d\n" * 300_000])
def test_a_stream_that_the_view_is_reading(
    app: Flask, executor: Executor, data: bytes
) -> None:
    """It reads on, whatever it submits meanwhile; a task sees the rest."""

    @app.post("/")
    def view() -> t.Any:
        stream = request.stream
        first = stream.readline()
        task = executor.submit(lambda: request.get_data())
        rest = stream.read()
        assert task.result(LIMIT) == rest
        return first + rest

    assert app.test_client().post("/", data=data).data == data


def test_a_stream_that_cannot_be_given_back(app: Flask, executor: Executor) -> None:
    """Where the server's own stream is read by the view, it is left to the view."""

    class Input:
        """As some servers have it."""

        def __init__(self) -> None:
            self.parts = [b"one", b"two", b"three"]

        def read(self, size: int = -1) -> bytes:
            return self.parts.pop(0) if self.parts else b""

    with app.test_request_context(
        "/",
        method="POST",
        environ_overrides={
            "wsgi.input": Input(),
            "CONTENT_LENGTH": "11",
            "wsgi.input_terminated": True,
        },
    ):
        stream = request.stream
        assert stream.read() == b"one"
        assert executor.submit(lambda: request.get_data()).result(LIMIT) == b""
        assert request.get_data() == b"two"  # now it is kept
        assert executor.submit(lambda: request.get_data()).result(LIMIT) == b"two"
        assert stream.read() == b"three"


def test_a_stream_of_a_task_that_it_is_reading(app: Flask, executor: Executor) -> None:
    """A task of that task sees the rest, and takes nothing away."""

    def outer() -> list[bytes]:
        first = request.stream.read(3)
        rest = executor.submit(lambda: request.get_data()).result(LIMIT)
        return [first, rest, request.stream.read()]

    @app.post("/")
    def view() -> t.Any:
        return [part.decode() for part in executor.submit(outer).result(LIMIT)]

    assert app.test_client().post("/", data=b"onetwo").json == ["one", "two", "two"]


def test_no_body_where_the_server_says_nothing(app: Flask, executor: Executor) -> None:
    """A GET under a server that ends its streams reads nothing from the connection."""

    class Untouchable:
        def read(self, size: int = -1) -> bytes:
            raise AssertionError

    with app.test_request_context(
        "/",
        environ_overrides={
            "wsgi.input": Untouchable(),
            "wsgi.input_terminated": True,
        },
    ):
        assert executor.submit(lambda: request.get_data()).result(LIMIT) == b""


def test_a_shallow_request(app: Flask, executor: Executor) -> None:
    """A request that may not read its body is not read by submit, either."""

    class Shallow(Flask.request_class):
        def __init__(self, environ: t.Any) -> None:
            super().__init__(environ, populate_request=False, shallow=True)

    app.request_class = Shallow

    @app.post("/")
    def view() -> t.Any:
        return executor.submit(lambda: request.headers["X-Test"]).result(LIMIT)

    response = app.test_client().post("/", data=b"x", headers={"X-Test": "yes"})
    assert response.text == "yes"


def test_a_chunked_body_beyond_the_limit(app: Flask, executor: Executor) -> None:
    """It answers the client with 413 at submit, though nobody has said its length."""
    app.config["MAX_CONTENT_LENGTH"] = 10
    ran = []

    @app.post("/")
    def view() -> str:
        executor.submit(ran.append, 1)
        return "never"

    response = app.test_client().post(
        "/",
        data=b"x" * 100,
        environ_overrides={
            "CONTENT_LENGTH": "",
            "HTTP_TRANSFER_ENCODING": "chunked",
            "wsgi.input_terminated": True,
        },
    )
    assert response.status_code == 413
    assert ran == []


@pytest.mark.parametrize("terminated", [False, True])
def test_a_body_that_is_broken_off(
    app: Flask, executor: Executor, terminated: bool
) -> None:
    """It answers with 400 at submit, also under a server that does not tell."""

    @app.post("/")
    def view() -> str:
        executor.submit(print)
        return "never"

    environ: dict[str, t.Any] = {"CONTENT_LENGTH": "100"}
    if terminated:
        environ["wsgi.input_terminated"] = True
    response = app.test_client().post("/", data=b"half", environ_overrides=environ)
    assert response.status_code == 400


def test_submit_on_a_full_disk(
    app: Flask, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submit raises the error, runs nothing, and keeps no future."""
    ran = []

    def full(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @app.post("/")
    def view() -> str:
        monkeypatch.setattr(uploads.tempfile, "TemporaryFile", full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            executor.submit_stored("key", ran.append, 1)
        monkeypatch.undo()
        assert "key" not in executor.futures
        return "done"

    assert app.test_client().post("/", data=BIG).text == "done"
    assert ran == []


def test_no_descriptor_is_left(app: Flask, executor: Executor, tmp_path: Path) -> None:
    """After tasks with large files, of bodies and of arguments, read or not, failed or
    not, as many are open as before.
    """

    def fail(file: FileStorage) -> None:
        file.read(3)
        request.files["file"].save(tmp_path / "saved")
        raise ValueError

    @app.post("/")
    def view() -> str:
        executor.submit(lambda: None)
        executor.submit_stored("kept", fail, request.files["file"])
        executor.submit(lambda f: f.read(), request.files["file"]).result(LIMIT)
        return ""

    def visit() -> None:
        post(app, BIG)
        assert isinstance(executor.futures.pop("kept").exception(LIMIT), ValueError)
        executor.submit(lambda: None).result(LIMIT)

    visit()
    executor.shutdown()
    executor.init_app(app)
    before = open_fds()
    for _ in range(5):
        visit()
    executor.shutdown()
    assert open_fds() <= before
    executor.init_app(app)
