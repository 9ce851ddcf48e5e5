"""Spans of tasks: which there are, whose children they are, and what they link to."""

from __future__ import annotations

import logging
import typing as t

import pytest
from control import with_clock
from flask import Flask
from limits import LIMIT
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from processes import Process, declare
from scripts import run_code
from store_fixtures import empty_file, sqlite_url

from flask_executor import Executor, Retry, current_task
from flask_executor.tracing import TraceIds, instrument

__all__ = ["empty_file", "sqlite_url"]


class Traced:
    """A provider, and the spans that it was given."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = self.provider.get_tracer("tests")

    def all(self, prefix: str = "") -> list[ReadableSpan]:
        """The spans that have ended, by their start."""
        found = self._spans.get_finished_spans()
        ours = [span for span in found if span.name.startswith(prefix)]
        return sorted(ours, key=lambda span: t.cast(int, span.start_time))

    def one(self, prefix: str) -> ReadableSpan:
        (span,) = self.all(prefix)
        return span


@pytest.fixture
def traced() -> t.Iterator[Traced]:
    traced = Traced()
    yield traced
    traced.provider.shutdown()


@pytest.fixture
def spans(executor: Executor, traced: Traced) -> Traced:
    """The spans of the executor of the test."""
    instrument(executor, tracer_provider=traced.provider)
    return traced


@pytest.fixture
def process(sqlite_url: str, traced: Traced) -> t.Iterator[t.Callable[..., Process]]:
    """Makes processes that share a store, all instrumented."""
    made: list[Process] = []

    def make(**config: t.Any) -> Process:
        made.append(Process(sqlite_url, **config))
        instrument(made[-1].executor, tracer_provider=traced.provider)
        return made[-1]

    yield make
    for one in made:
        one.close(cancel_futures=True)


def is_child(span: ReadableSpan, of: ReadableSpan) -> bool:
    same = trace_of(span) == trace_of(of)
    return same and span.parent is not None and span.parent.span_id == id_of(of)


def is_linked(span: ReadableSpan, to: ReadableSpan) -> bool:
    """Whether a span begins a trace, with a link to one of another trace."""
    links = [(link.context.trace_id, link.context.span_id) for link in span.links]
    is_alone = span.parent is None and trace_of(span) != trace_of(to)
    return is_alone and links == [(trace_of(to), id_of(to))]


def trace_of(span: ReadableSpan) -> int:
    return t.cast(t.Any, span.context).trace_id  # type: ignore[no-any-return]


def id_of(span: ReadableSpan) -> int:
    return t.cast(t.Any, span.context).span_id  # type: ignore[no-any-return]


def attributes(span: ReadableSpan) -> dict[str, t.Any]:
    return dict(span.attributes or {})


def test_a_task_is_part_of_the_trace_of_its_view(
    executor: Executor, spans: Traced, app: Flask
) -> None:
    """View, send and process are one trace, and spans of the task are in it."""

    @executor.job(name="mail")
    def mail() -> str:
        with spans.tracer.start_as_current_span("smtp"):
            return current_task.id

    with app.test_request_context("/"), spans.tracer.start_as_current_span("view"):
        id = mail.submit().result(LIMIT)
    executor.shutdown()
    view, send = spans.one("view"), spans.one("send")
    process, smtp = spans.one("process"), spans.one("smtp")
    assert is_child(send, view) and is_child(process, send) and is_child(smtp, process)
    assert send.name == "send mail" and process.name == "process mail"
    assert send.kind is trace.SpanKind.PRODUCER
    assert process.kind is trace.SpanKind.CONSUMER
    common = {
        "messaging.system": "flask_executor",
        "messaging.destination.name": "mail",
        "messaging.message.id": id,
    }
    assert attributes(send) == common | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    assert attributes(process) == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "flask_executor.attempt": 1,
        "flask_executor.state": "succeeded",
    }
    assert process.status.is_unset and not process.links


@pytest.mark.parametrize("kind", ["sync", "process"])
def test_other_pools(app: Flask, traced: Traced, kind: str) -> None:
    """The span of a task is there on other pools, and gone after it."""
    app.config["EXECUTOR_TYPE"] = kind
    executor = Executor(app)
    instrument(executor, tracer_provider=traced.provider)
    with app.test_request_context("/"), traced.tracer.start_as_current_span("view"):
        before = trace.get_current_span()
        assert executor.submit(abs, -1).result(LIMIT) == 1
        assert isinstance(executor.submit(int, "x").exception(LIMIT), ValueError)
        assert trace.get_current_span() is before
    executor.shutdown()
    sent, ran = traced.all("send"), traced.all("process")
    assert [is_child(*pair) for pair in zip(ran, sent, strict=True)] == [True, True]
    assert [span.status.is_unset for span in ran] == [True, False]


def test_coroutines(executor: Executor, spans: Traced) -> None:
    """In a coroutine its span is current; two that run at once do not mix."""

    async def work(name: str) -> None:
        with spans.tracer.start_as_current_span(name):
            pass

    for name in ("one", "two"):
        executor.using(name=name).submit(work, name).result(LIMIT)
    executor.shutdown()
    for name in ("one", "two"):
        inner, process = spans.one(name), spans.one(f"process {name}")
        assert is_child(inner, process) and is_child(process, spans.one(f"send {name}"))


def test_each_attempt_has_a_span(executor: Executor, spans: Traced) -> None:
    """An attempt that fails says why; the next one begins a trace, with a link."""

    def work() -> None:
        if current_task.attempt == 1:
            raise ValueError("once")

    retry = Retry(attempts=2, delay=0.001)
    executor.using(retry=retry, name="work").submit(work).result(LIMIT)
    executor.shutdown()
    send, (first, second) = spans.one("send"), spans.all("process")
    assert is_child(first, send) and is_linked(second, send)
    assert not first.status.is_ok and first.status.description == "once"
    assert attributes(first)["flask_executor.state"] == "retrying"
    assert attributes(first)["error.type"] == "ValueError"
    assert [event.name for event in first.events] == ["exception"]
    assert attributes(second)["flask_executor.attempt"] == 2
    assert second.status.is_unset


def test_a_delay_begins_a_trace(executor: Executor, spans: Traced) -> None:
    """What was delayed is no part of the trace of its view; it links to it."""
    executor.using(delay=0.001).submit(abs, -1).result(LIMIT)
    executor.shutdown()
    assert is_linked(spans.one("process"), spans.one("send"))


def test_ticks(executor: Executor, traced: Traced) -> None:
    """A tick of a periodic job begins a trace, with a link to where it was sent."""
    spans, clock = traced, with_clock(executor)
    instrument(executor, tracer_provider=traced.provider)

    @executor.every(30)
    @executor.job(name="clean")
    def clean() -> None: ...

    executor.periodic.start()
    clock.advance(31)
    executor.shutdown()
    assert spans.one("send clean").parent is None
    assert is_linked(spans.one("process clean"), spans.one("send clean"))


@pytest.mark.parametrize(
    ("error", "state"),
    [(ValueError("bad"), "failed"), (SystemExit(3), "failed")],
)
def test_failures(
    executor: Executor, spans: Traced, error: BaseException, state: str
) -> None:
    """The span of a task that fails has the error."""

    def work() -> None:
        raise error

    executor.submit(work).exception(LIMIT)
    executor.shutdown()
    process = spans.one("process")
    assert process.status.status_code is trace.StatusCode.ERROR
    assert attributes(process)["flask_executor.state"] == state


def test_a_timeout_ends_the_span(
    executor: Executor, spans: Traced, gate: t.Any
) -> None:
    """The span of a run that goes on ends with its task."""
    late = executor.using(timeout=0.02).submit(gate.wait, LIMIT)
    assert late.exception(LIMIT) is not None
    assert attributes(spans.one("process"))["flask_executor.state"] == "timed_out"
    gate.set()
    executor.shutdown()
    assert len(spans.all()) == 2


def test_what_never_ran_has_no_process_span(executor: Executor, spans: Traced) -> None:
    """A task that is cancelled while it waits was only sent."""
    assert executor.using(delay=3600).submit(abs, -1).cancel()
    executor.shutdown()
    assert [span.name for span in spans.all()] == ["send builtins.abs"]


def test_trace_ids_in_logs(app: Flask, executor: Executor, spans: Traced) -> None:
    """Records of a task, that of its failure among them, have the ids of its span."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    handler.addFilter(TraceIds())
    handler.setFormatter(logging.Formatter("%(trace_id)s %(span_id)s %(message)s"))
    app.logger.addHandler(handler)
    app.logger.setLevel(logging.INFO)

    def work() -> None:
        app.logger.info("in the task")
        raise ValueError("bad")

    executor.using(name="work").submit(work).exception(LIMIT)
    app.logger.info("outside")
    executor.shutdown()
    app.logger.removeHandler(handler)
    process = spans.one("process")
    ids = f"{trace_of(process):032x} {id_of(process):016x}"
    texts = [line.splitlines()[0] for line in lines]
    assert texts == [f"{ids} in the task", f"{ids} Task work failed", "0 0 outside"]


