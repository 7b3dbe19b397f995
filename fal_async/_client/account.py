"""`AccountMixin`: the call about the account of the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._protocol.account import account

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.types import Account

__all__ = ["AccountMixin"]


class AccountMixin:
    """The call about the account of the key."""

    _dispatcher: Dispatcher

    async def account(self) -> Account:
        """Return the account that the key belongs to.

        The platform does not document this API. If it is gone, the call raises `NotFoundError`.

        Raises:
            AuthenticationError: The key is wrong.
            FalClientHTTPError: The platform responded with another error.
            InvalidResponseError: The response names no account.
            TransportError: There was no response.

        Example:
            >>> async def main() -> None:
            ...     account = await fal_async.account()
            ...     print(account.is_locked)
            >>> anyio.run(main)
            False
        """
        return await self._dispatcher.execute(account(self._dispatcher.hosts))
