"""What is saved of a call and of its outcome, as signed bytes.

Nothing here knows a database. A :class:`Payloads` is safe to use from any thread.
"""

from __future__ import annotations

import typing as t
from traceback import format_exception

from flask import Flask

from ..calls import Outcome
from ..contexts import Snapshot, keep_uploads
from ..contexts.safe import Context
from ..payload import (
    WorkerTraceback,
    describe,
    dump_outcome,
    load_outcome,
    name_of_class,
)
from ..settings import Settings
from ..store_errors import (
    ArgumentsNotStorable,
    FailedElsewhere,
    PayloadRefused,
    PayloadTooLarge,
    ResultNotStorable,
)
from .arguments import first_refused, inside, parts_of, size_of_uploads, why_not
from .formats import JsonFormat, SavedCall, format_of
from .records import Sealed
from .sealing import Label, Signatures

_LONGEST_TEXT = 20_000
"""Characters that are kept of an exception's text, and of its traceback."""


class Failure(t.NamedTuple):
    """An exception as texts, which can be shown without unpickling anything."""

    error_class: str
    text: str
    traceback: str


class SavedOutcome(t.NamedTuple):
    """An outcome, in the forms in which it is saved."""

    outcome: Outcome
    """What the task ended with: another one if the first could not be saved."""
    sealed: Sealed | None
    """The result or the exception, for ``result()`` in another process. None if there
    is only text: an exception that does not pickle, or any with JSON."""
    failure: Failure | None
    """The exception as texts; None if there was none."""


