"""Saved calls and outcomes: signed, bound to their row, and bounded."""

from __future__ import annotations

import datetime
import io
import pickle
import threading
import typing as t
from decimal import Decimal
from pathlib import Path

import pytest
from flask import Flask, current_app
from flask.json.provider import DefaultJSONProvider
from flask_sqlalchemy import SQLAlchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.datastructures import FileStorage

from flask_executor import (
    ArgumentsNotPicklable,
    ArgumentsNotStorable,
    FailedElsewhere,
    NoSecretKey,
    PayloadRefused,
    PayloadTooLarge,
    ResultNotStorable,
)
from flask_executor.calls import Outcome
from flask_executor.contexts import open_uploads
from flask_executor.contexts.safe import Context
from flask_executor.settings import Settings
from flask_executor.stores.payloads import Payloads
from flask_executor.stores.records import Sealed
from flask_executor.stores.sealing import Label, Signatures

NOTHING = Context({}, None)
db = SQLAlchemy()


class User(db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)


class Bomb:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> t.Any:
        return Path.write_text, (self.path, "loaded")


class Stubborn(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn")


def payloads(app: Flask | None = None, **settings: t.Any) -> Payloads:
    app = app or app_with("now")
    return Payloads(app, Settings(**settings))


def app_with(secret: str | None, fallbacks: t.Sequence[str] | None = None) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY=secret, SECRET_KEY_FALLBACKS=fallbacks)
    return app


def seal(own: Payloads, *args: t.Any, **kwargs: t.Any) -> Sealed:
    return own.seal_call("t1", "mail.send", args, kwargs, NOTHING)


def opened(own: Payloads, sealed: Sealed) -> t.Any:
    return own.open_call("t1", "mail.send", sealed)[:2]


def outcome_of(own: Payloads, outcome: Outcome) -> Outcome:
    """The outcome as another process finds it."""
    saved = own.seal_outcome("t1", "mail.send", outcome)
    return own.open_outcome("t1", "mail.send", saved.sealed, saved.failure)


def raised(error: BaseException) -> Outcome:
    try:
        raise error
    except BaseException as caught:
        return Outcome(error=caught)


# Calls


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_call_comes_back(serializer: str) -> None:
    """Arguments that plain data can say come back equal, in both formats."""
    own = payloads(serializer=serializer)
    args = [1, "two", [3.5, None, {"four": [True]}]]
    sealed = seal(own, *args, key="value", empty={})
    assert sealed.format == serializer
    assert [list(opened(own, sealed)[0]), opened(own, sealed)[1]] == [
        args,
        {"key": "value", "empty": {}},
    ]


def test_pickle_carries_more() -> None:
    """With pickle, values keep their types."""
    own = payloads()
    args = (1, (2, 3), {4: b"5"}, Decimal("1.50"), datetime.date(2026, 1, 1))
    assert opened(own, seal(own, *args)) == (args, {})


def test_a_proxy_stays_a_proxy(app: Flask) -> None:
    """A proxy among the arguments stands for an object of the task's own context."""
    own = payloads(app)
    with app.app_context():
        sealed = seal(own, current_app)
    (found,), _ = opened(own, sealed)
    assert found is current_app


# Attacks and damage


def test_a_forged_pickle_is_never_loaded(tmp_path: Path) -> None:
    """Bytes that this app has not signed are refused before they can run anything."""
    trap = tmp_path / "trap"
    forged = pickle.dumps(Bomb(trap))
    stranger = Signatures(["another"])
    own = payloads()
    for kind in ("payload", "result"):
        label = Label("t1", t.cast(t.Any, kind), "mail.send", "pickle")
        for sealed in (
            Sealed("pickle", forged, b""),
            Sealed("pickle", forged, seal(own).signature),
            stranger.sign(label, forged),
        ):
            with pytest.raises(PayloadRefused, match="signature does not match"):
                opened(own, sealed)
            error = own.open_outcome("t1", "mail.send", sealed, None).error
            assert isinstance(error, PayloadRefused) and error.kind == "result"
    assert not trap.exists()
    pickle.loads(forged)
    assert trap.exists(), "the trap works"


