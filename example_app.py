"""Four things that people do in the background of a Flask app, on one page.

A thread sends the e-mail that confirms a sign-up, a thread summarises an uploaded CSV
file of any size, a worker process computes a Fibonacci number, and worker processes
draw twenty thumbnails, which a coroutine collects as one group. Each task can be
urgent, reports its progress if it knows it, and can be cancelled while it runs::

    python example_app.py           # serve the page
    python example_app.py --demo    # do all four once, in the terminal

The page is on port 5000, or the next free one; ``--port`` or ``PORT`` chooses another.
Mail goes to ``SMTP_HOST`` (``host`` or ``host:port``) if that is set, otherwise to a
small SMTP server on loopback whose mail the page shows. Tasks and mail are kept in the
memory of one process: under gunicorn use one worker and several threads.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import inspect
import io
import logging
import math
import os
import re
import secrets
import smtplib
import socket
import sys
import threading
import time
import typing as t
from collections import Counter, OrderedDict, deque
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage

from flask import (
    Flask,
    Response,
    abort,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.serving import make_server

from example_work import julia_set, png, rows_in, sample, summary_of
from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorJob,
    Task,
    TaskFuture,
    current_task,
    signals,
)

# There is no MAX_CONTENT_LENGTH here: an upload goes to disk, and is read by line.
# There are few workers, so that one can see tasks wait, and urgent ones go first.
app = Flask(__name__, template_folder=".")
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(),
    SESSION_COOKIE_NAME="flask_executor_example",
    SESSION_COOKIE_SAMESITE="Lax",  # no other site may submit or cancel tasks
    EXECUTOR_MAX_WORKERS=2,
    EXECUTOR_FUTURES_MAX_LENGTH=200,
    CPU_EXECUTOR_TYPE="process",
    CPU_EXECUTOR_MAX_WORKERS=2,
    CPU_EXECUTOR_FUTURES_MAX_LENGTH=200,
)
executor = Executor(app)
cpu = Executor(app, name="cpu")

LARGEST = 35
"""The largest n of the page: a worker process computes it for about ten seconds."""

THUMBNAILS = 20

URGENT = 10
"""The priority of an urgent task; the others have 0."""


# The jobs: plain functions that see the request they were submitted from.


@executor.job
def send_confirmation(address: str) -> str:
    """Send the confirmation e-mail, and return the server that took it."""
    message = EmailMessage()
    message["From"] = "app@example.org"
    message["To"] = address
    message["Subject"] = "Please confirm"
    message["X-Task"] = current_task.id
    link = url_for("page", confirmed=address, _external=True)
    message.set_content(f"Hello, and welcome!\n\nPlease confirm: {link}\n")
    host, port = mail_server()
    with smtplib.SMTP(host, port, timeout=30) as smtp:
        smtp.send_message(message)
    return f"{host}:{port}"


@executor.job
def summarise(table: FileStorage) -> dict[str, t.Any]:
    """Summarise an uploaded file line by line, in constant memory."""
    try:
        return summary_of(rows_in(table.stream))
    except UnicodeDecodeError as error:
        raise ValueError("This is not a CSV file: it is not text in UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"This is not a CSV file: {error}.") from error


@cpu.job
def fibonacci(n: int) -> int:
    """Return the n-th Fibonacci number, the slow way: a job may call itself."""
    if n == 20:  # not in every call: asking takes time, too
        current_task.raise_if_cancelled()
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@cpu.job
def thumbnail(number: int) -> bytes:
    """Draw one picture, as a PNG file."""
    return png(julia_set(number / THUMBNAILS))


@executor.job
async def thumbnails() -> list[bytes]:
    """Draw all thumbnails in worker processes, and report how many are done.

    If this is cancelled, or one of them fails, the others are cancelled.
    """
    priority = URGENT if is_urgent() else 0
    member = cpu.using(priority=priority, name=f"{current_task.id}.thumbnail")
    async with member.group("thumbnails") as group:
        group.map(thumbnail, range(THUMBNAILS))
        current_task.progress(*group.progress)
        async for _ in group:
            current_task.progress(*group.progress)
    return group.results()


# Mail.


class Mail(t.NamedTuple):
    """An e-mail that the SMTP server on loopback has received."""

    task: str
    to: str
    subject: str
    text: str


inbox: deque[Mail] = deque(maxlen=200)


class Inbox:
    """What the SMTP server does with a message."""

    async def handle_DATA(self, server: t.Any, session: t.Any, envelope: t.Any) -> str:
        """Keep it."""
        message = message_from_bytes(envelope.content, policy=policy.default)
        text = message.get_content()
        inbox.append(Mail(message["X-Task"], message["To"], message["Subject"], text))
        return "250 OK"


def mail_server() -> tuple[str, int]:
    """Return where mail goes: ``SMTP_HOST``, or the server on loopback."""
    host, _, port = os.environ.get("SMTP_HOST", "").partition(":")
    return (host, int(port or 25)) if host else loopback_mail_server()


@functools.cache
def loopback_mail_server() -> tuple[str, int]:
    """Start the server, once."""
    from aiosmtpd.controller import Controller

    with socket.create_server(("127.0.0.1", 0)) as probe:
        host, port = probe.getsockname()
    Controller(Inbox(), hostname=host, port=port).start()
    return host, port


# Visitors. A signed cookie says who it is; the server remembers what they started.


class Started(t.NamedTuple):
    """A task that a visitor started."""

    key: str
    """What the page calls it."""
    stored_under: str
    """Its key in ``executor.futures``, which holds the visitor's secret id, too."""
    job: str
    title: str
    urgent: bool

    @property
    def future(self) -> TaskFuture[t.Any] | None:
        """Its future, or None if the server no longer knows it."""
        key = self.stored_under
        found = executor.futures.get(key) or cpu.futures.get(key)
        return t.cast("TaskFuture[t.Any] | None", found)


