"""What a saved task sees of the request: no credentials, and always the same."""

from __future__ import annotations

import contextvars
import datetime
import io
import pickle
import pickletools
import typing as t
import uuid

import pytest
from flask import Flask, current_app, g, has_request_context, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user, login_user
from markupsafe import Markup

from flask_executor import PayloadTooLarge
from flask_executor.contexts import PortableSnapshot, Snapshot
from flask_executor.contexts.safe import Context, is_credential, is_plain
from flask_executor.contexts.saving import JsonContexts
from flask_executor.settings import Settings
from flask_executor.stores.payloads import Payloads

SECRET = "hunter2"
SECRET_HEADERS = {
    "Authorization": f"Bearer {SECRET}",
    "Proxy-Authorization": SECRET,
    "X-Api-Key": SECRET,
    "ApiKey": SECRET,
    "Ocp-Apim-Subscription-Key": SECRET,
    "X-Auth-Token": SECRET,
    "X-CSRFToken": SECRET,
    "X-XSRF-TOKEN": SECRET,
    "X-Amz-Security-Token": SECRET,
    "Cf-Access-Jwt-Assertion": SECRET,
    "X-Amzn-Oidc-Data": SECRET,
    "X-Forwarded-Client-Cert": SECRET,
    "X-Remote-User": SECRET,
    "X-Forwarded-User": SECRET,
    "X-Session-Id": SECRET,
    "X-Vault-Secret": SECRET,
    "Cookie": f"session={SECRET}; remember_token={SECRET}",
}
SECRET_ENVIRON = {
    "REMOTE_USER": SECRET,
    "AUTH_TYPE": SECRET,
    "SSL_CLIENT_CERT": SECRET,
    "gunicorn.secret": SECRET,
    "PASSWORD": SECRET,
}
KEPT = {
    "Host": "shop.example",
    "User-Agent": "a browser",
    "Accept-Language": "de",
    "Referer": "http://shop.example/cart",
    "X-Request-Id": "r-1",
    "Traceparent": "00-1",
}

color: contextvars.ContextVar[str] = contextvars.ContextVar("color", default="none")


class Database:
    """Neither plain nor closable."""


@pytest.fixture(params=["pickle", "json"])
def own(app: Flask, request: pytest.FixtureRequest) -> Payloads:
    """What saves calls, in each format."""
    return Payloads(app, Settings(serializer=request.param))


@pytest.fixture
def shop(app: Flask) -> Flask:
    app.add_url_rule(
        "/orders/<int:number>", "order", lambda number: "", methods=["POST"]
    )
    return app


def saved(
    own: Payloads, app: Flask, what: str = "safe"
) -> tuple[Snapshot, Snapshot, bytes]:
    """What the submitter runs, what another process runs, and the bytes between."""
    context = own.context_of(Snapshot.take(app), what)
    sealed = own.seal_call("t", "job", (), {}, context)
    again = own.open_call("t", "job", sealed).context
    return context.restore(app), again.restore(app), sealed.data


def runs(snapshots: t.Sequence[t.Any], fn: t.Callable[[], t.Any]) -> t.Any:
    """What both of them see, which must be the same."""
    here, there = (snapshot.run(fn, (), {}) for snapshot in snapshots[:2])
    assert here == there
    return here


def order(app: Flask, **more: t.Any) -> t.Any:
    """A request with an order, and with everything secret."""
    return app.test_request_context(
        "/orders/7?full=1",
        method="POST",
        headers={**KEPT, **SECRET_HEADERS},
        environ_overrides={**SECRET_ENVIRON, "REMOTE_ADDR": "10.0.0.9"},
        **more,
    )


