"""What a task sees: its own copy of what its submitter saw."""

from __future__ import annotations

import contextvars
import gc
import io
import logging
import pickle
import threading
import typing as t
import weakref
from collections import UserDict, defaultdict, deque
from types import SimpleNamespace

import pytest
from flask import (
    Flask,
    copy_current_request_context,
    current_app,
    flash,
    g,
    get_flashed_messages,
    has_app_context,
    has_request_context,
    request,
    session,
    stream_with_context,
    url_for,
)
from flask.logging import wsgi_errors_stream
from flask.sessions import SessionInterface, SessionMixin
from limits import LIMIT
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.local import LocalProxy
from werkzeug.test import encode_multipart

from flask_executor import Executor, ExecutorNotInitialized
from flask_executor.contexts import PortableSnapshot, Snapshot, flask_versions

BIG = 700_000


def post_file(app: Flask, size: int = 5) -> t.Any:
    # Encoded here: the test client leaves the file open that it makes of a large body.
    data = {"file": FileStorage(io.BytesIO(b"x" * size), "x.csv"), "name": "Ada"}
    boundary, body = encode_multipart(data)
    kind = f"multipart/form-data; boundary={boundary}"
    return app.test_client().post("/", data=body, content_type=kind)


def test_task_sees_app_request_session_and_g(app: Flask, executor: Executor) -> None:
    """current_app, request, session and g are there, as in the view."""

    @app.route("/<int:number>")
    def view(number: int) -> t.Any:
        session["user"] = "ada"
        g.colour = "blue"
        future = executor.submit(
            lambda: [
                current_app.name,
                request.path,
                request.view_args,
                request.args["q"],
                request.headers["X-Test"],
                session["user"],
                g.colour,
                url_for("view", number=8),
            ]
        )
        return future.result(LIMIT)

    response = app.test_client().get("/7?q=1", headers={"X-Test": "yes"})
    assert response.json == [
        "tests",
        "/7",
        {"number": 7},
        "1",
        "yes",
        "ada",
        "blue",
        "/8",
    ]


@pytest.mark.parametrize("size", [5, BIG])
@pytest.mark.holds("g-view-ends")
def test_upload_outlives_the_view(
    app: Flask, executor: Executor, gate: threading.Event, size: int
) -> None:
    """An upload is read after the view has ended and its file was closed."""
    futures = []

    def count() -> tuple[int, str]:
        assert gate.wait(LIMIT)
        return len(request.files["file"].read()), request.form["name"]

    @app.post("/")
    def view() -> str:
        request.files["file"].read(3)
        futures.extend(executor.submit(count) for _ in range(3))
        return str(len(request.files["file"].read()))

    assert post_file(app, size).text == str(size - 3)
    gate.set()
    assert [f.result(LIMIT) for f in futures] == [(size, "Ada")] * 3


@pytest.mark.parametrize("size", [5, BIG])
def test_unread_body_is_there_for_the_task_and_the_view(
    app: Flask, executor: Executor, size: int
) -> None:
    """Taking the copy of a body that nobody has read does not use it up."""
    futures = []

    @app.post("/")
    def view() -> str:
        futures.append(executor.submit(lambda: len(request.files["file"].read())))
        futures.append(executor.submit(lambda: len(request.get_data())))
        return str(len(request.files["file"].read()))

    assert post_file(app, size).text == str(size)
    assert futures[0].result(LIMIT) == size
    assert futures[1].result(LIMIT) > size


def test_json_is_its_own_copy(app: Flask, executor: Executor) -> None:
    """What a task does to request.json, however deep, stays in the task."""

    def change() -> t.Any:
        request.get_json()["deep"]["list"].append(2)
        return request.get_json()

    @app.post("/")
    def view() -> t.Any:
        mine = request.get_json()
        assert executor.submit(change).result(LIMIT) == {"deep": {"list": [1, 2]}}
        return mine

    response = app.test_client().post("/", json={"deep": {"list": [1]}})
    assert response.json == {"deep": {"list": [1]}}


