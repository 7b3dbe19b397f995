"""The platform API: requests as sent, and values from the documents of the platform."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async import CostEstimate, Hosts, ModelInfo, Page, Price, RequestInfo
from fal_async._protocol import platform
from fal_async._protocol.operation import Credential
from fal_async._protocol.response import Response
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidRequestError, InvalidResponseError, NotFoundError

if TYPE_CHECKING:
    from fal_async._protocol.operation import Operation

DATA = Path(__file__).parents[1] / "data" / "platform"
HOSTS = Hosts()
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def parse(operation: Operation[Any], body: object, status: int = 200) -> Any:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return operation.parse(Response(status_code=status, body=content))


def document(name: str) -> bytes:
    return (DATA / f"{name}.json").read_bytes()


def requests(cursor: str | None = None, **parameters: str | None) -> Operation[Page[RequestInfo]]:
    return platform.list_requests(HOSTS, ["acme/app", "acme/b"], parameters)(cursor)


def test_listing_names_all_that_was_asked() -> None:
    operation = requests("Mg==", start="2026-11-29", status=None, expand="payloads")
    url = urlsplit(operation.request.url)
    assert (operation.request.method, url.path) == ("GET", "/v1/models/requests/by-endpoint")
    assert url.netloc == "api.fal.ai"
    assert parse_qs(url.query) == {
        "endpoint_id": ["acme/app,acme/b"],
        "start": ["2026-11-29"],
        "expand": ["payloads"],
        "cursor": ["Mg=="],
    }
    assert (operation.credential, operation.retry) == (Credential.KEY, Retry.IDEMPOTENT)
    assert operation.is_billable is False


def test_requests_are_read_from_the_document() -> None:
    page = parse(requests(), document("requests"))
    assert page == Page(
        items=(
            RequestInfo(
                request_id="a1b2c3d4-e5f6-7890-abcd-ef1234567890",
                endpoint_id="acme/app",
                sent_at=datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC),
                started_at=datetime(2025, 1, 1, 0, 0, 5, tzinfo=UTC),
                ended_at=datetime(2025, 1, 1, 0, 0, 8, tzinfo=UTC),
                status_code=200,
                duration=7.8,
                input={"prompt": "a cat"},
                output={"seed": 7},
                extra={"region": "eu"},
            ),
            RequestInfo(
                request_id="b2",
                endpoint_id="acme/app",
                sent_at=datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC),
            ),
        ),
        next_cursor="Mg==",
    )
    assert len({*page.items}) == 2


def test_models_are_read_from_the_document() -> None:
    page = parse(platform.list_models(HOSTS, {})(None), document("models"))
    known, bare = page.items
    assert page.next_cursor is None
    assert (known.display_name, known.category, known.tags) == (
        "App",
        "text-to-image",
        ("fast", "pro"),
    )
    assert known.updated_at == datetime(2025, 1, 15, 12, tzinfo=UTC)
    assert known.metadata["thumbnail_url"] == "https://files.example/app.jpg"
    assert known.extra == {"enterprise_status": "ready"}
    assert bare == ModelInfo(endpoint_id="acme/bare")


def test_prices_are_exact_amounts() -> None:
    page = parse(platform.list_prices(HOSTS, ["acme/app"], NOW)(None), document("pricing"))
    app, video = page.items
    assert app == Price(
        endpoint_id="acme/app",
        unit_price=Decimal("0.025"),
        unit="image",
        currency="USD",
        as_of=NOW,
    )
    assert (video.unit_price, video.extra) == (Decimal("0.0000033"), {"tier": 2})


@pytest.mark.parametrize(
    ("calls", "body"),
    [
        (
            True,
            {"estimate_type": "historical_api_price", "endpoints": {"a/b": {"call_quantity": 4}}},
        ),
        (False, {"estimate_type": "unit_price", "endpoints": {"a/b": {"unit_quantity": 4}}}),
    ],
)
def test_estimate_counts_calls_or_units(calls: bool, body: object) -> None:
    operation = platform.estimate(HOSTS, {"a/b": 4}, calls=calls)
    assert operation.request.url == "https://api.fal.ai/v1/models/pricing/estimate"
    assert isinstance(operation.request.content, bytes)
    assert orjson.loads(operation.request.content) == body
    estimate = parse(operation, document("estimate"))
    assert estimate == CostEstimate(
        total_cost=Decimal("1.88"), currency="USD", extra={"estimate_type": "unit_price"}
    )


def test_schema_is_the_openapi_document() -> None:
    operation = platform.schema(HOSTS, "acme/app")
    assert operation.request.url.endswith("/v1/models?endpoint_id=acme/app&expand=openapi-3.0")
    openapi: dict[str, Any] = {"openapi": "3.0.4", "paths": {}}
    assert (
        parse(operation, {"models": [{"endpoint_id": "acme/app", "openapi": openapi}]}) == openapi
    )


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ([], "the platform has none"),
        ([{"endpoint_id": "acme/app"}], "the platform has none"),
        ([{"openapi": {"error": {"code": "x", "message": "too large"}}}], "too large"),
        ([{"openapi": {"error": "?"}}], "the platform has none"),
    ],
)
def test_missing_schema_is_not_found(models: object, reason: str) -> None:
    with pytest.raises(NotFoundError, match=f"schema of 'acme/app': {reason}"):
        parse(platform.schema(HOSTS, "acme/app"), {"models": models})


@pytest.mark.parametrize(
    ("body", "cursor"),
    [
        ({"items": [], "next_cursor": "b", "has_more": True}, "b"),
        ({"items": [], "next_cursor": "b"}, "b"),
        ({"items": [], "next_cursor": "b", "has_more": False}, None),
        ({"items": [], "next_cursor": "", "has_more": True}, None),
        ({"items": [], "has_more": True}, None),
    ],
)
def test_listing_ends_without_another_cursor(body: object, cursor: str | None) -> None:
    assert parse(requests("a"), body) == Page(items=(), next_cursor=cursor)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": None},
        {"items": ["a"]},
        {"items": [{"endpoint_id": "acme/app"}]},
        {"items": [{"request_id": 7, "endpoint_id": "acme/app"}]},
        {"items": [], "next_cursor": 2},
        {"items": [], "next_cursor": "a\n"},
        {"items": [], "next_cursor": "a"},
    ],
)
def test_invalid_page_is_our_error(body: object) -> None:
    with pytest.raises(InvalidResponseError):
        parse(requests("a"), body)


@pytest.mark.parametrize("amount", [None, "x", True, [], "Infinity", "NaN"])
def test_price_without_amount_is_our_error(amount: object) -> None:
    price = {"endpoint_id": "a/b", "unit_price": amount, "unit": "image", "currency": "USD"}
    with pytest.raises(InvalidResponseError, match="unit_price must be an amount"):
        parse(platform.list_prices(HOSTS, ["a/b"], NOW)(None), {"prices": [price]})


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 9) | st.text("a:Z-", max_size=3),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "items",
                        "request_id",
                        "endpoint_id",
                        "sent_at",
                        "duration",
                        "status_code",
                        "next_cursor",
                        "has_more",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_any_document_is_a_page_or_our_error(body: object) -> None:
    try:
        page = parse(requests(), body)
    except InvalidResponseError:
        return
    assert isinstance(page, Page)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (date(2026, 11, 29), "2026-11-29"),
        (datetime(2026, 11, 29, 1, tzinfo=UTC), "2026-11-29T01:00:00Z"),
        (
            datetime(2026, 11, 29, 1, 0, 0, 500, tzinfo=timezone(timedelta(hours=2))),
            "2026-11-28T23:00:00.000500Z",
        ),
    ],
)
def test_time_is_sent_in_utc(value: object, text: str | None) -> None:
    assert platform.format_time("start", value) == text


@pytest.mark.parametrize("value", [NOW.replace(tzinfo=None), "2026-11-29", 7])
def test_time_without_zone_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="start must be a datetime"):
        platform.format_time("start", value)


def test_endpoint_ids_are_checked_and_unique() -> None:
    assert platform.check_endpoint_ids("ids", ["a/b", "/a/b/", "c/d"]) == ["a/b", "c/d"]
    for wrong in ([], "a/b", 7, ["a"], [None]):
        with pytest.raises(InvalidRequestError):
            platform.check_endpoint_ids("ids", wrong)  # type: ignore[arg-type]  # as the test is about
