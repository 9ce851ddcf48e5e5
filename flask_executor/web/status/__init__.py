"""The status of tasks, for those who started them and nobody else."""

from __future__ import annotations

from .blueprint import StatusAPI as StatusAPI

__all__ = ["StatusAPI"]
