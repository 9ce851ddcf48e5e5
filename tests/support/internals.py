"""The insides of the package that tests reach for, each named once.

When they move or change, this file is where the tests follow.
"""

from __future__ import annotations

from flask_executor.calls import Call, Outcome
from flask_executor.current import CurrentTask
from flask_executor.dispatch import Clock, Dispatcher, Timer, is_coroutine_function
from flask_executor.dispatch.events import clear_locals
from flask_executor.options import OPTIONS, Options, checked
from flask_executor.pools import pebble as pebble_pool
from flask_executor.pools._parcels import Channel, payload_of, reply_to, unpack_reply
from flask_executor.pools.loop import LoopPool
from flask_executor.pools.pebble import PebblePool
from flask_executor.pools.process import ProcessPool
from flask_executor.pools.process import _Worker as ProcessWorker
from flask_executor.pools.sync import SyncPool
from flask_executor.pools.thread import ThreadPool
from flask_executor.queues import Pool, deliver
from flask_executor.task import Task

__all__ = [
    "OPTIONS",
    "Call",
    "Channel",
    "Clock",
    "CurrentTask",
    "Dispatcher",
    "Gate",
    "Line",
    "LoopPool",
    "Options",
    "Outcome",
    "PebblePool",
    "Pool",
    "ProcessPool",
    "ProcessWorker",
    "SyncPool",
    "Task",
    "ThreadPool",
    "Timer",
    "checked",
    "clear_locals",
    "deliver",
    "is_coroutine_function",
    "payload_of",
    "pebble_pool",
    "reply_to",
    "unpack_reply",
]
