"""`AsyncModels`: the catalogue, with prices and schemas."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_flag, check_mapping, check_number, describe, whole_number
from fal_async._platform.pages import AsyncPages
from fal_async._protocol import platform
from fal_async._protocol.platform import MAX_IDS, check_choice, check_endpoint_ids
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fal_async._core.platform import CostEstimate, ModelInfo, Price
    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["AsyncModels"]


@set_module("fal_async")
class AsyncModels:
    """The platform's models; see `AsyncClient.models`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def list(
        self,
        query: str | None = None,
        *,
        category: str | None = None,
        status: Literal["active", "deprecated"] | None = None,
        endpoint_ids: Sequence[str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> AsyncPages[ModelInfo]:
        """List the models of the catalogue.

        Args:
            query: Words to search for in names, descriptions and categories; ``None`` lists all.
            category: Only models of a category, such as ``"text-to-image"``; ``None`` lists all.
            status: Only active, or only deprecated models; ``None`` lists both.
            endpoint_ids: Only these endpoints, which are listed 50 by 50; ``None`` lists all.
            limit: The number of models on a page; ``None`` uses the platform's default.
            cursor: The `Page.next_cursor` to continue at; ``None`` begins at the first page.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         listing = client.models.list(endpoint_ids=["demo/echo"])
            ...         print([model.endpoint_id async for model in listing])
            >>> anyio.run(main)
            ['demo/echo']
        """
        size = None if limit is None else whole_number("limit", limit)
        common = {
            "q": _check_text("query", query),
            "category": _check_text("category", category),
            "status": check_choice("status", status, ("active", "deprecated")),
            "limit": None if size is None else str(size),
        }
        hosts = self._dispatcher.hosts
        if endpoint_ids is None:
            listings = [platform.list_models(hosts, common)]
        else:
            ids = check_endpoint_ids("endpoint_ids", endpoint_ids)
            listings = [
                platform.list_models(
                    hosts, {**common, "endpoint_id": ",".join(ids[at : at + MAX_IDS])}
                )
                for at in range(0, len(ids), MAX_IDS)
            ]
        if cursor is not None and len(listings) != 1:
            raise InvalidRequestError("cursor must be None for more than 50 endpoints")
        return AsyncPages(
            self._dispatcher, listings, cursor=cursor, identify=lambda item: item.endpoint_id
        )

    async def prices(self, *endpoint_ids: str, refresh: bool = False) -> dict[str, Price]:
        """Return the prices of endpoints for this account.

        A price is kept for a day. While it is known, results of the endpoint have their
        `Result.cost`.

        Args:
            *endpoint_ids: The endpoint ids; more than 50 are sent in several requests.
            refresh: Whether to ask the platform for prices that are known, too.

        Returns:
            The prices by endpoint id, without endpoints for which the platform names none.

        Raises:
            NotFoundError: The platform does not know an endpoint.
            AuthenticationError: The key is invalid.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         prices = await client.models.prices("demo/echo")
            ...         result = await client.run("demo/echo", {"prompt": "a cat"})
            ...     print(prices["demo/echo"].endpoint_id)
            >>> anyio.run(main)
            demo/echo
        """
        ids = check_endpoint_ids("endpoint_ids", endpoint_ids)
        dispatcher = self._dispatcher
        account, cache = dispatcher.credentials, dispatcher.resources.prices
        known: dict[str, Price] = {}
        if not check_flag("refresh", refresh):
            found = ((each, cache.get(account, each)) for each in ids)
            known.update((each, price) for each, price in found if price is not None)
        missing = [each for each in ids if each not in known]
        listings = [
            platform.list_prices(dispatcher.hosts, missing[at : at + MAX_IDS], datetime.now(UTC))
            for at in range(0, len(missing), MAX_IDS)
        ]
        pages = AsyncPages(
            dispatcher, listings, cursor=None, identify=lambda price: price.endpoint_id
        )
        async for price in pages:
            known[price.endpoint_id] = price
            cache.add(account, price)
        return {each: known[each] for each in ids if each in known}

    async def estimate(
        self, quantities: Mapping[str, float], *, by: Literal["units", "calls"] = "units"
    ) -> CostEstimate:
        """Estimate the cost of calls to come.

        Args:
            quantities: The number of units or calls by endpoint id.
            by: ``"units"`` multiplies by the price of a unit. ``"calls"`` uses the usual cost of a
                call in the past, which can be far off for models that are billed by compute time.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.
            NotFoundError: The platform does not know an endpoint.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         estimate = await client.models.estimate({"demo/echo": 40})
            ...         print(estimate.currency)
            >>> anyio.run(main)
            USD
        """
        check_mapping("quantities", quantities)
        check_choice("by", by, ("units", "calls"))
        calls = by == "calls"
        check = whole_number if calls else check_number
        check_endpoint_ids("quantities", quantities)
        numbers: dict[str, float] = {}
        for endpoint_id, number in quantities.items():
            (checked,) = check_endpoint_ids("quantities", [endpoint_id])
            quantity = check(f"the quantity of {checked}", number)
            numbers[checked] = numbers.get(checked, 0) + quantity
        operation = platform.estimate(self._dispatcher.hosts, numbers, calls=calls)
        return await self._dispatcher.execute(operation)

    async def schema(self, endpoint_id: str) -> dict[str, Any]:
        """Return the OpenAPI document of an endpoint, which describes its input and output.

        Args:
            endpoint_id: The endpoint id.

        Raises:
            NotFoundError: The endpoint is unknown, or the platform has no document of it.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         try:
            ...             document = await client.models.schema("demo/echo")
            ...         except fal_async.NotFoundError:
            ...             print("no document")
            >>> anyio.run(main)
            no document
        """
        (checked,) = check_endpoint_ids("endpoint_id", [endpoint_id])
        return await self._dispatcher.execute(platform.schema(self._dispatcher.hosts, checked))


def _check_text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise InvalidRequestError(f"{name} must be text, got {describe(value)}")
