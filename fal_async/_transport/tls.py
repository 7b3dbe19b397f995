"""The TLS context that all connections of the process share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx

from fal_async._transport.threads import in_thread

if TYPE_CHECKING:
    import ssl

__all__ = ["shared_context"]

_lock = threading.Lock()
_context: ssl.SSLContext | None = None


async def shared_context() -> ssl.SSLContext:
    """The default context: httpx's trust store, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` included.

    Making one takes tens of milliseconds of reading files, so it is made once, in a worker thread.
    """
    return _context if _context is not None else await in_thread(_load)


def _load() -> ssl.SSLContext:
    global _context
    with _lock:
        if _context is None:
            context = httpx.create_ssl_context()
            context.set_alpn_protocols(["http/1.1"])
            _context = context
    return _context