def test_what_a_safe_request_shows(shop: Flask, own: Payloads) -> None:
    """URL, method, route, address, headers, session and plain values of g are there."""

    def seen() -> t.Any:
        return (
            (request.method, request.url, request.path, request.args["full"]),
            (request.endpoint, request.view_args, url_for("order", number=8)),
            (request.remote_addr, dict(session), current_app.name),
            {name: request.headers[name] for name in KEPT},
            (vars(g), color.get()),
        )

    with order(shop):
        session.update(_user_id="7", cart=[1, {"two": (2, b"2")}])
        g.tenant, g.limits = "acme", {"users": [5, None]}
        g.db, g.when = Database(), datetime.timedelta(1)
        color.set("red")
        found = runs(saved(own, shop), seen)
    assert found[0] == (
        *("POST", "http://shop.example/orders/7?full=1", "/orders/7", "1"),
    )
    assert found[1] == ("order", {"number": 7}, "/orders/8")
    assert found[2][0] == "10.0.0.9"
    assert found[2][1] == {"_user_id": "7", "cart": [1, {"two": (2, b"2")}]}
    assert found[3] == KEPT
    assert found[4] == ({"tenant": "acme", "limits": {"users": [5, None]}}, "none")


@pytest.mark.parametrize("what", ["safe", "all"])
def test_no_credential_is_saved(shop: Flask, own: Payloads, what: str) -> None:
    """No credential of any kind is in the bytes, and the task sees none."""

    def seen() -> t.Any:
        assert request.authorization is None and request.remote_user is None
        assert not request.cookies
        return sorted(request.headers.keys())

    with order(shop):
        session["csrf_token"] = g.csrf_token = SECRET
        session["kept"] = g.kept = "kept"
        *both, data = saved(own, shop, what)
        headers = runs(both, seen)
    assert SECRET.encode() not in data
    assert b"kept" in data
    if what == "safe":
        assert headers == sorted(KEPT)


@pytest.mark.parametrize("name", [*SECRET_HEADERS, "HTTP_X_API_KEY", "x-nothing-auth"])
def test_credentials_are_known_by_name(name: str) -> None:
    """A header whose name speaks of a secret is a credential, in any spelling."""
    assert is_credential(name)
    assert is_credential(name.upper().replace("-", "_"))


@pytest.mark.parametrize("name", KEPT)
def test_other_headers_are_kept(name: str) -> None:
    """The others are not credentials."""
    assert not is_credential(name)


def test_no_body_by_default(shop: Flask, own: Payloads) -> None:
    """Neither a form nor a file nor JSON is saved, nor a header that describes them."""

    def seen() -> t.Any:
        return (
            (request.get_data(), dict(request.form), dict(request.files)),
            (request.content_type, request.content_length, request.is_json),
        )

    for parse in (True, False):
        file = (io.BytesIO(b"hunter2"), "secret.txt")
        for data in ({"password": SECRET}, {"file": file}, SECRET):
            with order(shop, data=data):
                _ = request.form if parse else None
                *both, text = saved(own, shop)
                assert runs(both, seen) == ((b"", {}, {}), (None, None, False))
            assert SECRET.encode() not in text
    with order(shop, json={"password": SECRET}):
        *both, text = saved(own, shop)
    assert runs(both, seen)[1] == (None, None, False)
    assert SECRET.encode() not in text


@pytest.mark.parametrize("parsed", [True, False])
def test_the_whole_request(shop: Flask, own: Payloads, parsed: bool) -> None:
    """With 'all', the form and the files are there, parsed by the view or not."""

    def seen() -> t.Any:
        files = request.files.getlist("file")
        return (
            request.form.getlist("name"),
            [(f.filename, f.mimetype, f.read()) for f in files],
        )

    files = [(io.BytesIO(b"\0one"), "a.txt"), (io.BytesIO(b"two"), "b.png")]
    with order(shop, data={"name": ["ada", "eve"], "file": files}):
        _ = request.form if parsed else None
        found = runs(saved(own, shop, "all"), seen)
    assert found == (
        ["ada", "eve"],
        [("a.txt", "text/plain", b"\0one"), ("b.png", "image/png", b"two")],
    )


def test_a_whole_json_request(shop: Flask, own: Payloads) -> None:
    """With 'all', a JSON body can be read in the task."""
    with order(shop, json={"number": 7}):
        assert runs(saved(own, shop, "all"), request.get_json) == {"number": 7}


def test_a_closed_file(shop: Flask, own: Payloads) -> None:
    """A file that the view has closed is there, and closed or empty."""
    with order(shop, data={"file": (io.BytesIO(b"x"), "a.txt")}):
        request.files["file"].close()
        _, there, _ = saved(own, shop, "all")
    assert there.run(lambda: request.files["file"].filename, (), {}) == "a.txt"


