"""``api.fal.ai``: models, prices, and the requests of the account."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, cast
from urllib.parse import parse_qs
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from fal_async.emulator._hosts.base import Call, find_account, parse_called_id
from fal_async.emulator._json import decode_or_none
from fal_async.emulator._responses import RejectedError, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fal_async.emulator._history import HistoryEntry
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._responses import Response
    from fal_async.emulator._state import PlatformState

T = TypeVar("T")
QueryT = TypeVar("QueryT", bound=BaseModel)

_ROUTES: dict[str, Route] = {
    "v1/models": "models",
    "v1/models/pricing": "prices",
    "v1/models/pricing/estimate": "estimate",
    "v1/models/requests/by-endpoint": "requests",
    "v1/models/billing-events": "billing_events",
    "v1/meta": "meta",
}
_DAY: Final = timedelta(days=1)
_MAX_AGE: Final = timedelta(days=90)
#: The addresses of the platform's own webhooks.
_WEBHOOK_RANGES = ["127.0.0.1/32"]


def _split(value: object) -> object:
    """Split the values of a parameter, which may be repeated or separated by commas."""
    return [part for item in cast("list[str]", value) for part in item.split(",") if part]


def _as_utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


_One = BeforeValidator(lambda values: values[-1])
_Ids = Annotated[list[str], Field(min_length=1, max_length=50), BeforeValidator(_split)]
_Words = Annotated[list[str], BeforeValidator(_split)]
_Time = Annotated[datetime, _One]
_RequestId = Annotated[UUID, _One]


class _Page(BaseModel):
    limit: Annotated[int, Field(ge=1, le=100), _One] = 50
    cursor: Annotated[str, _One] | None = None

    @property
    def number(self) -> int:
        """The number of the page, which a cursor holds."""
        if self.cursor is None:
            return 1
        try:
            return max(1, int(base64.b64decode(self.cursor, validate=True)))
        except (binascii.Error, ValueError):
            raise RejectedError(_error(400, "cursor must be that of a page")) from None


class _ModelsQuery(_Page):
    endpoint_id: _Ids | None = None
    q: Annotated[str, _One] = ""
    category: Annotated[str, _One] | None = None
    status: Annotated[Literal["active", "deprecated"], _One] | None = None
    expand: _Words = []


class _PricesQuery(_Page):
    endpoint_id: _Ids


class _RequestsQuery(_Page):
    endpoint_id: _Ids
    start: _Time | None = None
    end: _Time | None = None
    status: Annotated[Literal["success", "error", "user_error"], _One] | None = None
    request_id: _RequestId | None = None
    sort_by: Annotated[Literal["ended_at", "duration"], _One] = "ended_at"
    expand: _Words = []


class _BillingQuery(_Page):
    limit: Annotated[int, Field(ge=1, le=10_000), _One] = 50
    endpoint_id: _Ids | None = None
    request_id: _Ids | None = None
    start: _Time | None = None
    end: _Time | None = None


class _Quantity(BaseModel):
    call_quantity: Annotated[Decimal, Field(ge=1)] | None = None
    unit_quantity: Annotated[Decimal, Field(ge=Decimal("1e-6"))] | None = None


class _EstimateBody(BaseModel):
    estimate_type: Literal["historical_api_price", "unit_price"]
    endpoints: dict[str, _Quantity] = Field(min_length=1)


class PlatformHost:
    """Handles requests to ``api.fal.ai``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        self._handlers: dict[Route, Callable[[GatewayRequest], dict[str, Any]]] = {
            "models": self.list_models,
            "prices": self.list_prices,
            "estimate": self.estimate,
            "requests": self.list_requests,
            "billing_events": self.list_billing_events,
            "meta": lambda _: {"webhook_ip_ranges": _WEBHOOK_RANGES},
        }

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request by its path."""
        return Call(_ROUTES.get(request.location.path, "other"), parse_called_id(""))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Send a document of the platform API."""
        handler = self._handlers.get(call.route)
        if handler is None or request.method != ("POST" if call.route == "estimate" else "GET"):
            raise RejectedError(_error(404, "Resource not found"))
        # Public documents need no key, but accept no wrong one either.
        authorization = request.headers.get("authorization")
        private = call.route not in {"models", "meta"}
        accounts = self._platform.accounts
        if accounts.reject_reason(authorization, "", private=private) is not None:
            text = "Authentication required" if authorization is None else "Invalid API key"
            raise RejectedError(_error(401, text))
        if call.route == "billing_events" and not accounts.is_admin(authorization or ""):
            raise RejectedError(_error(403, "Access denied"))
        request.account = accounts.find(authorization)
        await request.respond(json_response(200, handler(request)))

    def list_models(self, request: GatewayRequest) -> dict[str, Any]:
        """Return a page of the registered endpoints."""
        query = _parse_query(_ModelsQuery, request)
        models: list[dict[str, Any]] = []
        for endpoint_id in sorted(endpoint.id for endpoint in self._platform.registry):
            metadata: dict[str, Any] = {
                "display_name": endpoint_id.rpartition("/")[2],
                "category": "emulated",
                "description": f"The function that is registered as {endpoint_id}",
                "status": "active",
                "tags": [],
                "updated_at": "2026-01-01T00:00:00Z",
                "is_favorited": False,
                "thumbnail_url": "https://fal.media/files/example.jpg",
                "model_url": f"https://fal.run/{endpoint_id}",
                "date": "2026-01-01T00:00:00Z",
                "highlighted": False,
                "pinned": False,
            }
            model: dict[str, Any] = {"endpoint_id": endpoint_id, "metadata": metadata}
            if "openapi-3.0" in query.expand:
                error = {"code": "not_found", "message": f"{endpoint_id} has no OpenAPI document"}
                model["openapi"] = {"error": error}
            if (
                (query.endpoint_id is None or endpoint_id in query.endpoint_id)
                and query.category in {None, metadata["category"]}
                and query.status in {None, metadata["status"]}
                and query.q.lower() in endpoint_id
            ):
                models.append(model)
        return _make_page("models", models, query)

    def list_prices(self, request: GatewayRequest) -> dict[str, Any]:
        """Return the prices of endpoints, without those that have none."""
        query = _parse_query(_PricesQuery, request)
        prices = self._platform.prices
        unknown = [
            each
            for each in query.endpoint_id
            if each not in prices and self._platform.registry.resolve(each) is None
        ]
        if unknown:
            raise RejectedError(_error(404, f"Endpoint not found: {', '.join(unknown)}"))
        found = [
            {
                "endpoint_id": each,
                "unit_price": float(prices[each].unit_price),
                "unit": prices[each].unit,
                "currency": prices[each].currency,
            }
            for each in query.endpoint_id
            if each in prices
        ]
        return _make_page("prices", found, query)

    def estimate(self, request: GatewayRequest) -> dict[str, Any]:
        """Estimate a cost from unit prices, or from the units of earlier calls."""
        body = _validate(_EstimateBody, decode_or_none(request.body))
        total = Decimal(0)
        for endpoint_id, quantity in body.endpoints.items():
            price = self._platform.prices.get(endpoint_id)
            if price is None:
                raise RejectedError(_error(404, f"No price for {endpoint_id}"))
            if body.estimate_type == "unit_price":
                name, number, units = "unit_quantity", quantity.unit_quantity, Decimal(1)
            else:
                name, number = "call_quantity", quantity.call_quantity
                ended = [each for each in self._ended(request) if each.endpoint_id == endpoint_id]
                billed = [each.units for each in ended if each.units]
                if not billed:
                    raise RejectedError(_error(404, f"No history for {endpoint_id}"))
                units = Decimal(str(sum(billed))) / len(billed)
            if number is None:
                raise RejectedError(_error(400, f"endpoints.{endpoint_id}.{name} is required"))
            total += number * units * price.unit_price
        return {
            "estimate_type": body.estimate_type,
            "total_cost": float(total),
            "currency": "USD",
        }

    def list_requests(self, request: GatewayRequest) -> dict[str, Any]:
        """Return a page of the requests to some endpoints: running ones, then the latest."""
        query = _parse_query(_RequestsQuery, request)
        now = datetime.now(UTC)
        start = _as_utc(query.start or now - (_DAY if query.request_id is None else _MAX_AGE))
        end = None if query.end is None else _as_utc(query.end)
        found = [
            entry
            for entry in self._listed(request, start)
            if entry.endpoint_id in query.endpoint_id
            and (end is None or entry.sent_at < end)
            and (query.request_id is None or entry.request_id == str(query.request_id))
            and query.status in {None, entry.outcome}
        ]

        def sort_key(entry: HistoryEntry) -> float:
            if entry.ended_at is None:
                return float("inf")
            by_end = query.sort_by == "ended_at"
            return entry.ended_at.timestamp() if by_end else entry.duration

        found.sort(key=sort_key, reverse=True)
        payloads = "payloads" in query.expand

        def make_item(entry: HistoryEntry) -> dict[str, Any]:
            item: dict[str, Any] = {
                "request_id": entry.request_id,
                "endpoint_id": entry.endpoint_id,
            }
            # Fields that are not known yet are absent.
            if entry.started_at is not None:
                item["started_at"] = _format(entry.started_at)
            item["sent_at"] = _format(entry.sent_at)
            if entry.ended_at is not None:
                item["ended_at"] = _format(entry.ended_at)
                item["status_code"] = entry.status
                item["duration"] = entry.duration
            if payloads and entry.input is not None:
                item["json_input"] = decode_or_none(entry.input)
            if payloads and entry.output is not None:
                item["json_output"] = decode_or_none(entry.output)
            return item

        return _make_page("items", found, query, make_item)

    def list_billing_events(self, request: GatewayRequest) -> dict[str, Any]:
        """Return a page of the costs of ended requests, latest first."""
        query = _parse_query(_BillingQuery, request)
        start = _as_utc(query.start or datetime.now(UTC) - (_MAX_AGE if query.request_id else _DAY))
        events: list[dict[str, Any]] = []
        for entry in self._ended(request):
            price = self._platform.prices.get(entry.endpoint_id)
            cost = Decimal(0) if price is None else price.unit_price * Decimal(str(entry.units))
            if (
                entry.ended_at is not None
                and start <= entry.ended_at
                and (query.end is None or entry.ended_at < _as_utc(query.end))
                and (query.request_id is None or entry.request_id in query.request_id)
                and (query.endpoint_id is None or entry.endpoint_id in query.endpoint_id)
            ):
                events.append(
                    {
                        "request_id": entry.request_id,
                        "endpoint_id": entry.endpoint_id,
                        "timestamp": _format(entry.ended_at),
                        "output_units": entry.units,
                        "unit_price": None if price is None else float(price.unit_price),
                        "percent_discount": None,
                        "cost_subtotal": float(cost),
                        "cost_discount": 0,
                        "cost_total": float(cost),
                        "cost_estimate_nano_usd": int(cost * 10**9),
                    }
                )
        return _make_page("billing_events", events, query)

    def _listed(self, request: GatewayRequest, since: datetime | None = None) -> list[HistoryEntry]:
        account = find_account(self._platform, request)
        return self._platform.history.listed(account.user_id, since)

    def _ended(self, request: GatewayRequest) -> list[HistoryEntry]:
        return [entry for entry in self._listed(request) if entry.ended_at is not None]


_ERROR_TYPES = {
    400: "validation_error",
    401: "authorization_error",
    403: "authorization_error",
    404: "not_found",
}


def _error(status: int, text: str) -> Response:
    return json_response(status, {"error": {"type": _ERROR_TYPES[status], "message": text}})


def _parse_query(model: type[QueryT], request: GatewayRequest) -> QueryT:
    return _validate(model, parse_qs(request.query))


def _validate(model: type[QueryT], value: object) -> QueryT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise RejectedError(_error(400, f"{name}: {problem['msg']}")) from error


def _make_page(
    key: str,
    items: Sequence[T],
    query: _Page,
    make_item: Callable[[T], object] = lambda item: item,
) -> dict[str, Any]:
    """Return one page. As on the platform, pages shift when items are added before them."""
    start, end = (query.number - 1) * query.limit, query.number * query.limit
    more = end < len(items)
    return {
        key: [make_item(item) for item in items[start:end]],
        "next_cursor": base64.b64encode(b"%d" % (query.number + 1)).decode() if more else None,
        "has_more": more,
    }


def _format(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
