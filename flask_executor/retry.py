"""When a failed task is tried again."""

from __future__ import annotations

import random
import typing as t
from dataclasses import dataclass

from .checks import are_exceptions, check, is_count, is_number, seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """When a failed task is tried again, and how long it waits before that.

    The pause after attempt *n* is ``delay * backoff ** (n - 1)`` seconds, at most
    ``max_delay``. It is then made longer or shorter at random, by up to the share
    ``jitter``, so that tasks that failed together do not run again together.

    :raises InvalidOption: a :exc:`ValueError`.
    """

    attempts: int = 3
    """How often it runs at most, including the first time."""
    delay: float = 1.0
    """Seconds before the second attempt."""
    backoff: float = 2.0
    """The factor by which each pause is longer than the one before."""
    max_delay: float = 300.0
    """The longest pause, in seconds."""
    jitter: float = 0.1
    """The share of the pause that is random: 0 to 1."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """The exceptions after which it is tried again. :exc:`.TaskTimeout` counts only
    if the pool can stop a run: on the event loop and on pebble."""

    def __post_init__(self) -> None:
        check("retry.attempts", self.attempts, is_count, "a whole number above 0")
        for name in ("delay", "max_delay", "backoff"):
            value = seconds(f"retry.{name}", getattr(self, name))
            object.__setattr__(self, name, value)
        share = "a number from 0 to 1"
        check("retry.jitter", self.jitter, is_number, share)
        check("retry.jitter", self.jitter, lambda value: 0 <= value <= 1, share)
        given: t.Any = self.on
        on = given if isinstance(given, tuple) else (given,)
        check("retry.on", on, are_exceptions, "an exception class, or a tuple of them")
        object.__setattr__(self, "on", on)

    def pause_after(
        self,
        attempt: int,
        error: BaseException,
        chance: t.Callable[[], float] = random.random,
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up.

        :param attempt: the attempt that failed; the first is 1.
        :param error: what it raised.
        :param chance: returns numbers from 0 to 1.
        """
        if attempt >= self.attempts or not isinstance(error, self.on):
            return None
        try:
            pause = min(self.delay * self.backoff ** (attempt - 1), self.max_delay)
        except OverflowError:
            pause = self.max_delay if self.delay else 0.0
        return pause * (1 + self.jitter * (2 * chance() - 1))
