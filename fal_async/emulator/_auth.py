"""Who may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async.emulator._replies import detail

if TYPE_CHECKING:
    from fal_async.emulator._replies import Reply


class Accounts:
    """The credentials that are accepted; all of them belong to one account.

    Attributes:
        key: The API key of the account.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._accepted = {("key", key)}
        self._lock_reason: str | None = None

    def accept_key(self, key: str) -> None:
        """Accept an API key."""
        self._accepted.add(("key", key))

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login."""
        self._accepted.add(("bearer", token))

    def lock(self, reason: str | None) -> None:
        """Let the account start nothing, for this reason; ``None`` lets it again."""
        self._lock_reason = reason

    def refusal(self, authorization: str | None, app: str, *, private: bool) -> Reply | None:
        """Why this caller may not call this app; ``None`` when it may."""
        if authorization is None:
            return detail(401, f'Cannot access application "{app}"') if private else None
        scheme, _, credentials = authorization.partition(" ")
        if (scheme.lower(), credentials.strip()) in self._accepted:
            return None
        if scheme.lower() == "bearer":
            return detail(401, "bearer: unable to decode issuer")
        return detail(401, "invalid key credentials")

    def locked(self) -> Reply | None:
        """Why nothing may be started; ``None`` when something may."""
        if self._lock_reason is None:
            return None
        return detail(403, f"User is locked. Reason: {self._lock_reason}")
