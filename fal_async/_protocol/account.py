"""The account operation: the account that a key belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._protocol.operation import Operation, Request, response_parser
from fal_async._protocol.response import MAX_EXCERPT, read_id
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidResponseError
from fal_async.types import Account

if TYPE_CHECKING:
    from fal_async._config import Hosts
    from fal_async._protocol.response import Response

__all__ = ["account", "parse_account"]


def account(hosts: Hosts) -> Operation[Account]:
    """Fetch the account of the client's key.

    The platform does not document this API, so only the user id is required.
    """
    return Operation(
        name="account",
        application="the platform",
        request=Request("GET", f"{hosts.rest}/users/current", {"accept": "application/json"}),
        parse=response_parser(parse_account),
        retry=Retry.IDEMPOTENT,
    )


def parse_account(response: Response) -> Account:
    """Parse the response to an account request."""
    body = response.json_object()
    user_id = read_id(body.get("user_id"))
    if user_id is None:
        raise InvalidResponseError(
            f"the platform named no account: {response.text[:MAX_EXCERPT]!r}", body=body
        )

    def text(name: str) -> str:
        value = body.get(name)
        return value if isinstance(value, str) else ""

    def flag(name: str) -> bool | None:
        value = body.get(name)
        return value if isinstance(value, bool) else None

    return Account(
        user_id=user_id,
        nickname=text("nickname"),
        full_name=text("full_name"),
        is_personal=flag("is_personal"),
        is_locked=flag("is_locked") or False,
        lock_reason=text("lock_reason") or None,
        is_paying=flag("is_paying"),
    )