VISITORS, TASKS = 1000, 40
"""How many visitors the server remembers, and how many tasks of each."""

visitors: OrderedDict[str, dict[str, Started]] = OrderedDict()
_visitors_lock = threading.Lock()


def my_tasks() -> dict[str, Started]:
    """Return what the visitor of this request has started, by key, oldest first."""
    with _visitors_lock:
        if not is_known():
            session["visitor"] = secrets.token_urlsafe(16)
            session.permanent = True  # the cookie outlives the browser
            visitors[session["visitor"]] = {}
        visitors.move_to_end(session["visitor"])
        if len(visitors) > VISITORS:
            visitors.popitem(last=False)
        return visitors[session["visitor"]]


def is_known() -> bool:
    """Return True if the server remembers the visitor of this request."""
    return session.get("visitor") in visitors


def my_task(key: str) -> Started:
    """Return a task of the visitor, and nobody else's."""
    if (started := my_tasks().get(key)) is None:
        abort(404, f"There is no task {key!r} here, or it is gone.")
    return started


def start(job: ExecutorJob[..., t.Any], *args: t.Any, title: str, urgent: bool) -> None:
    """Submit a job for the visitor; a form that is sent twice submits it once."""
    load()  # before there is anything to hear
    tasks = my_tasks()
    key = f"{form_key()}-{job.__name__}"
    stored_under = f"{session['visitor']}/{key}"
    run = job.using(priority=URGENT if urgent else 0)
    with suppress(DuplicateKey):
        run.submit_stored(stored_under, *args)
        tasks[key] = Started(key, stored_under, job.__name__, title, urgent)
    while len(tasks) > TASKS:
        tasks.pop(next(iter(tasks)))


def is_urgent() -> bool:
    """Return True if the form says so."""
    return "urgent" in request.form


def form_key() -> str:
    """Return the random key that the page gave the form, or a new one."""
    key = request.form.get("key") or new_key()
    if not re.fullmatch(r"[\w-]{8,40}", key):
        raise BadRequest(f"{key!r} is not a key of this page. Load the page again.")
    return key


def new_key() -> str:
    return secrets.token_urlsafe(8)


# How tasks are doing.

ENDS = {"succeeded": "Done", "failed": "Failed", "cancelled": "Cancelled"}
POOL_OF = {
    "send_confirmation": "thread",
    "summarise": "thread",
    "fibonacci": "worker process",
    "thumbnail": "worker process",
}