def test_where_the_bytes_belong() -> None:
    """A copy in another row, for another job, kind or format is refused, by name."""
    own = payloads()
    sealed = seal(own, 1)
    with pytest.raises(PayloadRefused, match=r"payload of task t2 \(mail.send\)"):
        own.open_call("t2", "mail.send", sealed)
    with pytest.raises(PayloadRefused, match=r"payload of task t1 \(db.drop\)"):
        own.open_call("t1", "db.drop", sealed)
    as_result = own.open_outcome("t1", "mail.send", sealed, None)
    assert isinstance(as_result.error, PayloadRefused)
    result = own.seal_outcome("t1", "mail.send", Outcome(1)).sealed
    assert result is not None
    with pytest.raises(PayloadRefused, match="signature does not match"):
        opened(own, result)
    text = seal(payloads(serializer="json"), 1)
    with pytest.raises(PayloadRefused, match="signature does not match"):
        opened(own, text._replace(format="pickle"))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    """Bytes or a signature that lost or changed a part are refused, each by itself."""
    own = payloads()
    sealed = seal(own, "an argument", number=1)
    field = data.draw(st.sampled_from(["data", "signature"]))
    whole: bytes = getattr(sealed, field)
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    for damaged in (whole[:at], flipped, whole + b"\0"):
        with pytest.raises(PayloadRefused, match="signature does not match"):
            opened(own, sealed._replace(**{field: damaged}))
    assert opened(own, sealed) == (("an argument",), {"number": 1})


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_signed_but_not_readable_here(serializer: str) -> None:
    """Bytes that are ours but do not load here are refused with the reason."""
    own = payloads(serializer=serializer)
    label = Label("t1", "payload", "mail.send", serializer)
    sealed = own._signatures.sign(label, b"cno_such_module\nThing\n.")
    with pytest.raises(PayloadRefused, match="cannot be read in this process") as info:
        opened(own, sealed)
    assert "Submit it again" in str(info.value)


def test_a_rotated_secret_key() -> None:
    """What an older key has signed is read as long as it is among the fallbacks."""
    sealed = seal(payloads(app_with("old")), 1)
    rotated = payloads(app_with("new", ["older", "old"]))
    assert opened(rotated, sealed) == ((1,), {})
    assert opened(payloads(app_with("new", ["old"])), seal(rotated, 2)) == ((2,), {})
    with pytest.raises(PayloadRefused, match="neither SECRET_KEY nor one of"):
        opened(payloads(app_with("new")), sealed)
    with pytest.raises(PayloadRefused):
        opened(payloads(app_with("old")), seal(rotated, 3))


@pytest.mark.parametrize("secret", [None, "", b""])
def test_without_a_secret_key(secret: t.Any) -> None:
    """Nothing can be signed, so the store does not start, and says what to set."""
    with pytest.raises(NoSecretKey, match=r"app 'shop' has no SECRET_KEY.*set app\."):
        payloads(app_with(secret))


def test_a_memoryview_is_bytes() -> None:
    """Drivers that return a memoryview for a column of bytes change nothing."""
    own = payloads()
    sealed = seal(own, 1)
    viewed = sealed._replace(
        data=t.cast(bytes, memoryview(sealed.data)),
        signature=t.cast(bytes, memoryview(sealed.signature)),
    )
    assert opened(own, viewed) == ((1,), {})


def test_with_json_nothing_is_unpickled(tmp_path: Path) -> None:
    """A signed pickle is refused, too; and JSON is where pickle is used."""
    trap = tmp_path / "trap"
    own, other = payloads(serializer="json"), payloads()
    with pytest.raises(PayloadRefused, match=r"saved as pickle, and EXECUTOR_SERIAL"):
        opened(own, seal(other, Bomb(trap)))
    result = other.seal_outcome("t1", "mail.send", Outcome(Bomb(trap)))
    error = own.open_outcome("t1", "mail.send", result.sealed, None).error
    assert isinstance(error, PayloadRefused)
    assert not trap.exists()
    with pytest.raises(PayloadRefused, match=r"saved as json.*'pickle' now"):
        opened(other, seal(own, 1))


# What is refused at submit


class Odd:
    def __reduce__(self) -> t.Any:
        raise RuntimeError("not me")


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1, lambda: 2), {}, ["args[1] (function)", "cannot be written", "<lambda>"]),
        ((), {"lock": threading.Lock()}, ["kwargs['lock'] (lock)", "_thread.lock"]),
        (([open],), {"file": io.StringIO()}, []),
        ((), {"n": (i for i in "ab")}, ["kwargs['n'] (generator)"]),
        ((Odd(),), {}, ["args[0] (Odd)", "RuntimeError: not me"]),
    ],
)
def test_unpicklable_arguments(
    args: t.Any, kwargs: t.Any, words: list[str], tmp_path: Path
) -> None:
    """They are refused at submit, with the name of the argument and the reason."""
    if not words:
        kwargs, words = {"file": (tmp_path / "x").open("w")}, ["kwargs['file']"]
    with pytest.raises(ArgumentsNotStorable) as info:
        seal(payloads(), *args, **kwargs)
    for value in kwargs.values():
        if isinstance(value, io.IOBase):
            value.close()
    assert isinstance(info.value, ArgumentsNotPicklable)
    for word in ["mail.send cannot be saved: ", *words]:
        assert word in str(info.value)


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_database_objects(serializer: str) -> None:
    """A database object is refused, also inside plain containers: pass its id."""
    user = User(id=7)
    own = payloads(serializer=serializer)
    for args, kwargs, where in (
        ((user,), {}, "args[0] is"),
        ((), {"user": user}, "kwargs['user'] is"),
        (([1, {"all": (user,)}],), {}, "args[0][1]['all'][0] is"),
        (({user},), {}, "an item of args[0] is"),
    ):
        with pytest.raises(ArgumentsNotStorable) as info:
            seal(own, *args, **kwargs)
        assert f"{where} the database object User" in str(info.value)
        assert "Pass its id, and load it in the task" in str(info.value)


