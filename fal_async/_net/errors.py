"""Errors of sending a request and receiving its response.

They have the names of httpx's errors, which `PooledTransport` raises instead.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ConnectError",
    "ConnectTimeout",
    "DecodingError",
    "ExchangeError",
    "InvalidURL",
    "LocalProtocolError",
    "PoolTimeout",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
    "from_httpx_error",
]


class ExchangeError(Exception):
    """No complete response was received.

    Args:
        message: The reason.
        permanent: Whether a retry cannot help, because the cause is on this machine.

    Attributes:
        permanent: Whether a retry cannot help.
        unreachable: Whether a backup host may be reachable.
        summary: The text of errors for users; empty for the message.
    """

    permanent: bool = False
    unreachable: ClassVar[bool] = False
    summary: ClassVar[str] = ""

    def __init__(self, message: str = "", *, permanent: bool = False) -> None:
        super().__init__(message)
        if permanent:
            self.permanent = True


class ConnectError(ExchangeError):
    """No connection could be made."""

    unreachable = True


class ConnectTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """No connection could be made in time."""

    unreachable = True
    summary = "connecting took too long"


class PoolTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """No connection became free in time."""

    summary = "no connection became free in time"


class ProxyError(ExchangeError):
    """The proxy refused the connection, or cannot be used."""


class UnsupportedProtocol(ExchangeError):  # noqa: N818 -- httpx's name
    """The scheme of the URL is not supported."""

    permanent = True


class LocalProtocolError(ExchangeError):
    """The request is not valid HTTP."""

    permanent = True


class DecodingError(ExchangeError):
    """The body of the response cannot be decompressed, or is truncated."""


class RemoteProtocolError(ExchangeError):
    """The response is not valid HTTP, or is truncated."""


class ReadError(ExchangeError):
    """The connection broke before the response was complete."""


class ReadTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """The peer sent nothing for too long."""

    summary = "the peer sent nothing for too long"


class WriteError(ExchangeError):
    """The connection broke while the request was being sent."""


class WriteTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """The peer received nothing for too long."""

    summary = "sending took too long"


class InvalidURL(Exception):  # noqa: N818 -- httpx's name
    """The URL is not valid."""


_ERRORS = {kind.__name__: kind for kind in ExchangeError.__subclasses__()}


def from_httpx_error(error: Exception) -> type[ExchangeError]:
    """Return the class of the same name for an error of httpx or httpcore."""
    names = (parent.__name__ for parent in type(error).__mro__)
    return next((_ERRORS[name] for name in names if name in _ERRORS), ExchangeError)
