"""Four things that people do in the background of a Flask app, on one page.

A thread sends the e-mail that confirms a sign-up, a thread summarises an uploaded CSV
file of any size, a worker process computes a Fibonacci number, and worker processes
draw twenty thumbnails, which a coroutine collects as one group. Each task can be
urgent, reports its progress if it knows it, and can be cancelled while it runs. Every
night a job removes old files. A dashboard shows all of it, to you alone::

    python example_app.py           # serve the page
    python example_app.py --demo    # do all four once, in the terminal
    gunicorn -w 4 example_app:app   # four server processes, one page

The page is on port 5000, or the next free one; ``--port`` or ``PORT`` chooses another.
Mail goes to ``SMTP_HOST`` (``host`` or ``host:port``) if that is set, otherwise to a
small SMTP server on loopback whose mail the page shows.

Tasks are saved in ``tasks.db`` in the instance folder, so all server processes show the
same ones, and those of a process that is killed run in another one, or after the next
start. ``EXAMPLE_FOLDER`` chooses another folder.
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
import tempfile
import time
import typing as t
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

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
from werkzeug.utils import secure_filename

from example_work import julia_set, png, rows_in, sample, summary_of
from flask_executor import (
    DuplicateKey,
    Executor,
    ExecutorJob,
    TaskFuture,
    TaskRecord,
    current_task,
)
from flask_executor.web import Dashboard

NEEDED = ("aiosmtpd", "croniter", "sqlalchemy")
if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
    sys.exit(f"The example needs more packages: pip install {' '.join(missing)}")

app = Flask(
    __name__, template_folder=".", instance_path=os.environ.get("EXAMPLE_FOLDER")
)


def file_in(folder: str, name: str) -> Path:
    """Return the path of a file in a folder of the instance folder, which is made."""
    path = Path(app.instance_path, folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def secret_key() -> str:
    """Return the key that all processes and all later starts have in common."""
    path = file_in("", "secret_key")
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as new:
        new.write(secrets.token_hex())
        new.flush()
        with suppress(FileExistsError):  # of two processes, one makes it, whole
            os.link(new.name, path)
    return path.read_text()


# There is no MAX_CONTENT_LENGTH here: an upload goes to disk, and is read by line.
# There are few workers, so that one can see tasks wait, and urgent ones go first.
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY") or secret_key(),
    SESSION_COOKIE_NAME="flask_executor_example",
    SESSION_COOKIE_SAMESITE="Lax",  # no other site may submit or cancel tasks
    EXECUTOR_STORE="sqlite:///tasks.db",
    EXECUTOR_MAX_WORKERS=2,
    EXECUTOR_DRAIN_TIMEOUT=0.5,  # what takes longer goes on in another process
    CPU_EXECUTOR_STORE="sqlite:///tasks.db",
    CPU_EXECUTOR_TYPE="process",
    CPU_EXECUTOR_MAX_WORKERS=2,
    CPU_EXECUTOR_DRAIN_TIMEOUT=0.5,
)
app.config.from_prefixed_env()
executor = Executor(app)
cpu = Executor(app, name="cpu")

LARGEST = 35
"""The largest n of the page: a worker process computes it for about ten seconds."""

THUMBNAILS = 20

URGENT = 10
"""The priority of an urgent task; the others have 0."""


# The jobs: plain functions that see the request they were submitted from. If the
# process that runs one dies, another one runs it again. So each may run twice.


@executor.job(name="send_confirmation", guarantee="at_least_once")
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


@executor.job(name="summarise", guarantee="at_least_once")
def summarise(upload: str) -> dict[str, t.Any]:
    """Summarise an uploaded file line by line, in constant memory."""
    try:
        with file_in("uploads", upload).open("rb") as stream:
            return summary_of(rows_in(stream))
    except UnicodeDecodeError as error:
        raise ValueError("This is not a CSV file: it is not text in UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"This is not a CSV file: {error}.") from error


@cpu.job(name="fibonacci", guarantee="at_least_once")
def fibonacci(n: int) -> int:
    """Return the n-th Fibonacci number, the slow way: a job may call itself."""
    if n == 20:  # not in every call: asking takes time, too
        current_task.raise_if_cancelled()
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@cpu.job(name="thumbnail", guarantee="at_least_once")
def thumbnail(number: int) -> bytes:
    """Draw one picture, as a PNG file."""
    return png(julia_set(number / THUMBNAILS))


@executor.job(name="thumbnails", guarantee="at_least_once")
async def thumbnails(priority: int) -> list[bytes]:
    """Draw all thumbnails in worker processes, and report how many are done.

    If this is cancelled, or one of them fails, the others are cancelled.
    """
    member = cpu.using(priority=priority, name=f"{current_task.id}.thumbnail")
    async with member.group("thumbnails") as group:
        group.map(thumbnail, range(THUMBNAILS))
        current_task.progress(*group.progress)
        async for _ in group:
            current_task.progress(*group.progress)
    return group.results()


@executor.cron("0 3 * * *")
@executor.job(name="clean_up", guarantee="at_least_once")
def clean_up() -> str:
    """Remove uploads and mail that are older than a day."""
    folders = [Path(app.instance_path, name) for name in ("uploads", "mail")]
    files = [path for folder in folders for path in folder.glob("*")]
    old = [path for path in files if time.time() - path.stat().st_mtime > 86_400]
    for path in old:
        path.unlink(missing_ok=True)
    return f"Removed {len(old)} of {len(files)} files"


# Mail.


class Inbox:
    """What the SMTP server does with a message."""

    async def handle_DATA(self, server: t.Any, session: t.Any, envelope: t.Any) -> str:
        """Keep it in a file, where all server processes find it."""
        message = message_from_bytes(envelope.content)
        file_in("mail", secure_filename(message["X-Task"])).write_bytes(
            envelope.content
        )
        return "250 OK"


def mail_of(id: str) -> EmailMessage | None:
    """Return the mail that a task has sent to the server on loopback."""
    path = file_in("mail", id)
    if not path.exists():
        return None
    found = message_from_bytes(path.read_bytes(), policy=policy.default)
    return t.cast(EmailMessage, found)


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


# Visitors. A signed cookie says who it is, and the key of a task begins with that.

RECENT, TASKS = 500, 40
"""Of how many tasks of all visitors the page looks for its own, and shows how many."""


def visitor() -> str:
    """Return the secret id of the visitor of this request."""
    if "visitor" not in session:
        session["visitor"] = secrets.token_urlsafe(16)
        session.permanent = True  # the cookie outlives the browser
    return t.cast(str, session["visitor"])


def my_tasks() -> list[TaskRecord]:
    """Return what the visitor of this request has started, newest first."""
    found = executor.tasks(limit=RECENT) + cpu.tasks(job=fibonacci, limit=RECENT)
    mine = [task for task in found if task.key and task.key[0] == visitor()]
    return sorted(mine, key=lambda task: task.submitted_at, reverse=True)[:TASKS]


def my_task(key: str) -> TaskRecord:
    """Return a task of the visitor, and nobody else's."""
    for task in my_tasks():
        if task.key == (visitor(), key):
            return task
    abort(404, f"There is no task {key!r} here, or it is gone.")


