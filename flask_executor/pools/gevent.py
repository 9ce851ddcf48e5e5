"""Starting processes after gevent has patched the standard library."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
import typing as t

_EXCHANGES_KEYS: bool = sys.version_info >= (3, 14)


@contextlib.contextmanager
def blocking_sockets() -> t.Iterator[None]:
    """Keep gevent's sockets out of multiprocessing's fork server, and of its client.

    Since Python 3.14 the start of a process begins with an exchange of keys, which
    ``os.read`` reads from a socket. One of gevent's never blocks: the key is not there
    yet, and the process does not start. No other thread may start one at this time.
    """
    monkey = sys.modules.get("gevent.monkey") if _EXCHANGES_KEYS else None
    if monkey is None or not monkey.is_module_patched("socket"):
        yield
        return
    module: t.Any = importlib.import_module("multiprocessing.forkserver")
    server = module._forkserver
    before = module.socket, server._preload_modules
    original = monkey.get_original("socket", "socket")
    module.socket = types.SimpleNamespace(**{**vars(module.socket), "socket": original})
    # Preloading __main__ would patch the server, too. Its workers import it.
    server._preload_modules = []
    try:
        yield
    finally:
        module.socket, server._preload_modules = before
