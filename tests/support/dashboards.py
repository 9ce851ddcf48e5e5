"""An app with a dashboard, as a browser asks it."""

from __future__ import annotations

import re
import typing as t

from flask import Flask
from flask.testing import FlaskClient
from processes import until
from werkzeug.test import TestResponse

ORIGIN = {"Sec-Fetch-Site": "same-origin"}
"""What a browser sends with a form of our own page."""


def everything(action: str) -> bool:
    """Allow all."""
    return True


def only(*actions: str) -> t.Callable[[str], bool]:
    """Allow these actions and no others."""
    return lambda action: action in actions


def rules(app: Flask) -> list[str]:
    """The addresses of the dashboards of an app, with a value for each variable."""
    found = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if "dashboard" in rule.endpoint.partition(".")[0]
    ]
    values = {"which": "cpu", "id": "7", "name": "dashboard.css"}
    return [re.sub(r"<(\w+)>", lambda m: values[m[1]], rule) for rule in found]


class Visitor:
    """Asks pages and sends their forms, with the cookies that it was given."""

    def __init__(self, app: Flask, prefix: str = "/executor") -> None:
        self.client: FlaskClient = app.test_client()
        self.prefix = prefix

    def get(self, path: str = "/", **more: t.Any) -> TestResponse:
        return self.client.get(self.prefix + path, **more)

    def text(self, path: str = "/") -> str:
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status, answer.text)
        return answer.text

    def token(self) -> str:
        """The token in a form of the dashboard; empty: an app without a key has none.

        A process shows its jobs to others once it has renewed its lease.
        """
        if not self.client.application.secret_key:
            return self._token() or ""
        return t.cast(str, until(self._token))

    def _token(self) -> str | None:
        html = self.text("/jobs") + self.text("/tasks")
        found = re.search(r'name="token" value="([^"]+)"', html)
        return found and found[1]

    def post(
        self,
        path: str,
        headers: t.Mapping[str, str] = ORIGIN,
        token: str | None = None,
        **form: t.Any,
    ) -> TestResponse:
        form["token"] = self.token() if token is None else token
        return self.client.post(self.prefix + path, data=form, headers=dict(headers))
