"""What the pages of the dashboard show, and what their forms do."""

from __future__ import annotations

import json
import pickle
import re
import threading
import typing as t
from html import unescape
from pathlib import Path

import pytest
from dashboards import Visitor, everything
from flask import Flask
from limits import LIMIT
from processes import NewProcess, Process, declare, reached, until
from sqlalchemy import create_engine, text

from flask_executor import Executor, Retry, current_task
from flask_executor.stores.sql import database
from flask_executor.web import Dashboard
from flask_executor.web.dashboard.pages import request as page_of_request
from flask_executor.web.dashboard.pages import stacks, task, tasks

PAGES = ("/", "/tasks", "/failures", "/jobs", "/groups", "/periodic", "/workers")
SECRETS = ("key-7", "meta-7", "text-7", "path-7", "message-7", "unique-7", "mark-7")


def fail(text: str) -> None:
    raise ValueError(text)


def ended(process: Process, *futures: t.Any) -> None:
    """Return when all have ended, and the store knows that."""
    for future in futures:
        until(lambda f=future: f.done() and process.record(f).finished)


def words(html: str) -> str:
    """What a reader sees of a page, in one line."""
    html = re.sub(r"<(option|title)\b.*?</\1>", " ", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def page_of(visitor: Visitor, future: t.Any) -> str:
    return words(visitor.text(f"/tasks/{future.task.id}"))


def test_the_overview_counts_and_shows_what_runs(
    shop: Process, visitor: Visitor, gate: threading.Event
) -> None:
    """The number in each state, and what runs now with its progress."""
    begun = threading.Event()

    def work() -> None:
        current_task.progress(3, 4, "page 3")
        begun.set()
        gate.wait(LIMIT)

    ended(shop, declare(shop, fail, name="bad").submit("no"))
    future = declare(shop, work, name="report").submit()
    reached(begun)
    until(lambda: shop.record(future).progress)
    shown = words(visitor.text())
    assert re.search(r"Running 1 Waiting 0 .* Failed 1 .* Succeeded 0", shown)
    assert "report Running" in shown
    assert "75 % · page 3" in shown


def test_the_overview_draws_what_the_statistics_say(
    shop: Process, visitor: Visitor
) -> None:
    """Ends per minute, and how long tasks waited and ran."""
    job = declare(shop, lambda: None)
    ended(
        shop,
        *[job.submit() for _ in range(3)],
        declare(shop, fail, name="bad").submit("x"),
    )
    until(lambda: sum(one.count for one in shop.executor.statistics()) == 4)
    html = visitor.text()
    assert "4 in all, 1 of them failed" in words(html)
    assert re.search(
        r"<title>\d\d:\d\d: 3 succeeded, 1 failed, 0 cancelled</title>", html
    )
    assert html.count("<svg") == 3
    assert "on average" in html


def test_the_overview_warns_of_jobs_that_nobody_knows(
    shop: Process, visitor: Visitor, new_process: NewProcess
) -> None:
    """Tasks wait for code that no live process has: that is said, with the name."""
    assert "no process knows" not in visitor.text()
    other = new_process(EXECUTOR_STORE_RUN=False)
    declare(other, print, name="old.name").using(delay=0).submit()
    other.close()
    until(lambda: "Jobs that no process knows: old.name." in words(visitor.text()))


def test_the_overview_warns_of_threads_that_are_late(
    shop: Process, visitor: Visitor, gate: threading.Event
) -> None:
    """A thread whose task is past its timeout is counted, with the name of the task."""
    future = declare(shop, gate.wait, name="stuck", timeout=0.05).submit(LIMIT)
    ended(shop, future)
    assert "1 thread past the timeout: stuck." in words(visitor.text())


def test_tasks_can_be_filtered(shop: Process, visitor: Visitor) -> None:
    """By state, job, name, error, group and parent; what does not exist is empty."""
    good = declare(shop, lambda: None, name="good").submit()
    bad = declare(shop, fail, name="bad").using(name="odd").submit("x")
    group = shop.executor.group("import")
    member = group.submit(declare(shop, lambda: None, name="member"))
    ended(shop, good, bad, member)

    def found(query: str) -> list[str]:
        return re.findall(r'id="task-(\w+)"', visitor.text(f"/tasks?{query}"))

    ids = [future.task.id for future in (good, bad, member)]
    assert sorted(found("")) == sorted(ids)
    for query in ("state=failed", "job=bad", "name=odd", "error=ValueError"):
        assert found(query) == [bad.task.id], query
    assert found("group=import") == [member.task.id]
    assert found("parent=nobody") == found("job=none&state=failed") == []
    assert sorted(found("state=%3Cb%3E")) == sorted(ids)


def test_tasks_come_in_pages(
    shop: Process, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older and Newer lead through all tasks and back, each task once."""
    monkeypatch.setattr(tasks, "_ON_A_PAGE", 2)
    job = declare(shop, lambda: None)
    made = [job.submit() for _ in range(5)]
    ended(shop, *made)
    newest = [future.task.id for future in made][::-1]
    path, seen, there = "/tasks?job=job", [], []
    while path:
        html = visitor.text(path)
        there.append(path)
        seen.append(re.findall(r'id="task-(\w+)"', html))
        path = _link(html, "next")
    assert seen == [newest[:2], newest[2:4], newest[4:]]
    back = _link(visitor.text(there[-1]), "prev")
    assert re.findall(r'id="task-(\w+)"', visitor.text(back)) == newest[2:4]
    assert _link(visitor.text(there[0]), "prev") == ""


def _link(html: str, rel: str) -> str:
    found = re.search(rf'href="/executor([^"]+)" rel="{rel}"', html)
    return found[1].replace("&amp;", "&") if found else ""


def test_a_task_opens_by_its_id_or_key(
    shop: Process, visitor: Visitor, allowed: set[str]
) -> None:
    """Keys that are texts or numbers are found; who may not see keys tries in vain."""
    job = declare(shop, lambda: None)
    one, two = job.submit_stored("order-7"), job.submit_stored(7)
    ended(shop, one, two)
    for text_, future in ((one.task.id, one), ("order-7", one), ("7", two)):
        answer = visitor.get(f"/tasks?open={text_}")
        assert answer.location == f"/executor/tasks/{future.task.id}"
    assert visitor.get("/tasks?open=nothing").status_code == 404
    allowed.remove("details")
    assert visitor.get("/tasks?open=order-7").status_code == 404
    assert visitor.get(f"/tasks?open={one.task.id}").status_code == 303


def test_a_task_shows_its_attempts(shop: Process, visitor: Visitor) -> None:
    """Each attempt with its error, the pauses between, and a drawing of it all."""

    def flaky() -> None:
        if current_task.attempt < 2:
            raise KeyError("first")

    job = declare(shop, flaky, retry=Retry(attempts=2, delay=0.01))
    future = job.submit()
    ended(shop, future)
    html = visitor.text(f"/tasks/{future.task.id}")
    shown = words(html)
    assert re.search(
        r"Attempt 1 .*Failed · KeyError: 'first'.* Pause .*Attempt 2", shown
    )
    assert html.count('<rect class="bad"') == html.count('<rect class="good"') == 1


def test_a_task_says_why_it_waits(shop: Process, visitor: Visitor) -> None:
    """The sentence of ``executor.why``."""
    future = declare(shop, lambda: None).using(delay=8000).submit()
    assert "It is not due: that is in 2 hours." in page_of(visitor, future)


def test_a_task_shows_who_submitted_it(shop: Process, visitor: Visitor) -> None:
    """The request, the task above and those below; and what it repeats."""
    child = declare(shop, fail, name="child")
    made: list[t.Any] = []
    parent = declare(shop, lambda: made.append(child.submit("no")), name="parent")
    with shop.app.test_request_context("/orders", method="POST"):
        future = parent.submit()
    ended(shop, future)
    ended(shop, *made)
    assert "Has submitted child Failed" in page_of(visitor, future)
    assert "POST /orders" in page_of(visitor, future)
    assert "Submitted by parent Succeeded" in page_of(visitor, made[0])
    again = shop.executor.retry(made[0].task.id)
    assert f"Repeats {made[0].task.id}" in page_of(visitor, again)


def test_a_task_shows_what_repeats_it(
    shop: Process, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newest first; with many there is a link to all of them."""
    bad = declare(shop, fail, name="bad").submit("no")
    ended(shop, bad)
    assert "Repeated by" not in page_of(visitor, bad)
    again = [shop.executor.retry(bad.task.id) for _ in range(2)]
    ended(shop, *again)
    shown = visitor.text(f"/tasks/{bad.task.id}").partition("Repeated by")[2]
    assert re.findall(r'id="task-(\w+)"', shown) == [one.task.id for one in again[::-1]]
    assert "All that repeat it" not in shown
    monkeypatch.setattr(task, "_CHILDREN", 1)
    shown = visitor.text(f"/tasks/{bad.task.id}").partition("Repeated by")[2]
    link = re.search(r'href="/executor(/tasks[^"]+)">All that repeat it', shown)
    assert link is not None
    assert visitor.text(link[1]).count('id="task-') == 2


def test_a_request_shows_all_that_it_started(
    shop: Process, visitor: Visitor, allowed: set[str]
) -> None:
    """Also what its tasks submitted, below these; and the number in each state. A task
    of it leads there.
    """
    child = declare(shop, fail, name="child")
    made: list[t.Any] = []
    parent = declare(shop, lambda: made.append(child.submit("no")), name="parent")
    with shop.app.test_request_context("/orders?card=1", method="POST"):
        started = [parent.submit(), declare(shop, abs, name="plain").submit(1)]
    with shop.app.test_request_context("/orders", method="POST"):
        other = declare(shop, abs, name="other").submit(1)
    ended(shop, *started, other)
    ended(shop, *made)
    for future in (*started, *made):
        html = visitor.text(f"/tasks/{future.task.id}")
        found = re.search(r'href="/executor(/requests/\w+)">\s*POST /orders', html)
        assert found is not None
    html = visitor.text(found[1])
    below = f'id="task-{made[0].task.id}" class="task under under-1"'
    places = [html.index(f"task-{future.task.id}") for future in started]
    assert max(places[1], places[0]) == places[0] < html.index(below)
    assert "submitted by parent" in words(html)
    assert "Failed 1 Succeeded 2" in words(html)
    assert "Has started 3 tasks" in words(html)
    assert "POST /orders" in words(html)
    assert "other" not in words(html)
    failed = re.search(r'"/executor(/tasks[^"]+)"><span class="state failed"', html)
    assert failed is not None
    listed = visitor.text(failed[1].replace("&amp;", "&"))
    assert listed.count('id="task-') == 1
    allowed.remove("details")
    assert "/orders" not in visitor.text(found[1])
    assert visitor.get("/requests/nobody").status_code == 404


def test_a_task_that_sees_no_request_still_belongs_to_one(
    shop: Process, visitor: Visitor
) -> None:
    """What a task with ``request='none'`` submits leads to the request, which is named
    there as far as another task knows it.
    """
    made: list[t.Any] = []
    child = declare(shop, int, name="child")
    work = declare(shop, lambda: made.append(child.submit()), request="none")
    with shop.app.test_request_context("/orders"):
        parent = work.submit()
    ended(shop, parent)
    ended(shop, *made)
    html = visitor.text(f"/tasks/{made[0].task.id}")
    found = re.search(r'href="/executor(/requests/\w+)">\s*a request', html)
    assert found is not None
    shown = words(visitor.text(found[1]))
    assert "Request GET Id" in shown, "its path is not saved"


def test_a_request_comes_in_pages(
    shop: Process, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the links at the bottom; the numbers are those of all its tasks, until there
    are so many that counting takes long.
    """
    monkeypatch.setattr(tasks, "_ON_A_PAGE", 2)
    job = declare(shop, abs)
    with shop.app.test_request_context("/orders"):
        made = [job.submit(1) for _ in range(5)]
    ended(shop, *made)
    path, last, seen = f"/requests/{shop.record(made[0]).request}", "", []
    while path:
        html = visitor.text(path)
        assert "Succeeded 5" in words(html)
        seen += re.findall(r'id="task-(\w+)"', html)
        last, path = path, _link(html, "next")
    assert seen == [future.task.id for future in made[::-1]]
    html = visitor.text(_link(visitor.text(last), "prev"))
    assert re.findall(r'id="task-(\w+)"', html) == seen[2:4]
    monkeypatch.setattr(page_of_request, "_COUNTED", 5)
    html = visitor.text(last)
    assert "Has started 5 tasks" in words(html)
    assert "Succeeded 5" not in words(html)


def test_all_of_a_request_can_be_cancelled(shop: Process, visitor: Visitor) -> None:
    """The number first, as for all that match; tasks of other requests go on."""
    job = declare(shop, int)
    made = []
    for path in ("/a", "/b"):
        with shop.app.test_request_context(path):
            made += [job.using(delay=7200).submit() for _ in range(2)]
    html = visitor.text(f"/requests/{shop.record(made[0]).request}")
    link = re.search(r'href="/executor(/matching[^"]+)">Cancel all', html)
    assert link is not None
    path = link[1].replace("&amp;", "&")
    assert "2 tasks would be cancelled" in words(visitor.text(path))
    id = re.search(r"request=(\w+)", path)
    assert id is not None
    visitor.post("/matching/do", do="cancel", request=id[1])
    until(lambda: [one for one in made if one.done()] == made[:2])
    assert not made[2].done()


def test_failures_are_counted_by_error_and_job(shop: Process, visitor: Visitor) -> None:
    """One line for each class of error in each job, with a link to its tasks."""
    bad, worse = (
        declare(shop, fail, name="bad"),
        declare(shop, lambda: {}[1], name="worse"),
    )
    futures = [bad.submit("a"), bad.submit("b"), worse.submit()]
    ended(shop, *futures)
    html = visitor.text("/failures")
    assert re.search(r"ValueError bad Failed 2 ", words(html))
    assert re.search(r"KeyError worse Failed 1 ", words(html))
    link = re.search(r'href="/executor(/tasks[^"]+)">ValueError', html)
    assert link is not None
    listed = visitor.text(link[1].replace("&amp;", "&"))
    assert listed.count('id="task-') == 2


def test_jobs_can_be_paused_and_resumed(shop: Process, visitor: Visitor) -> None:
    """The page says what is paused, and its forms change that for all processes."""
    job = declare(shop, lambda: None, name="mail.send")
    until(lambda: "mail.send" in visitor.text("/jobs"))
    assert visitor.post("/jobs/pause", job="mail.send").status_code == 303
    assert shop.executor.paused() == ["mail.send"]
    future = job.submit()
    until(lambda: "The job mail.send is paused" in page_of(visitor, future))
    assert "Paused Resume" in words(visitor.text("/jobs"))
    visitor.post("/jobs/resume", job="mail.send")
    assert shop.executor.paused() == []
    ended(shop, future)


def test_groups_show_how_far_they_are(shop: Process, visitor: Visitor) -> None:
    """With what has failed, and a link to the members."""
    group = shop.executor.group("import")
    futures = [group.submit(declare(shop, lambda: None)) for _ in range(2)]
    futures.append(group.submit(declare(shop, fail, name="bad"), "x"))
    ended(shop, *futures)
    html = visitor.text("/groups")
    assert re.search(r"import 3 of 3, open 1 ", words(html))
    assert visitor.text("/tasks?group=import").count('id="task-') == 3


def test_periodic_jobs_can_be_run_and_paused(shop: Process, visitor: Visitor) -> None:
    """Run now submits a task at once; a pause leaves ticks out until it is resumed."""
    job = declare(shop, lambda: None, name="tidy")
    shop.executor.cron("0 3 * * *")(job)
    assert "tidy 0 3 * * * (UTC) –" in words(visitor.text("/periodic"))
    answer = visitor.post("/periodic/run", name="tidy")
    assert answer.status_code == 303
    until(lambda: shop.executor.counts()["succeeded"] == 1)
    visitor.post("/periodic/pause", name="tidy")
    assert shop.executor.periodic["tidy"].paused
    assert "Paused" in words(visitor.text("/periodic"))
    visitor.post("/periodic/resume", name="tidy")
    assert not shop.executor.periodic["tidy"].paused
    assert visitor.post("/periodic/run", name="nobody").status_code == 404


def test_workers_show_how_busy_they_are(
    shop: Process, visitor: Visitor, new_process: NewProcess
) -> None:
    """Every process that is alive, with its places and its jobs."""
    declare(shop, lambda: None, name="mail.send")
    until(lambda: "mail.send" in visitor.text("/workers"))
    new_process().serve()
    until(lambda: visitor.text("/workers").count(" of 2 busy · 0 waiting") == 2)


def test_threads_of_another_process_are_shown(
    new_process: NewProcess, gate: threading.Event
) -> None:
    """It is asked, and the page that looks again has the answer: no request waits."""
    one = new_process(EXECUTOR_STORE_LEASE=3)
    other = new_process(EXECUTOR_STORE_LEASE=3).serve()
    begun = threading.Event()

    def wait_in_here() -> None:
        begun.set()
        gate.wait(LIMIT)

    declare(other, wait_in_here, name="stuck").submit()
    reached(begun)
    visitor = Visitor(one.app)
    [id] = [w.id for w in one.executor.workers() if w.id == other.node.presence.me]
    first = visitor.text(f"/workers/{id}")
    assert "It has not answered yet" in first or "stuck" in first
    shown = until(
        lambda: "Runs stuck" in words(found := visitor.text(f"/workers/{id}")) and found
    )
    assert "wait_in_here" in shown
    assert visitor.get("/workers/nobody").status_code == 404


def test_threads_need_a_right_of_their_own(
    shop: Process, visitor: Visitor, allowed: set[str]
) -> None:
    """Lines of code are shown to who has ``stacks``."""
    declare(shop, lambda: None).submit().result(LIMIT)
    [id] = [one.id for one in shop.executor.workers()]
    assert visitor.get(f"/workers/{id}").status_code == 200
    allowed.remove("stacks")
    assert visitor.get(f"/workers/{id}").status_code == 403
    assert "Threads" not in visitor.text("/workers")


def test_nothing_private_without_details(
    shop: Process, visitor: Visitor, allowed: set[str], gate: threading.Event
) -> None:
    """Keys, meta, paths, messages, errors, tracebacks: for who has ``details``."""
    begun = threading.Event()

    def work() -> None:
        current_task.progress(1, 2, "message-7")
        begun.set()
        gate.wait(LIMIT)

    def broken() -> None:
        fail("text-" + "7")  # mark-7

    using = {"meta": {"owner": "meta-7"}, "unique": "unique-7"}
    with shop.app.test_request_context("/path-7"):
        bad = declare(shop, broken, name="bad").using(**using).submit_stored("key-7")
        ended(shop, bad)
        runs = declare(shop, work, name="slow").submit()
    reached(begun)
    until(lambda: shop.record(runs).progress)
    paths = [*PAGES, f"/tasks/{bad.task.id}", f"/tasks/{runs.task.id}"]
    paths += [f"/requests/{shop.record(bad).request}"]

    def seen() -> set[str]:
        shown = "".join(visitor.text(path) for path in paths)
        return {secret for secret in SECRETS if secret in shown}

    assert seen() == {*SECRETS}
    allowed.remove("details")
    assert seen() == set()
    assert "ValueError" in visitor.text("/failures")


def test_one_task_can_be_cancelled_and_run_again(
    shop: Process, visitor: Visitor
) -> None:
    """The buttons of its page; who tries what cannot be gets a sentence."""
    waits = declare(shop, lambda: None).using(delay=7200).submit()
    path = f"/tasks/{waits.task.id}"
    assert visitor.post(f"{path}/retry").status_code == 409
    answer = visitor.post(f"{path}/cancel")
    assert answer.status_code == 303
    assert "Cancelled or asked to stop: 1." in words(visitor.text(f"{path}?did=cancel"))
    assert shop.executor.task(waits.task.id).state == "cancelled"
    again = visitor.post(f"{path}/retry").location.partition("?")[0]
    assert again != f"/executor{path}"
    assert visitor.post("/tasks/nobody/retry").status_code == 404


def test_chosen_tasks_can_be_changed(shop: Process, visitor: Visitor) -> None:
    """Those with a tick, and no others; what has ended meanwhile is left out."""
    later = declare(shop, lambda: None).using(delay=7200)
    one, two, three = (later.submit() for _ in range(3))
    shop.executor.cancel(two.task.id)
    answer = visitor.post("/chosen", do="cancel", id=[one.task.id, two.task.id, "x"])
    assert answer.location.endswith("did=cancel")
    states = [shop.executor.task(one.task.id).state for one in (one, two, three)]
    assert states == ["cancelled", "cancelled", "delayed"]
    assert visitor.post("/chosen", do="remove", id=[three.task.id]).status_code == 400


def test_all_that_match_can_be_changed(shop: Process, visitor: Visitor) -> None:
    """First the number is shown; then a task of its own does it, and nothing else."""
    bad, other = declare(shop, fail, name="bad"), declare(shop, fail, name="other")
    futures = [bad.submit("x") for _ in range(3)] + [other.submit("y")]
    ended(shop, *futures)
    shown = words(visitor.text("/matching?do=retry&job=bad&state=failed"))
    assert "3 tasks would run again, as new tasks." in shown
    assert shop.executor.counts()["failed"] == 4, "a GET has changed something"
    answer = visitor.post("/matching/do", do="retry", job="bad", state="failed")
    assert answer.status_code == 303
    until(lambda: shop.executor.counts()["failed"] == 7)
    names = [one.job for one in shop.executor.tasks(state="failed", limit=3)]
    assert names == ["bad"] * 3
    shown = words(visitor.text(answer.location.removeprefix("/executor")))
    assert "dashboard.retry_all" in shown
    assert "Started in the background, for up to 3 tasks." in shown


def test_all_that_match_can_be_cancelled_if_all_workers_hang(
    shop: Process, visitor: Visitor, gate: threading.Event
) -> None:
    """What does it takes no worker."""
    stuck = declare(shop, gate.wait, name="stuck")
    running = [stuck.submit(LIMIT) for _ in range(2)]
    until(lambda: all(future.running() for future in running))
    waiting = [declare(shop, lambda: None, name="next").submit() for _ in range(3)]
    visitor.post("/matching/do", do="cancel", job="next")
    until(lambda: all(future.cancelled() for future in waiting))
    assert not any(future.done() for future in running)


@pytest.mark.parametrize(
    "query", ["", "do=remove", "do=retry&state=running", "do=cancel&state=failed"]
)
def test_what_cannot_be_done_to_all_is_refused(visitor: Visitor, query: str) -> None:
    """An action that does not exist, or that never applies to tasks in that state."""
    assert visitor.get(f"/matching?{query}").status_code == 400


def test_a_page_that_is_the_same_is_not_sent_again(
    shop: Process, visitor: Visitor
) -> None:
    """304 as long as nothing has changed, also with forms; then the new page."""
    job = declare(shop, lambda: None)
    ended(shop, job.submit())
    first = visitor.get("/tasks")
    tag = {"If-None-Match": first.headers["ETag"]}
    again = visitor.get("/tasks", headers=tag)
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "no-store"
    ended(shop, job.submit())
    assert visitor.get("/tasks", headers=tag).status_code == 200


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[t.Any, ...]:
        return Path.write_text, (self.path, "boom")


def test_a_forged_payload_is_shown_without_being_loaded(
    shop: Process, visitor: Visitor, url: str, tmp_path: Path
) -> None:
    """Whatever page somebody opens, nothing of a task is unpickled for it."""
    bomb = tmp_path / "bomb"
    job = declare(shop, lambda: 7)
    future = job.using(delay=7200).submit_stored("k")
    other = job.submit_stored("l")
    ended(shop, other)
    engine = create_engine(url)
    with engine.begin() as db:
        for table in ("payload", "result"):
            data = {"data": pickle.dumps(Bomb(bomb))}
            db.execute(text(f"UPDATE executor_{table} SET data = :data"), data)
    engine.dispose()
    paths = [*PAGES, f"/tasks/{future.task.id}", f"/tasks/{other.task.id}"]
    for path in paths:
        visitor.text(path)
    assert visitor.post(f"/tasks/{other.task.id}/retry").status_code == 409
    visitor.post(f"/tasks/{future.task.id}/cancel")
    assert not bomb.exists()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_pages_say_if_the_store_is_away(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, server: t.Any
) -> None:
    """503 with a sentence and Retry-After; and they come back with it. (A file can be
    read whatever becomes of those who write.)
    """
    monkeypatch.setattr(database, "PATIENCE", 0.3)
    assert visitor.get("/").status_code == 200
    server.stop()
    try:
        for path in PAGES[:4]:
            answer = visitor.get(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "The store is away." in words(answer.text)
    finally:
        server.start()
    until(lambda: visitor.get("/").status_code == 200)


def test_without_a_store_it_shows_this_process(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """All pages are there, under a banner that says what is missing."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    visitor = Visitor(app)
    future = executor.submit_stored("k", gate.wait, LIMIT)
    bad = executor.submit_stored("bad", fail, "no")
    bad.exception(LIMIT)
    for path in PAGES:
        assert "You see the tasks of one process alone" in words(visitor.text(path))
    until(future.running)
    assert "1 of 4 busy" in words(visitor.text("/workers"))
    assert "ValueError no" in page_of(visitor, bad)
    visitor.post(f"/tasks/{future.task.id}/cancel")
    assert future.task.cancel_requested
    assert visitor.post(f"/tasks/{bad.task.id}/retry").status_code == 409


def test_a_request_without_a_store(
    app: Flask, executor: Executor, gate: threading.Event
) -> None:
    """What this process knows of it: what has not ended, and what is stored."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    visitor = Visitor(app)
    with app.test_request_context("/orders", method="POST"):
        stored = executor.submit_stored("k", int)
        stored.result(LIMIT)
        runs = executor.submit(gate.wait, LIMIT)
    until(runs.running)
    for future in (stored, runs):
        html = visitor.text(f"/tasks/{future.task.id}")
        found = re.search(r'href="/executor(/requests/\w+)">\s*POST /orders', html)
        assert found is not None
    shown = words(visitor.text(found[1]))
    assert "Running 1 Succeeded 1" in shown
    assert "You see the tasks of one process alone" in shown
    gate.set()


def test_each_executor_has_its_pages(app: Flask) -> None:
    """The first at the address itself, the others below their names."""
    mail, cpu = Executor(app, name="mail"), Executor(app, name="cpu")
    app.register_blueprint(
        Dashboard(mail, cpu, authorize=everything), url_prefix="/ops"
    )
    visitor = Visitor(app, "/ops")
    future = cpu.submit_stored("k", int)
    future.result(LIMIT)
    path = f"/in/cpu/tasks/{future.task.id}"
    assert "Succeeded" in words(visitor.text(path))
    assert f'href="/ops{path}"' in visitor.text("/in/cpu/tasks")
    assert visitor.get(f"/tasks/{future.task.id}").status_code == 404
    assert visitor.get("/in/nobody/tasks").status_code == 404
    for name in (mail, cpu):
        name.shutdown()


def test_addresses_are_those_that_the_browser_sees(
    app: Flask, executor: Executor
) -> None:
    """Below a prefix of a proxy, too; and a page asks for itself with its filters."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    under = {"SCRIPT_NAME": "/shop"}
    path = "/tasks?job=a%20b%26c"
    html = Visitor(app).get(path, environ_overrides=under).text
    assert f'hx-get="/shop/executor{path}"' in html
    addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', html)
    assert all(one.startswith("/shop/executor/") for one in addresses)


def test_long_texts_are_cut(app: Flask, executor: Executor) -> None:
    """A page shows the begin and the end of a text of megabytes."""
    app.register_blueprint(Dashboard(executor, authorize=everything))
    future = executor.submit_stored("k", fail, "a" * 5_000_000)
    future.exception(LIMIT)
    html = Visitor(app).text(f"/tasks/{future.task.id}")
    assert len(html) < 200_000
    assert "characters left out" in html


def test_an_answer_of_threads_is_kept_for_a_moment(
    shop: Process, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks again soon does not ask again; later the answer is a new one."""
    declare(shop, lambda: None).submit().result(LIMIT)
    [worker] = [one.id for one in shop.executor.workers()]
    visitor.text(f"/workers/{worker}")
    key = (id(shop.executor), worker)
    first = stacks._questions[key]
    visitor.text(f"/workers/{worker}")
    assert stacks._questions[key] is first
    monkeypatch.setattr(stacks, "_FRESH", -1.0)
    visitor.text(f"/workers/{worker}")
    assert stacks._questions[key] is not first
    assert json.dumps([one.thread for one in first.answer[0]])
