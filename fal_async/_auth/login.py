"""`LoginTokenFile`: the tokens of ``fal auth login``, in a file shared with the official tools.

A refresh token is valid for one refresh, whose response contains the next one. A refresh therefore
holds a lock that the official tools use too, from reading the tokens until the new ones are stored,
and continues when its caller is cancelled.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from fal_async._net.files import write_file
from fal_async._net.tasks import run_to_completion
from fal_async._net.threads import run_in_thread
from fal_async._protocol.credentials import (
    TOKEN_URL,
    AuthHeader,
    LoginTokens,
    auth_header_from_token,
    parse_login,
    parse_refresh_response,
    refresh_form,
)
from fal_async.errors import MissingCredentialsError, TransportError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from fal_async._core.secrets import Secret

__all__ = ["FormPoster", "LoginTokenFile"]

#: Sends form fields, some of them secret, to a URL; returns the status and the response body.
FormPoster: TypeAlias = (
    "Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, bytes | memoryview]]]"
)

#: The timeout of the lock, in seconds, like that of the official tools.
LOCK_TIMEOUT: Final = 20.0
#: The delay between two attempts to acquire the lock, in seconds.
LOCK_POLL_INTERVAL: Final = 0.05
#: The timeout of a refresh, in seconds: shorter than the timeout of the lock.
REFRESH_TIMEOUT: Final = 15.0
#: How long a cancelled caller waits for the refresh, in seconds.
GRACE: Final = 5.0

_log = logging.getLogger("fal_async")


class LoginTokenFile:
    """The token file in a directory.

    Args:
        directory: The directory of ``fal auth login``.
        post_form: Sends the form that refreshes the login; ``None`` disables refreshing.
        clock: Returns the Unix time, in seconds.
    """

    def __init__(
        self, directory: Path, *, post_form: FormPoster | None, clock: Callable[[], float]
    ) -> None:
        self.path = directory / "auth0_token"
        self._lock_path = directory / ".portalock"
        self._post_form = post_form
        self._clock = clock
        self._unsaved_tokens: LoginTokens | None = None

    def find(self, *, rejected: Secret | None = None) -> AuthHeader | None:
        """Read a valid access token; ``None`` if the login must be refreshed. Blocking.

        Args:
            rejected: A header value that the platform rejected; ``None`` without one.

        Raises:
            MissingCredentialsError: There is no login, or it cannot be read.
        """
        tokens = self._read()
        # The file may be partially written, since this does not hold the lock as `refresh` does.
        return None if tokens is None else self._valid_header(tokens, rejected)

    async def refresh(self, *, rejected: Secret | None = None) -> AuthHeader:
        """Refresh the access token, unless another process did so before the lock was acquired.

        Args:
            rejected: A header value that the platform rejected; ``None`` without one.

        Raises:
            MissingCredentialsError: The login has expired, or its files cannot be used.
            TransportError: The server did not respond.
        """
        lock = await self._lock()

        async def refresh_and_unlock(_: object) -> AuthHeader:
            try:
                return await self._refresh_locked(rejected)
            finally:
                os.close(lock)

        async def ignore_result(_: AuthHeader) -> None:
            """Do nothing: the refreshed token is in the file."""

        return await run_to_completion(
            refresh_and_unlock, grace_period=lambda: GRACE, on_abandoned=ignore_result
        )

    async def _refresh_locked(self, rejected: Secret | None) -> AuthHeader:
        tokens = await run_in_thread(self._read)
        if tokens is None:
            raise MissingCredentialsError(f"{self.path} contains no tokens")
        if header := self._valid_header(tokens, rejected):
            return header
        if self._post_form is None:
            raise MissingCredentialsError(
                f"cannot refresh the login in {self.path} without a client"
            )
        with anyio.move_on_after(REFRESH_TIMEOUT):
            status_code, body = await self._post_form(TOKEN_URL, refresh_form(tokens))
            tokens = parse_refresh_response(status_code, body, tokens)
            issued_at = self._clock()
            await run_in_thread(partial(self._store, tokens))
            assert tokens.access is not None  # noqa: S101 -- `parse_refresh_response` raises without one
            return auth_header_from_token(tokens.access, str(self.path), issued_at=issued_at)
        raise TransportError(f"{TOKEN_URL} did not respond within {REFRESH_TIMEOUT:g} seconds")

    def _valid_header(self, tokens: LoginTokens, rejected: Secret | None) -> AuthHeader | None:
        if tokens.access is None:
            return None
        header = auth_header_from_token(tokens.access, str(self.path))
        fresh = self._clock() < header.refresh_at and header.authorization != rejected
        return header if fresh else None

    def _read(self) -> LoginTokens | None:
        if self._unsaved_tokens is not None:
            return self._unsaved_tokens
        try:
            return parse_login(self.path.read_bytes().decode("utf-8", "replace"))
        except FileNotFoundError:
            raise MissingCredentialsError(f"{self.path} does not exist") from None
        except OSError as error:
            raise _file_error(self.path, error) from error

    def _store(self, tokens: LoginTokens) -> None:
        try:
            content = memoryview(tokens.to_text().reveal().encode())
            write_file(self.path, content, mode=0o600)
        except OSError as error:
            # The old refresh token is invalid now, so the new tokens are kept in memory.
            self._unsaved_tokens = tokens
            _log.warning("Cannot write the refreshed login to %s: %s", self.path, error.strerror)
        else:
            self._unsaved_tokens = None

    async def _lock(self) -> int:
        async def attempt(_: object) -> int | None:
            return await run_in_thread(self._try_lock)

        async def unlock(descriptor: int | None) -> None:
            if descriptor is not None:
                os.close(descriptor)

        with anyio.move_on_after(LOCK_TIMEOUT):
            while True:
                lock = await run_to_completion(
                    attempt, grace_period=lambda: GRACE, on_abandoned=unlock
                )
                if lock is not None:
                    return lock
                await anyio.sleep(LOCK_POLL_INTERVAL)
        raise MissingCredentialsError(
            f"cannot lock {self._lock_path}: another process held it for {LOCK_TIMEOUT:g} seconds"
        )

    def _try_lock(self) -> int | None:
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _file_error(self._lock_path, error) from error
        try:
            if _try_flock(descriptor, self._lock_path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            raise _file_error(self._lock_path, error) from error
        os.close(descriptor)
        return None


def _try_flock(descriptor: int, path: Path) -> bool:
    """Lock an open file without waiting. On Windows, where flock does not exist, do nothing."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    # The official tools delete the file when they unlock it, and a deleted file locks nothing.
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _file_error(path: Path, error: OSError) -> MissingCredentialsError:
    return MissingCredentialsError(f"cannot use {path}: {error.strerror}")