def status_of(started: Started) -> dict[str, t.Any]:
    """Return what the page shows of a task, except its result."""
    future = started.future
    found = {**started._asdict(), "ended": True, "fraction": None, "message": ""}
    del found["stored_under"]
    if future is None:
        return {**found, "state": "gone", "label": "Gone"}
    ended, task = future.done(), t.cast(Task, future.task)
    state = state_of(task, ended)
    found.update(ended=ended, state=state, label=label_of(started, task, state))
    if task.progress is not None:
        found.update(fraction=task.progress.fraction, message=task.progress.message)
    return found


def state_of(task: Task, ended: bool) -> str:
    """Return the state in the page's words."""
    if ended or task.state == "waiting":
        return task.state
    return "stopping" if task.cancel_requested else "running"


def label_of(started: Started, task: Task, state: str) -> str:
    """Describe the state, with the time that the task has taken."""
    if state == "waiting":
        # A coroutine waits only for a moment; its thumbnails do the waiting.
        return f"Waiting for a {POOL_OF.get(started.job, 'worker process')}"
    if state == "running" and load().only_waits_for_members(task):
        return "Waiting for a worker process"
    if task.started_at is None:
        return ENDS.get(state, state.capitalize())
    end = task.finished_at.timestamp() if task.finished_at else time.time()
    seconds = max(end - task.started_at.timestamp(), 0)
    if state not in ENDS:
        return f"{state.capitalize()}, {seconds:.0f} s"
    word = "in" if state == "succeeded" else "after"
    took = f"{seconds:.1f} s" if seconds >= 1 else f"{max(seconds * 1000, 1):.0f} ms"
    return f"{ENDS[state]} {word} {took}"


class Load:
    """What waits and runs in the whole app, as its signals tell."""

    def __init__(self) -> None:
        self._tasks: set[Task] = set()
        signals.task_submitted.connect(self._note_submitted, app)
        for name in ("succeeded", "failed", "timed_out", "cancelled"):
            getattr(signals, f"task_{name}").connect(self._note_ended, app)

    def counts(self) -> dict[str, int]:
        """Count what runs in each pool, and what waits for any."""
        tasks = [(pool_of(task), task.state) for task in self._tasks.copy()]
        found = Counter(pool for pool, state in tasks if pool and state == "running")
        waiting = sum(state == "waiting" for _, state in tasks)
        return {"thread": 0, "worker process": 0, **found, "waiting": waiting}

    def only_waits_for_members(self, task: Task) -> bool:
        """Return True if the task is a group of which nothing runs yet."""
        members = [one for one in self._tasks.copy() if one.name.startswith(task.id)]
        return bool(members) and all(one.state == "waiting" for one in members)

    def _note_submitted(self, app: Flask, task: Task) -> None:
        self._tasks.add(task)

    def _note_ended(self, app: Flask, task: Task, **facts: object) -> None:
        self._tasks.discard(task)


@functools.cache
def load() -> Load:
    """Listen from the first call on."""
    return Load()


def pool_of(task: Task) -> str | None:
    """Return what runs the task; None for a coroutine, which needs no worker."""
    return POOL_OF.get(task.name.rpartition(".")[2])


# The views: each submits a job, and answers at once.


@app.get("/")
def page(problem: Problem | None = None) -> Response:
    """The page itself."""
    forgotten = app.config["SESSION_COOKIE_NAME"] in request.cookies and not is_known()
    html = render_template(
        "example_page.html",
        tasks=[shown(started) for started in reversed([*my_tasks().values()])],
        load=load().counts(),
        problem=problem,
        forgotten=forgotten,
        code=code_of,
        new_key=new_key,
        largest=LARGEST,
    )
    # Not from the browser's cache, which would hold old keys and states.
    return Response(html, headers={"Cache-Control": "no-store"})


@app.post("/sign-up")
def sign_up() -> t.Any:
    """Send the confirmation e-mail."""
    address = request.form.get("address", "").strip()
    if not address:
        raise Problem("address", "Enter an e-mail address.")
    if not re.fullmatch(r"[^@\s]{1,64}@[^@\s]{1,255}", address):
        raise Problem(
            "address", f"{address!r} is not an e-mail address. It needs one @."
        )
    start(send_confirmation, address, title=address, urgent=is_urgent())
    return accepted()