def test_a_list_that_holds_itself() -> None:
    """Looking for database objects ends."""
    args: list[t.Any] = [[1]]
    args.append(args)
    own = payloads()
    (found,), _ = opened(own, seal(own, args))
    assert found[1] is found


def test_a_payload_that_is_too_large() -> None:
    """It is refused at submit, with the size, the limit and the way out."""
    own = payloads(store_max_bytes=1000)
    seal(own, "x" * 800)
    with pytest.raises(PayloadTooLarge) as info:
        seal(own, "x" * 1000)
    assert isinstance(info.value, ValueError)
    assert info.value.size > 1000 and info.value.limit == 1000
    for word in (
        f"mail.send cannot be saved: {info.value.size} bytes",
        "EXECUTOR_STORE_MAX_BYTES is 1000",
        "its path or its id",
    ):
        assert word in str(info.value)


def test_uploads_among_the_arguments(tmp_path: Path) -> None:
    """A small uploaded file is saved by value; a large one is refused unread."""
    own = payloads(store_max_bytes=2000)
    small = FileStorage(io.BytesIO(b"content"), "a.txt", "file")
    args, _ = opened(own, seal(own, [small]))
    ((again,),) = open_uploads(args)
    assert (again.filename, again.read()) == ("a.txt", b"content")
    path = tmp_path / "large"
    with path.open("w+b") as file:
        file.truncate(1 << 40)  # a terabyte, which no test could read
        with pytest.raises(PayloadTooLarge, match="1099511627776 bytes"):
            seal(own, {"file": FileStorage(file, "b.txt")})
    with pytest.raises(ArgumentsNotStorable, match=r"args\[0\] \(Upload\)"):
        seal(payloads(serializer="json"), small)


# JSON


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((1, 2), "args[0] is a tuple, and JSON gives back a list"),
        ([{"a": (1,)}], "args[0][0]['a'] is a tuple, and JSON gives back a list"),
        ({1: "a"}, "args[0] has the key 1, and the keys of JSON are texts"),
        ({None: "a"}, "the key None"),
        (Decimal("1.5"), "args[0] is a Decimal, and JSON gives back a str"),
        (datetime.date(2026, 1, 1), "args[0] is a date, and JSON gives back a str"),
        (b"x", "Object of type bytes is not JSON serializable"),
        ({1}, "Object of type set is not JSON serializable"),
        (object(), "Object of type object is not JSON serializable"),
    ],
)
def test_json_changes_nothing(value: t.Any, words: str) -> None:
    """What would come back as something else is refused at submit, and named."""
    with pytest.raises(ArgumentsNotStorable) as info:
        seal(payloads(serializer="json"), value)
    assert words in str(info.value)
    saved = payloads(serializer="json").seal_outcome("t", "j", Outcome(value))
    assert isinstance(saved.outcome.error, ResultNotStorable)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=50)
@given(json_values)
def test_json_carries_what_it_can_say(value: t.Any) -> None:
    """Each value that JSON can say comes back equal, with the same types."""
    own = payloads(serializer="json")
    (found,), _ = opened(own, seal(own, value))
    assert repr(ordered(found)) == repr(ordered(value))
    assert repr(ordered(outcome_of(own, Outcome(value)).value)) == repr(ordered(value))


def ordered(value: t.Any) -> t.Any:
    """Flask sorts the keys of a dict."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


class Dates(DefaultJSONProvider):
    """A provider of the app's own that carries dates."""

    def loads(self, s: t.Any, **kwargs: t.Any) -> t.Any:
        def found(pairs: dict[str, t.Any]) -> t.Any:
            text = pairs.get("date")
            return pairs if text is None else datetime.date.fromisoformat(text)

        return super().loads(s, object_hook=found, **kwargs)

    @staticmethod
    def default(o: t.Any) -> t.Any:
        return {"date": o.isoformat()}


def test_the_apps_own_json() -> None:
    """app.json writes and reads, so what the app has taught it is carried."""
    app = app_with("now")
    app.json = Dates(app)
    own = payloads(app, serializer="json")
    today = datetime.date(2026, 1, 1)
    assert opened(own, seal(own, [today])) == ([[today]], {})
    assert outcome_of(own, Outcome(today)).value == today


