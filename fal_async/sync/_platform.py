# Generated from _platform/models.py and _platform/requests.py by `python -m tests.generate_sync`.
# Do not edit: change the source and run that command.
"""Blocking wrappers of the platform API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async._core.annotations import set_module
from fal_async._platform.models import AsyncModels
from fal_async._platform.requests import AsyncRequests
from fal_async.sync._pages import SyncPages
from fal_async.sync._wrappers import SyncWrapper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from typing import Literal

    from fal_async._core.platform import CostEstimate, ModelInfo, Price, RequestInfo, RequestOutcome

__all__ = ["SyncModels", "SyncRequests"]


@set_module("fal_async.sync")
class SyncModels(SyncWrapper[AsyncModels]):
    """The platform's models; see `SyncClient.models`."""

    def list(
        self,
        query: str | None = None,
        *,
        category: str | None = None,
        status: Literal["active", "deprecated"] | None = None,
        endpoint_ids: Sequence[str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SyncPages[ModelInfo]:
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
            >>> with fal_async.sync.SyncClient() as client:
            ...     listing = client.models.list(endpoint_ids=["demo/echo"])
            ...     print([model.endpoint_id for model in listing])
            ['demo/echo']
        """
        return SyncPages(
            self._portal,
            self._async.list(
                query,
                category=category,
                status=status,
                endpoint_ids=endpoint_ids,
                limit=limit,
                cursor=cursor,
            ),
        )

    def prices(self, *endpoint_ids: str, refresh: bool = False) -> dict[str, Price]:
        """Return the prices of endpoints for this account.

        A price is kept for a day. While it is known, results of the endpoint have their
        `SyncResult.cost`.

        Args:
            *endpoint_ids: The endpoint ids; more than 50 are sent in several requests.
            refresh: Whether to ask the platform for prices that are known, too.

        Returns:
            The prices by endpoint id, without endpoints for which the platform names none.

        Raises:
            NotFoundError: The platform does not know an endpoint.
            AuthenticationError: The key is invalid.

        Example:
            >>> with fal_async.sync.SyncClient() as client:
            ...     prices = client.models.prices("demo/echo")
            ...     result = client.run("demo/echo", {"prompt": "a cat"})
            >>> print(prices["demo/echo"].endpoint_id)
            demo/echo
        """
        return self._portal.call(self._async.prices, *endpoint_ids, refresh=refresh)

    def estimate(
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
            >>> with fal_async.sync.SyncClient() as client:
            ...     estimate = client.models.estimate({"demo/echo": 40})
            ...     print(estimate.currency)
            USD
        """
        return self._portal.call(self._async.estimate, quantities, by=by)

    def schema(self, endpoint_id: str) -> dict[str, Any]:
        """Return the OpenAPI document of an endpoint, which describes its input and output.

        Args:
            endpoint_id: The endpoint id.

        Raises:
            NotFoundError: The endpoint is unknown, or the platform has no document of it.

        Example:
            >>> with fal_async.sync.SyncClient() as client:
            ...     try:
            ...         document = client.models.schema("demo/echo")
            ...     except fal_async.sync.NotFoundError:
            ...         print("no document")
            no document
        """
        return self._portal.call(self._async.schema, endpoint_id)


@set_module("fal_async.sync")
class SyncRequests(SyncWrapper[AsyncRequests]):
    """The requests that the account has made; see `SyncClient.requests`."""

    def list(
        self,
        endpoint_id: str | Sequence[str],
        *,
        start: date | None = None,
        end: date | None = None,
        status: RequestOutcome | None = None,
        request_ids: Sequence[str] | None = None,
        sort_by: Literal["ended_at", "duration"] | None = None,
        limit: int | None = None,
        expand_payloads: bool = False,
        cursor: str | None = None,
    ) -> SyncPages[RequestInfo]:
        """List the requests of endpoints, such as one whose response was lost.

        The platform shows a request some time after it was received. It sorts the requests of up to
        50 endpoints; more are listed 50 by 50, and request ids one by one.

        Args:
            endpoint_id: The endpoint id, or several.
            start: The earliest time, a `datetime` with a time zone or a date; ``None`` is 24 hours
                ago, or 90 days ago with `request_ids`.
            end: The time before which requests are listed; ``None`` is now.
            status: Only requests with this outcome; ``None`` lists all.
            request_ids: Only requests with these ids; ``None`` lists all.
            sort_by: The order; ``None`` is by the time of the end.
            limit: The number of requests on a page, up to 100; ``None`` uses the platform's
                default, 50.
            expand_payloads: Whether to fetch inputs and outputs, as far as they are stored.
            cursor: The `Page.next_cursor` to continue at; ``None`` begins at the first page.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> with fal_async.sync.SyncClient() as client:
            ...     ran = client.submit("demo/echo", {"prompt": "a cat"})
            ...     output = ran.get()
            ...     listing = client.requests.list("demo/echo", request_ids=[ran.request_id])
            ...     for request in listing:
            ...         print(request.status_code)
            200
        """
        return SyncPages(
            self._portal,
            self._async.list(
                endpoint_id,
                start=start,
                end=end,
                status=status,
                request_ids=request_ids,
                sort_by=sort_by,
                limit=limit,
                expand_payloads=expand_payloads,
                cursor=cursor,
            ),
        )
