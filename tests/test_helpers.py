"""The names of 1.0.0's helpers."""

from __future__ import annotations

import typing as t

import pytest

from flask_executor.helpers import InstanceProxy, str2bool


@pytest.mark.parametrize("word", ["true", "YES", "t", "1", "True", 1, True])
def test_true(word: t.Any) -> None:
    """What people write for true, in any case."""
    assert str2bool(word) is True


@pytest.mark.parametrize("word", ["false", "No", "F", "0", 0, False])
def test_false(word: t.Any) -> None:
    """What people write for false, in any case."""
    assert str2bool(word) is False


@pytest.mark.parametrize("word", ["perhaps", "", "on", None, 2])
def test_neither(word: t.Any) -> None:
    """Anything else is a ValueError that holds it."""
    with pytest.raises(ValueError) as info:
        str2bool(word)
    assert repr(word) in str(info.value)


def test_instance_proxy() -> None:
    """It answers for another object: its class and its attributes."""
    proxy: t.Any = InstanceProxy([1])
    assert isinstance(proxy, list) and isinstance(proxy, InstanceProxy)
    assert proxy.count(1) == 1 and proxy._self == [1]
    with pytest.raises(TypeError, match="cannot be set"):
        proxy.__class__ = dict
    with pytest.raises(AttributeError):
        object.__new__(InstanceProxy)._self  # noqa: B018
