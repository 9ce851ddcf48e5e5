"""The insides of the package that tests reach for, each named once.

When they move or change, this file is where the tests follow.
"""

from __future__ import annotations

from flask_executor.attempt import Attempt
from flask_executor.calls import Call, Outcome, is_coroutine_function
from flask_executor.current import CurrentTask
from flask_executor.dispatch import Clock, Dispatcher, Timer
from flask_executor.dispatch.events import clear_locals
from flask_executor.dispatch.limits import Limit, Place
from flask_executor.dispatch.uniques import Uniques
from flask_executor.options import OPTIONS, Options, checked
from flask_executor.payload import MainModule, TaskInfo, rebuild_outcome, serialize_call
from flask_executor.periodic.cron import Cron
from flask_executor.periodic.schedules import Every, due_ticks, latest_tick
from flask_executor.pools import Pool
from flask_executor.pools import pebble as pebble_pool
from flask_executor.pools.base import bare_owner
from flask_executor.pools.handles import WorkerHandle
from flask_executor.pools.loop import LoopPool
from flask_executor.pools.pebble import PebblePool
from flask_executor.pools.process import ProcessPool
from flask_executor.pools.sync import SyncPool
from flask_executor.pools.thread import ThreadPool
from flask_executor.pools.worker import Answers, request_for, serve_one, split_message
from flask_executor.queues import PriorityQueue
from flask_executor.task import Task

__all__ = [
    "OPTIONS",
    "Answers",
    "Attempt",
    "Call",
    "Clock",
    "Cron",
    "CurrentTask",
    "Dispatcher",
    "Every",
    "Limit",
    "LoopPool",
    "MainModule",
    "Options",
    "Outcome",
    "PebblePool",
    "Place",
    "Pool",
    "PriorityQueue",
    "ProcessPool",
    "SyncPool",
    "Task",
    "TaskInfo",
    "ThreadPool",
    "Timer",
    "Uniques",
    "WorkerHandle",
    "bare_owner",
    "checked",
    "clear_locals",
    "due_ticks",
    "is_coroutine_function",
    "latest_tick",
    "pebble_pool",
    "rebuild_outcome",
    "request_for",
    "serialize_call",
    "serve_one",
    "split_message",
]