class Payloads:
    """Writes and reads what is saved for the tasks of one executor.

    :raises NoSecretKey: a :exc:`RuntimeError`, if the app has no ``SECRET_KEY``.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._signatures = Signatures.of(app)
        self._format = format_of(app, settings)
        self._request = settings.store_request
        self._limit = settings.store_max_bytes

    def context_of(self, snapshot: Snapshot, request: str | None = None) -> Context:
        """Return the part of a snapshot that a saved task sees.

        Its submitter runs it from ``context.restore(app)``, too, so that it sees the
        same if it runs at once or after a crash.

        :param request: ``'safe'``, ``'all'`` or ``'none'``; None is the config's.
        """
        return self._format.contexts.reduce(snapshot, request or self._request)

    def seal_call(
        self,
        task: str,
        job: str,
        args: t.Sequence[t.Any],
        kwargs: dict[str, t.Any],
        context: Context,
    ) -> Sealed:
        """Return the arguments and the context of a call as signed bytes.

        :param task: the id of the task.
        :param job: the registered name of its job.
        :raises ArgumentsNotStorable: naming the argument.
        :raises PayloadTooLarge: a :exc:`ValueError`.
        """
        call = SavedCall(keep_uploads(args), keep_uploads(kwargs), context)
        parts = parts_of(call.args, call.kwargs)
        found = [*inside(parts)]
        if (reason := why_not(found)) is not None:
            raise ArgumentsNotStorable(job, reason)
        # Before the files are read into memory.
        size = size_of_uploads(found) + context.size_of_body()
        self._check_size(job, "its files and the body of its request", size)
        try:
            data = self._format.dump_call(call)
        except Exception as error:
            reason = first_refused(parts, self._format.check) or describe(error)
            raise ArgumentsNotStorable(job, reason) from error
        self._check_size(job, "its arguments and its request", len(data))
        label = Label(task, "payload", job, self._format.name)
        return self._signatures.sign(label, data)

    def open_call(self, task: str, job: str, sealed: Sealed | None) -> SavedCall:
        """Return the arguments and the context of a call again.

        :raises PayloadRefused: if they were not signed for this task and job, or cannot
            be read here. Nothing was unpickled if the signature does not match.
        """
        if sealed is None:
            raise PayloadRefused(task, "payload", job, "it is missing")
        data = self._checked(Label(task, "payload", job, sealed.format), sealed)
        try:
            return self._format.load_call(data)
        except BaseException as error:  # of the app's own classes
            reason = f"it cannot be read in this process ({describe(error)})"
            raise PayloadRefused(task, "payload", job, reason) from error

    def seal_outcome(self, task: str, job: str, outcome: Outcome) -> SavedOutcome:
        """Return an outcome as signed bytes; one that cannot be saved is an error."""
        label = Label(task, "result", job, self._format.name)
        if outcome.error is None:
            try:
                data = self._dump_result(job, outcome)
                return SavedOutcome(outcome, self._signatures.sign(label, data), None)
            except (ResultNotStorable, PayloadTooLarge) as refused:
                outcome = Outcome(error=refused)
        error = t.cast(BaseException, outcome.error)
        return SavedOutcome(
            outcome, self._seal_error(label, outcome), failure_of(error)
        )

    def open_outcome(
        self, task: str, job: str, sealed: Sealed | None, failure: Failure | None
    ) -> Outcome:
        """Return an outcome again; it raises nothing.

        Forged or damaged bytes are an outcome with :exc:`.PayloadRefused`. An exception
        that cannot be made here is :exc:`.FailedElsewhere`, with its texts.
        """
        try:
            if sealed is not None:
                return self._load_outcome(task, job, sealed, failure)
        except PayloadRefused as refused:
            return Outcome(error=refused)
        return Outcome(error=_from_texts(job, failure))

    def _dump_result(self, job: str, outcome: Outcome) -> bytes:
        try:
            if isinstance(self._format, JsonFormat):
                data = self._format.dump(outcome.value, "result")
            else:
                data = dump_outcome(outcome)
        except BaseException as error:  # of the app's own __reduce__
            raise ResultNotStorable(job, "its result", describe(error)) from None
        self._check_size(job, "its result", len(data))
        return data

    def _seal_error(self, label: Label, outcome: Outcome) -> Sealed | None:
        if isinstance(self._format, JsonFormat):
            return None
        try:
            data = dump_outcome(outcome)
        except BaseException:  # many exceptions do not pickle: there are the texts
            return None
        fits = len(data) <= self._limit
        return self._signatures.sign(label, data) if fits else None

    def _load_outcome(
        self, task: str, job: str, sealed: Sealed, failure: Failure | None
    ) -> Outcome:
        data = self._checked(Label(task, "result", job, sealed.format), sealed)
        try:
            if isinstance(self._format, JsonFormat):
                return Outcome(self._format.load(data))
            return load_outcome(data)
        except BaseException as error:
            if failure is not None:
                return Outcome(error=_from_texts(job, failure))
            reason = f"it cannot be read in this process ({describe(error)})"
            raise PayloadRefused(task, "result", job, reason) from error

    def _checked(self, label: Label, sealed: Sealed) -> bytes:
        data = self._signatures.check(label, sealed)
        if label.format == self._format.name:
            return data
        reason = (
            f"it was saved as {label.format}, and EXECUTOR_SERIALIZER is"
            f" {self._format.name!r} now"
        )
        raise PayloadRefused(label.task, label.kind, label.job, reason)

    def _check_size(self, job: str, what: str, size: int) -> None:
        if size > self._limit:
            raise PayloadTooLarge(job, what, size, self._limit)


def failure_of(error: BaseException) -> Failure:
    """Return an exception as texts that any database can store."""
    name = name_of_class(type(error))
    try:
        text = str(error)
    except Exception:  # the app's own exceptions may fail here
        text = "(its text cannot be shown)"
    trace = "".join(format_exception(error))
    return Failure(_storable(name), _storable(text), _storable(trace))


def _storable(text: str) -> str:
    """Return a text without NUL and lone surrogates; a long one loses its middle."""
    if len(text) > _LONGEST_TEXT:
        half = _LONGEST_TEXT // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _from_texts(job: str, failure: Failure | None) -> FailedElsewhere:
    failure = failure or Failure("an unknown error", "nothing more was saved", "")
    error = FailedElsewhere(job, failure.error_class, failure.text)
    if failure.traceback:
        error.__cause__ = WorkerTraceback(failure.traceback)
    return error