def future_of(task: TaskRecord) -> TaskFuture[t.Any]:
    """Return the future of a task, whichever process runs it."""
    futures = cpu.futures if task.job == "fibonacci" else executor.futures
    return t.cast("TaskFuture[t.Any]", futures[task.key])


def start(job: ExecutorJob[..., t.Any], *args: t.Any, title: str, urgent: bool) -> None:
    """Submit a job for the visitor; a form that is sent twice submits it once."""
    key = (visitor(), f"{form_key()}-{job.__name__}")
    run = job.using(priority=URGENT if urgent else 0, meta={"title": title})
    with suppress(DuplicateKey):
        run.submit_stored(key, *args)


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


def may(action: str) -> bool:
    """Show the tasks of all visitors to who sits at this machine; others get 404."""
    host = request.host.partition(":")[0]
    return request.remote_addr == "127.0.0.1" and host in ("127.0.0.1", "localhost")


app.register_blueprint(Dashboard(executor, cpu, authorize=may))


# How tasks are doing.

ENDS = {"succeeded": "Done", "failed": "Failed", "cancelled": "Cancelled"}
POOL_OF = {
    "send_confirmation": "thread",
    "summarise": "thread",
    "clean_up": "thread",
    "fibonacci": "worker process",
    "thumbnail": "worker process",
}


def status_of(task: TaskRecord) -> dict[str, t.Any]:
    """Return what the page shows of a task, except its result."""
    state = state_of(task)
    return {
        "key": t.cast("tuple[str, str]", task.key)[1],
        "job": task.job,
        "title": task.meta["title"],
        "urgent": task.priority == URGENT,
        "ended": task.has_ended,
        "state": state,
        "label": label_of(task, state),
        "fraction": task.progress.fraction if task.progress else None,
        "message": task.progress.message if task.progress else "",
    }


def state_of(task: TaskRecord) -> str:
    """Return the state in the page's words."""
    if task.state != "running":
        return task.state
    # If this process runs it, it knows first.
    asked = task.cancel_requested or future_of(task).task.cancel_requested
    return "stopping" if asked else "running"


def label_of(task: TaskRecord, state: str) -> str:
    """Describe the state, with the time that the task has taken."""
    if state == "waiting":
        # A coroutine waits only for a moment; its thumbnails do the waiting.
        return f"Waiting for a {POOL_OF.get(str(task.job), 'worker process')}"
    if state == "running" and only_waits_for_members(task):
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


def only_waits_for_members(task: TaskRecord) -> bool:
    """Return True if the task is a group of which nothing runs yet."""
    if task.job != "thumbnails":
        return False
    members = {one.state for one in cpu.tasks(parent=task.id) if not one.has_ended}
    return members == {"waiting"}


