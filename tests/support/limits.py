"""How long a test waits for what ought to happen."""

from __future__ import annotations

LIMIT = 30
"""Seconds after which a wait in a test has failed."""
