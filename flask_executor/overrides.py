"""Calls that go through a ``submit`` that is not ours.

People override ``submit`` in a subclass, or patch it in a test. It must also see calls
that are submitted in other ways: with a key, with options, by a job. Such a ``submit``
only takes the callable and its arguments. All else that belongs to the call waits in a
:class:`Handover`, where our ``submit`` finds it if it is called in the end.
"""

from __future__ import annotations

import threading
import typing as t
from functools import partial

from .futures import FutureCollection, TaskFuture
from .options import Given, NoKey
from .submitter import OWN_SUBMIT, Submitter


class Handover:
    """What belongs to a call that is being submitted.

    :param options: the options of the call.
    :param key: the key under which the future is stored, or :class:`.NoKey`.
    """

    __slots__ = ("future", "key", "options")

    def __init__(self, options: Given, key: t.Any) -> None:
        self.options: Given = options
        self.key: t.Any = key
        self.future: t.Any = None
        """The future that our own ``submit`` made, if it was called."""

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
        """Return what belongs to the call that is submitted now, once."""
        handover, self._current = self._current, None
        return handover

    def send(
        self, submit: t.Callable[[], t.Any], options: Given, key: t.Any, futures: t.Any
    ) -> t.Any:
        """Submit a call, and make sure that its future is stored under its key.

        :param submit: calls the overridden ``submit``.
        :param futures: returns the collection, if there is a key.
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
            # If a unique task was returned in its stead, nothing was stored.
            futures.discard(handover.key, handover)
        except BaseException:
            futures.discard(handover.key, handover)
            futures.discard(handover.key, handover.future)
            raise
        return future


def _store(future: t.Any, handover: Handover, futures: FutureCollection) -> None:
    """Store the object that an overridden ``submit`` returned, of any type."""
    key = handover.key
    if isinstance(future, TaskFuture) and future.key is None:
        future.key = key
    if handover.future is None:
        futures.reserve(key, future, instead_of=handover)
        futures.add(key, future)
    else:  # our submit was called, for another call
        futures._futures[key] = future


class SeenBySubmit(Submitter):
    """A submitter whose ``submit`` also sees what is submitted in other ways.

    This is so if a subclass overrides it, or if it was patched.
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
