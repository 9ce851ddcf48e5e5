"""How a worker process finds the app."""

from __future__ import annotations

import os
import sys
import typing as t
from functools import lru_cache

from flask import Flask
from werkzeug.utils import import_string

from ..errors import AppNotFound


class AppSource:
    """Where a worker process finds the app, according to the process that has it.

    :param explicit: ``EXECUTOR_APP``, or None.
    :param held: ``'module:name'`` of a global that holds the app, or None.
    :param flask_app: ``FLASK_APP``, or None.
    """

    def __init__(
        self, explicit: str | None, held: str | None, flask_app: str | None
    ) -> None:
        self.explicit = explicit
        self.held = held
        self.flask_app = flask_app

    @classmethod
    def of(cls, app: Flask, explicit: str | None) -> AppSource:
        """Return what this process knows of an app."""
        return cls(explicit, _holder_of(app), os.environ.get("FLASK_APP") or None)

    def app(self) -> tuple[Flask | None, str | None]:
        """Return the app of this worker process, made once; or None and the reason.

        :raises AppNotFound: if ``EXECUTOR_APP`` names no app.
        """
        return _make(self.explicit, self.held, self.flask_app)


@lru_cache(maxsize=1)
def _make(
    explicit: str | None, held: str | None, flask_app: str | None
) -> tuple[Flask | None, str | None]:
    if explicit is not None:
        try:
            return _import_app(explicit), None
        except BaseException as error:
            raise AppNotFound(explicit, f"{type(error).__name__}: {error}") from error
    reasons = []
    for reference, load in ((held, _import_app), (flask_app, _load_flask_app)):
        if reference is not None:
            try:
                return load(reference), None
            except BaseException as error:
                reasons.append(f"{reference!r}: {type(error).__name__}: {error}")
    return None, "; ".join(reasons) or "no module holds the app"


def _import_app(reference: str) -> Flask:
    found: t.Any = import_string(reference)
    if not isinstance(found, Flask) and callable(found):
        found = found()
    if not isinstance(found, Flask):
        raise TypeError(f"{reference!r} is {found!r}")
    return found


def _load_flask_app(reference: str) -> Flask:
    from flask.cli import ScriptInfo

    return ScriptInfo(app_import_path=reference).load_app()


def _holder_of(app: Flask) -> str | None:
    own = sys.modules.get(app.import_name)
    modules = [own, *sys.modules.values()]
    for module in modules:
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                return f"{t.cast(t.Any, module).__name__}:{name}"
    return None