def load() -> dict[str, t.Any]:
    """Count what runs in all server processes, and what waits."""
    found: dict[str, t.Any] = {}
    for name, pool in (("thread", executor), ("worker process", cpu)):
        tasks = pool.tasks(state="running")
        busy = sum(POOL_OF.get(str(task.job)) == name for task in tasks)
        slots = sum(worker.slots or 0 for worker in pool.workers())
        found[name] = {"busy": busy, "slots": max(slots, 2)}
    waiting = [pool.counts(limit=1000)["waiting"] for pool in (executor, cpu)]
    return {**found, "waiting": sum(waiting)}


# The views: each submits a job, and answers at once.


@app.get("/")
def page(problem: Problem | None = None) -> Response:
    """The page itself."""
    html = render_template(
        "example_page.html",
        tasks=[shown(task) for task in my_tasks()],
        load=load(),
        problem=problem,
        code=code_of,
        new_key=new_key,
        largest=LARGEST,
        may_watch=may("view"),
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
    start(summarise, saved(file), title=file.filename, urgent=is_urgent())
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
    priority = URGENT if is_urgent() else 0
    title = f"{THUMBNAILS} thumbnails"
    start(thumbnails, priority, title=title, urgent=is_urgent())
    return accepted()


@app.post("/clean-up")
def clean_up_now() -> t.Any:
    """Run the nightly job now."""
    start(clean_up, title="Old files", urgent=False)
    return accepted()


@app.post("/all")
def all_four() -> t.Any:
    """Start all four; the number is urgent, and overtakes the thumbnails that wait."""
    ada, table = "ada@example.org", saved(FileStorage(io.BytesIO(sample())))
    start(send_confirmation, ada, title=ada, urgent=False)
    start(summarise, table, title="visitors.csv", urgent=False)
    start(thumbnails, 0, title=f"{THUMBNAILS} thumbnails", urgent=False)
    start(fibonacci, 32, title="fibonacci(32)", urgent=True)
    return accepted()


@app.get("/status")
def status() -> dict[str, t.Any]:
    """How all tasks of the visitor are doing, newest first, and what the workers do."""
    return {"tasks": [status_of(task) for task in my_tasks()], "load": load()}


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
    future_of(my_task(key)).request_cancel()
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


def saved(file: FileStorage) -> str:
    """Save an upload where all server processes find it, and return its name."""
    name = new_key()
    file.save(file_in("uploads", name))
    return name


def accepted() -> t.Any:
    """Answer the page's script, or without it show the page again."""
    if wants_json():
        return {"key": new_key(), **status()}, 202
    return redirect(url_for("page"), 303)


def wants_json() -> bool:
    return request.accept_mimetypes.best == "application/json"


# What the page shows.


def shown(task: TaskRecord) -> dict[str, t.Any]:
    """Return all that the page shows of a task."""
    return {**status_of(task), **result_of(task)}


def result_of(task: TaskRecord) -> dict[str, t.Any]:
    """Return the result of a task or its error, if it has ended."""
    if not task.has_ended or task.state == "cancelled":
        return {}
    if task.state != "succeeded":
        return {"error": task.error or task.error_class}
    return {"result": future_of(task).result(), "mail": mail_of(task.id)}


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
    """Do all four once, and print what happens; nothing of it stays."""
    with tempfile.TemporaryDirectory() as app.instance_path:
        show_all()
        for pool in (executor, cpu):
            pool.shutdown()


def show_all() -> None:
    """Do all four once, and print what happens."""
    squares = "".join(f"{n},{n * n % 97}\n" for n in range(200_000))
    table = (io.BytesIO(b"number,square\n" + squares.encode()), "squares.csv")
    show = functools.partial(show_in_terminal, app.test_client())
    print("Four jobs in the background of a Flask app")
    found = show("A thread sends an e-mail", "/sign-up", address="ada@example.org")
    print("   received: {Subject!r} for {To}".format(**found["mail"]))
    found = show("A thread summarises a CSV file", "/summary", table=table)
    for column in found["result"]["columns"]:
        print("   {name:7} count {count}, mean {mean}, {min} to {max}".format(**column))
    found = show("A worker process computes", "/fibonacci", n=24)
    print(f"   the result: {found['result']}")
    show("The same, cancelled while it runs", "/fibonacci", stop_after=0.5, n=35)
    found = show("A group draws thumbnails, at once", "/thumbnails", urgent="on")
    print(f"   the result: {len(found['result'])} pictures")


def show_in_terminal(
    client: t.Any, what: str, path: str, stop_after: float = math.inf, **form: t.Any
) -> t.Any:
    """Post a form and ask for its task as the page does; print what is new.

    :return: its result and its mail.
    """
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
        return result_of(my_task(found["key"]))


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
    demo() if options.demo else serve(options.port)


if __name__ == "__main__":
    main()
