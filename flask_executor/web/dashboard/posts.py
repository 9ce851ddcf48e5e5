"""Forms that only our own pages can send.

A browser says from where a form comes: ``Sec-Fetch-Site``, and over plain HTTP on a
network, where it leaves that out, ``Origin``. Beside that each form has a signature
over a random cookie of the dashboard and the hour. No session is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import typing as t

from flask import Flask, Request
from itsdangerous import Signer
from werkzeug.wrappers import Response

from ..origins import is_from_elsewhere

COOKIE = "flask_executor_dashboard"
HOURS = 12
"""How long a form can be sent."""
_SALT = "flask_executor.web.dashboard"


class Forms:
    """The forms of one request: what goes into them, and if one may be sent.

    :param path: where the dashboard is, for the cookie.
    """

    def __init__(self, app: Flask, request: Request, path: str) -> None:
        self._app = app
        self._request = request
        self._path = path
        self._sent = request.cookies.get(COOKIE, "")
        self._cookie = self._sent if 16 <= len(self._sent) <= 64 else _random()

    @property
    def can_be_sent(self) -> bool:
        """False if there is no ``SECRET_KEY`` to sign them with."""
        return bool(self._app.secret_key)

    @property
    def token(self) -> str:
        """The signature; the same for an hour, so that a page stays the same."""
        hour = _hour()
        key = t.cast(t.Any, self._app.secret_key)
        return f"{hour}.{_signature(key, self._cookie, hour).decode()}"

    @property
    def token_of_app(self) -> str | None:
        """The token of Flask-WTF, if the app protects all its forms with it."""
        if "csrf" not in self._app.extensions:
            return None
        make = self._app.jinja_env.globals.get("csrf_token")
        return None if make is None else t.cast("t.Callable[[], str]", make)()

    def refusal(self) -> str | None:
        """Return why the form of this request is not accepted, or None."""
        if not self.can_be_sent:
            return "This app has no SECRET_KEY, so nothing can be changed here."
        if not is_from_here(self._request):
            return "This form was not sent by a page of the dashboard."
        if not self._is_signed(self._request.form.get("token", "")):
            return "This form is too old, or was not made for you. Load its page again."
        return None

    def keep(self, response: Response) -> None:
        """Set the cookie, if the browser has none."""
        if self._cookie != self._sent:
            response.set_cookie(
                COOKIE,
                self._cookie,
                path=self._path,
                secure=self._request.is_secure,
                httponly=True,
                samesite="Lax",
            )

    def _is_signed(self, token: str) -> bool:
        text, _, signature = token.partition(".")
        hour = int(text) if text.isascii() and text.isdigit() else 0
        if not 0 <= _hour() - hour < HOURS or not self._sent:
            return False
        old = self._app.config.get("SECRET_KEY_FALLBACKS") or ()
        keys = [self._app.secret_key, *old]
        made = (_signature(t.cast(t.Any, key), self._sent, hour) for key in keys)
        return any(hmac.compare_digest(one, signature.encode()) for one in made)


def is_from_here(request: Request) -> bool:
    """Return True if the browser says that a page of this very site sends this.

    Who says nothing is refused here: only our own pages have forms.
    """
    says = any(name in request.headers for name in ("Sec-Fetch-Site", "Origin"))
    return says and not is_from_elsewhere(request)


def _signature(key: str | bytes, cookie: str, hour: int) -> bytes:
    signer = Signer(key, _SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    return signer.get_signature(f"{cookie}.{hour}")


def _hour() -> int:
    return int(time.time() // 3600)


def _random() -> str:
    return secrets.token_urlsafe(16)