# Outcomes


def test_a_result_comes_back() -> None:
    """A result is saved without any text about it."""
    own = payloads()
    saved = own.seal_outcome("t1", "mail.send", Outcome((1, {2})))
    assert saved.failure is None and saved.outcome.error is None
    assert outcome_of(own, Outcome((1, {2}))) == Outcome((1, {2}))


def test_an_exception_comes_back() -> None:
    """It is of its own class, with its traceback as its cause."""
    error = outcome_of(payloads(), raised(KeyError("stock"))).error
    assert isinstance(error, KeyError) and error.args == ("stock",)
    assert "in raised" in str(error.__cause__)


def test_a_failure_is_shown_without_unpickling() -> None:
    """The class, the text and the traceback of an exception are texts of their own."""
    saved = payloads().seal_outcome("t1", "mail.send", raised(KeyError("stock")))
    assert saved.failure is not None
    assert saved.failure[:2] == ("KeyError", "'stock'")
    assert saved.failure.traceback.startswith("Traceback (most recent call last)")
    saved = payloads().seal_outcome("t1", "mail.send", raised(Stubborn(1, 2)))
    assert saved.failure is not None
    assert saved.failure[:2] == (f"{__name__}.Stubborn", "stubborn")


@pytest.mark.parametrize(
    ("serializer", "error"), [("pickle", Stubborn(1, 2)), ("json", KeyError("stock"))]
)
def test_an_exception_that_only_texts_can_say(
    serializer: str, error: Exception
) -> None:
    """One that does not pickle, and any with JSON, is FailedElsewhere."""
    own = payloads(serializer=serializer)
    saved = own.seal_outcome("t1", "mail.send", raised(error))
    assert saved.sealed is None and saved.outcome.error is error
    found = outcome_of(own, raised(error)).error
    assert isinstance(found, FailedElsewhere)
    assert f"{type(error).__qualname__}: {error}" in str(found)
    assert "in raised" in str(found.__cause__)


def test_an_exception_whose_class_is_gone() -> None:
    """After a deploy without that class the texts are what is left."""
    own = payloads()
    label = Label("t1", "result", "mail.send", "pickle")
    sealed = own._signatures.sign(label, b"cno_such_module\nGone\n.")
    failure = own.seal_outcome("t1", "mail.send", raised(KeyError("x"))).failure
    error = own.open_outcome("t1", "mail.send", sealed, failure).error
    assert isinstance(error, FailedElsewhere) and "KeyError: 'x'" in str(error)
    lost = own.open_outcome("t1", "mail.send", sealed, None).error
    assert isinstance(lost, PayloadRefused) and "cannot be read" in str(lost)


@pytest.mark.parametrize("value", [lambda: 1, Odd()])
def test_a_result_that_cannot_be_saved(value: t.Any) -> None:
    """The task has failed then, and everybody sees the same error."""
    own = payloads()
    saved = own.seal_outcome("t1", "mail.send", Outcome(value))
    assert isinstance(saved.outcome.error, ResultNotStorable)
    assert "mail.send ran, but its result cannot be saved" in str(saved.outcome.error)
    assert str(outcome_of(own, Outcome(value)).error) == str(saved.outcome.error)


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_result_that_is_too_large(serializer: str) -> None:
    """The task has failed then: a result is never cut."""
    own = payloads(serializer=serializer, store_max_bytes=100)
    saved = own.seal_outcome("t1", "mail.send", Outcome("x" * 100))
    assert isinstance(saved.outcome.error, PayloadTooLarge)
    assert saved.failure is not None
    assert "too much for its result" in saved.failure.text


def test_a_large_exception() -> None:
    """It is kept as texts, whose middle is left out; what a database refuses is not."""
    own = payloads(store_max_bytes=1000)
    saved = own.seal_outcome("t1", "j", raised(ValueError("\0\ud800" + "x" * 10**6)))
    assert saved.sealed is None and saved.failure is not None
    assert saved.failure.text.startswith(r"\0\ud800x")
    assert all(len(text) < 21_000 for text in saved.failure)
    "".join(saved.failure).encode()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_without_a_text() -> None:
    """An exception whose own text fails is saved all the same."""
    saved = payloads().seal_outcome("t1", "mail.send", raised(Mute()))
    assert saved.failure is not None
    assert saved.failure.text == "(its text cannot be shown)"


def test_nothing_was_saved() -> None:
    """A failed row without bytes and texts is still a specific error."""
    error = payloads().open_outcome("t1", "mail.send", None, None).error
    assert isinstance(error, FailedElsewhere) and "mail.send failed" in str(error)
