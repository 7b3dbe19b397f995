"""Who may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async.emulator._registry import app_of
from fal_async.emulator._replies import detail

if TYPE_CHECKING:
    from fal_async.emulator._replies import Reply


class Accounts:
    """The credentials that are accepted. All of them belong to one account."""

    def __init__(self, key: str) -> None:
        self._accepted = {("key", key)}
        self._lock_reason: str | None = None

    def accept_key(self, key: str) -> None:
        self._accepted.add(("key", key))

    def accept_bearer(self, token: str) -> None:
        self._accepted.add(("bearer", token))

    def lock(self, reason: str | None) -> None:
        self._lock_reason = reason

    def refusal(self, authorization: str | None, called: str, *, private: bool) -> Reply | None:
        """Why this caller may not call this id; ``None`` when it may."""
        if authorization is None:
            if not private:
                return None
            return detail(401, f'Cannot access application "{app_of(called)}"')
        scheme, _, credentials = authorization.partition(" ")
        if (scheme.lower(), credentials.strip()) in self._accepted:
            return None
        if scheme.lower() == "bearer":
            return detail(401, "bearer: unable to decode issuer")
        return detail(401, "invalid key credentials")

    def locked(self) -> Reply | None:
        """Why nothing new may be started; ``None`` when it may."""
        if self._lock_reason is None:
            return None
        return detail(403, f"User is locked. Reason: {self._lock_reason}")
