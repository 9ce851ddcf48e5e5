"""Metrics for Prometheus: how many tasks, how they end, how long they wait and run.

It needs ``prometheus-client``: ``pip install 'Flask-Executor[metrics]'``. Nothing else
imports it, and what is not counted costs nothing.
"""

from ..errors import SurfaceNotInstalled

try:
    from .blueprint import Metrics as Metrics
except ImportError as _error:
    if (_error.name or "").partition(".")[0] != "prometheus_client":
        raise
    raise SurfaceNotInstalled("metrics", "prometheus-client") from None

__all__ = ["Metrics"]
