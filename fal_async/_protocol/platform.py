"""Operations of the platform API: requests, models, prices and estimates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlencode

from fal_async._core.checks import describe, is_one_of
from fal_async._core.platform import CostEstimate, ModelInfo, Page, Price, RequestInfo
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.operation import (
    JSON_HEADERS,
    MAX_OUTPUT,
    Operation,
    Request,
    response_parser,
)
from fal_async._protocol.response import MAX_EXCERPT
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import encode_json, object_or_empty
from fal_async.errors import InvalidRequestError, InvalidResponseError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal

    from fal_async._config import Hosts
    from fal_async._protocol.response import Response

__all__ = [
    "MAX_IDS",
    "check_choice",
    "check_endpoint_ids",
    "estimate",
    "format_time",
    "list_models",
    "list_prices",
    "list_requests",
    "parse_model",
    "parse_price",
    "parse_request",
    "schema",
]

T = TypeVar("T")

#: The maximum number of ids in one request.
MAX_IDS: Final = 50

_METADATA: Final = frozenset({"endpoint_id", "metadata"})


def check_endpoint_ids(name: str, ids: Iterable[str]) -> list[str]:
    """Validate endpoint ids, and return each of them once.

    Raises:
        InvalidRequestError: An id is invalid, or there is none.
    """
    if isinstance(ids, str) or not isinstance(cast("object", ids), Iterable):
        raise InvalidRequestError(f"{name} must be a list of endpoint ids, got {describe(ids)}")
    given: list[object] = list(ids)
    if any(isinstance(each, list | tuple | set) for each in given):
        raise InvalidRequestError(f"{name} must be endpoint ids, got a list: pass *ids")
    checked = list(dict.fromkeys(str(parse_endpoint(each)) for each in given))
    if not checked:
        raise InvalidRequestError(f"{name} must name at least one endpoint")
    return checked


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str | None:
    """Check that a value is one of the choices, or ``None``."""
    if value is None or is_one_of(value, choices):
        return cast("str | None", value)
    raise InvalidRequestError(f"{name} must be one of {', '.join(choices)}, got {describe(value)}")


def format_time(name: str, value: object) -> str | None:
    """Return a time or a date in the form of the platform; ``None`` for ``None``.

    Raises:
        InvalidRequestError: The value is neither a date nor a time with a time zone.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidRequestError(
                f"{name} must be a datetime with a time zone, got {describe(value)}: use "
                "datetime.now(UTC) or value.astimezone()"
            )
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise InvalidRequestError(f"{name} must be a datetime or a date, got {describe(value)}")


def list_requests(
    hosts: Hosts, endpoint_ids: Sequence[str], parameters: Mapping[str, str | None]
) -> Callable[[str | None], Operation[Page[RequestInfo]]]:
    """Return a function that makes the operation of a page of requests by its cursor."""
    return partial(
        _page,
        f"{hosts.platform}/v1/models/requests/by-endpoint",
        {"endpoint_id": ",".join(endpoint_ids), **parameters},
        "items",
        parse_request,
        "requests",
        endpoint_ids[0],
    )


def list_models(
    hosts: Hosts, parameters: Mapping[str, str | None]
) -> Callable[[str | None], Operation[Page[ModelInfo]]]:
    """Return a function that makes the operation of a page of models by its cursor."""
    url = f"{hosts.platform}/v1/models"
    return partial(_page, url, parameters, "models", parse_model, "models", "the catalogue")


def list_prices(
    hosts: Hosts, endpoint_ids: Sequence[str], now: datetime
) -> Callable[[str | None], Operation[Page[Price]]]:
    """Return a function that makes the operation of a page of prices by its cursor.

    Args:
        hosts: The base URLs.
        endpoint_ids: The endpoint ids, at most `MAX_IDS`.
        now: The time that the prices bear.
    """
    return partial(
        _page,
        f"{hosts.platform}/v1/models/pricing",
        {"endpoint_id": ",".join(endpoint_ids)},
        "prices",
        partial(parse_price, now=now),
        "prices",
        endpoint_ids[0],
    )


def estimate(
    hosts: Hosts, quantities: Mapping[str, float], *, calls: bool
) -> Operation[CostEstimate]:
    """Estimate the cost of calls.

    Args:
        hosts: The base URLs.
        quantities: The numbers of calls or of units, by endpoint id.
        calls: Whether the numbers are those of calls, whose units the platform knows from history.
    """
    kind, name = ("historical_api_price", "call") if calls else ("unit_price", "unit")
    endpoints = {each: {f"{name}_quantity": number} for each, number in quantities.items()}

    def parse(response: Response) -> CostEstimate:
        body = response.json_object()
        return CostEstimate(
            total_cost=_money(body, "total_cost"),
            currency=_required(body, "currency"),
            extra=_rest(body, {"total_cost", "currency"}),
        )

    return Operation(
        name="estimate",
        application=next(iter(quantities)),
        request=Request(
            "POST",
            f"{hosts.platform}/v1/models/pricing/estimate",
            JSON_HEADERS,
            encode_json({"estimate_type": kind, "endpoints": endpoints}),
        ),
        parse=response_parser(parse),
        retry=Retry.IDEMPOTENT,
    )


