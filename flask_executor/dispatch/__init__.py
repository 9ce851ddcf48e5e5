"""Accepting tasks, handing them to pools, and deciding what becomes of them."""

from .dispatcher import Dispatcher as Dispatcher
from .shutdown import Drained as Drained
from .timer import Clock as Clock
from .timer import Timer as Timer