def test_opt_in(app: Flask, traced: Traced) -> None:
    """Only an executor that was named makes spans; naming it twice is once."""
    one, other = Executor(app, "one"), Executor(app, "other")
    one.submit(abs, -1).result(LIMIT)
    assert traced.all() == []
    for _ in range(2):
        instrument(one, tracer_provider=traced.provider)
    one.submit(abs, -1).result(LIMIT)
    other.submit(abs, -1).result(LIMIT)
    one.shutdown()
    other.shutdown()
    assert [span.name for span in traced.all()] == [
        *("send builtins.abs", "process builtins.abs"),
    ]


def test_an_exporter_that_fails(
    app: Flask, executor: Executor, traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    """What the code of a tracer raises is logged, and the task runs."""

    class Broken(SpanProcessor):
        def on_start(self, span: t.Any, parent_context: t.Any = None) -> None:
            raise OSError("no collector")

    traced.provider.add_span_processor(Broken())
    instrument(executor, tracer_provider=traced.provider)
    assert executor.submit(abs, -1).result(LIMIT) == 1
    executor.shutdown()
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["The tracing of a task has failed"] * 2


def test_without_a_provider(executor: Executor) -> None:
    """Without the SDK of OpenTelemetry there are no ids, and nothing fails."""
    instrument(executor, tracer_provider=trace.NoOpTracerProvider())
    assert executor.submit(abs, -1).result(LIMIT) == 1
    assert executor.using(delay=0.001).submit(abs, -1).result(LIMIT) == 1


def test_without_the_library() -> None:
    """The error names the extra."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "try: import flask_executor.tracing\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    done = run_code(code)
    assert done.stdout == (
        "SurfaceNotInstalled flask_executor.tracing needs opentelemetry-api, which is"
        " not installed: run pip install 'Flask-Executor[tracing]'.\n"
    ), done.stderr


# With a store


def test_a_saved_task_links(process: t.Callable[..., Process], traced: Traced) -> None:
    """A task with a guarantee begins a trace also if it runs here at once."""
    one = process().serve()
    job = declare(one, lambda: trace.get_current_span().get_span_context().span_id)
    with traced.tracer.start_as_current_span("view"):
        current = job.submit().result(LIMIT)
    one.close()
    send, ran = traced.one("send"), traced.one("process")
    assert is_child(send, traced.one("view")) and is_linked(ran, send)
    assert current == id_of(ran)


def test_a_key_is_no_guarantee(
    process: t.Callable[..., Process], traced: Traced
) -> None:
    """A task that only has a key in the store runs at once, as a child."""
    one = process().serve()
    one.executor.submit_stored("k", abs, -1).result(LIMIT)
    one.close()
    assert is_child(traced.one("process"), traced.one("send"))


def test_the_ids_travel_with_the_row(
    process: t.Callable[..., Process], traced: Traced
) -> None:
    """Another process links to the span in which the task was submitted."""
    here, there = process(EXECUTOR_STORE_RUN=False), process()
    job = declare(here, lambda: "here", name="job")
    declare(there, lambda: "there", name="job")
    with here.app.test_request_context("/pay", method="POST"):
        future = job.using(delay=0.001).submit()
    there.serve()
    assert future.result(LIMIT) == "there"
    record = here.executor.task(future.task.id)
    assert record is not None and record.source is not None
    send = traced.one("send")
    assert record.source["path"] == "/pay"
    ids = f"00-{trace_of(send):032x}-{id_of(send):016x}-"
    assert record.source["traceparent"].startswith(ids)
    there.close()
    assert is_linked(traced.one("process"), send)


def test_run_again(process: t.Callable[..., Process], traced: Traced) -> None:
    """A task that is run again by hand links to that moment."""
    one = process().serve()
    outcomes = [ValueError("once")]

    def work() -> None:
        if outcomes:
            raise outcomes.pop()

    job = declare(one, work)
    future = job.submit()
    assert future.exception(LIMIT) is not None
    one.executor.retry(future.task.id).result(LIMIT)
    one.close()
    sends, runs = traced.all("send"), traced.all("process")
    assert [is_linked(*pair) for pair in zip(runs, sends, strict=True)] == [True, True]
    assert attributes(sends[1])["messaging.message.id"] != future.task.id


def test_a_saved_tick(process: t.Callable[..., Process], traced: Traced) -> None:
    """A tick that was saved links to where it was submitted."""
    one = process()

    @one.executor.every(0.05)
    @one.executor.job(name="clean")
    def clean() -> None: ...

    done = one.executor.periodic["clean"].run_now()
    done.result(LIMIT)
    one.close()
    assert is_linked(traced.one("process clean"), traced.one("send clean"))
