"""Where the Authorization header comes from."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import anyio
from anyio.lowlevel import current_token

from fal_async._auth.environment import fal_home, find_key, missing_credentials_message
from fal_async._auth.login import LoginTokenFile
from fal_async._core.secrets import Secret, Variables, conceal
from fal_async._net.threads import run_in_thread
from fal_async._protocol.credentials import AuthHeader, auth_header_from_key, validate_key
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fal_async._auth.login import FormPoster

__all__ = ["Credentials", "KeyProvider"]

#: A function that gives the key. It is called for each request, on the event loop.
KeyProvider: TypeAlias = Callable[[], str | Awaitable[str]]


@dataclass(slots=True)
class _PendingLookup:
    """A search under way on one event loop, and how it ended."""

    done: anyio.Event = field(default_factory=anyio.Event)
    failure: FalClientError | None = None


class Credentials:
    """What one client authorizes its requests with, searched for when it is first needed.

    The places, in order: `key`; ``FAL_KEY``; ``FAL_KEY_ID`` with ``FAL_KEY_SECRET``; the Colab
    secret ``FAL_KEY``; the login of ``fal auth login``. ``FAL_FORCE_AUTH_BY_USER=1`` leaves only
    the first and the last. A key that was found is kept; the token of a login is renewed in time.

    A pickle holds no key and no connection. What comes out of it searches the environment where it
    is, unless the key had been given: then it refuses, since another key may be another account's.
    A provider is pickled as it is.

    Args:
        key: The key, or a function, sync or async, that gives it and does its own caching; ``None``
            searches the environment.
        post_form: Sends the form that renews a login; ``None`` when logins cannot be renewed.
        environ: The environment; ``None`` is the process's own.
        home: Where ``.fal`` is when ``FAL_HOME_DIR`` does not say; ``None`` is the user's home.
        clock: The Unix time in seconds.

    Raises:
        InvalidRequestError: `key` cannot be sent.
    """

    def __init__(
        self,
        key: str | Secret | KeyProvider | None = None,
        *,
        post_form: FormPoster | None = None,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = conceal(key)
        self._provider = key if callable(key) else None
        self._grant: AuthHeader | None = None
        self._is_given = isinstance(key, Secret)
        self._post_form = post_form
        self._environ = None if environ is None else Variables(environ)
        self._home = home
        self._clock = clock
        self._login: LoginTokenFile | None = None
        self._rejected: Secret | None = None
        self._flights: dict[object, _PendingLookup] = {}
        if self._is_given:
            self._grant = _from_key(key)

    @property
    def refreshable(self) -> bool:
        """Whether a value that was refused can be replaced: it is the token of a login."""
        return self._login is not None

    async def authorization(self) -> Secret:
        """The value of the header, to be sent now.

        It waits only when a search or a renewal is due, so it is no checkpoint.

        Raises:
            MissingCredentialsError: There are none, or the login has ended.
            InvalidRequestError: The provider gave something that cannot be sent.
            TransportError: The login could not be renewed.
        """
        if self._provider is not None:
            key = conceal(self._provider())
            if isinstance(key, Secret) and inspect.isawaitable(key.reveal()):
                key = conceal(await cast("Awaitable[object]", key.reveal()))
            return _from_key(key).authorization
        return self._current() or await self._resolve()

    def invalidate(self, value: Secret) -> None:
        """Tell that the platform has refused a value: the next `authorization` gives another.

        Keys are what they are, and stay.
        """
        if self.refreshable and self._current() == value:
            self._rejected, self._grant = value, None

    def bind(self, post_form: FormPoster) -> None:
        """Renew logins by way of another connection: that of a client from a pickle."""
        self._post_form = post_form

    def __repr__(self) -> str:
        if self._provider is not None:
            return "Credentials(<provider>)"
        if self._login is not None:
            return f"Credentials(<{self._login.path}>)"
        return "Credentials()" if self._grant is None else f"Credentials(<{self._grant.source}>)"

    def __getstate__(self) -> dict[str, Any]:
        blank = dict.fromkeys(("_grant", "_refused", "_environ", "_login", "_post_form"))
        return {**self.__dict__, **blank, "_flights": {}}

    def __copy__(self) -> Self:
        return self  # by way of the pickle, a copy would lose its key

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _current(self) -> Secret | None:
        grant = self._grant
        return grant.authorization if grant and self._clock() < grant.refresh_at else None

    async def _resolve(self) -> Secret:
        """Search, or wait for the outcome of the search that is under way on this loop."""
        loop = current_token().native_token
        while (flight := self._flights.get(loop)) is not None:
            await flight.done.wait()
            if flight.failure is not None:
                raise copy(flight.failure)
            if current := self._current():
                return current
        flight = self._flights[loop] = _PendingLookup()
        try:
            found = await run_in_thread(self._lookup)
            if isinstance(found, LoginTokenFile):
                found = await found.refresh(refused=self._rejected)
            self._grant = found
        except FalClientError as error:
            flight.failure = error
            raise
        finally:
            del self._flights[loop]
            flight.done.set()
        return found.authorization

    def _lookup(self) -> AuthHeader | LoginTokenFile:
        """Find what to send, or the login that must be renewed first; blocking."""
        if self._is_given:
            raise MissingCredentialsError(
                "this client comes from a pickle, and its key is in no pickle: give it one with "
                "client.with_options(key=...)"
            )
        if self._login is not None:
            return self._login.find(refused=self._rejected) or self._login
        environ = self._environ or Variables(os.environ)
        if grant := find_key(environ):
            return grant
        home = fal_home(environ, self._home)
        login = LoginTokenFile(home, post_form=self._post_form, clock=self._clock)
        try:
            found = login.find() or login
        except MissingCredentialsError as error:
            raise MissingCredentialsError(
                missing_credentials_message(environ, str(error))
            ) from None
        self._login = login
        return found


def _from_key(key: object) -> AuthHeader:
    """What to send for a key that was given: `conceal` has been at it."""
    kind = type(key.reveal()) if isinstance(key, Secret) else type(key)
    if not isinstance(key, Secret) or not issubclass(kind, str):
        raise InvalidRequestError(f"key must be a string, not {kind.__name__}")
    key = Secret(key.reveal().strip())
    if problem := validate_key(key.reveal()):
        raise InvalidRequestError(f"the key {problem}")
    return auth_header_from_key(key, "key=")
