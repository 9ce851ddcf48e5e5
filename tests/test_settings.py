"""Config keys: every value is understood or refused by name."""

from __future__ import annotations

import typing as t

import pytest

from flask_executor import InvalidSetting
from flask_executor.helpers import InstanceProxy, str2bool
from flask_executor.settings import Settings


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("TYPE", "Thread", "thread"),
        ("TYPE", " PROCESS ", "process"),
        ("TYPE", "sync", "sync"),
        ("MAX_WORKERS", "5", 5),
        ("MAX_WORKERS", "", None),
        ("MAX_WORKERS", None, None),
        ("FUTURES_MAX_LENGTH", "100", 100),
        ("FUTURES_TTL", "1.5", 1.5),
        ("FUTURES_TTL", "None", None),
        ("PROPAGATE_EXCEPTIONS", "YES", True),
        ("PROPAGATE_EXCEPTIONS", "f", False),
        ("LOG_EXCEPTIONS", "0", False),
        ("LOG_EXCEPTIONS", 1, True),
        ("PUSH_APP_CONTEXT", "No", False),
        ("PUSH_APP_CONTEXT", "t", True),
        ("COPY_G", "ALL", "all"),
        ("START_METHOD", "Spawn", "spawn"),
        ("START_METHOD", "", None),
        ("APP", "wsgi:app", "wsgi:app"),
    ],
)
def test_values_are_understood(key: str, value: object, meant: object) -> None:
    """Strings from the environment are read in any case."""
    settings = Settings.read({f"MY_EXECUTOR_{key}": value}, "MY_")
    assert getattr(settings, key.lower()) == meant


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("TYPE", "celery", "'thread'"),
        ("MAX_WORKERS", "0", "whole number above 0"),
        ("MAX_WORKERS", -1, "None or a whole number"),
        ("MAX_WORKERS", "many", "whole number"),
        ("MAX_WORKERS", 2.5, "whole number"),
        ("MAX_WORKERS", True, "whole number"),
        ("FUTURES_MAX_LENGTH", "x", "whole number"),
        ("FUTURES_TTL", "soon", "seconds"),
        ("FUTURES_TTL", -1, "seconds"),
        ("FUTURES_TTL", True, "seconds"),
        ("FUTURES_TTL", "inf", "seconds"),
        ("PROPAGATE_EXCEPTIONS", "maybe", "'true'"),
        ("LOG_EXCEPTIONS", None, "True or False"),
        ("PUSH_APP_CONTEXT", "", "True or False"),
        ("COPY_G", "some", "'safe', 'all', 'none'"),
        ("START_METHOD", "teleport", "'spawn'"),
        ("APP", "no-colon", "'module:app'"),
        ("APP", 3, "'module:app'"),
    ],
)
def test_values_are_refused(key: str, value: object, allowed: str) -> None:
    """Anything else names the key, the value and what is allowed."""
    with pytest.raises(ValueError) as info:
        Settings.read({f"MY_EXECUTOR_{key}": value}, "MY_")
    assert isinstance(info.value, InvalidSetting)
    message = str(info.value)
    assert f"MY_EXECUTOR_{key}" in message
    assert repr(value) in message
    assert allowed in message


def test_helpers_of_1_0_0() -> None:
    """str2bool and InstanceProxy are there, as before."""
    assert str2bool("True") is True
    assert str2bool("n" + "o") is False
    with pytest.raises(ValueError, match="'perhaps'"):
        str2bool("perhaps")
    proxy: t.Any = InstanceProxy([1])
    assert isinstance(proxy, list)
    assert proxy.count(1) == 1
    with pytest.raises(TypeError):
        proxy.__class__ = dict
    with pytest.raises(AttributeError):
        object.__new__(InstanceProxy)._self  # noqa: B018
