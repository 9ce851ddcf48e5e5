"""The dashboard: what runs, what has failed, and why something waits."""

from .blueprint import Dashboard as Dashboard

__all__ = ["Dashboard"]
