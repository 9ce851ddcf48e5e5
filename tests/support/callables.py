"""Functions for tests to submit."""

from __future__ import annotations

import typing as t


def echo(*args: t.Any, **kwargs: t.Any) -> t.Any:
    return args, kwargs
