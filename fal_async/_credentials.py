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

from fal_async._environment import fal_home, find_key, nowhere
from fal_async._login import Login
from fal_async._protocol.tokens import Grant, key_grant, key_problem
from fal_async._secret import Secret, Variables, conceal
from fal_async._transport.threads import in_thread
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fal_async._login import PostForm

__all__ = ["Credentials", "KeyProvider"]

#: A function that gives the key. It is called for each request, on the event loop.
KeyProvider: TypeAlias = Callable[[], str | Awaitable[str]]


@dataclass(slots=True)
class _Flight:
    """A search under way on one event loop, and how it ended."""

    landed: anyio.Event = field(default_factory=anyio.Event)
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
        post_form: PostForm | None = None,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = conceal(key)
        self._provider = key if callable(key) else None
        self._grant: Grant | None = None
        self._is_given = isinstance(key, Secret)
        self._post_form = post_form
        self._environ = None if environ is None else Variables(environ)
        self._home = home
        self._clock = clock
        self._login: Login | None = None
        self._refused: Secret | None = None
        self._flights: dict[object, _Flight] = {}
        if self._is_given:
            self._grant = _explicit(key)

    @property
    def renewable(self) -> bool:
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
            return _explicit(key).authorization
        return self._current() or await self._obtain()

    def invalidate(self, value: Secret) -> None:
        """Tell that the platform has refused a value: the next `authorization` gives another.

        Keys are what they are, and stay.
        """
        if self.renewable and self._current() == value:
            self._refused, self._grant = value, None

    def bind(self, post_form: PostForm) -> None:
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
        return grant.authorization if grant and self._clock() < grant.stale_at else None

    async def _obtain(self) -> Secret:
        """Search, or wait for the outcome of the search that is under way on this loop."""
        loop = current_token().native_token
        while (flight := self._flights.get(loop)) is not None:
            await flight.landed.wait()
            if flight.failure is not None:
                raise copy(flight.failure)
            if current := self._current():
                return current
        flight = self._flights[loop] = _Flight()
        try:
            found = await in_thread(self._search)
            if isinstance(found, Login):
                found = await found.renew(refused=self._refused)
            self._grant = found
        except FalClientError as error:
            flight.failure = error
            raise
        finally:
            del self._flights[loop]
            flight.landed.set()
        return found.authorization

    def _search(self) -> Grant | Login:
        """Find what to send, or the login that must be renewed first; blocking."""
        if self._is_given:
            raise MissingCredentialsError(
                "this client comes from a pickle, and its key is in no pickle: give it one with "
                "client.with_options(key=...)"
            )
        if self._login is not None:
            return self._login.find(refused=self._refused) or self._login
        environ = self._environ or Variables(os.environ)
        if grant := find_key(environ):
            return grant
        home = fal_home(environ, self._home)
        login = Login(home, post_form=self._post_form, clock=self._clock)
        try:
            found = login.find() or login
        except MissingCredentialsError as error:
            raise MissingCredentialsError(nowhere(environ, str(error))) from None
        self._login = login
        return found


def _explicit(key: object) -> Grant:
    """What to send for a key that was given: `conceal` has been at it."""
    kind = type(key.reveal()) if isinstance(key, Secret) else type(key)
    if not isinstance(key, Secret) or not issubclass(kind, str):
        raise InvalidRequestError(f"key must be a string, not {kind.__name__}")
    key = Secret(key.reveal().strip())
    if problem := key_problem(key.reveal()):
        raise InvalidRequestError(f"the key {problem}")
    return key_grant(key, "key=")
