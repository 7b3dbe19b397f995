"""Listings: pages that fetch themselves, complete, each item once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import Hosts, sync
from fal_async.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from fal_async import AsyncClient
    from tests.support.platform_api import PlatformApi, Query

LISTING = "/v1/models/requests/by-endpoint"


def item(number: int) -> dict[str, Any]:
    return {"request_id": f"r{number}", "endpoint_id": "acme/app"}


def numbered_pages(query: Query) -> dict[str, Any]:
    """Return one of three pages; the second repeats an item, the third is empty but for a field."""
    number = int(query.get("cursor", "0"))
    items = [[item(1), item(2)], [item(2), item(3)], []][number]
    return {"items": items, "next_cursor": str(number + 1), "has_more": number < 2}


@pytest.mark.anyio
async def test_listing_yields_each_item_once(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[LISTING] = numbered_pages
    listing = account.requests.list("acme/app", limit=2)
    assert api.queries == []
    assert [request.request_id async for request in listing] == ["r1", "r2", "r3"]
    assert [query.get("cursor") for _, query in api.queries] == [None, "1", "2"]
    assert [request.request_id async for request in listing] == ["r1", "r2", "r3"]
    assert {*api.keys} == {"authorization: Key id:secret"}


@pytest.mark.anyio
async def test_pages_are_as_the_platform_has_them(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[LISTING] = numbered_pages
    pages = [page async for page in account.requests.list("acme/app").pages()]
    assert [(len(page.items), page.next_cursor) for page in pages] == [
        (2, "1"),
        (2, "2"),
        (0, None),
    ]
    rest = [page async for page in account.requests.list("acme/app", cursor="2").pages()]
    assert rest == pages[2:]


@pytest.mark.anyio
async def test_listing_sends_what_was_asked(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[LISTING] = lambda _: {"items": []}
    listing = account.requests.list(
        "acme/app",
        start=datetime(2026, 11, 29, tzinfo=UTC),
        end=datetime(2026, 11, 30, tzinfo=UTC),
        status="user_error",
        sort_by="duration",
        limit=100,
        expand_payloads=True,
    )
    assert [each async for each in listing] == []
    ((_, query),) = api.queries
    assert query == {
        "endpoint_id": "acme/app",
        "start": "2026-11-29T00:00:00Z",
        "end": "2026-11-30T00:00:00Z",
        "status": "user_error",
        "sort_by": "duration",
        "limit": "100",
        "expand": "payloads",
    }


@pytest.mark.anyio
async def test_long_lists_of_ids_are_split(api: PlatformApi, account: AsyncClient) -> None:
    def find(query: Query) -> dict[str, Any]:
        return {"items": [{"request_id": query["request_id"], "endpoint_id": "acme/app"}]}

    api.documents[LISTING] = find
    endpoints = [f"acme/app{number}" for number in range(51)]
    listing = account.requests.list(endpoints, request_ids=["a", "b", "a"])
    assert [request.request_id async for request in listing] == ["a", "b"]
    sizes = [query["endpoint_id"].count(",") + 1 for _, query in api.queries]
    assert sizes == [50, 50, 1, 1]


@pytest.mark.anyio
async def test_unknown_endpoint_is_not_found(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[LISTING] = lambda _: {"error": {"type": "not_found", "message": "No such app"}}
    with pytest.raises(NotFoundError, match="No such app") as caught:
        await anext(aiter(account.requests.list("acme/app")))
    assert (caught.value.error_type, caught.value.started) == ("not_found", False)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_id": "acme"},
        {"endpoint_id": []},
        {"start": datetime.fromisoformat("2026-01-01T00:00:00")},
        {"status": "failed"},
        {"sort_by": "sent_at"},
        {"limit": 101},
        {"limit": 0},
        {"request_ids": ["a/b"]},
        {"request_ids": ["a", "b"], "cursor": "Mg=="},
        {"expand_payloads": "no"},
    ],
)
def test_invalid_arguments_are_refused_at_once(options: dict[str, Any]) -> None:
    client = sync.SyncClient("id:secret", hosts=Hosts.at("http://127.0.0.1:9"))
    with client, pytest.raises(InvalidRequestError):
        client.requests.list(**({"endpoint_id": "acme/app"} | options))


def test_blocking_listing_is_the_same(api: PlatformApi) -> None:
    api.documents[LISTING] = numbered_pages
    with sync.SyncClient("id:secret", hosts=Hosts(platform=api.url)) as client:
        listing = client.requests.list("acme/app")
        assert [request.request_id for request in listing] == ["r1", "r2", "r3"]
        assert [len(page.items) for page in listing.pages()] == [2, 2, 0]
        for request in listing:
            assert request.request_id == "r1"
            break
