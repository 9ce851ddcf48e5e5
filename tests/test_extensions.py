"""Flask-SQLAlchemy and Flask-Login, the real ones: in a task they work as in a view."""

from __future__ import annotations

import io
import os
import threading
import typing as t
from concurrent.futures import wait
from pathlib import Path

import pytest
from flask import Blueprint, Flask, g, session, url_for
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from flask_sqlalchemy import SQLAlchemy
from limits import LIMIT
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.orm import Mapped, mapped_column, object_session, relationship
from werkzeug.datastructures import FileStorage

from flask_executor import Executor

DATABASE = "FLASK_EXECUTOR_TEST_DATABASE"
"""Names the database to the worker processes."""

db = SQLAlchemy()
logins = LoginManager()
pages = Blueprint("pages", __name__)


class User(UserMixin, db.Model):  # type: ignore[misc, name-defined]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[list[Note]] = relationship(back_populates="user")


class Note(db.Model):  # type: ignore[misc, name-defined]
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    user: Mapped[User] = relationship(back_populates="notes")


@logins.user_loader
def load_user(user_id: str) -> User | None:
    return t.cast("User | None", db.session.get(User, int(user_id)))


@pages.get("/page/<int:number>")
def page(number: int) -> str:
    return str(number)


def make_app() -> Flask:
    """The app, here and in a worker process."""
    app = Flask(__name__)
    app.config.update(
        TESTING=True,
        SECRET_KEY="tests",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{os.environ[DATABASE]}",
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_size": 2,
            "max_overflow": 0,
            "pool_timeout": LIMIT,
        },
        EXECUTOR_MAX_WORKERS=8,
    )
    db.init_app(app)
    logins.init_app(app)
    app.register_blueprint(pages)
    app.add_url_rule("/login", view_func=log_in, methods=["POST"])
    return app


def log_in() -> str:
    login_user(db.session.get(User, 1))
    return ""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Flask]:
    monkeypatch.setenv(DATABASE, str(tmp_path / "test.db"))
    app = make_app()
    with app.app_context():
        db.create_all()
        db.session.add(User(id=1, name="ada"))
        db.session.commit()
    yield app
    with app.app_context():
        db.engine.dispose()


def executor_of(app: Flask, kind: str) -> Executor:
    app.config["EXECUTOR_TYPE"] = kind
    if kind == "process":
        app.config.update(
            EXECUTOR_APP="test_extensions:make_app",
            # A forkserver may have started with another environment.
            EXECUTOR_START_METHOD="spawn",
            EXECUTOR_MAX_WORKERS=1,
        )
    return Executor(app)


def checked_out() -> int:
    return t.cast(t.Any, db.engine.pool).checkedout()


def notes() -> int:
    return db.session.scalar(select(func.count()).select_from(Note)) or 0


def write(text: str) -> int:
    """Add a note; how many connections were out before."""
    out = checked_out()
    db.session.add(Note(text=text, user_id=1))
    db.session.commit()
    return out


class Boom(Exception):
    """What the tasks raise."""


def test_two_connections_serve_two_hundred_tasks(
    app: Flask, executor: Executor
) -> None:
    """Tasks that hold both connections at once give them back, also those that fail
    in the middle of a transaction; what the others commit is there.
    """
    both = threading.Barrier(2)

    def visit(number: int) -> int:
        assert db.session.get(User, 1) is not None
        both.wait(LIMIT)  # each of the two has a connection
        out = checked_out()
        db.session.add(Note(text=str(number), user_id=1))
        db.session.flush()
        if number % 2:
            raise Boom
        db.session.commit()
        return out

    app.config["EXECUTOR_LOG_EXCEPTIONS"] = False
    with app.app_context():
        futures = [executor.submit(visit, number) for number in range(200)]
        assert not wait(futures, LIMIT).not_done
        assert all(isinstance(f.exception(), Boom) for f in futures[1::2])
        assert {f.result() for f in futures[::2]} <= {1, 2}
        assert 2 in {f.result() for f in futures[::2]}
        assert checked_out() == 0
        texts = set(db.session.scalars(select(Note.text)))
    assert texts == {str(number) for number in range(0, 200, 2)}