def test_no_request(shop: Flask, own: Payloads) -> None:
    """With 'none', and without a request, a task has an app context alone."""

    def seen() -> t.Any:
        return current_app.name, has_request_context(), vars(g)

    with order(shop):
        g.tenant = "acme"
        assert runs(saved(own, shop, "none"), seen) == (shop.name, False, {})
    with shop.app_context():
        g.tenant = "acme"
        found = runs(saved(own, shop), seen)
    assert found == (shop.name, False, {"tenant": "acme"})


def test_the_configs_choice(shop: Flask) -> None:
    """EXECUTOR_STORE_REQUEST counts where the call says nothing."""
    with order(shop):
        snapshot = Snapshot.take(shop)
        for what, none in (("safe", False), ("none", True)):
            own = Payloads(shop, Settings(store_request=what))
            assert (own.context_of(snapshot).request is None) == none
            assert own.context_of(snapshot, "none").request is None


def test_each_run_has_its_own(shop: Flask, own: Payloads) -> None:
    """What one attempt changes is not seen by the next, nor by the view."""

    def change() -> t.Any:
        before = session["cart"].copy(), sorted(session), request.headers["Host"]
        session["cart"].append(1)
        session["new"] = 1
        request.environ["HTTP_HOST"] = "other"
        return before

    with order(shop):
        session["cart"] = []
        *both, _ = saved(own, shop)
        for _ in range(2):
            assert runs(both, change) == ([], ["cart"], "shop.example")
        assert session["cart"] == []


def test_a_task_that_submits(shop: Flask, own: Payloads) -> None:
    """A saved task can save another one, which sees what it sees."""

    def again() -> t.Any:
        assert request.path == "/orders/7"
        return saved(own, shop)

    with order(shop):
        session["cart"] = [1]
        _, there, _ = saved(own, shop)
    inner = there.run(again, (), {})
    # Nor does it matter if the task has looked at its request before.
    untouched = there.run(lambda: saved(own, shop), (), {})
    for both in (inner, untouched):
        found = runs(both, lambda: (request.path, dict(session), request.view_args))
        assert found == ("/orders/7", {"cart": [1]}, {"number": 7})


def test_a_session_that_nobody_had_opened(shop: Flask, own: Payloads) -> None:
    """Its data is there, although the task does not get the cookie it came from."""
    value = SecureCookieSessionInterface().get_signing_serializer(shop)
    assert value is not None
    cookie = value.dumps({"cart": [1]})
    with shop.test_request_context(headers={"Cookie": f"session={cookie}"}):
        *both, data = saved(own, shop)
    assert runs(both, lambda: (dict(session), dict(request.cookies))) == (
        {"cart": [1]},
        {},
    )
    assert cookie.encode() not in data


def test_in_a_worker_process(shop: Flask, own: Payloads) -> None:
    """What is restored can be sent on to a worker process, which sees the same."""

    def seen() -> t.Any:
        return request.url, request.view_args, dict(session), vars(g)

    with order(shop):
        session["cart"] = [1]
        g.tenant = "acme"
        both = saved(own, shop)[:2]
    expected = runs(both, seen)
    assert expected[2:] == ({"cart": [1]}, {"tenant": "acme"})
    for snapshot in both:
        portable: PortableSnapshot = pickle.loads(snapshot.serialize())
        assert portable.rebuild(shop).run(seen, (), {}) == expected


def test_the_user_is_known(shop: Flask, own: Payloads) -> None:
    """Flask-Login loads the user again, by the id in the session."""

    class User(UserMixin):
        id = "7"

    manager = LoginManager(shop)
    manager.session_protection = "strong"
    manager.user_loader(lambda user_id: User() if user_id == "7" else None)
    with order(shop):
        login_user(User(), remember=True)
        both = saved(own, shop)
    assert runs(both, lambda: current_user.get_id()) == "7"
    assert runs(both, lambda: current_user.is_authenticated) is True


