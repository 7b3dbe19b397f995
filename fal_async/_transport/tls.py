"""The TLS context that all connections of the process share."""

from __future__ import annotations

import os
import ssl
import threading

import certifi

from fal_async._transport.errors import ConnectError
from fal_async._transport.threads import in_thread

__all__ = ["shared_context"]

_lock = threading.Lock()
_context: ssl.SSLContext | None = None


async def shared_context() -> ssl.SSLContext:
    """The default context, which trusts what httpx trusts.

    That is ``SSL_CERT_FILE``, or else ``SSL_CERT_DIR``, or else the roots of certifi.

    Making one takes tens of milliseconds of reading files, so it is made once, in a worker thread.

    Raises:
        ConnectError: What the environment names cannot be used. Trying again does not help.
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
        return _create("SSL_CERT_FILE", cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return _create("SSL_CERT_DIR", capath=folder)
    return _create("certifi", cafile=certifi.where())


def _create(source: str, *, cafile: str | None = None, capath: str | None = None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile, capath=capath)
    except OSError as error:  # that of OpenSSL is one
        reason = error.strerror or str(error)
        path = cafile or capath
        if error.filename is not None:  # OpenSSL names no file, and Python that of the key log
            source, path = "SSLKEYLOGFILE", error.filename
            what = "the file for TLS secrets cannot be written"
        else:
            what = "the trusted certificates cannot be read"
        raise ConnectError(f"{what}: {source} names {path!r}: {reason}", permanent=True) from error