@pytest.mark.parametrize("fails", [False, True])
def test_the_session_of_the_view_stays_open(
    app: Flask, executor: Executor, fails: bool
) -> None:
    """The end of a task leaves the view's session alone: what it has loaded stays
    attached, what it has added stays pending.
    """

    def task() -> None:
        write("task")
        if fails:
            raise Boom

    with app.test_request_context("/"):
        own = db.session()
        user = db.session.get(User, 1)
        db.session.rollback()
        pending = Note(text="view", user_id=1)
        db.session.add(pending)
        error = executor.submit(task).exception(LIMIT)
        assert isinstance(error, Boom) == fails
        assert db.session() is own
        assert user in own
        assert pending in own.new
        assert sorted(note.text for note in user.notes) == ["task", "view"]
        db.session.commit()
        assert notes() == 2


@pytest.mark.parametrize("kind", ["thread", "coroutine", "process"])
def test_rows_of_a_task_are_there(app: Flask, kind: str) -> None:
    """db.session works in each kind of task, and each task starts with none of the
    connections of an earlier one.
    """
    executor = executor_of(app, "thread" if kind == "coroutine" else kind)
    fn: t.Any = write_in_coroutine if kind == "coroutine" else write
    with app.app_context():
        assert executor.submit(fn, "one").result(LIMIT) == 0
        assert executor.submit(fn, "two").result(LIMIT) == 0
        assert notes() == 2
    executor.shutdown()


async def write_in_coroutine(text: str) -> int:
    return write(text)


def test_sync_shares_the_session_of_its_caller(app: Flask) -> None:
    """A call of type 'sync' runs in the caller's own session, which stays open."""
    executor = executor_of(app, "sync")

    def add_note() -> t.Any:
        db.session.add(Note(text="uncommitted", user_id=1))
        return db.session()

    with app.app_context():
        user = db.session.get(User, 1)
        assert executor.submit(add_note).result() is db.session()
        assert user in db.session
        assert len(db.session.new) == 1
        assert checked_out() == 1


def who() -> tuple[t.Any, ...]:
    """Who is logged in, whose notes can be loaded, and where the object lives."""
    user = current_user._get_current_object()
    texts = [note.text for note in user.notes]
    return user.name, user.is_authenticated, texts, object_session(user) is db.session()


async def who_in_coroutine() -> tuple[t.Any, ...]:
    return who()


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("kind", ["thread", "coroutine", "process", "sync"])
def test_current_user(app: Flask, kind: str, touched: bool) -> None:
    """A task has the view's user, whether the view has looked or not, as an object of
    its own database session.
    """
    executor = executor_of(app, "thread" if kind == "coroutine" else kind)
    fn: t.Any = who_in_coroutine if kind == "coroutine" else who

    @app.get("/")
    def view() -> t.Any:
        if touched:
            assert current_user.name == "ada"
            db.session.commit()  # expires what was loaded
        return list(executor.submit(fn).result(LIMIT))

    with app.app_context():
        write("hers")
    client = app.test_client()
    client.post("/login")
    assert client.get("/").json == ["ada", True, ["hers"], True]
    executor.shutdown()


def who_through_g() -> tuple[t.Any, ...]:
    """Which user the proxies in ``g`` show, and whether it is the task's own."""
    return g.user.name, g.users["me"].name, g.user == current_user, *who()[2:]


async def who_through_g_in_coroutine() -> tuple[t.Any, ...]:
    return who_through_g()


# With all of g a task has the view's own user, once that is loaded.
@pytest.mark.parametrize(
    ("copy_g", "touched"), [("safe", False), ("safe", True), ("all", False)]
)
@pytest.mark.parametrize("kind", ["thread", "coroutine", "process", "sync"])
def test_current_user_in_g(app: Flask, kind: str, touched: bool, copy_g: str) -> None:
    """``g.user = current_user`` before each request, as Flask-Login's users and
    Flask-AppBuilder have it: a task finds the user of its own context behind it.
    """
    app.config["EXECUTOR_COPY_G"] = copy_g
    executor = executor_of(app, "thread" if kind == "coroutine" else kind)
    fn: t.Any = who_through_g_in_coroutine if kind == "coroutine" else who_through_g

    @app.before_request
    def set_user() -> None:
        g.user = current_user
        g.users = {"me": current_user}
        if touched:
            assert current_user.is_authenticated is not None

    @app.get("/")
    def view() -> t.Any:
        assert ("_login_user" in g) == touched
        found = [list(executor.submit(fn).result(LIMIT)) for _ in range(2)]
        if kind != "sync":
            assert ("_login_user" in g) == touched  # nobody has looked at the proxy
        return found

    client = app.test_client()
    client.post("/login")
    assert client.get("/").json == [["ada", "ada", True, [], True]] * 2
    executor.shutdown()


