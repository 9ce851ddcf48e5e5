"""Stores: what is remembered of tasks beyond the process that made them.

Nothing here is imported without ``EXECUTOR_STORE``.
"""
