"""The accounts of an emulator: keys, logins, locks and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async.emulator._credentials import EMPTY_BALANCE, Account
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from fal_async.emulator._state import PlatformState

__all__ = ["AccountsMixin"]


class AccountsMixin:
    """Changes the accounts of an `Emulator`, and what each may do."""

    _platform: PlatformState

    @property
    def key(self) -> str:
        """The accepted API key."""
        return self._platform.accounts.main.key

    @property
    def user_id(self) -> str:
        """The id of the account, which webhooks carry."""
        return self._platform.accounts.main.user_id

    def add_account(self, key: str | None = None, *, user_id: str | None = None) -> Account:
        """Add another account with a key of its own, to test programs that serve several.

        The jobs of one account do not exist for another one. All accounts share the endpoints and
        the limit of concurrent runs.

        Args:
            key: The API key. ``None`` generates a random one.
            user_id: The id of the account. ``None`` generates a random one.

        Raises:
            InvalidRequestError: Another account has this key or id.

        Example:
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     tenant = fal.add_account("tenant:key")
            >>> tenant.key
            'tenant:key'
        """
        accounts = self._platform.accounts
        account = Account(key, user_id)
        if accounts.find(f"Key {account.key}") or accounts.get(account.user_id):
            raise InvalidRequestError("key and user_id must be those of no other account")
        accounts.add(account)
        return account

    def accept_key(self, key: str, *, admin: bool = False) -> None:
        """Accept another key of the same account.

        Args:
            key: The key.
            admin: Whether it is an ADMIN key, which some operations of the platform API require.
        """
        self._platform.accounts.main.accept_key(key, admin=admin)

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login of the same account."""
        self._platform.accounts.main.accept_bearer(token)

    def revoke_tokens(self) -> None:
        """Invalidate all realtime tokens, as if they had expired. Open WebSockets stay open."""
        self._platform.tokens.revoke()

    def lock(self, reason: str = EMPTY_BALANCE, *, after: int = 0) -> None:
        """Lock the account: all requests that start jobs fail until `unlock`.

        Args:
            reason: The reason in the error response.
            after: The number of jobs that can still start before.
        """
        self._platform.accounts.main.lock(reason, after=after)

    def unlock(self) -> None:
        """Unlock the account."""
        self._platform.accounts.main.unlock()
