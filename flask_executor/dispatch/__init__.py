"""Accepts tasks, hands them to pools, and decides what their outcomes mean."""

from .dispatcher import Dispatcher as Dispatcher
from .shutdown import Drained as Drained
from .timer import Clock as Clock
from .timer import Timer as Timer