@app.post("/summary")
def summary() -> t.Any:
    """Summarise the uploaded file, or the sample."""
    file = request.files.get("table")
    if "sample" in request.form:
        file = FileStorage(io.BytesIO(sample()), "visitors.csv")
    if file is None or not file.filename:
        raise Problem("table", "Choose a CSV file, or use the sample.")
    start(summarise, file, title=file.filename, urgent=is_urgent())
    return accepted()


@app.post("/fibonacci")
def number() -> t.Any:
    """Compute a Fibonacci number."""
    n = request.form.get("n", type=int)
    if n is None or not 0 <= n <= LARGEST:
        raise Problem("n", f"Enter a whole number from 0 to {LARGEST}.")
    start(fibonacci, n, title=f"fibonacci({n})", urgent=is_urgent())
    return accepted()


@app.post("/thumbnails")
def gallery() -> t.Any:
    """Draw the thumbnails."""
    start(thumbnails, title=f"{THUMBNAILS} thumbnails", urgent=is_urgent())
    return accepted()


@app.post("/all")
def all_four() -> t.Any:
    """Start all four; the number is urgent, and overtakes the thumbnails that wait."""
    ada, table = "ada@example.org", FileStorage(io.BytesIO(sample()))
    start(send_confirmation, ada, title=ada, urgent=False)
    start(summarise, table, title="visitors.csv", urgent=False)
    start(thumbnails, title=f"{THUMBNAILS} thumbnails", urgent=False)
    start(fibonacci, 32, title="fibonacci(32)", urgent=True)
    return accepted()


@app.get("/status")
def status() -> dict[str, t.Any]:
    """How all tasks of the visitor are doing, newest first, and what the workers do."""
    tasks = [status_of(started) for started in reversed([*my_tasks().values()])]
    return {"tasks": tasks, "load": load().counts()}


@app.get("/tasks/<key>")
def task(key: str) -> dict[str, t.Any]:
    """A task with its result, and the lines of the page that show it."""
    return {
        **status_of(my_task(key)),
        "html": render_template("example_page.html", only=shown(my_task(key))),
    }


@app.get("/tasks/<key>/<int:number>.png")
def picture(key: str, number: int) -> Response:
    """One of the thumbnails."""
    pictures = result_of(my_task(key)).get("result")
    if not isinstance(pictures, list) or number >= len(pictures):
        abort(404, f"The task {key!r} has no picture {number}.")
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return Response(pictures[number], mimetype="image/png", headers=headers)


@app.post("/tasks/<key>/cancel")
def cancel(key: str) -> t.Any:
    """Cancel a task that waits, or ask one that runs to stop."""
    if future := my_task(key).future:
        future.request_cancel()
    return accepted()


class Problem(BadRequest):
    """What is wrong with a field of a form."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(description)
        self.field = field


@app.errorhandler(HTTPException)
def refused(error: HTTPException) -> t.Any:
    """Say what was wrong: to the page's script, or on the page itself."""
    field = getattr(error, "field", None)
    if wants_json():
        return {"error": error.description, "field": field}, error.code
    return (page(error), error.code) if isinstance(error, Problem) else error


def accepted() -> t.Any:
    """Answer the page's script, or without it show the page again."""
    if wants_json():
        return {"key": new_key(), **status()}, 202
    return redirect(url_for("page"), 303)


def wants_json() -> bool:
    return request.accept_mimetypes.best == "application/json"


# What the page shows.


def shown(started: Started) -> dict[str, t.Any]:
    """Return all that the page shows of a task."""
    return {**status_of(started), **result_of(started)}


def result_of(started: Started) -> dict[str, t.Any]:
    """Return the result of a task or its error, if it has ended."""
    future = started.future
    if future is None or not future.done() or future.cancelled():
        return {}
    if error := future.exception():
        return {"error": str(error) or type(error).__name__}
    id = t.cast(Task, future.task).id
    mail = next((mail for mail in inbox.copy() if mail.task == id), None)
    return {"result": future.result(), "mail": mail}


def code_of(functions: list[str]) -> str:
    """Return the source of functions of this file."""
    return "\n\n".join(inspect.getsource(globals()[name]) for name in functions)


@app.template_filter()
def short(number: float) -> str:
    """Write a number as people read it."""
    if abs(number) >= 1e15:
        return f"{number:.4g}"
    if number == int(number):
        return f"{number:,.0f}"
    return f"{number:,.1f}" if abs(number) >= 1000 else f"{number:.4g}"


