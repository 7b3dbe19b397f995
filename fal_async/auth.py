"""Credentials for requests of your own, by the names that ``fal_client.auth`` has for them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlsplit

from fal_async._client.default import load_default_client
from fal_async._config import Hosts
from fal_async.errors import MissingCredentialsError

__all__ = [
    "FAL_QUEUE_RUN_HOST",
    "FAL_RUN_HOST",
    "AuthCredentials",
    "MissingCredentialsError",
    "fetch_auth_credentials",
    "fetch_auth_credentials_async",
    "fetch_credentials",
]

_hosts = Hosts.from_environment(os.environ)
#: The host of direct runs, and that of the queue.
FAL_RUN_HOST = urlsplit(_hosts.run).netloc
FAL_QUEUE_RUN_HOST = urlsplit(_hosts.queue).netloc


@dataclass(frozen=True)
class AuthCredentials:
    """A value of the Authorization header. It cannot be pickled, and its repr has no token.

    Attributes:
        scheme: ``"Key"`` for API keys, ``"Bearer"`` for the token of a login.
        token: The key or token.
    """

    scheme: str
    token: str = field(repr=False)

    @property
    def header_value(self) -> str:
        """The value of the header."""
        return f"{self.scheme} {self.token}"

    def as_headers(self) -> dict[str, str]:
        """The header, with its name."""
        return {"Authorization": self.header_value}

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled")


async def fetch_auth_credentials_async() -> AuthCredentials:
    """Find the credentials that the module-level functions use, for requests of your own.

    Raises:
        MissingCredentialsError: There are none.
    """
    client = await load_default_client()
    value = await client._dispatcher.credentials.authorization()  # pyright: ignore[reportPrivateUsage] -- of its own package
    return AuthCredentials(*value.reveal().split(" ", 1))


def fetch_auth_credentials() -> AuthCredentials:
    """Find them in code that blocks; see `fetch_auth_credentials_async`.

    Raises:
        MissingCredentialsError: There are none.
    """
    from fal_async.sync import sync_client  # which imports what this module is imported by

    return sync_client._portal.call(fetch_auth_credentials_async)  # pyright: ignore[reportPrivateUsage] -- of its own package


def fetch_credentials() -> str:
    """Find the API key; see `fetch_auth_credentials`.

    Raises:
        MissingCredentialsError: There is none; the token of a login is no key.
    """
    found = fetch_auth_credentials()
    if found.scheme != "Key":
        raise MissingCredentialsError("there is no API key, only a login: set FAL_KEY")
    return found.token
