"""A double of the coming Flask 3.2, whose app context is its request context, too.

Nobody can install Flask 3.2 yet, so this gives the Flask that is installed its shape.
The facts are those of Flask's main branch (``src/flask/ctx.py``, ``globals.py``):

- ``AppContext(app, *, request=None, session=None)`` and ``AppContext.from_environ``;
  ``has_request``; ``request`` and ``session`` raise ``RuntimeError`` without one.
- It is the value of ``_cv_app``, and ``request`` and ``session`` are proxies of that.
  There is no ``_cv_request``.
- It counts its pushes. The first matches the URL; the last pop runs the functions of
  ``teardown_request`` where there is a request, closes that, and runs those of
  ``teardown_appcontext``. What they raise is raised together, in the end.
- ``copy`` has the same request and session, and a new ``g``.
- The session was first opened when somebody asked for it; of late, push opens it, and
  asking for it marks it as accessed. :func:`install` can do both.
- ``flask.ctx.RequestContext`` and ``flask.globals.request_ctx`` are aliases that warn.

Not of that shape are the methods of ``Flask`` itself, which take the context as an
argument there: this package calls none of them.

As a plugin of pytest (``-p flask32``) it is there before any other module. The variable
``FLASK32_SESSION`` is ``push`` or ``lazy``.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import types
import typing as t
import warnings

import flask
import flask.app
import flask.cli
import flask.ctx
import flask.debughelpers
import flask.globals
import flask.helpers
import flask.sessions
import flask.templating
import flask.testing
from flask import Flask
from flask.signals import appcontext_popped, appcontext_pushed
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy

_current: contextvars.ContextVar[AppContext] = t.cast(t.Any, flask.globals._cv_app)


class AppContext:
    """One context, with or without a request."""

    push_opens_session = True

    def __init__(
        self, app: Flask, *, request: t.Any = None, session: t.Any = None
    ) -> None:
        self.app = app
        self.g = app.app_ctx_globals_class()
        self.url_adapter = None
        self._request = request
        self._session = session
        self._flashes: t.Any = None
        self._after_request_functions: list[t.Any] = []
        self._cv_token: contextvars.Token[AppContext] | None = None
        self._push_count = 0
        try:
            self.url_adapter = app.create_url_adapter(request)
        except HTTPException as error:
            if request is not None:
                request.routing_exception = error

    @classmethod
    def from_environ(cls, app: Flask, environ: dict[str, t.Any], /) -> t.Self:
        request = app.request_class(environ)
        request.json_module = app.json
        return cls(app, request=request)

    @property
    def has_request(self) -> bool:
        return self._request is not None

    def copy(self) -> t.Self:
        return type(self)(self.app, request=self._request, session=self._session)

    @property
    def request(self) -> t.Any:
        if self._request is None:
            raise RuntimeError("There is no request in this context.")
        return self._request

    def _get_session(self) -> t.Any:
        request = self.request
        if self._session is None:
            interface = self.app.session_interface
            self._session = interface.open_session(self.app, request)
            if self._session is None:
                self._session = interface.make_null_session(self.app)
        return self._session

    @property
    def session(self) -> t.Any:
        session = self._get_session()
        session.accessed = True
        return session

    def match_request(self) -> None:
        try:
            matched = self.url_adapter.match(return_rule=True)  # type: ignore[attr-defined]
        except HTTPException as error:
            self.request.routing_exception = error
        else:
            self.request.url_rule, self.request.view_args = matched

    def push(self) -> None:
        self._push_count += 1
        if self._cv_token is not None:
            return
        self._cv_token = _current.set(self)
        appcontext_pushed.send(self.app, _async_wrapper=self.app.ensure_sync)
        if self._request is not None:
            if self.push_opens_session:
                self._get_session()
            if self.url_adapter is not None:
                self.match_request()

    def pop(self, exc: BaseException | None = None) -> None:
        if self._cv_token is None or _current.get(None) is not self:
            raise RuntimeError(f"Cannot pop {self!r}: it is not the active context.")
        self._push_count -= 1
        if self._push_count:
            return
        failures: list[BaseException] = []
        if self._request is not None:
            with _noted(failures):
                self.app.do_teardown_request(exc)
            with _noted(failures):
                self._request.close()
        with _noted(failures):
            self.app.do_teardown_appcontext(exc)
        _current.reset(self._cv_token)
        self._cv_token = None
        with _noted(failures):
            appcontext_popped.send(self.app, _async_wrapper=self.app.ensure_sync)
        if failures:
            raise BaseExceptionGroup("Errors during context teardown", failures)

    def __enter__(self) -> t.Self:
        self.push()
        return self

    def __exit__(self, kind: t.Any, error: BaseException | None, trace: t.Any) -> None:
        self.pop(error)

    # The name that the installed Flask's own functions use.
    @property
    def flashes(self) -> t.Any:
        return self._flashes

    @flashes.setter
    def flashes(self, flashes: t.Any) -> None:
        self._flashes = flashes


@contextlib.contextmanager
def _noted(failures: list[BaseException]) -> t.Iterator[None]:
    try:
        yield
    except BaseException as error:
        failures.append(error)


class _WithRequest:
    """What the installed Flask's own functions take for their second variable."""

    def get(self, *default: t.Any) -> t.Any:
        context = _current.get(None)
        if context is not None and context.has_request:
            return context
        return default[0] if default else _current.get().request


def _alias(module: str, name: str, value: t.Any) -> t.Callable[[str], t.Any]:
    def get(asked: str) -> t.Any:
        if asked != name:
            raise AttributeError(f"module {module!r} has no attribute {asked!r}")
        warnings.warn(f"{name!r} has merged", DeprecationWarning, stacklevel=2)
        return value

    return get


def install(*, push_opens_session: bool) -> None:
    """Give the Flask of this interpreter the shape of 3.2."""
    AppContext.push_opens_session = push_opens_session
    proxy = flask.globals.app_ctx
    replaced = [
        (flask.ctx.AppContext, AppContext),
        (flask.ctx.RequestContext, AppContext.from_environ),
        (flask.globals._cv_request, _WithRequest()),
        (flask.globals.request_ctx, proxy),
        (flask.globals.request, LocalProxy(_current, "request")),
        (flask.globals.session, LocalProxy(_current, "session")),
    ]
    for module in [m for n, m in sys.modules.items() if n.split(".")[0] == "flask"]:
        _replace(module, replaced)
    flask.globals.__dict__.pop("_cv_request")
    flask.globals.__dict__.pop("request_ctx")
    flask.globals.__dict__["__getattr__"] = _alias(
        "flask.globals", "request_ctx", proxy
    )
    flask.ctx.__dict__.pop("RequestContext")
    flask.ctx.__dict__["__getattr__"] = _alias(
        "flask.ctx", "RequestContext", AppContext
    )
    _save_sessions_that_nobody_opened()


def _replace(module: types.ModuleType, pairs: list[tuple[t.Any, t.Any]]) -> None:
    for name, value in list(vars(module).items()):
        for old, new in pairs:
            if value is old:
                setattr(module, name, new)


def _save_sessions_that_nobody_opened() -> None:
    process = Flask.process_response

    def process_response(self: Flask, response: t.Any) -> t.Any:
        _current.get()._get_session()
        return process(self, response)

    Flask.process_response = process_response  # type: ignore[method-assign]


if "FLASK32_SESSION" in os.environ:
    install(push_opens_session=os.environ["FLASK32_SESSION"] == "push")