def schema(hosts: Hosts, endpoint_id: str) -> Operation[dict[str, Any]]:
    """Fetch the OpenAPI document of an endpoint."""
    query = urlencode({"endpoint_id": endpoint_id, "expand": "openapi-3.0"}, safe="/,:")

    def parse(response: Response) -> dict[str, Any]:
        models = _objects(response, "models")
        document = models[0].get("openapi") if models else None
        if not isinstance(document, dict):
            raise _no_document(endpoint_id, None)
        found = cast("dict[str, Any]", document)
        if "error" in found and "openapi" not in found:
            raise _no_document(endpoint_id, found["error"])
        return found

    return Operation(
        name="schema",
        application=endpoint_id,
        request=Request("GET", f"{hosts.platform}/v1/models?{query}", dict(_ACCEPT)),
        parse=response_parser(parse),
        retry=Retry.IDEMPOTENT,
    )


_ACCEPT: Final = {"accept": "application/json"}


def _no_document(endpoint_id: str, error: object) -> NotFoundError:
    reason = cast("dict[str, object]", error).get("message") if isinstance(error, dict) else None
    message = f"cannot fetch the schema of {endpoint_id!r}: {reason or 'the platform has none'}"
    return NotFoundError(message, 404, body=error)


def _page(
    url: str,
    parameters: Mapping[str, str | None],
    key: str,
    parse_item: Callable[[Mapping[str, Any]], T],
    name: str,
    application: str,
    cursor: str | None,
) -> Operation[Page[T]]:
    query = {**parameters, "cursor": cursor}
    encoded = urlencode({name: value for name, value in query.items() if value}, safe="/,:")

    def parse(response: Response) -> Page[T]:
        items = tuple(parse_item(item) for item in _objects(response, key))
        body = response.json_object()
        following = body.get("next_cursor") if body.get("has_more") is not False else None
        if following is not None and not (isinstance(following, str) and following.isprintable()):
            raise InvalidResponseError(f"a cursor must be text, got {describe(following)}")
        if following and following == cursor:
            raise InvalidResponseError("the cursor of a page must not be that of the page before")
        return Page(items=items, next_cursor=following or None)

    return Operation(
        name=name,
        application=application,
        request=Request("GET", f"{url}?{encoded}" if encoded else url, dict(_ACCEPT)),
        parse=response_parser(parse),
        retry=Retry.IDEMPOTENT,
        max_body=MAX_OUTPUT,
    )


def parse_request(raw: Mapping[str, Any]) -> RequestInfo:
    """Parse a request of the account. Only its ids are required."""
    known = {"json_input", "json_output", *RequestInfo.__dataclass_fields__} - {"input", "output"}
    return RequestInfo(
        request_id=_required(raw, "request_id"),
        endpoint_id=_required(raw, "endpoint_id"),
        sent_at=_time(raw, "sent_at"),
        started_at=_time(raw, "started_at"),
        ended_at=_time(raw, "ended_at"),
        status_code=_number(raw, "status_code", int),
        duration=_number(raw, "duration", float),
        input=raw.get("json_input"),
        output=raw.get("json_output"),
        extra=_rest(raw, known),
    )


def parse_price(raw: Mapping[str, Any], now: datetime) -> Price:
    """Parse a price, which bears the time `now`."""
    return Price(
        endpoint_id=_required(raw, "endpoint_id"),
        unit_price=_money(raw, "unit_price"),
        unit=_required(raw, "unit"),
        currency=_required(raw, "currency"),
        as_of=now,
        extra=_rest(raw, Price.__dataclass_fields__),
    )


def parse_model(raw: Mapping[str, Any]) -> ModelInfo:
    """Parse a model of the catalogue. Only its endpoint id is required."""
    metadata = object_or_empty(raw.get("metadata"))
    tags = metadata.get("tags")
    return ModelInfo(
        endpoint_id=_required(raw, "endpoint_id"),
        display_name=_text(metadata, "display_name"),
        category=_text(metadata, "category"),
        description=_text(metadata, "description"),
        status=_text(metadata, "status"),
        tags=tuple(str(tag) for tag in cast("list[object]", tags))
        if isinstance(tags, list)
        else (),
        updated_at=_time(metadata, "updated_at"),
        metadata=metadata,
        extra=_rest(raw, _METADATA),
    )


def _objects(response: Response, key: str) -> list[dict[str, Any]]:
    items = response.json_object().get(key)
    if not isinstance(items, list) or not all(
        isinstance(item, dict) for item in cast("list[object]", items)
    ):
        raise InvalidResponseError(
            f"expected a list of objects {key!r}, got {response.text[:MAX_EXCERPT]!r}",
            request_id=response.request_id,
            body=response.body,
        )
    return cast("list[dict[str, Any]]", items)


def _text(raw: Mapping[str, Any], name: str) -> str | None:
    value = raw.get(name)
    return value if isinstance(value, str) else None


def _required(raw: Mapping[str, Any], name: str) -> str:
    value = _text(raw, name)
    if not value:
        raise InvalidResponseError(f"{name} must be text, got {describe(raw.get(name))}", body=raw)
    return value


def _number(raw: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    value = raw.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return kind(value) if is_number else None  # type: ignore[call-arg]  # int or float


def _money(raw: Mapping[str, Any], name: str) -> Decimal:
    """Return an amount exactly as the platform wrote it."""
    from decimal import Decimal, InvalidOperation  # only amounts need it

    value = raw.get(name)
    try:
        amount = Decimal(str(value))  # the shortest text of a float is that of the JSON
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite():
        raise InvalidResponseError(f"{name} must be an amount, got {describe(value)}", body=raw)
    return amount


def _time(raw: Mapping[str, Any], name: str) -> datetime | None:
    """Parse a time in ISO 8601, which is in UTC unless it names another zone."""
    try:
        value = datetime.fromisoformat(_text(raw, name) or "")
    except ValueError:
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _rest(raw: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    names = frozenset(known)
    return {name: value for name, value in raw.items() if name not in names}
