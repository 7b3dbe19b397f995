"""Credentials: the keys and logins of the account, and short-lived tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any

from fal_async.emulator._json import decode, encode
from fal_async.emulator._responses import error_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fal_async.emulator._registry import CalledId
    from fal_async.emulator._responses import Response

__all__ = ["EMPTY_BALANCE", "Account", "Accounts", "Tokens"]

EMPTY_BALANCE = "Exhausted balance. Top up your balance at fal.ai/dashboard/billing."

_HEADER = {"alg": "HS256", "typ": "JWT"}


class Account:
    """An account of the platform: its keys, its logins, and its lock.

    `Emulator.add_account` creates one. Accounts do not see each other's jobs and private files.

    Attributes:
        key: The API key of the account.
        user_id: The id of the account, which webhooks carry.

    Example:
        >>> from fal_async.emulator import Emulator
        >>> with Emulator() as fal:
        ...     tenant = fal.add_account("tenant:key")
        ...     tenant.lock()
    """

    def __init__(self, key: str | None, user_id: str | None) -> None:
        self.key: str = key or f"emulator:{uuid.uuid4()}"
        self.user_id: str = user_id or f"user_{uuid.uuid4().hex}"
        self._accepted = {("key", self.key)}
        self._admin: set[str] = set()
        self._lock_reason: str | None = None
        self._starts_left = 0

    def __repr__(self) -> str:
        return f"<Account {self.user_id}>"

    def accept_key(self, key: str, *, admin: bool = False) -> None:
        """Accept another API key of the account.

        Args:
            key: The key.
            admin: Whether it is an ADMIN key.
        """
        self._accepted.add(("key", key))
        if admin:
            self._admin.add(key)

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login of the account."""
        self._accepted.add(("bearer", token))

    def lock(self, reason: str = EMPTY_BALANCE, *, after: int = 0) -> None:
        """Lock the account: its requests that start jobs fail until `unlock`.

        Args:
            reason: The reason in the error response.
            after: The number of jobs that still start.
        """
        self._lock_reason = reason
        self._starts_left = after

    def unlock(self) -> None:
        """Unlock the account."""
        self._lock_reason = None

    @property
    def _is_locked(self) -> bool:
        return self._lock_reason is not None and self._starts_left == 0

    def _count_start(self) -> None:
        """Count a job that starts, toward the lock of the account."""
        self._starts_left = max(0, self._starts_left - 1)

    def _describe(self) -> dict[str, object]:
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

    def _reject_locked(self) -> Response | None:
        """Return the error response of a locked account, or ``None`` if it is not locked."""
        if not self._is_locked:
            return None
        return error_response(403, f"User is locked. Reason: {self._lock_reason}")


class Accounts:
    """All accounts, and the credentials that they accept.

    Attributes:
        main: The account of the emulator, which also owns requests without credentials.
    """

    def __init__(self, main: Account) -> None:
        self.main = main
        self._by_id = {main.user_id: main}

    def add(self, account: Account) -> None:
        """Add an account."""
        self._by_id[account.user_id] = account

    def get(self, user_id: str) -> Account | None:
        """Return the account with this id."""
        return self._by_id.get(user_id)

    def find(self, authorization: str | None) -> Account | None:
        """Return the account that accepts the value of an ``Authorization`` header."""
        scheme, _, credentials = (authorization or "").partition(" ")
        pair = (scheme.lower(), credentials.strip())
        return next((each for each in self._by_id.values() if pair in each._accepted), None)

    def is_admin(self, authorization: str) -> bool:
        """Return whether valid credentials are an ADMIN key."""
        account = self.find(authorization)
        return account is not None and authorization.partition(" ")[2].strip() in account._admin

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
        if self.find(authorization) is not None:
            return None
        if authorization.partition(" ")[0].lower() == "bearer":
            return error_response(401, "bearer: unable to decode issuer")
        return error_response(401, "invalid key credentials")

    def unlock(self) -> None:
        """Unlock all accounts."""
        for account in self._by_id.values():
            account.unlock()

    def save(self) -> Callable[[], None]:
        """Return a function that restores the accounts and the credentials of now."""
        saved = {each: (set(each._accepted), set(each._admin)) for each in self._by_id.values()}

        def restore() -> None:
            self._by_id = {account.user_id: account for account in saved}
            for account, (accepted, admin) in saved.items():
                account._accepted, account._admin = set(accepted), set(admin)

        return restore


class Tokens:
    """Creates and verifies tokens for WebSockets and streams: signed JWTs, which are not stored."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The clock may count from any time, but a token expires at a Unix time.
        self._offset = time.time() - clock()
        self._secret = secrets.token_bytes(32)

    def create(self, apps: Sequence[str], seconds: float, user_id: str) -> str:
        """Create a token for apps, each an alias or an endpoint id with or without a path."""
        now = self._now()
        claims = {
            "allowed_apps": list(apps),
            "iat": int(now),
            "exp": now + seconds,
            "user_id": user_id,
        }
        content = f"{_encode_segment(encode(_HEADER))}.{_encode_segment(encode(claims))}"
        return f"{content}.{self._sign(content)}"

    def verify(self, token: str, called: CalledId) -> str | None:
        """Return the id of the account of a token, if the token is valid now for this app."""
        content, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return None
        segment = content.partition(".")[2]
        padded = segment + "=" * (-len(segment) % 4)
        claims: dict[str, Any] = decode(base64.urlsafe_b64decode(padded))
        if self._now() >= claims["exp"]:
            return None
        allowed = [app.strip("/") for app in claims["allowed_apps"]]
        is_allowed = called.alias in allowed or any(
            "/" in app and f"{called}/".startswith(f"{app}/") for app in allowed
        )
        return str(claims["user_id"]) if is_allowed else None

    def revoke(self) -> None:
        """Invalidate all tokens that were created."""
        self._secret = secrets.token_bytes(32)

    def _now(self) -> float:
        return self._clock() + self._offset

    def _sign(self, content: str) -> str:
        return _encode_segment(hmac.digest(self._secret, content.encode(), hashlib.sha256))


def _encode_segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