def test_session_and_g_changes_stay_in_the_task(app: Flask, executor: Executor) -> None:
    """Session writes, deep ones too, and new names in g do not reach the view."""

    def change() -> None:
        session["deep"]["list"].append(2)
        session["new"] = 1
        g.name = "task"

    @app.route("/")
    def view() -> t.Any:
        session["deep"] = {"list": [1]}
        g.name = "view"
        executor.submit(change).result(LIMIT)
        return {"session": dict(session), "g": g.name}

    response = app.test_client().get("/")
    assert response.json == {"session": {"deep": {"list": [1]}}, "g": "view"}


def test_later_changes_do_not_reach_the_task(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A task sees the moment of its own submit, also of two submits in one view."""

    def look() -> list[t.Any]:
        assert gate.wait(LIMIT)
        return [session["n"], t.cast(t.Any, request).n, request.environ["n"]]

    with app.test_request_context("/"):
        session["n"] = [1]
        request.n = [1]  # type: ignore[attr-defined]
        request.environ["n"] = [1]
        mine: list[list[int]] = [session["n"], request.n, request.environ["n"]]  # type: ignore[attr-defined]
        first = executor.submit(look)
        for one in mine:
            one.append(2)
        second = executor.submit(look)
        for one in mine:
            one.append(3)
        gate.set()
        assert first.result(LIMIT) == [[1]] * 3
        assert second.result(LIMIT) == [[1, 2]] * 3


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({}, ["plain"]),
        ({"EXECUTOR_COPY_G": "all"}, ["connection", "plain"]),
        ({"EXECUTOR_COPY_G": "none"}, []),
        ({"EXECUTOR_PUSH_APP_CONTEXT": False}, []),
    ],
)
def test_what_of_g_is_copied(
    app: Flask, executor: Executor, config: dict[str, t.Any], seen: list[str]
) -> None:
    """What has a close method stays with the view, unless the config says otherwise."""
    app.config.update(config)
    with app.app_context():
        g.plain = 1
        g.connection = io.BytesIO()
        assert executor.submit(lambda: sorted(g)).result(LIMIT) == seen


@pytest.mark.holds("g-teardown", "g-no-teardown-request")
def test_teardown_runs_once_with_the_error(app: Flask, executor: Executor) -> None:
    """teardown_appcontext runs once per task, with its exception; teardown_request,
    which belongs to the view, does not."""
    seen: list[t.Any] = []
    app.teardown_request(lambda error: seen.append("request"))
    app.teardown_appcontext(lambda error: seen.append((threading.get_ident(), error)))
    here = threading.get_ident()
    boom = ValueError("boom")

    def fail() -> None:
        raise boom

    with app.test_request_context("/"):
        executor.submit(lambda: None).result(LIMIT)
        assert executor.submit(fail).exception(LIMIT) is boom
        in_workers = [entry for entry in seen if entry[0] != here]
    assert [error for _, error in in_workers] == [None, boom]
    assert seen.count("request") == 1


def test_view_keeps_files_view_args_and_stream(app: Flask, executor: Executor) -> None:
    """A finished task closes and replaces nothing of the view's."""

    @app.post("/<name>")
    def view(name: str) -> t.Any:
        args = request.view_args
        executor.submit(lambda: request.files["file"].read()).result(LIMIT)
        assert request.view_args is args
        return request.files["file"].read()

    response = app.test_client().post("/a", data={"file": (io.BytesIO(b"hi"), "n")})
    assert response.data == b"hi"


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [{"nested": f}]])
def test_upload_as_argument(
    app: Flask,
    executor: Executor,
    gate: threading.Event,
    wrap: t.Callable[[t.Any], t.Any],
) -> None:
    """An uploaded file among the arguments is as good as one found in the request."""
    futures = []

    def read(value: t.Any) -> tuple[bytes, str | None]:
        assert gate.wait(LIMIT)
        file = value if isinstance(value, FileStorage) else value[0]["nested"]
        return file.read(), file.filename

    @app.post("/")
    def view() -> str:
        futures.append(executor.submit(read, wrap(request.files["file"])))
        return ""

    post_file(app)
    gate.set()
    assert futures[0].result(LIMIT) == (b"xxxxx", "x.csv")


