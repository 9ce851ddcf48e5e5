"""Arguments that must not be saved, and the names of those that cannot be."""

from __future__ import annotations

import typing as t

from ..contexts import Upload
from ..payload import describe

_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})


class Found(t.NamedTuple):
    """An argument, or a part of one, and how Python code would reach it."""

    where: str
    value: t.Any


def parts_of(args: t.Sequence[t.Any], kwargs: t.Mapping[str, t.Any]) -> list[Found]:
    """Return the arguments themselves."""
    parts = [Found(f"args[{n}]", value) for n, value in enumerate(args)]
    return parts + [Found(f"kwargs[{n!r}]", value) for n, value in kwargs.items()]


def inside(parts: t.Iterable[Found]) -> t.Iterator[Found]:
    """Yield parts and what their lists, tuples, sets and dicts hold, at any depth.

    Texts, numbers and the like are left out.
    """
    waiting, seen = list(parts), set[int]()
    while waiting:
        found = waiting.pop()
        if type(found.value) in _PLAIN:
            continue
        yield found
        if id(found.value) not in seen:  # a list may hold itself
            seen.add(id(found.value))
            waiting += _items_of(found)


def _items_of(found: Found) -> t.Iterator[Found]:
    where, value = found
    kind = type(value)  # isinstance would resolve a proxy
    if kind not in _HOLDERS or _PLAIN.issuperset(
        map(type, value.values() if kind is dict else value)
    ):
        return
    if kind is dict:
        yield from (Found(f"{where}[{key!r}]", item) for key, item in value.items())
    elif kind in _ORDERED:
        yield from (Found(f"{where}[{n}]", item) for n, item in enumerate(value))
    else:
        yield from (Found(f"an item of {where}", item) for item in value)


_ORDERED = frozenset({list, tuple})
_HOLDERS = _ORDERED | {dict, set, frozenset}


def why_not(found: t.Iterable[Found]) -> str | None:
    """Say which argument must not be saved, though it may pickle, or return None.

    :param found: what :func:`inside` has found.
    """
    for where, value in found:
        kind: t.Any = type(value)
        if hasattr(kind, "_sa_class_manager"):  # SQLAlchemy's mark of a mapped class
            return (
                f"{where} is the database object {kind.__qualname__}, which belongs to"
                " the session that loaded it, and will be out of date when the task"
                " runs. Pass its id, and load it in the task"
            )
    return None


def size_of_uploads(found: t.Iterable[Found]) -> int:
    """Return how many bytes the uploaded files among the arguments have.

    :param found: what :func:`inside` has found.
    """
    return sum(value.size for _, value in found if type(value) is Upload)


def first_refused(
    parts: t.Iterable[Found], check: t.Callable[[t.Any, str], object]
) -> str | None:
    """Say which argument a format refuses, and why, or return None.

    :param check: raises the reason for a value.
    """
    for where, value in parts:
        try:
            check(value, where)
        except Exception as error:
            kind = type(value).__qualname__
            return f"{where} ({kind}) cannot be written ({describe(error)})"
    return None
