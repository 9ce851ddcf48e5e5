"""Errors of our own endpoints, as RFC 9457 describes them."""

from __future__ import annotations

import typing as t
from http import HTTPStatus


class Problem(Exception):
    """An answer that is an error: its status, and a sentence for people.

    :param headers: sent with it, each with underscores for hyphens.
    """

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        self.status = status
        self.detail = detail
        self.headers: dict[str, str] = {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        super().__init__(detail)

    @property
    def title(self) -> str:
        """What the status is called."""
        return HTTPStatus(self.status).phrase

    def as_json(self) -> dict[str, t.Any]:
        """Return the object that RFC 9457 describes."""
        return {"title": self.title, "status": self.status, "detail": self.detail}
