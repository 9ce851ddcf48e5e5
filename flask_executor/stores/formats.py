"""The two formats of saved values: pickle, and JSON.

Pickle carries nearly everything. JSON carries texts, numbers, True, False, None, lists,
and dicts whose keys are texts. A value that would come back as another one, as a tuple
comes back as a list, is refused: a task must see the same if it runs at once or after a
crash, and so must the code that asks for its result.
"""

from __future__ import annotations

import json
import pickle
import typing as t

from flask import Flask

from ..contexts import dumps
from ..contexts.safe import Context
from ..contexts.saving import JsonContexts, PickledContexts
from ..settings import Settings

Arguments = tuple[t.Sequence[t.Any], dict[str, t.Any]]


class SavedCall(t.NamedTuple):
    """What is saved of a call; its function is saved as the name of its job."""

    args: t.Sequence[t.Any]
    kwargs: dict[str, t.Any]
    context: Context


class Format(t.Protocol):
    """Values as bytes."""

    name: str
    contexts: t.Any
    """How the context of a call is reduced and written."""

    def check(self, value: t.Any, where: str) -> object:
        """Raise the reason why a value cannot be saved.

        :param where: what the value is called in the message.
        """

    def dump_call(self, call: SavedCall) -> bytes:
        """Return a call as bytes; raise any exception if it cannot be saved."""

    def load_call(self, data: bytes) -> SavedCall:
        """Return the call again; raise any exception if that fails."""


class PickleFormat:
    """Everything that pickles; a proxy goes by the name that its module has for it."""

    name: str = "pickle"
    contexts: PickledContexts = PickledContexts()

    def check(self, value: t.Any, where: str) -> object:
        """Raise the reason why a value cannot be saved."""
        return dumps(value)

    def dump_call(self, call: SavedCall) -> bytes:
        """Return a call as bytes."""
        return dumps((call.args, call.kwargs, self.contexts.dump(call.context)))

    def load_call(self, data: bytes) -> SavedCall:
        """Return the call again."""
        args, kwargs, context = pickle.loads(data)
        return SavedCall(args, kwargs, self.contexts.load(context))


class JsonFormat:
    """What JSON carries unchanged, written and read by the app's own ``app.json``.

    :param provider: ``app.json``.
    """

    name: str = "json"
    contexts: JsonContexts = JsonContexts()

    def __init__(self, provider: t.Any) -> None:
        self._provider = provider

    def check(self, value: t.Any, where: str) -> object:
        """Raise the reason why a value cannot be saved."""
        return self.dump(value, where)

    def dump(self, value: t.Any, where: str) -> bytes:
        """Return a value as bytes.

        :raises TypeError: naming the part that JSON would change.
        """
        text: str = self._provider.dumps(value)
        change = _change(value, self._provider.loads(text), where)
        if change is not None:
            raise TypeError(change)
        return text.encode()

    def load(self, data: bytes) -> t.Any:
        """Return the value again."""
        return self._provider.loads(data)

    def dump_call(self, call: SavedCall) -> bytes:
        """Return a call as bytes."""
        context = json.dumps(self.contexts.dump(call.context)).encode()
        args, kwargs = (
            self.dump(list(call.args), "args"),
            self.dump(call.kwargs, "kwargs"),
        )
        return b"[" + b",".join((args, kwargs, context)) + b"]"

    def load_call(self, data: bytes) -> SavedCall:
        """Return the call again."""
        args, kwargs, context = self.load(data)
        return SavedCall(args, kwargs, self.contexts.load(context))


def format_of(app: Flask, settings: Settings) -> PickleFormat | JsonFormat:
    """Return the format that ``EXECUTOR_SERIALIZER`` names."""
    return JsonFormat(app.json) if settings.serializer == "json" else PickleFormat()


def _change(before: t.Any, after: t.Any, where: str) -> str | None:
    """Say what differs between a value and what JSON makes of it, or return None."""
    kind = type(before)
    if type(after) is not kind:
        return (
            f"{where} is a {kind.__qualname__}, and JSON gives back a"
            f" {type(after).__qualname__}"
        )
    if kind is list:
        pairs = enumerate(zip(before, after, strict=True))
        changes = (_change(a, b, f"{where}[{n}]") for n, (a, b) in pairs)
        return next(filter(None, changes), None)
    if kind is dict:
        return _change_of_dict(before, after, where)
    same = before == after or (before != before and after != after)  # NaN
    return None if same else f"{where} is {before!r}, and JSON gives back {after!r}"


def _change_of_dict(
    before: dict[t.Any, t.Any], after: dict[t.Any, t.Any], where: str
) -> str | None:
    for key, value in before.items():
        if type(key) is not str or key not in after:
            return f"{where} has the key {key!r}, and the keys of JSON are texts"
        if (change := _change(value, after[key], f"{where}[{key!r}]")) is not None:
            return change
    return None