def test_a_proxy_among_the_arguments_is_not_resolved(
    app: Flask, executor: Executor
) -> None:
    """Beside an uploaded file, which is looked for among them."""
    file = FileStorage(io.BytesIO(b"x"), "x.csv")

    def name_and_size(user: t.Any, file: FileStorage) -> tuple[str, int]:
        return user.name, len(file.read())

    @app.get("/")
    def view() -> t.Any:
        task = executor.submit(name_and_size, current_user, file)
        assert "_login_user" not in g
        return list(task.result(LIMIT))

    client = app.test_client()
    client.post("/login")
    assert client.get("/").json == ["ada", 1]


def rename() -> None:
    current_user.name = "grace"
    db.session.commit()


def test_current_user_can_be_changed(app: Flask, executor: Executor) -> None:
    """What a task changes of the user, it can commit."""

    @app.get("/")
    @login_required
    def view() -> str:
        executor.submit(rename).result(LIMIT)
        return ""

    client = app.test_client()
    client.post("/login")
    client.get("/")
    with app.app_context():
        assert db.session.get(User, 1).name == "grace"  # type: ignore[union-attr]


def log_out() -> bool:
    logout_user()
    return bool(current_user.is_authenticated)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_logging_out_in_a_task(app: Flask, kind: str) -> None:
    """It logs out that task: neither the view nor the client nor another task."""
    executor = executor_of(app, kind)

    @app.get("/")
    @login_required
    def view() -> t.Any:
        session["view"] = "was here"
        assert executor.submit(log_out).result(LIMIT) is False
        return [current_user.name, executor.submit(who).result(LIMIT)[0]]

    client = app.test_client()
    client.post("/login")
    assert client.get("/").json == ["ada", "ada"]
    assert client.get("/").status_code == 200
    executor.shutdown()


def test_nobody_is_logged_in(app: Flask, executor: Executor) -> None:
    """A task of an anonymous view is anonymous."""

    @app.get("/")
    def view() -> t.Any:
        assert current_user.is_anonymous
        return [executor.submit(lambda: current_user.is_anonymous).result(LIMIT)]

    assert app.test_client().get("/").json == [True]


class Guest(UserMixin):
    """A user that no user_loader knows."""

    id = "guest"


@pytest.mark.parametrize("copy_g", ["safe", "all"])
def test_another_user_than_the_session_has(
    app: Flask, executor: Executor, copy_g: str
) -> None:
    """A user that would not be loaded again is the same object in view and task; with
    EXECUTOR_COPY_G = 'all', any is.
    """
    app.config["EXECUTOR_COPY_G"] = copy_g
    other = User(id=2, name="eve")
    with app.test_request_context("/"):
        g._login_user = guest = Guest()
        session["_user_id"] = "guest"
        task = executor.submit(current_user._get_current_object)
        assert task.result(LIMIT) is guest
        g._login_user = other
        task = executor.submit(lambda: current_user._get_current_object())
        assert task.result(LIMIT) is other
        session["_user_id"] = "2"
        task = executor.submit(lambda: current_user._get_current_object())
        assert (task.result(LIMIT) is other) == (copy_g == "all")


def test_a_user_who_cannot_be_asked(app: Flask, executor: Executor) -> None:
    """A model object that has lost its session is no reason to refuse a task."""
    with app.test_request_context("/"):
        g._login_user = user = db.session.get(User, 1)
        session["_user_id"] = "1"
        db.session.commit()
        db.session.expunge(user)  # its id can no longer be read
        assert executor.submit(lambda: 1).result(LIMIT) == 1


def links() -> list[str]:
    return [url_for(".page", number=8), url_for("pages.page", number=9, _external=True)]


async def links_in_coroutine() -> list[str]:
    return links()


@pytest.mark.parametrize("kind", ["thread", "coroutine", "process", "sync"])
def test_url_for(app: Flask, kind: str) -> None:
    """Links are made as in the view: from its blueprint, and with its host."""
    executor = executor_of(app, "thread" if kind == "coroutine" else kind)
    fn: t.Any = links_in_coroutine if kind == "coroutine" else links
    with app.test_request_context("/page/7", base_url="https://example.org"):
        found = executor.submit(fn).result(LIMIT)
    assert found == ["/page/8", "https://example.org/page/9"]
    executor.shutdown()


def test_url_for_without_a_request(app: Flask, executor: Executor) -> None:
    """Where there is no request, SERVER_NAME makes links possible, as in a view."""
    app.config["SERVER_NAME"] = "example.org"
    with app.app_context():
        found = executor.submit(lambda: url_for("pages.page", number=1))
        assert found.result(LIMIT) == "http://example.org/page/1"
