"""The errors of a store; see :mod:`flask_executor.store_errors`."""

from __future__ import annotations

from ..store_errors import SchemaMismatch as SchemaMismatch
from ..store_errors import SessionRefused as SessionRefused
from ..store_errors import StoreLocked as StoreLocked
from ..store_errors import StoreRefused as StoreRefused
from ..store_errors import StoreUnavailable as StoreUnavailable
