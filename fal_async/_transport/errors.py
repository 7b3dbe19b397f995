"""How an exchange can fail.

The names are those of httpx, whose errors `PooledTransport` raises in their place.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ConnectError",
    "ConnectTimeout",
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
    "kind_of",
]


class ExchangeError(Exception):
    """There was no whole reply.

    Attributes:
        sent: Whether any of the request may have reached the peer.
        unreachable: Whether another host may do better.
        words: What is said of it; empty for the error's own text.
    """

    sent: ClassVar[bool] = True
    unreachable: ClassVar[bool] = False
    words: ClassVar[str] = ""


class ConnectError(ExchangeError):
    """No connection could be made."""

    sent = False
    unreachable = True


class ConnectTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """No connection could be made in time."""

    sent = False
    unreachable = True
    words = "connecting took too long"


class PoolTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """No connection came free in time."""

    sent = False
    words = "no connection came free in time"


class ProxyError(ExchangeError):
    """The proxy refused, or cannot be used."""

    sent = False


class UnsupportedProtocol(ExchangeError):  # noqa: N818 -- httpx's name
    """The URL is not one of HTTP."""

    sent = False


class LocalProtocolError(ExchangeError):
    """The request cannot be written as HTTP."""

    sent = False


class RemoteProtocolError(ExchangeError):
    """The reply is not HTTP, or was cut off."""


class ReadError(ExchangeError):
    """The connection broke while a reply was awaited."""


class ReadTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """The peer was silent for too long."""

    words = "the peer was silent for too long"


class WriteError(ExchangeError):
    """The connection broke while the request was being sent."""


class WriteTimeout(ExchangeError):  # noqa: N818 -- httpx's name
    """The peer took nothing for too long."""

    words = "sending took too long"


class InvalidURL(Exception):  # noqa: N818 -- httpx's name
    """What was to be called is not a URL."""


_KINDS = {kind.__name__: kind for kind in ExchangeError.__subclasses__()}


def kind_of(error: Exception) -> type[ExchangeError]:
    """What an error of httpx, or of one of its like, is called here."""
    names = (parent.__name__ for parent in type(error).__mro__)
    return next((_KINDS[name] for name in names if name in _KINDS), ExchangeError)
