"""Traces with OpenTelemetry: spans of tasks, where they are submitted and run.

It needs the API of OpenTelemetry: ``pip install 'Flask-Executor[tracing]'``. Nothing
else imports it. Without :func:`instrument`, no span is made.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import typing as t
import weakref

from .attempt import Attempt
from .calls import Call
from .dispatch import Dispatcher
from .errors import SurfaceNotInstalled
from .executor import Executor
from .log import Log
from .task import Task

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )
except ImportError as _error:
    if (_error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise SurfaceNotInstalled("tracing", "opentelemetry-api") from None

__all__ = ["TraceIds", "instrument"]

_W3C = TraceContextTextMapPropagator()
_instrumented: weakref.WeakSet[Executor] = weakref.WeakSet()


def instrument(
    executor: Executor, *, tracer_provider: trace.TracerProvider | None = None
) -> None:
    """Make spans for all tasks of an executor from now on.

    They follow the conventions of OpenTelemetry for messaging. ``submit`` makes a
    ``send`` span, a child of the span that is current. Each attempt makes a ``process``
    span, which is current in the task. It is a child of the ``send`` span if the task
    runs at once in this process. If it was saved with a guarantee, delayed, retried or
    is a tick of a periodic job, it begins a trace of its own, with a link to the
    ``send`` span.

    Calling it again for the same executor changes nothing.

    :param tracer_provider: None is the global one.

    .. versionadded:: 2.0
    """
    if executor in _instrumented:
        return
    _instrumented.add(executor)
    tracer = trace.get_tracer("flask_executor", tracer_provider=tracer_provider)

    def attach(dispatcher: Dispatcher) -> None:
        dispatcher.events.add(TaskSpans(dispatcher, tracer))

    executor._attached.add(attach)


class TraceIds(logging.Filter):
    """Adds ``trace_id`` and ``span_id`` to log records, for a format that has them.

    They are hexadecimal, as in traces, and ``"0"`` outside of a span. Add it to a
    handler: ``handler.addFilter(TraceIds())``.

    .. versionadded:: 2.0
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; every record is logged."""
        found = trace.get_current_span().get_span_context()
        known = found.is_valid
        record.trace_id = trace.format_trace_id(found.trace_id) if known else "0"
        record.span_id = trace.format_span_id(found.span_id) if known else "0"
        return True


Method = t.TypeVar("Method", bound=t.Callable[..., None])


def _guarded(method: Method) -> Method:
    """Log what a sink raises: an exporter of the app must not break a task."""

    @functools.wraps(method)
    def call(self: TaskSpans, *facts: t.Any) -> None:
        try:
            method(self, *facts)
        except Exception as error:
            message = "The tracing of a task has failed"
            self.log.write(logging.ERROR, message, error=error)

    return t.cast(Method, call)


class TaskSpans:
    """Makes the spans of one dispatcher; a sink of its events.

    :param tracer: starts the spans.
    """

    def __init__(self, dispatcher: Dispatcher, tracer: trace.Tracer) -> None:
        self.log: Log = dispatcher.events.log
        self._timer = dispatcher.timer
        self._tracer = tracer

    @_guarded
    def saving(self, id: str, name: str, source: dict[str, str]) -> None:
        """Make the send span of a task that is saved, and let its ids travel along."""
        with self._send(id, name) as span:
            _W3C.inject(source, trace.set_span_in_context(span))

    @_guarded
    def submitted(self, task: t.Any) -> None:
        """Make the send span of a task that is not saved."""
        if task._saved is not None or task._call is None:
            return
        # The ticks of periodic jobs are submitted on a thread of the timer. So are the
        # tasks of some callbacks, which have the span of their submitter.
        has_parent = trace.get_current_span().get_span_context().is_valid
        task._is_tick = self._timer.is_own_thread and not has_parent
        with self._send(task.id, task.name) as span:
            task._sent = span.get_span_context()

    def _send(self, id: str, name: str) -> t.ContextManager[trace.Span]:
        return self._tracer.start_as_current_span(
            f"send {name}",
            kind=SpanKind.PRODUCER,
            attributes=_attributes("send", id, name),
        )

    @_guarded
    def started(self, attempt: Attempt) -> None:
        """Start the process span of an attempt, and make it current in its call."""
        task: t.Any = attempt.task
        sent = _sent(task)
        begun: t.Any = {"context": context.Context(), "links": [Link(sent)]}
        if not sent.is_valid:
            begun = {"context": context.Context()}
        elif _runs_at_once(attempt):
            parent = trace.NonRecordingSpan(sent)
            begun = {"context": trace.set_span_in_context(parent)}
        span = task._span = self._tracer.start_span(
            f"process {task.name}",
            kind=SpanKind.CONSUMER,
            attributes={
                **_attributes("process", task.id, task.name),
                "flask_executor.attempt": attempt.number,
            },
            **begun,
        )
        _make_current(attempt, span)

    @_guarded
    def retrying(self, task: t.Any, verdict: t.Any) -> None:
        """End the span of an attempt that another one follows."""
        _end(task, "retrying", verdict.error)

    @_guarded
    def ended(self, task: t.Any, verdict: t.Any, value: object) -> None:
        """End the span of the last attempt."""
        _end(task, verdict.kind, verdict.error)


def _attributes(operation: str, id: str, name: str) -> dict[str, str]:
    return {
        "messaging.system": "flask_executor",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": name,
        "messaging.message.id": id,
    }


def _sent(task: t.Any) -> trace.SpanContext:
    """Return the ids of the send span of a task; they are invalid if there was none."""
    sent: trace.SpanContext | None = vars(task).get("_sent")
    if sent is not None:
        return sent
    source = {} if task._saved is None else task._saved.source
    found = _W3C.extract(source, context.Context())
    return trace.get_current_span(found).get_span_context()


def _runs_at_once(attempt: Attempt) -> bool:
    """Return True if an attempt is part of what its submitter does now."""
    task: Task = attempt.task
    is_durable = task._saved is not None and not task._saved.is_ephemeral
    is_delayed = bool(task.options.wait(task._submitted))
    is_tick = vars(task).get("_is_tick", False)
    return attempt.number == 1 and not (is_durable or is_delayed or is_tick)


def _make_current(attempt: Attempt, span: trace.Span) -> None:
    call = t.cast(Call, attempt.call)
    if call.snapshot is None:  # it runs right now, in the context of its submitter
        token = context.attach(trace.set_span_in_context(span))
        attempt.task._token = token, attempt.thread
        return
    # Evaluated in the context of the call, which has what the submitter had.
    changed = call.snapshot.changed(
        lambda: context.attach(trace.set_span_in_context(span))
    )
    # Another call, because the next attempt has another span.
    attempt.call = dataclasses.replace(call, snapshot=changed)


def _end(task: t.Any, state: str, error: BaseException | None) -> None:
    facts = vars(task)
    span: trace.Span | None = facts.pop("_span", None)
    token, thread = facts.pop("_token", (None, 0))
    if thread == threading.get_ident():
        context.detach(token)
    if span is None:
        return
    try:
        span.set_attribute("flask_executor.state", state)
        if error is not None:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            span.record_exception(t.cast(Exception, error))
    finally:  # the text of an exception of the app may fail
        span.end()
