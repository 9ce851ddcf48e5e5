"""Tasks that every process of an app knows: what ties a dispatcher to a store.

Nothing here is imported without ``EXECUTOR_STORE``.
"""

from .opening import new_node as new_node

__all__ = ["new_node"]