def test_too_large_body_is_refused_at_submit(app: Flask, executor: Executor) -> None:
    """A body beyond MAX_CONTENT_LENGTH answers the view's client with 413."""
    app.config["MAX_CONTENT_LENGTH"] = 10

    @app.post("/")
    def view() -> str:
        executor.submit(print)
        return "never"

    assert post_file(app, 100).status_code == 413


def test_broken_off_upload_is_refused_at_submit(app: Flask, executor: Executor) -> None:
    """A body that the client broke off answers with 400, not with half a file."""

    @app.post("/")
    def view() -> str:
        executor.submit(print)
        return "never"

    response = app.test_client().post(
        "/", data=b"half", environ_overrides={"CONTENT_LENGTH": "100"}
    )
    assert response.status_code == 400


def test_context_variables_are_carried_and_do_not_leak(
    app: Flask, executor: Executor
) -> None:
    """A task sees its submitter's context variables; what it sets ends with it."""
    app.config["EXECUTOR_MAX_WORKERS"] = 1
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    with app.app_context():
        assert executor.submit(lambda: var.set("task") and var.get()).result(LIMIT)
        assert executor.submit(var.get).result(LIMIT) == "none"
        var.set("view")
        assert executor.submit(var.get).result(LIMIT) == "view"


def test_without_any_context_the_last_app_is_used(
    app: Flask, executor: Executor
) -> None:
    """Outside of contexts a task has the app initialised last, and no request."""
    seen = executor.submit(lambda: (current_app.name, has_request_context()))
    assert seen.result(LIMIT) == ("tests", False)


def test_streamed_body(app: Flask, executor: Executor) -> None:
    """A generator may submit while it streams, with or without the request."""

    def chunks() -> t.Iterator[str]:
        yield executor.submit(lambda: str(has_request_context())).result(LIMIT)

    app.add_url_rule("/bare", view_func=lambda: chunks(), endpoint="bare")
    app.add_url_rule("/with", view_func=lambda: stream_with_context(chunks()))
    client = app.test_client()
    assert client.get("/bare").text == "False"
    assert client.get("/with").text == "True"


def test_app_that_was_never_initialised(executor: Executor) -> None:
    """In the context of a stranger, the error says so and names init_app."""
    message = r"stranger.*init_app"
    with (
        Flask("stranger").app_context(),
        pytest.raises(ExecutorNotInitialized, match=message),
    ):
        executor.submit(print)
    with pytest.raises(RuntimeError, match="init_app"):
        Executor().submit(print)


def test_each_app_has_its_own(app: Flask, executor: Executor) -> None:
    """Two apps share an executor, but neither pools nor futures."""
    other = Flask("other")
    other.config["EXECUTOR_MAX_WORKERS"] = 1
    executor.init_app(other)
    with app.app_context():
        executor.submit_stored("key", lambda: 1)
        mine = executor._self
        assert executor._max_workers == 4
    with other.app_context():
        assert "key" not in executor.futures
        assert executor._self is not mine
        assert executor._max_workers == 1
        assert executor.submit(lambda: current_app.name).result(LIMIT) == "other"
        executor.shutdown()
    with app.app_context():
        executor.shutdown()


def test_map_restores_a_context_per_call(app: Flask, executor: Executor) -> None:
    """No two calls of a map share a g, but those of one chunk do."""

    def count(_: int) -> int:
        g.calls = g.get("calls", 0) + 1
        return t.cast(int, g.calls)

    with app.app_context():
        assert list(executor.map(count, range(4))) == [1, 1, 1, 1]
        assert list(executor.map(count, range(5), chunksize=2)) == [1, 2, 1, 2, 1]


@pytest.mark.holds("g-references")
def test_nothing_refers_to_the_call_afterwards(app: Flask, executor: Executor) -> None:
    """A kept future keeps neither the arguments nor g nor the request alive."""

    class Thing:
        pass

    def fail(thing: Thing) -> None:
        g.own = thing
        raise ValueError

    refs: list[weakref.ref[t.Any]] = []
    with app.test_request_context("/"):
        thing = Thing()
        g.thing = thing
        refs.append(weakref.ref(thing))
        refs.append(weakref.ref(request._get_current_object()))
        done = executor.submit(lambda x: None, thing)
        done.add_done_callback(lambda future: None)
        failed = executor.submit(fail, thing)
        del thing
        done.result(LIMIT)
        assert failed.exception(LIMIT) is not None
    executor.submit(lambda: None).result(LIMIT)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_response_headers_are_untouched(app: Flask, executor: Executor) -> None:
    """Submitting does not open or change the view's session; the task's own notes, as
    a view's does, that it was read.
    """

    @app.route("/")
    def view() -> str:
        executor.submit(lambda: session.update(a=1)).result(LIMIT)
        assert executor.submit(lambda: session.accessed).result(LIMIT) is True
        return ""

    headers = app.test_client().get("/").headers
    assert "Set-Cookie" not in headers
    assert "Vary" not in headers


