"""Models: the catalogue, prices that are known for a day, estimates and schemas."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient, Hosts, Price, sync
from fal_async._auth.credentials import Credentials
from fal_async._dispatch.cache import PriceCache
from fal_async.errors import InvalidRequestError
from tests.support.http import echo

if TYPE_CHECKING:
    from fal_async.emulator import Emulator
    from tests.support.platform_api import PlatformApi, Query

MODELS = "/v1/models"
PRICES = "/v1/models/pricing"


def price(endpoint_id: str) -> dict[str, Any]:
    return {"endpoint_id": endpoint_id, "unit_price": 0.025, "unit": "image", "currency": "USD"}


def known_prices(query: Query) -> dict[str, Any]:
    """Return the prices of all endpoints that were named but for one."""
    ids = query["endpoint_id"].split(",")
    return {"prices": [price(each) for each in ids if each != "acme/new"], "has_more": False}


@pytest.mark.anyio
async def test_price_is_asked_for_once(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[PRICES] = known_prices
    first = await account.models.prices("acme/app", "acme/new")
    assert list(first) == ["acme/app"]
    assert first["acme/app"].unit_price == Decimal("0.025")
    assert await account.models.prices("acme/app") == first
    assert await account.with_options(default_timeout=9).models.prices("acme/app") == first
    assert len(api.queries) == 1
    again = await account.models.prices("acme/app", refresh=True)
    assert again["acme/app"].as_of > first["acme/app"].as_of
    assert len(api.queries) == 2


@pytest.mark.anyio
async def test_price_of_another_key_is_another(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[PRICES] = known_prices
    await account.models.prices("acme/app")
    await account.with_options(key="other:secret").models.prices("acme/app")
    assert len({*api.keys}) == 2


@pytest.mark.anyio
async def test_price_is_unknown_after_a_day(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[PRICES] = known_prices
    known = await account.models.prices("acme/app")
    dispatcher = account._dispatcher
    old = replace(known["acme/app"], as_of=known["acme/app"].as_of - timedelta(days=1))
    dispatcher.resources.prices.add(dispatcher.credentials, old)
    assert (await account.models.prices("acme/app"))["acme/app"].as_of > old.as_of
    assert len(api.queries) == 2


@pytest.mark.anyio
async def test_result_has_a_cost_once_priced(fal: Emulator, api: PlatformApi) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/new", echo)
    fal.register("acme/app/fast", echo)
    api.documents[PRICES] = known_prices
    async with AsyncClient(fal.key, hosts=replace(fal.hosts, platform=api.url)) as client:
        assert (await client.run("acme/app", {})).cost is None
        await client.models.prices("acme/app", "acme/new")
        direct, queued = await client.run("acme/app", {}), await client.subscribe("acme/app", {})
        assert direct.billable_units == 1
        assert direct.cost == queued.cost == Decimal("0.025")
        assert (await client.run("acme/new", {})).cost is None
        assert (await client.run("acme/app", {}, path="/fast")).cost is None
        other = client.with_options(key=lambda: fal.key)
        assert (await other.run("acme/app", {})).cost is None
        copied = pickle.loads(pickle.dumps(direct))
        assert (copied.cost, copied) == (Decimal("0.025"), direct)
    assert len(api.queries) == 1


def test_cost_without_units_is_unknown() -> None:
    prices = PriceCache()
    account = Credentials("id:secret")
    known = Price(
        endpoint_id="a/b",
        unit_price=Decimal("0.1"),
        unit="x",
        currency="USD",
        as_of=datetime.now(UTC),
    )
    prices.add(account, known)
    assert prices.cost(account, "a/b", None) is None
    assert prices.cost(account, "a/b", 0.0) == 0
    assert prices.cost(account, "a/b", 0.3) == Decimal("0.03")
    del account
    assert len(prices._prices) == 0


@pytest.mark.anyio
async def test_many_prices_are_asked_50_by_50(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[PRICES] = known_prices
    ids = [f"acme/app{number}" for number in range(101)]
    assert list(await account.models.prices(*ids)) == ids
    assert [query["endpoint_id"].count(",") + 1 for _, query in api.queries] == [50, 50, 1]


@pytest.mark.anyio
async def test_catalogue_can_be_searched(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[MODELS] = lambda _: {"models": [{"endpoint_id": "acme/app"}]}
    listing = account.models.list("draws foxes", category="text-to-image", status="active", limit=9)
    assert [model.endpoint_id async for model in listing] == ["acme/app"]
    assert api.queries[0][1] == {
        "q": "draws foxes",
        "category": "text-to-image",
        "status": "active",
        "limit": "9",
    }


@pytest.mark.anyio
async def test_models_are_listed_by_their_ids(api: PlatformApi, account: AsyncClient) -> None:
    api.documents[MODELS] = lambda query: {
        "models": [{"endpoint_id": each} for each in query["endpoint_id"].split(",")]
    }
    ids = [f"acme/app{number}" for number in range(60)]
    assert [model.endpoint_id async for model in account.models.list(endpoint_ids=ids)] == ids
    with pytest.raises(InvalidRequestError, match="cursor"):
        account.models.list(endpoint_ids=ids, cursor="Mg==")


@pytest.mark.parametrize(
    "options",
    [{"query": ""}, {"category": 7}, {"status": "new"}, {"limit": 0}, {"endpoint_ids": []}],
)
def test_invalid_search_is_refused_at_once(options: dict[str, Any]) -> None:
    client = sync.SyncClient("id:secret", hosts=Hosts.at("http://127.0.0.1:9"))
    with client, pytest.raises(InvalidRequestError):
        client.models.list(**options)


@pytest.mark.parametrize(
    ("quantities", "by"),
    [
        ({}, "units"),
        ({"acme/app": 0}, "units"),
        ({"acme/app": 1.5}, "calls"),
        ({"acme": 1}, "units"),
        ({"acme/app": 1}, "days"),
        (["acme/app"], "units"),
    ],
)
def test_invalid_quantities_are_refused(quantities: Any, by: Any) -> None:
    client = sync.SyncClient("id:secret", hosts=Hosts.at("http://127.0.0.1:9"))
    with client, pytest.raises(InvalidRequestError):
        client.models.estimate(quantities, by=by)


def test_blocking_models_are_the_same(api: PlatformApi) -> None:
    api.documents[PRICES] = known_prices
    api.documents["/v1/models/pricing/estimate"] = lambda _: {"total_cost": 1.5, "currency": "USD"}
    api.documents[MODELS] = lambda _: {
        "models": [{"endpoint_id": "acme/app", "openapi": {"openapi": "3.0.4"}}]
    }
    with sync.SyncClient("id:secret", hosts=Hosts(platform=api.url)) as client:
        assert client.models.prices("acme/app")["acme/app"].currency == "USD"
        assert client.models.estimate({"acme/app": 60}).total_cost == Decimal("1.5")
        assert client.models.schema("acme/app") == {"openapi": "3.0.4"}
        assert [model.endpoint_id for model in client.models.list()] == ["acme/app"]
