"""The account of a key: the operation, and the calls over the emulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import Account, AuthenticationError, Hosts, InvalidResponseError, NotFoundError
from fal_async import sync as fal_sync
from fal_async._protocol.account import account
from fal_async._protocol.response import Response

if TYPE_CHECKING:
    from fal_async import AsyncClient
    from fal_async.emulator import Emulator


def parse(body: Any, status: int = 200) -> Account:
    return account(Hosts()).parse(Response(status_code=status, body=json.dumps(body).encode()))


def test_account_is_asked_at_the_rest_host() -> None:
    request = account(Hosts()).request
    assert (request.method, request.url) == ("GET", "https://rest.fal.ai/users/current")


def test_every_field_of_the_account_is_read() -> None:
    body = {
        "full_name": "Acme Inc.",
        "nickname": "acme",
        "user_id": "user_2abc",
        "is_personal": False,
        "is_locked": True,
        "lock_reason": "User budget is exceeded",
        "is_paying": True,
        "members": [],
    }
    assert parse(body) == Account(
        user_id="user_2abc",
        nickname="acme",
        full_name="Acme Inc.",
        is_personal=False,
        is_locked=True,
        lock_reason="User budget is exceeded",
        is_paying=True,
    )


def test_only_the_user_id_is_required() -> None:
    odd = {"user_id": "user_2abc", "nickname": 7, "is_locked": "no", "lock_reason": ""}
    assert parse(odd) == Account(user_id="user_2abc")


@pytest.mark.parametrize("body", [{}, {"user_id": ""}, {"user_id": 7}, {"user_id": "a\n"}, []])
def test_response_without_an_account_is_invalid(body: Any) -> None:
    with pytest.raises(InvalidResponseError):
        parse(body)


def test_missing_api_is_a_not_found_error() -> None:
    with pytest.raises(NotFoundError, match="Not Found"):
        parse({"detail": "Not Found"}, 404)


async def test_client_returns_its_account(fal: Emulator, client: AsyncClient) -> None:
    found = await client.account()
    assert (found.user_id, found.is_locked) == (fal.user_id, False)
    with pytest.raises(AuthenticationError):
        await client.with_options(key="a:b").account()


def test_blocking_client_returns_its_account(fal: Emulator) -> None:
    with fal_sync.SyncClient(fal.key, hosts=fal.hosts) as client:
        assert client.account().user_id == fal.user_id