def test_teardown_that_fails_fails_the_task(app: Flask, executor: Executor) -> None:
    """An error in a teardown function is not silent; the call's own error wins, and
    has a note of the other.
    """

    @app.teardown_appcontext
    def teardown(error: BaseException | None) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("teardown")

    def fail() -> None:
        raise boom

    boom = ValueError("boom")
    error = executor.submit(int).exception(LIMIT)
    # Flask 3.2 collects them.
    one = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
    assert isinstance(one, OSError)
    with app.test_request_context("/"):
        for _ in range(2):
            assert executor.submit(fail).exception(LIMIT) is boom
    assert "OSError('teardown')" in boom.__notes__[0]


def test_nested_submit_sees_the_same_request(app: Flask, executor: Executor) -> None:
    """A task submits another, which sees the same request."""
    with app.test_request_context("/deep"):
        outer = executor.submit(lambda: executor.submit(lambda: request.path))
        assert outer.result(LIMIT).result(LIMIT) == "/deep"


def test_a_finished_task_leaves_no_cycle(app: Flask, executor: Executor) -> None:
    """All of a task goes when it ends; the garbage collector finds nothing to do."""

    def visit() -> None:
        for _ in range(20):
            assert executor.submit(lambda: request.path).result(LIMIT) == "/"

    with app.test_request_context("/"):
        visit()
        executor.shutdown()
        executor.init_app(app)
        gc.collect()
        gc.disable()
        try:
            visit()
            executor.shutdown()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = {type(item).__name__ for item in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not kinds & {"Context", "TaskContext", "Request", "TaskFuture"}


class Equal:
    """Equal to all of its kind."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    __hash__ = None  # type: ignore[assignment]


late: contextvars.ContextVar[t.Any] = contextvars.ContextVar("late", default=None)


@pytest.mark.parametrize(
    ("change", "look"),
    [
        (lambda v: setattr(g, "x", v), lambda: g.x),
        (lambda v: setattr(request, "x", v), lambda: request.x),  # type: ignore[attr-defined]
        (lambda v: session.update(x=v), lambda: session["x"]),
        (late.set, late.get),
    ],
    ids=["g", "request", "session", "ContextVar"],
)
def test_each_submit_takes_what_is_there_then(
    app: Flask, executor: Executor, change: t.Any, look: t.Callable[[], t.Any]
) -> None:
    """A second submit of one view sees the very objects that are there by then."""
    values = [Equal(), Equal(), Equal()]
    with app.test_request_context("/"):
        futures = []
        for value in values:
            change(value)
            futures += [executor.submit(look), executor.submit(look)]
        found = [future.result(LIMIT) for future in futures]
        late.set(None)
    assert [values.index(one) for one in found] == [0] * 6  # all are equal, and yet
    assert [id(one) for one in found] == [id(v) for v in values for _ in range(2)]


@pytest.mark.parametrize("submits", [0, 1, 2, 3])
def test_a_snapshot_serves_until_something_changes(app: Flask, submits: int) -> None:
    """Where nothing has changed it is the very same one. A change of g, the request,
    the environment, the session or a ContextVar makes another one, and so does a
    container that is changed in place; the body is there in each.
    """
    changes: list[t.Callable[[], object]] = [
        lambda: setattr(g, "x", 1),
        lambda: setattr(request, "x", []),
        lambda: request.x.append(1),  # type: ignore[attr-defined]
        lambda: request.environ.update(x=[]),
        lambda: request.environ["x"].append(1),
        lambda: session.update(x=[]),
        lambda: session["x"].append(1),
        lambda: setattr(session, "permanent", True),
        lambda: late.set(1),
    ]
    with app.test_request_context("/", method="POST", data=b"body"):
        last = Snapshot.take(app)
        for change in changes:
            for _ in range(submits):
                assert Snapshot.take(app) is last
            change()
            previous, last = last, Snapshot.take(app)
            assert last is not previous
        assert last.run(request.get_data, (), {}) == b"body"
        late.set(None)


def test_a_container_that_holds_itself(app: Flask, executor: Executor) -> None:
    """It is copied, and compared with its copy, which never ends, without an error."""
    with app.test_request_context("/"):
        request.cycle = cycle = []  # type: ignore[attr-defined, var-annotated]
        cycle.append(cycle)
        for _ in range(3):
            task = executor.submit(lambda: request.cycle)  # type: ignore[attr-defined]
            own = task.result(LIMIT)
            assert own[0] is own is not cycle


class Box:
    """An object that one can refer to weakly."""


def everything_is_gone(refs: list[weakref.ref[t.Any]]) -> bool:
    gc.collect()
    return all(ref() is None for ref in refs)


def refuse(box: Box) -> None:
    g.own = request.box = box  # type: ignore[attr-defined]
    raise ValueError(box)


async def refuse_later(box: Box) -> None:
    refuse(box)


@pytest.mark.parametrize("fn", [refuse, refuse_later])
@pytest.mark.holds("g-references")
def test_nothing_refers_to_a_failed_call(
    app: Flask, executor: Executor, fn: t.Callable[[Box], t.Any]
) -> None:
    """Nor in a callback, nor where the kept future has the exception."""
    refs: list[weakref.ref[t.Any]] = []
    seen: list[str] = []

    def note(future: t.Any) -> None:
        refs.append(weakref.ref(request._get_current_object()))
        seen.append(type(future.exception().args[0]).__name__)
        future.exception().args = ()

    with app.test_request_context("/"):
        g.box = box = Box()
        refs.append(weakref.ref(box))
        refs.append(weakref.ref(request._get_current_object()))
        kept = executor.submit(fn, box)
        kept.add_done_callback(note)
        del box
        assert isinstance(kept.exception(LIMIT), ValueError)
    executor.shutdown()
    assert seen == ["Box"]
    assert everything_is_gone(refs)


def test_what_the_view_changed_before_is_seen(app: Flask, executor: Executor) -> None:
    """A task sees the moment of its submit, also in what the view has changed in
    place: its JSON, and containers of kinds of their own.
    """

    def look() -> t.Any:
        tags = t.cast(t.Any, request).tags
        tags["list"].append("task")
        return request.get_json()["n"], dict(tags), list(session["deque"])

    @app.post("/")
    def view() -> t.Any:
        request.get_json()["n"] = 1
        request.tags = tags = defaultdict(list)  # type: ignore[attr-defined]
        session["deque"] = deque([0])
        session["multi"] = MultiDict({"a": 1})
        first = executor.submit(look).result(LIMIT)
        request.get_json()["n"] = 2
        tags["list"].append("view")
        session["deque"].append(1)
        second = executor.submit(look).result(LIMIT)
        del session["deque"], session["multi"]
        assert tags == {"list": ["view"]}
        return [first, second]

    assert app.test_client().post("/", json={"n": 0}).json == [
        [1, {"list": ["task"]}, [0]],
        [2, {"list": ["view", "task"]}, [0, 1]],
    ]


def test_what_moves_is_a_change(app: Flask, executor: Executor) -> None:
    """A name that goes from the request to g is seen where it is by then."""

    def look() -> tuple[bool, bool]:
        return hasattr(request, "box"), "box" in g

    with app.test_request_context("/"):
        request.box = Box()  # type: ignore[attr-defined]
        assert executor.submit(look).result(LIMIT) == (True, False)
        g.box = request.box  # type: ignore[attr-defined]
        del request.box  # type: ignore[attr-defined]
        assert executor.submit(look).result(LIMIT) == (False, True)


def test_nothing_of_the_request_is_shared(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """A task may change all of its request; the view sees none of it, nor does a task
    that was submitted beside it.
    """
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    def change() -> None:
        assert gate.wait(LIMIT)
        request.environ["REMOTE_USER"] = "eve"
        request.environ["own"]["deep"].append(2)
        t.cast("dict[str, int]", request.view_args)["n"] = 8
        request.url_rule = None
        request.new = 1  # type: ignore[attr-defined]
        session["list"].append(2)

    def look() -> t.Any:
        return [
            request.environ.get("REMOTE_USER"),
            request.environ["own"],
            request.view_args,
            request.endpoint,
            hasattr(request, "new"),
            session["list"],
        ]

    app.add_url_rule("/<int:n>", "page")
    with app.test_request_context("/7", environ_overrides={"own": {"deep": [1]}}):
        session["list"] = [1]
        before, after = executor.submit(change), executor.submit(look)
        gate.set()
        before.result(LIMIT)
        expected = [None, {"deep": [1]}, {"n": 7}, "page", False, [1]]
        assert after.result(LIMIT) == expected
        assert look() == expected


def test_submit_from_all_around_a_view(app: Flask, executor: Executor) -> None:
    """Functions before, after and at the end of a request, and error handlers."""
    futures = []

    def submit(*args: t.Any) -> None:
        futures.append(executor.submit(lambda: (request.path, request.endpoint)))

    app.before_request(submit)
    app.teardown_request(submit)

    @app.after_request
    def after(response: t.Any) -> t.Any:
        submit()
        return response

    @app.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        submit()
        return "", 404

    assert app.test_client().get("/nowhere").status_code == 404
    seen = [future.result(LIMIT) for future in futures]
    assert seen == [("/nowhere", None)] * 4


def test_copy_current_request_context_in_a_task(app: Flask, executor: Executor) -> None:
    """Flask's own way to another thread works from a task as from a view."""

    def outer() -> t.Any:
        session["task"] = 1
        seen: list[t.Any] = []

        @copy_current_request_context
        def inner() -> None:
            seen.extend([request.path, dict(session)])

        thread = threading.Thread(target=inner)
        thread.start()
        thread.join(LIMIT)
        return [*seen, request.path]

    with app.test_request_context("/here"):
        session["view"] = 1
        seen = executor.submit(outer).result(LIMIT)
        assert seen == ["/here", {"view": 1, "task": 1}, "/here"]


def test_contexts_pushed_in_a_task(app: Flask, executor: Executor) -> None:
    """A task may push contexts of its own, and stream with that of its request, which
    neither ends it nor matches its URL again.
    """
    other = Flask("other")
    ended: list[str] = []
    app.teardown_request(lambda error: ended.append(request.path))
    app.add_url_rule("/outer/<name>", "outer")

    def task() -> list[t.Any]:
        request.view_args = args = {"name": "changed"}
        seen = []
        with other.app_context():
            seen.append(current_app.name)
        with app.test_request_context("/inner"):
            seen.append(request.path)
        seen += stream_with_context(iter([request.path]))
        assert request.view_args is args
        return [*seen, current_app.name, request.path, g.name, list(ended)]

    with app.test_request_context("/outer/x"):
        g.name = "view"
        seen = executor.submit(task).result(LIMIT)
    assert seen[:3] == ["other", "/inner", "/outer/x"]
    assert seen[3:] == ["tests", "/outer/x", "view", ["/inner"]]


def test_flashes_of_a_task(app: Flask, executor: Executor) -> None:
    """Messages flashed by the view are read in the task, and stay with the view."""

    def task() -> list[t.Any]:
        flash("task")
        return get_flashed_messages()

    @app.get("/")
    def view() -> t.Any:
        flash("view")
        seen = executor.submit(task).result(LIMIT)
        return [seen, get_flashed_messages()]

    assert app.test_client().get("/").json == [["view", "task"], ["view"]]


def test_without_a_secret_key(app: Flask, executor: Executor) -> None:
    """The session of a task is as null as the view's."""
    app.secret_key = None

    def task() -> str:
        with pytest.raises(RuntimeError, match="secret key"):
            session["a"] = 1
        return str(session.get("a"))

    with app.test_request_context("/"):
        assert executor.submit(task).result(LIMIT) == "None"


class Mapping(SessionMixin, UserDict[str, t.Any]):  # type: ignore[misc]
    """A session that is no dict."""

    accessed = False


class Mappings(SessionInterface):
    """Opens and never saves."""

    def open_session(self, app: Flask, request: t.Any) -> t.Any:
        return Mapping({"from": "server", "list": [1]})

    def save_session(self, app: Flask, session: t.Any, response: t.Any) -> None:
        pass


def test_a_session_of_another_kind(app: Flask, executor: Executor) -> None:
    """A session that keeps its data its own way is copied, too."""
    app.session_interface = Mappings()

    def task() -> dict[str, t.Any]:
        session["list"].append(2)
        session["new"] = 1
        return dict(session)

    with app.test_request_context("/"):
        session["view"] = 1
        seen = executor.submit(task).result(LIMIT)
        assert seen == {"from": "server", "list": [1, 2], "view": 1, "new": 1}
        assert dict(session) == {"from": "server", "list": [1], "view": 1}


class Unreachable:
    """Has its attributes elsewhere, where they cannot be had now."""

    def __getattr__(self, name: str) -> t.NoReturn:
        raise OSError(name)


class Loading:
    """Sets names of ``g`` when one looks at it."""

    def __getattr__(self, name: str) -> t.NoReturn:
        g.loaded = True
        raise AttributeError(name)


def test_what_lives_elsewhere_in_g(app: Flask, executor: Executor) -> None:
    """What cannot say if it has a close method, or changes g when asked, is copied."""
    with app.app_context():
        g.unreachable = Unreachable()
        g.loading = Loading()
        seen = executor.submit(lambda: list(g)).result(LIMIT)
        assert seen == ["unreachable", "loading"]


def never() -> t.NoReturn:
    raise AssertionError("somebody has looked behind the proxy")


proxy_of_never: t.Any = LocalProxy(never)


@pytest.mark.parametrize("copy_g", ["safe", "all"])
def test_no_proxy_is_resolved(app: Flask, copy_g: str) -> None:
    """Neither in g, the request and the session, nor in what they hold; not when they
    are copied, compared with an earlier copy, restored, or sent to another process.
    """

    def look() -> list[bool]:
        found = [g.own, g.inner[0], request.own, session["own"]]  # type: ignore[attr-defined]
        return [one is proxy_of_never for one in found]

    with app.test_request_context("/"):
        g.own = g._login_user = request.own = session["own"] = proxy_of_never  # type: ignore[attr-defined]
        g.inner = [proxy_of_never]
        request.inner = session["inner"] = [proxy_of_never]  # type: ignore[attr-defined]
        token = late.set(proxy_of_never)
        first = Snapshot.take(app, copy_g=copy_g)
        second = Snapshot.take(app, copy_g=copy_g)
        request.inner[0] = session["inner"][0] = None  # type: ignore[attr-defined]
        Snapshot.take(app, copy_g=copy_g)
        portable: PortableSnapshot = pickle.loads(first.serialize())
        rebuilt = portable.rebuild(app)
        for snapshot in (first, second, rebuilt):
            assert snapshot.run(look, (), {}) == [True] * 4
        assert first.run(late.get, (), {}) is proxy_of_never
        late.reset(token)


def test_proxies_that_are_transferred(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """One that a module names is the one of that name in the other process, Flask's own
    as well; another stays here, and the log says why.
    """
    caplog.set_level(logging.DEBUG, "flask_executor")
    with app.test_request_context("/there"):
        g.where = request
        g.app = [current_app]
        g.without_a_name = LocalProxy(lambda: None)
        g.without_a_module = LocalProxy(late)
        portable: PortableSnapshot = pickle.loads(Snapshot.take(app).serialize())
    rebuilt = portable.rebuild(app)
    assert rebuilt.run(lambda: (sorted(g), g.where.path), (), {}) == (
        ["app", "where"],
        "/there",
    )
    assert rebuilt.run(lambda: g.app[0] is current_app, (), {})
    messages = [record.getMessage() for record in caplog.records]
    for name in ("without_a_name", "without_a_module"):
        (message,) = [one for one in messages if name in one]
        assert "no module has a name for this proxy" in message


def test_a_host_that_is_not_trusted(app: Flask, executor: Executor) -> None:
    """A task of a view that answers a bad host sees the request; links it has none."""
    if "TRUSTED_HOSTS" not in app.config:
        pytest.skip("Flask 3.0 trusts all")
    app.config["TRUSTED_HOSTS"] = ["good.example"]
    futures = []

    def task() -> str:
        with pytest.raises((RuntimeError, AttributeError)):
            url_for("static", filename="x")
        return request.path

    @app.errorhandler(400)
    def bad(error: Exception) -> tuple[str, int]:
        futures.append(executor.submit(task))
        return "", 400

    response = app.test_client().get("/x", base_url="http://bad.example")
    assert response.status_code == 400
    assert futures[0].result(LIMIT) == "/x"


def test_nothing_leaks_to_the_next_task(app: Flask, executor: Executor) -> None:
    """What a task sets in g, its request, its session and context variables, or pushes
    and forgets, the next one on that worker does not find; nor does one without a
    request find an earlier request.
    """
    app.config["EXECUTOR_MAX_WORKERS"] = 1

    def leave_all() -> None:
        g.x = request.x = session["x"] = 1  # type: ignore[attr-defined]
        late.set(1)

    def look() -> t.Any:
        seen: list[t.Any] = ["x" in g, late.get(), has_request_context()]
        if request:
            seen += [hasattr(request, "x"), "x" in session]
        return seen

    with app.test_request_context("/"):
        executor.submit(leave_all).result(LIMIT)
        seen = executor.submit(look).result(LIMIT)
        assert seen == [False, None, True, False, False]
    assert executor.submit(look).result(LIMIT) == [False, None, False]
    bare = executor._self.submit(has_app_context)
    assert bare.result(LIMIT) is False


@pytest.mark.parametrize("touched", [False, True])
def test_a_rebuilt_snapshot_is_sent_on(app: Flask, touched: bool) -> None:
    """A task in a worker process submits to another one: what it saw is seen there."""

    def send(snapshot: Snapshot) -> Snapshot:
        portable: PortableSnapshot = pickle.loads(snapshot.serialize())
        return portable.rebuild(app)

    def look() -> list[t.Any]:
        return [request.path, request.endpoint, dict(session), g.plain]

    def onward() -> Snapshot:
        if touched:
            look()
        return Snapshot.take(app)

    app.add_url_rule("/<int:n>", "page")
    with app.test_request_context("/7"):
        session["list"] = [1]
        g.plain = 1
        first = send(Snapshot.take(app))
    second = send(first.run(onward, (), {}))
    for snapshot in (first, second):
        assert snapshot.run(look, (), {}) == ["/7", "page", {"list": [1]}, 1]


def test_a_rebuilt_request_can_log(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flask's log handler writes to the request's error stream: the worker's own."""
    with app.test_request_context("/"):
        data = Snapshot.take(app).serialize()
    portable: PortableSnapshot = pickle.loads(data)
    handler = logging.StreamHandler(wsgi_errors_stream)
    record = logging.makeLogRecord({"msg": "from the worker"})
    portable.rebuild(app).run(handler.emit, (record,), {})
    assert capsys.readouterr().err == "from the worker\n"


def test_a_rebuilt_request_in_an_app_without_a_key(app: Flask) -> None:
    """Where the worker's app has no secret key, its session stays null."""
    with app.test_request_context("/"):
        session["a"] = 1
        data = Snapshot.take(app).serialize()
    portable: PortableSnapshot = pickle.loads(data)
    rebuilt = portable.rebuild(Flask("other"))
    assert rebuilt.run(lambda: dict(session), (), {}) == {}


def test_what_stays_is_told_once_by_its_name(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Not once more for each object of that name and kind."""
    caplog.set_level(logging.DEBUG, "flask_executor")
    for _ in range(3):
        with app.app_context():
            g.told_by_its_name = lambda: None
            Snapshot.take(app).serialize()
    (record,) = [r for r in caplog.records if "told_by_its_name" in r.getMessage()]
    assert "(function) in g is not transferred" in record.getMessage()


def test_a_context_of_flask_3_0() -> None:
    """There the session is a plain attribute, whose use marks nothing."""
    old = SimpleNamespace(session=object())
    assert flask_versions.session_of(old) is old.session
