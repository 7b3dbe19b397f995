"""The client's platform API against the emulator: what was sent is found, priced and settled."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AuthenticationError
from fal_async.emulator import Fault
from fal_async.errors import FalClientError, NotFoundError

if TYPE_CHECKING:
    from fal_async import AsyncClient
    from fal_async.emulator import Emulator, Job


def paint(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
    job.billable_units = 2
    return arguments


@pytest.mark.anyio
async def test_lost_submit_is_found_by_its_input(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", paint)
    fal.fail("acme/app", Fault(route="submit", drop_response=True))
    start = datetime.now(UTC)
    with pytest.raises(FalClientError):
        await client.submit("acme/app", {"seed": 7})
    for seed in range(3):
        await client.subscribe("acme/app", {"seed": seed})
    await fal.wait_for_counters("acme/app", completed=4)
    listing = client.requests.list("acme/app", start=start, limit=2, expand_payloads=True)
    found = [request async for request in listing if request.input == {"seed": 7}]
    assert [(request.status_code, request.output) for request in found] == [(200, {"seed": 7})]
    assert await client.result("acme/app", found[0].request_id) == {"seed": 7}


@pytest.mark.anyio
async def test_results_have_the_set_price(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", paint)
    fal.set_price("acme/app", "0.025", unit="image")
    prices = await client.models.prices("acme/app")
    assert (prices["acme/app"].unit_price, prices["acme/app"].unit) == (Decimal("0.025"), "image")
    assert (await client.run("acme/app", {})).cost == Decimal("0.05")
    assert (await client.subscribe("acme/app", {})).cost == Decimal("0.05")
    estimate = await client.models.estimate({"acme/app": 10}, by="calls")
    assert (estimate.total_cost, estimate.currency) == (Decimal("0.5"), "USD")
    assert (await client.models.estimate({"acme/app": 3})).total_cost == Decimal("0.075")


@pytest.mark.anyio
async def test_registered_endpoints_are_models(fal: Emulator, client: AsyncClient) -> None:
    for number in range(3):
        fal.register(f"acme/app-{number}", paint)
    models = [model async for model in client.models.list("acme", limit=2)]
    assert [model.endpoint_id for model in models] == ["acme/app-0", "acme/app-1", "acme/app-2"]
    with pytest.raises(NotFoundError):
        await client.models.schema("acme/app-0")
    with pytest.raises(NotFoundError):
        await client.models.prices("acme/none")


@pytest.mark.anyio
async def test_errors_have_the_platforms_text(fal: Emulator, client: AsyncClient) -> None:
    with pytest.raises(AuthenticationError, match="Invalid API key"):
        await client.with_options(key="wrong:key").models.prices("acme/app")