def test_json_keeps_what_the_session_cookie_carries(shop: Flask) -> None:
    """What it would change is left out, not changed, and nobody fails for it."""
    kept: dict[str, t.Any] = {
        "uuid": uuid.UUID(int=1),
        "markup": Markup("<b>"),
        "bytes": b"\0",
        "tuple": ((1,), [2]),
        "moment": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }
    lost = {
        "set": {1},
        "keys": {1: 2},
        "exact": datetime.datetime(2026, 1, 1, 1, 1, 1, 1),
    }
    own = Payloads(shop, Settings(serializer="json"))
    with order(shop):
        session.update({**kept, **lost})
        vars(g).update({"keys": {1: 2}, "set": {1}, "tuple": (1,)})
        both = saved(own, shop)
    assert runs(both, lambda: dict(session)) == kept
    assert runs(both, lambda: vars(g)) == {"tuple": (1,)}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("x", True),
        ({"a": [1.5, (None, {True})]}, True),
        ({"a": [Database()]}, False),
        ({("a", 1): frozenset({b""})}, True),
        (Markup("x"), False),
    ],
)
def test_plain_values(value: t.Any, plain: bool) -> None:
    """Plain are texts, numbers, bytes, True, False, None, and containers of them."""
    assert is_plain(value) is plain


def test_a_container_that_holds_itself(shop: Flask, own: Payloads) -> None:
    """It is not plain, so it is left out of g."""
    own_list: list[t.Any] = []
    own_list.append(own_list)
    assert not is_plain(own_list)
    with order(shop):
        g.loop = own_list
        assert runs(saved(own, shop), lambda: vars(g)) == {}


def test_a_whole_request_that_is_too_large(shop: Flask, own: Payloads) -> None:
    """It is refused at submit, also where its files were not read into memory."""
    bounded = Payloads(shop, Settings(store_max_bytes=5000))
    for parse in (True, False):
        with order(shop, data={"file": (io.BytesIO(b"x" * 5001), "a.txt")}):
            _ = request.form if parse else None
            context = bounded.context_of(Snapshot.take(shop), "all")
            safe = bounded.context_of(Snapshot.take(shop), "safe")
        with pytest.raises(PayloadTooLarge, match="the body of its request"):
            bounded.seal_call("t", "job", (), {}, context)
        bounded.seal_call("t", "job", (), {}, safe)


def test_what_is_saved_is_plain(shop: Flask) -> None:
    """No class of this package is in the bytes, so another version can read them."""
    own = Payloads(shop, Settings())
    with order(shop, data={"name": "ada", "file": (io.BytesIO(b"x"), "a.txt")}):
        session["day"] = datetime.date(2026, 1, 1)
        _ = request.form
        data = saved(own, shop, "all")[2]
    names = {name for _, name, _ in pickletools.genops(data) if isinstance(name, str)}
    assert {"order", "ada", "a.txt"} <= names
    assert not [name for name in names if "flask_executor" in name]


def test_a_session_whose_class_is_gone(shop: Flask) -> None:
    """A value of the session that cannot be read elsewhere is missing, and no more."""
    own = Payloads(shop, Settings())
    with order(shop):
        session.update(kept=1, gone=Gone())
        snapshot, there, _ = saved(own, shop)
    names = list[set[str]]()
    try:
        hidden, Gone.__name__ = Gone, "Hidden"
        del globals()["Gone"]
        names.append(there.run(lambda: {*session}, (), {}))
    finally:
        globals()["Gone"] = hidden
        hidden.__name__ = "Gone"
    assert names == [{"kept"}]
    assert snapshot.run(lambda: {*session}, (), {}) == {"kept", "gone"}


class Gone:
    """A class that another version of the app does not have."""


def body_size() -> int | None:
    return request.content_length


def test_the_size_of_a_body_is_known_before_it_is_read(shop: Flask) -> None:
    """A context tells how many bytes it would need, without reading them."""
    contexts = JsonContexts()
    for parse in (True, False):
        with order(shop, data={"file": (io.BytesIO(b"x" * 100), "a.txt")}):
            size = (
                len(request.files["file"].read()) if parse else request.content_length
            )
            snapshot = Snapshot.take(shop)
        whole = contexts.reduce(snapshot, "all")
        assert whole.size_of_body() == (size or snapshot.run(body_size, (), {}))
        assert contexts.reduce(snapshot, "safe").size_of_body() == 0
    assert Context({}, None).size_of_body() == 0
