"""The TLS context that all connections of the process share."""

from __future__ import annotations

import os
import ssl
import threading

import certifi

from fal_async._transport.threads import in_thread

__all__ = ["shared_context"]

_lock = threading.Lock()
_context: ssl.SSLContext | None = None


async def shared_context() -> ssl.SSLContext:
    """The default context, which trusts what httpx trusts.

    That is ``SSL_CERT_FILE``, or else ``SSL_CERT_DIR``, or else the roots of certifi.

    Making one takes tens of milliseconds of reading files, so it is made once, in a worker thread.
    """
    return _context if _context is not None else await in_thread(_load)


def _load() -> ssl.SSLContext:
    global _context
    with _lock:
        if _context is None:
            context = _default()
            context.set_alpn_protocols(["http/1.1"])
            _context = context
    return _context


def _default() -> ssl.SSLContext:
    if file := os.environ.get("SSL_CERT_FILE"):
        return ssl.create_default_context(cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    return ssl.create_default_context(cafile=certifi.where())
