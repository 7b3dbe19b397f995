"""`AsyncRequests`: the requests that the account has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_flag, whole_number
from fal_async._core.platform import RequestOutcome
from fal_async._platform.pages import AsyncPages
from fal_async._protocol import platform
from fal_async._protocol.endpoint import parse_request_id
from fal_async._protocol.platform import MAX_IDS, check_choice, check_endpoint_ids, format_time
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from fal_async._core.platform import RequestInfo
    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["AsyncRequests"]

#: The maximum number of requests on a page.
MAX_PAGE: Final = 100


@set_module("fal_async")
class AsyncRequests:
    """The requests that the account has made; see `AsyncClient.requests`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

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
    ) -> AsyncPages[RequestInfo]:
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
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         ran = await client.submit("demo/echo", {"prompt": "a cat"})
            ...         output = await ran.get()
            ...         listing = client.requests.list("demo/echo", request_ids=[ran.request_id])
            ...         async for request in listing:
            ...             print(request.status_code)
            >>> anyio.run(main)
            200
        """
        given: Sequence[str] = [endpoint_id] if isinstance(endpoint_id, str) else endpoint_id
        endpoint_ids = check_endpoint_ids("endpoint_id", given)
        ids = (
            None if request_ids is None else list(dict.fromkeys(map(parse_request_id, request_ids)))
        )
        first, last = format_time("start", start), format_time("end", end)
        size = None if limit is None else whole_number("limit", limit, at_most=MAX_PAGE)
        common = {
            "start": first,
            "end": last,
            "status": check_choice("status", status, get_args(RequestOutcome)),
            "sort_by": check_choice("sort_by", sort_by, ("ended_at", "duration")),
            "limit": None if size is None else str(size),
            "expand": "payloads" if check_flag("expand_payloads", expand_payloads) else None,
        }
        hosts = self._dispatcher.hosts
        listings = [
            platform.list_requests(
                hosts, endpoint_ids[at : at + MAX_IDS], {**common, "request_id": request_id}
            )
            for at in range(0, len(endpoint_ids), MAX_IDS)
            for request_id in ([None] if ids is None else ids)
        ]
        if cursor is not None and len(listings) != 1:
            raise InvalidRequestError(
                "cursor must be None for several request ids or more than 50 endpoints"
            )
        return AsyncPages(
            self._dispatcher, listings, cursor=cursor, identify=lambda item: item.request_id
        )
