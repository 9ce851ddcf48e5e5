r"""The keys of futures as texts, for a column of a table.

Equal keys have equal texts, and different keys have different ones, as in a dictionary:
``1``, ``True`` and ``1.0`` are one key. A text can be read back to an equal key.

.. code-block:: text

    'order 7'          s:order 7
    7, 7.0             i:7
    Color.RED          e:shop.colors:Color.RED
    ('order', (7,))    t:(s:order,t:(i:7))

A backslash stands before each ``\``, ``(``, ``)`` and ``,`` of a leaf. NUL, which
PostgreSQL refuses, is ``\0``; a lone surrogate, which UTF-8 does not have, ``\ud800``.

Reading a text imports nothing: nobody signs it, so it must not choose what this process
runs. A member of an Enum is found only if its module was imported before.
"""

from __future__ import annotations

import re
import sys
import typing as t
from enum import Enum
from reprlib import Repr

from ..store_errors import KeyNotReadable, KeyNotStorable

MAX_KEY_BYTES = 1000
"""How long the text of a key may be in UTF-8. An index of PostgreSQL takes 2,700."""

_SPECIAL = re.compile(r"[\\(),\0\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(u[0-9a-f]{4}|.)", re.DOTALL)
_TOKEN = re.compile(r"t:\(|[sie]:(?:[^\\(),]|\\.)*|[,)]", re.DOTALL)

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def encode_key(key: t.Hashable) -> str:
    """Return the text of a key.

    :raises KeyNotStorable: a :exc:`ValueError`, if the key is of another type, or its
        text is longer than :data:`MAX_KEY_BYTES`.
    """
    try:
        text = _encoded(key)
    except RecursionError:
        raise _refusal(key, "it is nested too deep") from None
    if (size := len(text.encode())) > MAX_KEY_BYTES:
        raise _refusal(key, f"it needs {size} bytes, and {MAX_KEY_BYTES} are allowed")
    return text


def decode_key(text: str) -> t.Hashable:
    """Return the key that has this text.

    :raises KeyNotReadable: a :exc:`LookupError`, if the text is damaged, or its Enum is
        not in any module that this process has imported.
    """
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise KeyNotReadable(text, "its text is damaged")
    tokens.reverse()
    try:
        key = _decoded(tokens)
        if not tokens and encode_key(key) == text:
            return key
    except (IndexError, ValueError, RecursionError):
        pass
    except LookupError as unknown:
        raise KeyNotReadable(text, str(unknown)) from None
    raise KeyNotReadable(text, "its text is damaged")


def _encoded(key: t.Any) -> str:
    kind: t.Any = type(key)
    if _compares_as(kind, str):
        return f"s:{_escaped(str.__str__(key))}"
    if _compares_as(kind, int):
        return _encoded_integer(key, int.__int__(key))
    if _compares_as(kind, float) and float.is_integer(key):
        return _encoded_integer(key, int(float.__float__(key)))
    if _compares_as(kind, tuple):
        return f"t:({','.join(map(_encoded, tuple.__iter__(key)))})"
    if issubclass(kind, Enum):
        return f"e:{_escaped(_name_of_member(key))}"
    raise _refusal(key, "a key of this type cannot be read back in another process")


def _compares_as(kind: t.Any, base: t.Any) -> bool:
    """Return True if a dictionary takes an instance for an equal one of the base.

    A member of a ``StrEnum`` or ``IntEnum`` is such an instance.
    """
    return issubclass(kind, base) and (
        kind.__eq__ is base.__eq__ and kind.__hash__ is base.__hash__
    )


def _encoded_integer(key: object, number: int) -> str:
    if number.bit_length() > 8 * MAX_KEY_BYTES:  # Python refuses to write longer ones
        raise _refusal(key, "it is too large a number")
    return f"i:{number}"


def _name_of_member(key: Enum) -> str:
    kind = type(key)
    if kind.__eq__ is not object.__eq__ or kind.__hash__ is not Enum.__hash__:
        raise _refusal(key, "it may be equal to a key of another type")
    name = f"{kind.__module__}:{kind.__qualname__}.{key.name}"
    try:
        found = _member(name)
    except LookupError:
        found = None
    if found is not key or kind.__module__ == "__main__":
        raise _refusal(key, f"no module that others can import has it as {name}")
    return name


def _member(name: str) -> Enum:
    """Find a member of an Enum by the name of its module and its own.

    :raises LookupError: if there is none.
    """
    module, _, path = name.partition(":")
    path, _, member = path.rpartition(".")
    found: t.Any = sys.modules.get(module)
    if found is None:
        raise LookupError(f"the module {module!r} is not imported here")
    for part in path.split("."):
        # Not getattr: a module may have code that runs for a name it does not have.
        found = vars(found).get(part) if isinstance(found, _HOLDERS) else None
    if isinstance(found, type) and issubclass(found, Enum):
        members = found.__members__
        if member in members:
            return members[member]
    raise LookupError(f"the module {module!r} has no Enum member {path}.{member}")


_HOLDERS = (type(sys), type)
"""What can hold an Enum: modules and classes."""


def _decoded(tokens: list[str]) -> t.Hashable:
    """Take one key from the end of a list of tokens."""
    token = tokens.pop()
    if token == "t:(":
        return _decoded_tuple(tokens)
    if token in {",", ")"}:
        raise ValueError(token)
    text = _ESCAPED.sub(_unescape, token[2:])
    if token[0] == "s":
        return text
    return int(text) if token[0] == "i" else _member(text)


def _decoded_tuple(tokens: list[str]) -> tuple[t.Hashable, ...]:
    items: list[t.Hashable] = []
    if tokens[-1] == ")":
        tokens.pop()
        return ()
    while True:
        items.append(_decoded(tokens))
        if (separator := tokens.pop()) == ")":
            return tuple(items)
        if separator != ",":
            raise ValueError(separator)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\0":
        return r"\0"
    if "\ud800" <= character <= "\udfff":
        return f"\\u{ord(character):04x}"
    return f"\\{character}"


def _unescape(match: re.Match[str]) -> str:
    escaped = match[1]
    if escaped == "0":
        return "\0"
    return chr(int(escaped[1:], 16)) if len(escaped) > 1 else escaped


def _refusal(key: object, reason: str) -> KeyNotStorable:
    kind = type(key)
    try:
        shown = _short.repr(key)
    except ValueError:  # an integer with thousands of digits
        shown = object.__repr__(key)
    return KeyNotStorable(shown, f"{kind.__module__}.{kind.__qualname__}", reason)
