"""Calls that go through a ``submit`` which is not ours.

People override ``submit`` in a subclass, or patch it in a test, and are to see what is
submitted in other ways as well: with a key, with options, by a job. Such a ``submit``
takes the callable and its arguments alone. What else belongs to the call waits in a
:class:`Handover`, where ours finds it if it is called in the end.
"""

from __future__ import annotations

import threading
import typing as t
from functools import partial

from .futures import FutureCollection, TaskFuture
from .options import Given, NoKey
from .submitter import OWN_SUBMIT, Submitter


class Handover:
    """What goes with a call that is on its way.

    :param options: the options of the call.
    :param key: under which the future is stored, or :class:`.NoKey`.
    """

    __slots__ = ("future", "key", "options")

    def __init__(self, options: Given, key: t.Any) -> None:
        self.options = options
        self.key = key
        self.future: t.Any = None
        """What our own ``submit`` made, if it was called."""

    def accept(
        self,
        submitter: Submitter,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
    ) -> TaskFuture[t.Any]:
        """Accept a call that has arrived at our own ``submit``."""
        future = submitter._accept(
            self.options, fn, args, kwargs, self.key, held_by=self
        )
        self.future = future
        return future


class Overrides(threading.local):
    """Sends calls through an overridden ``submit``; one handover for each thread."""

    _current: Handover | None = None

    def take(self) -> Handover | None:
        """Return what waits for the call that is submitted now; once."""
        handover, self._current = self._current, None
        return handover

    def send(
        self, submit: t.Callable[[], t.Any], options: Given, key: t.Any, futures: t.Any
    ) -> t.Any:
        """Submit a call, and see that its future is stored under its key.

        :param submit: calls the overridden ``submit``.
        :param futures: gives the collection, if there is a key.
        :raises DuplicateKey: if the key is taken; nothing was submitted then.
        """
        handover = Handover(options, options.get("key", key) if key is NoKey else key)
        if handover.key is NoKey:
            return self._submit(submit, handover)
        return self._submit_stored(submit, handover, futures())

    def _submit(self, submit: t.Callable[[], t.Any], handover: Handover) -> t.Any:
        before, self._current = self._current, handover
        try:
            return submit()
        finally:
            self._current = before

    def _submit_stored(
        self,
        submit: t.Callable[[], t.Any],
        handover: Handover,
        futures: FutureCollection,
    ) -> t.Any:
        futures.reserve(handover.key, handover)
        try:
            future = self._submit(submit, handover)
            if future is not handover.future:
                _store(future, handover, futures)
        except BaseException:
            futures.discard(handover.key, handover)
            futures.discard(handover.key, handover.future)
            raise
        return future


def _store(future: t.Any, handover: Handover, futures: FutureCollection) -> None:
    """Store what an overridden ``submit`` returned, whatever it is."""
    key = handover.key
    if isinstance(future, TaskFuture) and future.key is None:
        future.key = key
    if handover.future is None:
        futures.reserve(key, future, instead_of=handover)
        futures.add(key, future)
    else:  # ours was called, for something else
        futures._futures[key] = future


class SeenBySubmit(Submitter):
    """A submitter whose ``submit`` sees what is submitted in other ways, if it is that
    of a subclass or was patched.
    """

    _overrides: Overrides | None = None

    def _submit_is_overridden(self) -> bool:
        return type(self).submit is not OWN_SUBMIT or "submit" in vars(self)

    def _send(
        self,
        given: Given,
        fn: t.Any,
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        key: t.Any,
    ) -> TaskFuture[t.Any]:
        """Submit a call that has options or a key."""
        if not self._submit_is_overridden():
            return self._accept(given, fn, args, kwargs, key)
        # Of two threads that make one, both get the first.
        overrides = vars(self).setdefault("_overrides", Overrides())
        submit = partial(self.submit, fn, *args, **kwargs)
        sent = overrides.send(submit, given, key, lambda: self.futures)
        return t.cast("TaskFuture[t.Any]", sent)
