"""The platform API of the emulator: lost jobs are found, and costs are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from fal_async import sync
from fal_async.emulator import Fault
from fal_async.errors import AuthenticationError, NotFoundError, SubmitOutcomeUnknownError
from tests.support.http import echo

if TYPE_CHECKING:
    from fal_async import AsyncClient
    from fal_async.emulator import Emulator


async def test_job_without_response_is_found(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="submit", drop_response=True))
    since = datetime.now(UTC) - timedelta(minutes=1)
    with pytest.raises(SubmitOutcomeUnknownError):
        await client.submit("acme/app", {"seed": 7})
    await client.subscribe("acme/app", {"seed": 8})
    listing = client.requests.list("acme/app", start=since, expand_payloads=True)
    found = [request.request_id async for request in listing if request.input == {"seed": 7}]
    assert found == [each for each in fal.jobs if fal.jobs[each].arguments == {"seed": 7}]
    assert len(found) == 1
    assert await client.result("acme/app", found[0]) == {"seed": 7}


async def test_many_requests_are_listed_once(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", echo)
    for number in range(7):
        await client.run("acme/app", {"number": number})
    listing = client.requests.list("acme/app", limit=2, expand_payloads=True)
    numbers = [request.input["number"] async for request in listing]
    assert sorted(numbers) == list(range(7))
    assert fal.count("requests") == 4
    bare = [request async for request in client.requests.list("acme/app", status="success")]
    assert {(request.input, request.status_code) for request in bare} == {(None, 200)}
    assert all(each.sent_at and each.ended_at and each.ended_at.tzinfo for each in bare)
    assert [each async for each in client.requests.list("acme/app", status="error")] == []


async def test_priced_call_knows_its_cost(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", echo)
    fal.set_price("acme/app", "0.025", unit="image")
    assert (await client.run("acme/app", {})).cost is None
    assert fal.count("prices") == 0
    price = (await client.models.prices("acme/app"))["acme/app"]
    assert (price.unit_price, price.unit, price.currency) == (Decimal("0.025"), "image", "USD")
    assert (await client.subscribe("acme/app", {})).cost == Decimal("0.025")
    estimate = await client.models.estimate({"acme/app": 40})
    assert estimate.total_cost == Decimal("1.0")
    with pytest.raises(NotFoundError):
        await client.models.prices("acme/unknown")


async def test_wrong_key_is_refused_by_the_platform(fal: Emulator, client: AsyncClient) -> None:
    wrong = client.with_options(key="wrong:key")
    with pytest.raises(AuthenticationError) as caught:
        await wrong.models.prices("acme/app")
    assert caught.value.error_type == "authorization_error"
    assert "wrong:key" not in repr(caught.value) + str(caught.value.to_dict())


def test_blocking_client_has_the_platform_api(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    fal.set_price("acme/app", 2)
    with sync.SyncClient(fal.key, hosts=fal.hosts) as client:
        assert client.models.prices("acme/app")["acme/app"].unit_price == 2
        result = client.subscribe("acme/app", {})
        assert (type(result), result.cost) == (sync.SyncResult, Decimal(2))
        (request,) = client.requests.list("acme/app")
        assert request.request_id == result.request_id
        assert [model.endpoint_id for model in client.models.list()] == ["acme/app"]
