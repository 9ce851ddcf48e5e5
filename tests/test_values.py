"""Plain values: their own copies, and which are transferred."""

from __future__ import annotations

import copy
import typing as t
from collections import Counter, OrderedDict, UserList, defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import ImmutableMultiDict, MultiDict

from flask_executor.contexts import pickling
from flask_executor.contexts.copying import own_copy, same
from flask_executor.contexts.pickling import deserialize, serialize

plain = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
nested = st.recursive(
    plain | st.sets(st.integers()) | st.binary().map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.text(), inner),
        st.tuples(inner, inner),
        st.lists(inner).map(deque),
        st.dictionaries(st.text(), inner).map(OrderedDict),
    ),
)


def containers(value: t.Any) -> t.Iterator[t.Any]:
    """All that can be changed in a value."""
    if isinstance(value, dict):
        inner = list(value.values())
    else:
        inner = list(value) if isinstance(value, (list, tuple, deque)) else []
    if isinstance(value, (dict, list, deque, set, bytearray)):
        yield value
    for item in inner:
        yield from containers(item)


def change(value: t.Any) -> None:
    if isinstance(value, dict):
        value["a key that no value has"] = 1
    elif isinstance(value, set):
        value.add("an item that no value has")
    else:
        value.append(1)


@settings(deadline=None)
@given(nested)
def test_a_copy_shares_nothing_that_can_change(value: t.Any) -> None:
    """It is equal and of the same kinds, and no change of it reaches the value."""
    before = copy.deepcopy(value)
    own = own_copy(value)
    assert own == value
    assert same(own, value) and same(value, own)
    for container in list(containers(own)):
        change(container)
    assert value == before


@settings(deadline=None)
@given(nested, st.data())
def test_each_change_is_told(value: t.Any, data: st.DataObject) -> None:
    """A change of any container in a value is one that its copy does not have."""
    own = own_copy(value)
    if found := list(containers(value)):
        change(data.draw(st.sampled_from(found)))
        assert not same(own, value)


def test_of_another_kind_or_order() -> None:
    """Equal is not yet the same."""
    assert not same([1], [True])
    assert not same([1], (1,))
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same([object()], [object()])


def test_a_cycle() -> None:
    """A container that holds itself is copied as one that holds itself."""
    cycle: list[t.Any] = []
    cycle.append(cycle)
    named: dict[str, t.Any] = {}
    named["self"] = named
    ordered: OrderedDict[str, t.Any] = OrderedDict()
    ordered["self"] = ordered
    own = own_copy([cycle, named, ordered])
    assert own[0][0] is own[0] is not cycle
    assert own[1]["self"] is own[1] is not named
    assert own[2]["self"] is own[2] is not ordered


class Names(list[t.Any]):
    """A list of its own kind."""


@pytest.mark.parametrize(
    "value",
    [
        defaultdict(list, {"a": [1]}),
        Counter("aab"),
        OrderedDict(a=[1]),
        MultiDict([("a", 1), ("a", 2)]),
        deque([[1], 2], maxlen=2),
        Names([[1]]),
        type("Set", (set,), {})({1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_of_other_kinds(value: t.Any) -> None:
    """They are copied as what they are."""
    own = own_copy([value])[0]
    assert own is not value
    assert type(own) is type(value)
    assert own == value
    assert same(own, value)
    if isinstance(own, defaultdict):
        assert own["new"] == []
        assert not same(own, value)
    for inside, ours in zip(containers(value), containers(own), strict=False):
        assert inside is not ours


class Sealed(dict[str, t.Any]):
    """Refuses changes, and so to be copied."""

    def __setitem__(self, key: str, value: t.Any) -> t.NoReturn:
        raise TypeError


def test_what_is_shared() -> None:
    """What cannot change, what is no container, and what refuses to be copied."""
    for value in (
        *(ImmutableMultiDict({"a": 1}), Sealed(a=[1]), UserList([1]), object()),
        *((1, ("a", None)), frozenset({1}), "text"),
    ):
        assert own_copy([value])[0] is value or value == (1, ("a", None))
    frozen = ImmutableMultiDict({"a": 1})
    items = dict.__getitem__(frozen, "a")
    own_copy(frozen)
    assert dict.__getitem__(frozen, "a") is items
    pair = (1, "a")
    assert own_copy(pair) is pair


class Lost:
    """Pickles, and does not unpickle."""

    def __reduce__(self) -> t.Any:
        return int, ("no number",)


def test_what_is_transferred(caplog: pytest.LogCaptureFixture) -> None:
    """Each value by itself: what cannot leave or arrive stays, and the log says so."""
    caplog.set_level("DEBUG", "flask_executor")
    values = {"a": 1, "b": [2], "leaves": lambda: 1, "arrives": Lost()}
    there = serialize(values, "a test")
    assert deserialize(there) == {"a": 1, "b": [2]}
    assert deserialize(there) == {"a": 1, "b": [2]}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("'leaves' (function) in a test is not transferred")
    assert told[1].startswith("'arrives' (pickle) in the worker is not transferred")


def test_the_log_is_not_flooded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that are always new are told only so often."""
    caplog.set_level("DEBUG", "flask_executor")
    monkeypatch.setattr(pickling, "_logged", set())
    monkeypatch.setattr(pickling, "_MOST_LOGGED", 3)
    for number in range(10):
        serialize({f"name {number}": lambda: 1}, "a test")
    assert len(caplog.records) == 3
