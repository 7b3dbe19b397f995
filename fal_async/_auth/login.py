"""The login of ``fal auth login``: tokens in a file that is shared with the official tools.

A refresh token buys one access token and is replaced by the next refresh token. So a renewal holds
a lock that the official tools honour too, from before the tokens are read until their successors
are stored, and a cancelled caller does not break it off.
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

#: Sends form fields, texts or secrets, to a URL; returns the status and the body of the answer.
FormPoster: TypeAlias = (
    "Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, bytes | memoryview]]]"
)

#: How long to wait for the lock, in seconds, as the official tools do.
LOCK_TIMEOUT: Final = 20.0
#: How long to sleep between two tries to take the lock, in seconds.
LOCK_POLL_INTERVAL: Final = 0.05
#: How long the server may take to answer, in seconds: less than others wait for the lock.
REFRESH_TIMEOUT: Final = 15.0
#: How long a caller who has been cancelled waits for the renewal, in seconds.
GRACE: Final = 5.0

_log = logging.getLogger("fal_async")


class LoginTokenFile:
    """The token file in a directory.

    Args:
        directory: Where ``fal auth login`` keeps its files.
        post_form: Sends the renewal; ``None`` when a login cannot be renewed.
        clock: The Unix time in seconds.
    """

    def __init__(
        self, directory: Path, *, post_form: FormPoster | None, clock: Callable[[], float]
    ) -> None:
        self.path = directory / "auth0_token"
        self._lock_path = directory / ".portalock"
        self._post_form = post_form
        self._clock = clock
        self._unsaved_tokens: LoginTokens | None = None

    def find(self, *, refused: Secret | None = None) -> AuthHeader | None:
        """Read an access token that may be sent; ``None`` when one must be bought. Blocking.

        Args:
            refused: A header value that the platform has refused; ``None`` if none was.

        Raises:
            MissingCredentialsError: There is no login, or it cannot be read.
        """
        tokens = self._read()
        # Without the lock the file may be seen half written: with it `refresh` looks again.
        return None if tokens is None else self._valid_credential(tokens, refused)

    async def refresh(self, *, refused: Secret | None = None) -> AuthHeader:
        """Buy an access token, unless someone else has by the time we hold the lock.

        Args:
            refused: A header value that the platform has refused; ``None`` if none was.

        Raises:
            MissingCredentialsError: The login has ended, or its files cannot be used.
            TransportError: The server did not answer.
        """
        lock = await self._lock()

        async def renew_and_unlock() -> AuthHeader:
            try:
                return await self._refresh_locked(refused)
            finally:
                os.close(lock)

        return await run_to_completion(
            renew_and_unlock, grace_period=lambda: GRACE, on_abandoned=_ignore_result
        )

    async def _refresh_locked(self, refused: Secret | None) -> AuthHeader:
        tokens = await run_in_thread(self._read)
        if tokens is None:
            raise MissingCredentialsError(f"{self.path} holds no tokens")
        if grant := self._valid_credential(tokens, refused):
            return grant
        if self._post_form is None:
            raise MissingCredentialsError(f"the login in {self.path} cannot be renewed here")
        with anyio.move_on_after(REFRESH_TIMEOUT):
            status_code, body = await self._post_form(TOKEN_URL, refresh_form(tokens))
            tokens = parse_refresh_response(status_code, body, tokens)
            issued_at = self._clock()
            await run_in_thread(partial(self._store, tokens))
            assert tokens.access is not None  # noqa: S101 -- `parse_renewal` raises where there is none
            return auth_header_from_token(tokens.access, str(self.path), issued_at=issued_at)
        raise TransportError(f"{TOKEN_URL} did not answer within {REFRESH_TIMEOUT:g} seconds")

    def _valid_credential(self, tokens: LoginTokens, refused: Secret | None) -> AuthHeader | None:
        if tokens.access is None:
            return None
        grant = auth_header_from_token(tokens.access, str(self.path))
        fresh = self._clock() < grant.refresh_at and grant.authorization != refused
        return grant if fresh else None

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
            write_file(self.path, content, mode=0o600)  # for its owner alone
        except OSError as error:
            # The old refresh token is spent, so the new ones are kept for as long as we live.
            self._unsaved_tokens = tokens
            _log.warning("the renewed login is not in %s: %s", self.path, error.strerror)
        else:
            self._unsaved_tokens = None

    async def _lock(self) -> int:
        attempt = partial(run_in_thread, self._try_lock)
        with anyio.move_on_after(LOCK_TIMEOUT):
            while True:
                lock = await run_to_completion(
                    attempt, grace_period=lambda: GRACE, on_abandoned=_unlock
                )
                if lock is not None:
                    return lock
                await anyio.sleep(LOCK_POLL_INTERVAL)
        raise MissingCredentialsError(
            f"another process has held {self._lock_path} for {LOCK_TIMEOUT:g} seconds"
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
    """Lock an open file at once; there is no such lock on Windows, where nobody is kept out."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    # The official tools delete the file as they unlock it: a deleted one keeps nobody out.
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _file_error(path: Path, error: OSError) -> MissingCredentialsError:
    return MissingCredentialsError(f"{path} cannot be used: {error.strerror}")


async def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


async def _ignore_result(_: AuthHeader) -> None:
    """It is in the file, for whoever asks next."""
