"""The keys of futures as texts: equal keys have equal texts, and no others do."""

from __future__ import annotations

import datetime
import enum
import sys
import typing as t
import uuid
from collections import namedtuple
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_executor import KeyNotReadable, KeyNotStorable
from flask_executor.stores.keys import MAX_KEY_BYTES, decode_key, encode_key


class Color(enum.Enum):
    RED = 1
    GREEN = 2
    ROUGE = 1  # noqa: PIE796


class Word(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class OldWord(str, enum.Enum):  # noqa: UP042
    RED = "red"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(tuple, enum.Enum):  # type: ignore[type-arg]
    ONE = (1, 2)


class Day(datetime.date, enum.Enum):
    FIRST = (2026, 1, 1)


class Shop:
    class Color(enum.Enum):
        RED = 1


class Loud(str):
    def __eq__(self, other: object) -> bool:
        return str(self).lower() == str(other).lower()

    def __hash__(self) -> int:
        return hash(self.lower())


Point = namedtuple("Point", "x y")

leaves = st.one_of(
    st.text(st.characters(), max_size=12),  # lone surrogates and NUL too
    st.text("\\(),:tsie\0\ud800u0", max_size=6),
    st.integers(),
    st.booleans(),
    st.integers(-5, 5).map(float),
    st.sampled_from([*Color, *Word, *Number, *OldWord, *Shop.Color]),
)
keys = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple))


@settings(deadline=None)
@given(keys, keys)
def test_equal_keys_and_no_others_have_equal_texts(one: t.Any, other: t.Any) -> None:
    """Two keys have one text if they are one key of a dictionary, and only then."""
    assert (encode_key(one) == encode_key(other)) == (len({one, other}) == 1)


@settings(deadline=None)
@given(keys)
def test_a_key_is_read_back(key: t.Any) -> None:
    """A text gives an equal key, and it can be stored by any database."""
    text = encode_key(key)
    assert decode_key(text) == key
    assert hash(decode_key(text)) == hash(key)
    assert "\0" not in text
    text.encode()


@settings(deadline=None)
@given(st.text(st.characters(), max_size=20) | st.text("\\(),:tsie0 1", max_size=12))
def test_a_text_is_one_key_or_refused(text: str) -> None:
    """A text that no key has is refused; none is read as the key of another text."""
    try:
        key = decode_key(text)
    except KeyNotReadable:
        return
    assert encode_key(key) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("order 7", "s:order 7"),
        ("", "s:"),
        ("a,b", r"s:a\,b"),
        ("\0\ud800\\", r"s:\0\ud800\\"),
        (7, "i:7"),
        (7.0, "i:7"),
        (True, "i:1"),
        (-0.0, "i:0"),
        (Number.ONE, "i:1"),
        (Word.RED, "s:red"),
        (OldWord.RED, "s:red"),
        (Color.RED, f"e:{__name__}:Color.RED"),
        (Color.ROUGE, f"e:{__name__}:Color.RED"),
        (Shop.Color.RED, f"e:{__name__}:Shop.Color.RED"),
        (Right.WRITE, f"e:{__name__}:Right.WRITE"),
        ((), "t:()"),
        (("",), "t:(s:)"),
        (("order", (7,)), "t:(s:order,t:(i:7))"),
        (("a,b", "c"), r"t:(s:a\,b,s:c)"),
        (Point(1, 2), "t:(i:1,i:2)"),
        (Pair.ONE, "t:(i:1,i:2)"),
    ],
)
def test_the_texts(key: t.Any, text: str) -> None:
    """A text can be read by people, and stays the same in every version."""
    assert encode_key(key) == text
    assert decode_key(text) == key


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, ["None", "builtins.NoneType"]),
        (1.5, ["1.5", "builtins.float"]),
        (float("inf"), ["inf"]),
        (b"x", ["b'x'", "builtins.bytes"]),
        (Decimal(1), ["Decimal('1')", "decimal.Decimal"]),
        (uuid.UUID(int=7), ["0007", "uuid.UUID", "Use a text"]),
        (frozenset(), ["frozenset"]),
        (("a", (None,)), ["None", "builtins.NoneType"]),
        (Loud("x"), ["'x'", "Loud"]),
        (Day.FIRST, ["Day.FIRST", "equal to a key of another type"]),
        (Right.READ | Right.WRITE, ["READ|WRITE", "no module that others can import"]),
        ("x" * MAX_KEY_BYTES, ["1002 bytes, and 1000 are allowed"]),
        (1 << 5000, ["bytes, and 1000 are allowed"]),
        pytest.param(1 << 50_000, ["too large a number"], id="huge"),
    ],
)
def test_what_is_refused(key: t.Any, words: list[str]) -> None:
    """Any other key is refused with its value, its type and what is possible."""
    with pytest.raises(KeyNotStorable) as info:
        encode_key(key)
    assert isinstance(info.value, ValueError)
    for word in [*words, "a text, a whole number, a member of an Enum"]:
        assert word in str(info.value)
    assert len(str(info.value)) < 500


def test_a_key_that_is_nested_too_deep() -> None:
    """A tuple in a tuple in a tuple ... is refused, not an endless recursion."""
    key: t.Any = ()
    for _ in range(20_000):
        key = (key,)
    with pytest.raises(KeyNotStorable, match="nested too deep"):
        encode_key(key)


def test_an_enum_that_nobody_else_can_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Enum of a function, or of the script itself, is refused."""

    class Local(enum.Enum):
        A = 1

    with pytest.raises(KeyNotStorable, match=r"<locals>\.Local\.A"):
        encode_key(Local.A)
    monkeypatch.setattr(Color, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Color", Color, raising=False)
    with pytest.raises(KeyNotStorable, match="no module that others can import"):
        encode_key(Color.RED)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged"),
        ("x:1", "damaged"),
        ("i:", "damaged"),
        ("i:007", "damaged"),
        ("i:" + "1" * 5000, "damaged"),
        ("s:a,s:b", "damaged"),
        ("s:a)", "damaged"),
        (",", "damaged"),
        ("t:(s:a", "damaged"),
        ("t:(s:a,)", "damaged"),
        ("t:(s:at:()", "damaged"),
        ("t:(t:()t:())", "damaged"),
        ("t:(" * 20_000, "damaged"),
        (r"s:\q", "damaged"),
        ("s:a\\", "damaged"),
        ("e:this:s.RED", "'this' is not imported here"),
        (f"e:{__name__}:Color.BLUE", "no Enum member Color.BLUE"),
        (f"e:{__name__}:Point.x", "no Enum member"),
        (f"e:{__name__}:Nothing.At.All", "no Enum member"),
    ],
)
def test_what_cannot_be_read(text: str, reason: str) -> None:
    """A damaged text, or one of an Enum that is not there, is a specific error."""
    with pytest.raises(KeyNotReadable, match=reason):
        decode_key(text)


def test_reading_a_key_imports_nothing() -> None:
    """A text that somebody wrote into the database cannot make this import a module."""
    assert "this" not in sys.modules
    with pytest.raises(KeyNotReadable):
        decode_key("e:this:Zen.OF")
    assert "this" not in sys.modules