# The terminal.


def demo() -> None:
    """Do all four once, and print what happens."""
    squares = "".join(f"{n},{n * n % 97}\n" for n in range(200_000))
    table = (io.BytesIO(b"number,square\n" + squares.encode()), "squares.csv")
    show = functools.partial(show_in_terminal, app.test_client())
    print("Four jobs in the background of a Flask app")
    show("A thread sends an e-mail", "/sign-up", address="ada@example.org")
    print(f"   received: {inbox[0].subject!r} for {inbox[0].to}")
    found = show("A thread summarises a CSV file", "/summary", table=table)
    for column in found["columns"]:
        print("   {name:7} count {count}, mean {mean}, {min} to {max}".format(**column))
    found = show("A worker process computes", "/fibonacci", n=24)
    print(f"   the result: {found}")
    show("The same, cancelled while it runs", "/fibonacci", stop_after=0.5, n=35)
    found = show("A group draws thumbnails, at once", "/thumbnails", urgent="on")
    print(f"   the result: {len(found)} pictures")
    end()


def show_in_terminal(
    client: t.Any, what: str, path: str, stop_after: float = math.inf, **form: t.Any
) -> t.Any:
    """Post a form and ask for its task as the page does; print what is new."""
    begun, line = time.perf_counter(), ""
    ask = functools.partial(client.open, headers={"Accept": "application/json"})
    answer = ask(path, method="POST", data=form, content_type="multipart/form-data")
    print(f"\n * {what}: {answer.json['tasks'][0]['title']}")
    while True:
        (found, *_), passed = ask("/status").json["tasks"], time.perf_counter() - begun
        share = "" if found["fraction"] is None else f" {found['fraction']:.0%}"
        if line != (line := f"{found['state']}{share} {found['message']}".rstrip()):
            print(f"   {passed * 1000:5.0f} ms  {line}")
        if found["ended"]:
            break
        if passed > stop_after:
            ask(f"/tasks/{found['key']}/cancel", method="POST")
        time.sleep(0.05)
    with client:
        client.get("/")
        return result_of(my_task(found["key"])).get("result")


def serve(port: int | None) -> None:
    """Serve the page until Ctrl-C."""
    # The page asks for this path all the time: the log is for what people do.
    logging.getLogger("werkzeug").addFilter(
        lambda record: '"GET /status HTTP' not in record.getMessage()
    )
    with listener(port) as listening:
        host, port = listening.getsockname()
        # Cookies do not know ports: two of these on one machine need two names.
        app.config["SESSION_COOKIE_NAME"] += f"_{port}"
        server = make_server(host, port, app, threaded=True, fd=listening.fileno())
    print(f"The page is at http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
    server.serve_forever()
    end()


def listener(port: int | None) -> socket.socket:
    """Listen on a port, or on the first free one from 5000 on.

    :raises SystemExit: if the port cannot be used, with the reason.
    """
    candidates = [*range(5000, 5020)] if port is None else [port]
    for candidate in candidates:
        try:
            return socket.create_server(("127.0.0.1", candidate))
        except (OSError, OverflowError) as error:
            reason = error
    sys.exit(
        f"Cannot listen on port {candidates[-1]}: {reason}.\n"
        "Choose another one: python example_app.py --port 8000"
    )


def end() -> None:
    """Cancel what is under way, and wait until it has stopped."""
    for pool in (executor, cpu):
        for _, future in pool.futures.items():
            t.cast("TaskFuture[t.Any]", future).request_cancel()
    for pool in (executor, cpu):
        pool.shutdown(cancel_futures=True)


def main() -> None:
    """Serve the page, or run the demo."""
    parser = argparse.ArgumentParser(description="The Flask-Executor example.")
    parser.add_argument("--demo", action="store_true", help="do all four once, here")
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT") or None,
        help="of the page (default: PORT, or the first free one from 5000 on)",
    )
    options = parser.parse_args()
    if not os.environ.get("SMTP_HOST") and not importlib.util.find_spec("aiosmtpd"):
        sys.exit(
            "The example sends e-mail to an SMTP server of its own, which needs"
            " aiosmtpd.\nInstall it: python -m pip install aiosmtpd"
        )
    demo() if options.demo else serve(options.port)


if __name__ == "__main__":
    main()
