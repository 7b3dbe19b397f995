"""Credentials: the keys and logins of the account, and short-lived tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Any

from fal_async.emulator._json import decode, encode
from fal_async.emulator._responses import error_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fal_async.emulator._registry import CalledId
    from fal_async.emulator._responses import Response

__all__ = ["EMPTY_BALANCE", "Accounts", "Tokens"]

EMPTY_BALANCE = "Exhausted balance. Top up your balance at fal.ai/dashboard/billing."

_HEADER = {"alg": "HS256", "typ": "JWT"}


class Accounts:
    """The accepted credentials. All of them belong to one account.

    Attributes:
        key: The API key of the account.
        user_id: The id of the account.
    """

    def __init__(self, key: str, user_id: str) -> None:
        self.key = key
        self.user_id = user_id
        self._accepted = {("key", key)}
        self._admin: set[str] = set()
        self._lock_reason: str | None = None
        self._starts_left = 0

    def accept_key(self, key: str, *, admin: bool) -> None:
        """Accept an API key, or an ADMIN key."""
        self._accepted.add(("key", key))
        if admin:
            self._admin.add(key)

    def is_admin(self, authorization: str) -> bool:
        """Return whether valid credentials are an ADMIN key."""
        return authorization.partition(" ")[2].strip() in self._admin

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login."""
        self._accepted.add(("bearer", token))

    def copy(self) -> Accounts:
        """Return other accounts that accept the same credentials."""
        accounts = Accounts(self.key, self.user_id)
        accounts.restore(self)
        return accounts

    def restore(self, earlier: Accounts) -> None:
        """Accept the credentials of an earlier copy alone."""
        self._accepted = set(earlier._accepted)
        self._admin = set(earlier._admin)

    def lock(self, reason: str | None, after: int = 0) -> None:
        """Lock the account for this reason once so many jobs have started; ``None`` unlocks it."""
        self._lock_reason = reason
        self._starts_left = after

    def count_start(self) -> None:
        """Count a job that starts, toward the lock of the account."""
        self._starts_left = max(0, self._starts_left - 1)

    @property
    def _is_locked(self) -> bool:
        return self._lock_reason is not None and self._starts_left == 0

    def reject_reason(
        self, authorization: str | None, app: str, *, private: bool
    ) -> Response | None:
        """Return the error response for credentials that are not valid.

        Args:
            authorization: The value of the ``Authorization`` header, or ``None``.
            app: The app of the request, for the message.
            private: Whether credentials are required.
        """
        if authorization is None:
            return error_response(401, f'Cannot access application "{app}"') if private else None
        scheme, _, credentials = authorization.partition(" ")
        if (scheme.lower(), credentials.strip()) in self._accepted:
            return None
        if scheme.lower() == "bearer":
            return error_response(401, "bearer: unable to decode issuer")
        return error_response(401, "invalid key credentials")

    def describe(self) -> dict[str, object]:
        """Return what the platform tells the owner about the account."""
        account: dict[str, object] = {
            "full_name": "Emulated User",
            "nickname": "emulator",
            "user_id": self.user_id,
            "is_personal": True,
            "is_locked": self._is_locked,
            "is_paying": True,
        }
        return {**account, "lock_reason": self._lock_reason} if self._is_locked else account

    def reject_locked(self) -> Response | None:
        """Return the error response of a locked account, or ``None`` if it is not locked."""
        if not self._is_locked:
            return None
        return error_response(403, f"User is locked. Reason: {self._lock_reason}")


class Tokens:
    """Creates and verifies tokens for WebSockets and streams: signed JWTs, which are not stored."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The clock may count from any time, but a token expires at a Unix time.
        self._offset = time.time() - clock()
        self._secret = secrets.token_bytes(32)

    def create(self, apps: Sequence[str], seconds: float) -> str:
        """Create a token for apps, each an alias or an endpoint id with or without a path."""
        now = self._now()
        claims = {"allowed_apps": list(apps), "iat": int(now), "exp": now + seconds}
        content = f"{_encode_segment(encode(_HEADER))}.{_encode_segment(encode(claims))}"
        return f"{content}.{self._sign(content)}"

    def is_valid_for(self, token: str, called: CalledId) -> bool:
        """Return whether a token is valid now, for this app."""
        content, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return False
        segment = content.partition(".")[2]
        padded = segment + "=" * (-len(segment) % 4)
        claims: dict[str, Any] = decode(base64.urlsafe_b64decode(padded))
        if self._now() >= claims["exp"]:
            return False
        allowed = [app.strip("/") for app in claims["allowed_apps"]]
        return called.alias in allowed or any(
            "/" in app and f"{called}/".startswith(f"{app}/") for app in allowed
        )

    def revoke(self) -> None:
        """Invalidate all tokens that were created."""
        self._secret = secrets.token_bytes(32)

    def _now(self) -> float:
        return self._clock() + self._offset

    def _sign(self, content: str) -> str:
        return _encode_segment(hmac.digest(self._secret, content.encode(), hashlib.sha256))


def _encode_segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
