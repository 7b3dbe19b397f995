"""How an exchange can fail.

The names are those of httpx, whose errors `PooledTransport` raises in their place.
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
    """There was no whole response.

    Args:
        message: The reason.
        permanent: Whether trying again cannot help, because something has to be put right here
            first.

    Attributes:
        permanent: As given.
        unreachable: Whether another host may do better.
        words: What is said of it; empty for the error's own text.
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
    """No connection came free in time."""

    summary = "no connection came free in time"


class ProxyError(ExchangeError):
    """The proxy refused, or cannot be used."""


class UnsupportedProtocol(ExchangeError):  # noqa: N818 -- httpx's name
    """The URL is not one of HTTP."""

    permanent = True


class LocalProtocolError(ExchangeError):
    """The request cannot be written as HTTP."""

    permanent = True


class DecodingError(ExchangeError):
    """The body of the response cannot be decompressed, or was cut off."""


class RemoteProtocolError(ExchangeError):
    """The response is not HTTP, or was cut off."""


class ReadError(ExchangeError):
    """The connection broke while a response was awaited."""


class ReadTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """The peer was silent for too long."""

    summary = "the peer was silent for too long"


class WriteError(ExchangeError):
    """The connection broke while the request was being sent."""


class WriteTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """The peer took nothing for too long."""

    summary = "sending took too long"


class InvalidURL(Exception):  # noqa: N818 -- httpx's name
    """What was to be called is not a URL."""


_KINDS = {kind.__name__: kind for kind in ExchangeError.__subclasses__()}


def from_httpx_error(error: Exception) -> type[ExchangeError]:
    """What an error of httpx, or of one of its like, is called here."""
    names = (parent.__name__ for parent in type(error).__mro__)
    return next((_KINDS[name] for name in names if name in _KINDS), ExchangeError)
