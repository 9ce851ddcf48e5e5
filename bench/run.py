"""Measure every row of the project's numbers against its peer, in one run.

``make bench`` prints the table, writes ``docs/bench.json`` and a chart beside it,
and exits non-zero where a bar is missed.

Every contender is a process of its own, which measures one round at a time when asked;
the rounds of the two sides alternate, so that what disturbs the machine disturbs both,
and the ratio is the median of the rounds' ratios. The work is calls of an empty
function from inside a request context, with a window of 500 outstanding, on two
workers. Flask-Executor 1.0.0 has the same import name, so it is installed into
``.bench/`` and found by its contender alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
import typing as t
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".bench" / "flask-executor-1"
WORKERS = 2
WINDOW = 500
ROUNDS = 15


class Row(t.NamedTuple):
    """One line of the table: who against whom, and how much is allowed."""

    title: str
    measure: str
    ours: str
    peer: str
    bar: float
    aim: float


ROWS = [
    Row("submit, against a bare thread pool", "submit", "ours", "bare", 3.5, 2.0),
    Row("submit, against 1.0.0", "submit", "ours", "one", 0.5, 0.33),
    Row("submit, against copying by hand", "submit", "ours", "hand", 0.85, 0.5),
    Row("map by 1000, against a bare pool's", "map", "ours", "bare", 0.2, 0.1),
    Row("process pool, against a bare one", "process", "ours", "bare", 1.5, 1.15),
    Row("10,000 coroutines, against asyncio", "loop", "ours", "bare", 1.3, 0.8),
    Row("memory of a waiting task, against 1.0.0", "memory", "ours", "one", 1.0, 0.7),
    Row("in futures, 100,000 against 10", "lookup", "ours", "few", 2.0, 1.0),
]


def nothing(*args: object) -> None:
    """The work."""


async def sleep() -> None:
    """The work of a coroutine."""
    await asyncio.sleep(0.1)


def make_app() -> t.Any:
    """The app; worker processes make it too."""
    from flask import Flask

    app = Flask("bench")
    app.secret_key = "bench"
    app.config.update(EXECUTOR_MAX_WORKERS=WORKERS, EXECUTOR_APP="run:make_app")
    app.add_url_rule("/<int:number>", "view", nothing)
    return app


def windowed(submit: t.Callable[..., Future[t.Any]], count: int) -> float:
    """Seconds per call, with a window of outstanding ones."""
    pending: deque[Future[t.Any]] = deque()
    start = time.perf_counter()
    for _ in range(count):
        if len(pending) >= WINDOW:
            pending.popleft().result()
        pending.append(submit(nothing))
    while pending:
        pending.popleft().result()
    return (time.perf_counter() - start) / count


def by_hand(pool: ThreadPoolExecutor) -> t.Callable[..., Future[t.Any]]:
    """What people write without an extension."""
    from flask import copy_current_request_context

    return lambda fn: pool.submit(copy_current_request_context(fn))


def submitter(side: str, kind: str) -> t.Callable[..., Future[t.Any]]:
    """The submit function of a side, on threads or on processes."""
    if side in ("ours", "one"):
        from flask_executor import Executor

        app = make_app()
        app.config["EXECUTOR_TYPE"] = kind
        return t.cast(t.Any, Executor(app)).submit
    if kind == "process":
        return ProcessPoolExecutor(WORKERS, get_context("forkserver")).submit
    pool = ThreadPoolExecutor(WORKERS)
    return by_hand(pool) if side == "hand" else pool.submit


def submit_round(side: str) -> t.Callable[[], float]:
    submit = submitter(side, "thread")
    return with_app_of(submit, lambda: windowed(submit, 5_000))


def process_round(side: str) -> t.Callable[[], float]:
    submit = submitter(side, "process")
    return with_app_of(submit, lambda: windowed(submit, 3_000))


def with_app_of(submit: t.Any, measure: t.Callable[[], float]) -> t.Callable[[], float]:
    """Measure in a request of the app that the executor was made for."""
    executor = getattr(submit, "__self__", None)
    app = getattr(executor, "_last_app", None) or getattr(executor, "app", None)
    app = app or make_app()

    def measured() -> float:
        with app.test_request_context("/1"):
            return measure()

    return measured


def map_round(side: str) -> t.Callable[[], float]:
    submit = submitter(side, "thread")
    pool = t.cast(t.Any, submit).__self__

    def measure() -> float:
        start = time.perf_counter()
        for _ in pool.map(abs, range(100_000), chunksize=1000):
            pass
        return (time.perf_counter() - start) / 100_000

    return with_app_of(submit, measure)


def loop_round(side: str) -> t.Callable[[], float]:
    if side == "bare":
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()

        def submit(fn: t.Any) -> Future[t.Any]:
            return asyncio.run_coroutine_threadsafe(fn(), loop)

    else:
        submit = t.cast(t.Any, submitter(side, "thread"))

    def measure() -> float:
        start = time.perf_counter()
        for future in [submit(sleep) for _ in range(10_000)]:
            future.result()
        return (time.perf_counter() - start) / 10_000

    return with_app_of(submit, measure)


def memory_round(side: str) -> t.Callable[[], float]:
    """Bytes that each of 5,000 waiting tasks of one request takes."""
    submit = submitter(side, "thread")

    def measure() -> float:
        gate = threading.Event()
        blockers = [submit(gate.wait) for _ in range(WORKERS)]
        submit(nothing)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        futures = [submit(nothing) for _ in range(5_000)]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gate.set()
        for future in [*blockers, *futures]:
            future.result()
        return (after - before) / 5_000

    return with_app_of(submit, measure)


def lookup_round(side: str) -> t.Callable[[], float]:
    from flask_executor import FutureCollection

    collection = FutureCollection()
    count = 10 if side == "few" else 100_000
    futures: list[Future[t.Any]] = [Future() for _ in range(count)]
    for number, future in enumerate(futures):
        collection.add(number, future)
    wanted = futures[len(futures) // 2]

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(100_000):
            wanted in collection  # noqa: B015
        return (time.perf_counter() - start) / 100_000

    return measure


MEASURES: dict[str, t.Callable[[str], t.Callable[[], float]]] = {
    "submit": submit_round,
    "process": process_round,
    "map": map_round,
    "loop": loop_round,
    "memory": memory_round,
    "lookup": lookup_round,
}


def contend(measure: str, side: str) -> None:
    """The main loop of a contender: a line in, a round, its figure out."""
    measured = MEASURES[measure](side)
    measured()  # warm
    print("ready", flush=True)
    for _ in sys.stdin:
        gc.collect()
        print(measured(), flush=True)


class Contender:
    """A process that measures one side, a round at a time."""

    def __init__(self, measure: str, side: str) -> None:
        path = [str(PEERS)] if side == "one" else []
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT)])}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--contend", measure, side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._expect("ready")

    def round(self) -> float:
        stdin = t.cast(t.IO[str], self._process.stdin)
        stdin.write("go\n")
        stdin.flush()
        return float(t.cast(t.IO[str], self._process.stdout).readline())

    def _expect(self, word: str) -> None:
        line = t.cast(t.IO[str], self._process.stdout).readline().strip()
        if line != word:
            raise SystemExit(f"a contender said {line!r}, not {word!r}")

    def close(self) -> None:
        self._process.communicate()


def install_peer() -> None:
    """Flask-Executor 1.0.0 from PyPI, in a folder of its own."""
    if not PEERS.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--target", str(PEERS), "Flask-Executor==1.0.0"], check=True
        )


def compare(row: Row) -> dict[str, t.Any]:
    """Both sides of a row, and their ratio."""
    ours, peer = Contender(row.measure, row.ours), Contender(row.measure, row.peer)
    rounds = [(ours.round(), peer.round()) for _ in range(ROUNDS)]
    ours.close()
    peer.close()
    mine, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other in rounds)
    return {**row._asdict(), "ours": mine, "peer": theirs, "ratio": ratio}


def show(result: dict[str, t.Any]) -> str:
    unit, factor = ("B", 1.0) if result["measure"] == "memory" else ("us", 1e6)
    mark = "ok" if result["ratio"] <= result["bar"] else "MISSED"
    return (
        f"{result['title']:42} {result['ours'] * factor:9.2f} {unit:2}"
        f" {result['peer'] * factor:9.2f} {unit:2} {result['ratio']:7.3f}"
        f"  bar {result['bar']:<5} aim {result['aim']:<5} {mark}"
    )


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    from importlib.metadata import version

    return {
        "python": platform.python_version(),
        "flask": version("flask"),
        "cores": str(os.cpu_count()),
        "rounds": str(ROUNDS),
    }


def chart(results: list[dict[str, t.Any]]) -> str:
    """Bars of ratio over bar: what ends before the line holds."""
    lines = []
    for number, result in enumerate(results):
        y = 20 + number * 34
        width = min(result["ratio"] / result["bar"], 1.2) * 300
        colour = "#2a7" if result["ratio"] <= result["bar"] else "#c33"
        lines.append(
            f'<text x="0" y="{y + 14}">{result["title"]}</text>'
            f'<rect x="320" y="{y}" width="{width:.0f}" height="18" fill="{colour}"/>'
            f'<text x="{330 + width:.0f}" y="{y + 14}">{result["ratio"]:.2f}</text>'
        )
    height = 40 + len(results) * 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}"'
        ' font-family="sans-serif" font-size="14" fill="#888">'
        f'<line x1="620" y1="8" x2="620" y2="{height - 20}" stroke="#888"/>'
        f'<text x="600" y="{height - 4}">the bar</text>{"".join(lines)}</svg>\n'
    )


def main() -> int:
    install_peer()
    print(f"{'':42} {'ours':>12} {'peer':>12} {'ratio':>7}")
    results = []
    for row in ROWS:
        results.append(compare(row))
        print(show(results[-1]), flush=True)
    report = {"machine": machine(), "rows": results}
    (ROOT / "docs" / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    (ROOT / "docs" / "_static" / "bench.svg").write_text(chart(results))
    return int(any(result["ratio"] > result["bar"] for result in results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contend", nargs=2, metavar=("MEASURE", "SIDE"))
    options = parser.parse_args()
    if options.contend:
        contend(*options.contend)
    else:
        sys.exit(main())
