"""`Credentials`: lookup of a key in the environment and in Colab, or of a login; its refresh."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import time
from collections.abc import Awaitable, Callable
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, cast

import anyio

from fal_async._core.secrets import Secret, Variables, conceal
from fal_async._net.running_loop import running_loop
from fal_async._net.threads import run_in_thread
from fal_async._protocol.credentials import (
    AuthHeader,
    auth_header_from_key,
    similar_variables,
    validate_key,
)
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._auth.login import FormPoster, LoginTokenFile

__all__ = ["Credentials", "KeyProvider"]

#: A function that returns the key. It is called for each request, on the event loop.
KeyProvider: TypeAlias = Callable[[], str | Awaitable[str]]


class _PendingLookup:
    """A lookup in progress on one event loop, and its failure."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.failure: FalClientError | None = None


class Credentials:
    """The credentials of one client, looked up on first use.

    The sources, in order: `key`; ``FAL_KEY``; ``FAL_KEY_ID`` with ``FAL_KEY_SECRET``; the Colab
    secret ``FAL_KEY``; the login of ``fal auth login``. ``FAL_FORCE_AUTH_BY_USER=1`` disables all
    but the first and the last. A key is looked up once; the token of a login is refreshed before it
    expires.

    A pickle contains neither key nor connection. Unpickled credentials use the environment of their
    process. If the key was an argument, they raise an error instead, since another key may belong
    to another account. A key provider is pickled itself.

    Args:
        key: The key, or a function (sync or async) that returns it and does its own caching;
            ``None`` uses the environment.
        post_form: Sends the form that refreshes a login; ``None`` disables refreshing.
        environ: The environment variables; ``None`` uses those of the process.
        home: The directory that contains ``.fal`` unless ``FAL_HOME_DIR`` is set; ``None`` uses the
            user's home directory.
        clock: Returns the Unix time, in seconds.

    Raises:
        InvalidRequestError: The key is invalid.
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
        self._header: AuthHeader | None = None
        self._is_given = isinstance(key, Secret)
        self._post_form = post_form
        self._environ = None if environ is None else Variables(environ)
        self._home = home
        self._clock = clock
        self._login: LoginTokenFile | None = None
        self._rejected: Secret | None = None
        self._pending: dict[object, _PendingLookup] = {}
        if self._is_given:
            self._header = _from_key(key)

    @property
    def can_refresh(self) -> bool:
        """True if a rejected value can be replaced, since it is the token of a login."""
        return self._login is not None

    async def authorization(self) -> Secret:
        """Return the header value to send now.

        This is a checkpoint only if a lookup or a refresh is due.

        Raises:
            MissingCredentialsError: There are no credentials, or the login has expired.
            InvalidRequestError: The key provider returned an invalid key.
            TransportError: The login could not be refreshed.
        """
        if self._provider is not None:
            key = conceal(self._provider())
            if isinstance(key, Secret) and inspect.isawaitable(key.reveal()):
                key = conceal(await cast("Awaitable[object]", key.reveal()))
            return _from_key(key).authorization
        if current := self._current():
            return current
        loop = running_loop()
        while (pending := self._pending.get(loop)) is not None:  # a lookup is in progress
            await pending.done.wait()
            if pending.failure is not None:
                raise copy(pending.failure)
            if current := self._current():
                return current
        pending = self._pending[loop] = _PendingLookup()
        try:
            found = await run_in_thread(self._lookup)
            if not isinstance(found, AuthHeader):
                found = await found.refresh(rejected=self._rejected)
            self._header = found
        except FalClientError as error:
            pending.failure = error
            raise
        finally:
            del self._pending[loop]
            pending.done.set()
        return found.authorization

    def invalidate(self, value: Secret) -> None:
        """Discard a token that the platform rejected, so that `authorization` refreshes it.

        A key cannot be refreshed and is kept.
        """
        if self.can_refresh and self._current() == value:
            self._rejected, self._header = value, None

    def bind(self, post_form: FormPoster) -> None:
        """Set the function that refreshes logins, for unpickled credentials."""
        self._post_form = post_form

    def __repr__(self) -> str:
        if self._provider is not None:
            return "Credentials(<provider>)"
        if self._login is not None:
            return f"Credentials(<{self._login.path}>)"
        return "Credentials()" if self._header is None else f"Credentials(<{self._header.source}>)"

    def __getstate__(self) -> dict[str, Any]:
        blank = dict.fromkeys(("_header", "_rejected", "_environ", "_login", "_post_form"))
        return {**self.__dict__, **blank, "_pending": {}}

    def __copy__(self) -> Self:
        return self  # a copy by pickling would lose the key

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _current(self) -> Secret | None:
        header = self._header
        return header.authorization if header and self._clock() < header.refresh_at else None

    def _lookup(self) -> AuthHeader | LoginTokenFile:
        """Return a header value, or a login to refresh first. Colab may ask its user."""
        if self._is_given:
            raise MissingCredentialsError(
                "cannot use an unpickled client without its key, which pickles do not contain: "
                "set the key with client.with_options(key=...)"
            )
        if self._login is not None:
            return self._login.find(rejected=self._rejected) or self._login
        environ = self._environ or Variables(os.environ)
        login_only = environ.get("FAL_FORCE_AUTH_BY_USER") == "1"
        for source, _, find in () if login_only else _KEY_SOURCES:
            key = Secret(find(environ).strip())
            problem = validate_key(key.reveal())
            if key.reveal() and problem:
                raise MissingCredentialsError(f"{source} {problem}")
            if key.reveal():
                return auth_header_from_key(key, source)
        from fal_async._auth.login import LoginTokenFile  # programs with a key do without

        if directory := environ.get("FAL_HOME_DIR").strip():
            fal_home = _expand_user(directory)
        else:
            fal_home = (self._home or _expand_user("~")) / ".fal"
        login = LoginTokenFile(fal_home, post_form=self._post_form, clock=self._clock)
        try:
            found = login.find() or login
        except MissingCredentialsError as error:
            tried = [f"{name} {absence}" for name, absence, _ in _KEY_SOURCES]
            if login_only:
                tried = ["FAL_FORCE_AUTH_BY_USER=1 disables the keys of the environment"]
            message = (
                "no credentials were found: set FAL_KEY, pass key=, or run `fal auth login` "
                f"(key= was not given; {'; '.join(tried)}; {error})"
            )
            if unused := similar_variables(environ):
                message += f". Set but not used: {', '.join(unused)}"
            raise MissingCredentialsError(message) from None
        self._login = login
        return found


def _from_key(key: object) -> AuthHeader:
    """Make the header of a concealed key that was an argument or came from a provider."""
    kind = type(key.reveal()) if isinstance(key, Secret) else type(key)
    if not isinstance(key, Secret) or not issubclass(kind, str):
        raise InvalidRequestError(f"key must be a string, got {kind.__name__}")
    key = Secret(key.reveal().strip())
    if problem := validate_key(key.reveal()):
        raise InvalidRequestError(f"the key {problem}")
    return auth_header_from_key(key, "key=")


def _key_pair(environ: Variables) -> str:
    parts = [environ.get(name).strip() for name in ("FAL_KEY_ID", "FAL_KEY_SECRET")]
    return ":".join(parts) if all(parts) else ""


def _colab_secret(_: Variables) -> str:
    # Colab has imported IPython; importing it elsewhere would take a second.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return _read_colab_secret() if shell is not None and "google.colab" in str(shell()) else ""


@functools.cache
def _read_colab_secret() -> str:
    """Read the secret once per process, since Colab may show its user a dialog."""
    try:
        secret = importlib.import_module("google.colab.userdata").get("FAL_KEY")
    except Exception:  # noqa: BLE001 -- Colab raises errors of its own classes
        return ""
    return secret if isinstance(secret, str) else ""


#: The sources of keys: the name, the message if there is no key, and the lookup.
_KEY_SOURCES: Final[tuple[tuple[str, str, Callable[[Variables], str]], ...]] = (
    ("FAL_KEY", "is not set", lambda environ: environ.get("FAL_KEY")),
    ("FAL_KEY_ID with FAL_KEY_SECRET", "are not both set", _key_pair),
    ("the Colab secret FAL_KEY", "does not exist", _colab_secret),
)


def _expand_user(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- pathlib raises without a home directory
