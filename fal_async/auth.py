"""Credentials for your own requests, with the names of ``fal_client.auth``."""

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
#: The hosts of direct runs and of the queue.
FAL_RUN_HOST = urlsplit(_hosts.run).netloc
FAL_QUEUE_RUN_HOST = urlsplit(_hosts.queue).netloc


@dataclass(frozen=True)
class AuthCredentials:
    """The credentials of the Authorization header, without the token in their repr or a pickle.

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
        """Return the header as a dictionary."""
        return {"Authorization": self.header_value}

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials cannot be pickled")


async def fetch_auth_credentials_async() -> AuthCredentials:
    """Return the credentials of the default client, for your own requests.

    Raises:
        MissingCredentialsError: No credentials were found.
    """
    client = await load_default_client()
    value = await client._dispatcher.credentials.authorization()  # pyright: ignore[reportPrivateUsage] -- of its own package
    return AuthCredentials(*value.reveal().split(" ", 1))


def fetch_auth_credentials() -> AuthCredentials:
    """Return the credentials of the default client; blocks.

    Raises:
        MissingCredentialsError: No credentials were found.
    """
    from fal_async.sync import sync_client  # late, since it imports this module

    return sync_client._portal.call(fetch_auth_credentials_async)  # pyright: ignore[reportPrivateUsage] -- of its own package


def fetch_credentials() -> str:
    """Return the API key of the default client; blocks.

    Raises:
        MissingCredentialsError: No API key was found; the token of a login is not one.
    """
    found = fetch_auth_credentials()
    if found.scheme != "Key":
        raise MissingCredentialsError("there is no API key, only a login: set FAL_KEY")
    return found.token
