"""The platform API: requests of the account, models, prices, estimates and costs."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fal_async.emulator import AppError, Emulator, Job
from fal_async.errors import InvalidRequestError
from tests.support.http import Arguments, echo, gated_echo, make_client, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTING = "/platform/v1/models/requests/by-endpoint"
PRICING = "/platform/v1/models/pricing"
ESTIMATE = "/platform/v1/models/pricing/estimate"
BILLING = "/platform/v1/models/billing-events"


def list_requests(http: httpx.Client, **parameters: Any) -> dict[str, Any]:
    parameters = {"endpoint_id": "acme/app", **parameters}
    page: dict[str, Any] = http.get(LISTING, params=parameters).raise_for_status().json()
    return page


def ids(page: Mapping[str, Any]) -> list[str]:
    return [item["request_id"] for item in page["items"]]


def test_listing_has_the_shape_of_the_platform(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http, json={"prompt": "cat"})
    wait_for_completed(fal)
    page = list_requests(http, expand="payloads")
    assert (page["next_cursor"], page["has_more"]) == (None, False)
    (item,) = page["items"]
    times = [
        datetime.fromisoformat(item.pop(f"{name}_at")) for name in ("sent", "started", "ended")
    ]
    assert times == sorted(times)
    assert 0 <= item.pop("duration") < 60
    assert item == {
        "request_id": submitted["request_id"],
        "endpoint_id": "acme/app",
        "status_code": 200,
        "json_input": {"prompt": "cat"},
        "json_output": {"prompt": "cat"},
    }
    assert "json_input" not in list_requests(http)["items"][0]


def test_direct_runs_are_listed_too(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    response = http.post("/run/acme/app", json={"a": 1})
    fal.wait_for(lambda: fal.counters("acme/app").running == 0)
    (item,) = list_requests(http, expand="payloads")["items"]
    assert item["request_id"] == response.headers["x-fal-request-id"]
    assert (item["status_code"], item["json_output"]) == (200, {"a": 1})


def test_unstored_payloads_are_not_listed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submit(http, headers={"X-Fal-Store-IO": "0"}, json={"secret": 1})
    wait_for_completed(fal)
    (item,) = list_requests(http, expand="payloads")["items"]
    assert not {"json_input", "json_output"} & item.keys()


def test_unfinished_requests_are_listed_first(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=1)
    fal.register("acme/other", echo)
    submit(http, "acme/other")
    wait_for_completed(fal, endpoint="acme/other")
    running, queued = submit(http), submit(http)
    page = list_requests(http, endpoint_id="acme/app,acme/other")
    assert set(ids(page)[:2]) == {running["request_id"], queued["request_id"]}
    by_id = {item["request_id"]: item for item in page["items"]}
    assert "started_at" in by_id[running["request_id"]]
    assert "started_at" not in by_id[queued["request_id"]]
    assert not {"ended_at", "status_code", "duration"} & by_id[running["request_id"]].keys()


@pytest.mark.parametrize("field", ["ended_at", "duration"])
def test_listing_is_sorted(fal: Emulator, http: httpx.Client, field: str) -> None:
    fal.register("acme/app", echo)
    sent = [submit(http)["request_id"] for _ in range(8)]
    wait_for_completed(fal, 8)
    page = list_requests(http, sort_by=field)
    values = [item[field] for item in page["items"]]
    assert values == sorted(values, reverse=True)
    assert ids(page) != sent


def test_pages_have_all_requests_once(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    sent = [submit(http)["request_id"] for _ in range(5)]
    wait_for_completed(fal, 5)
    found: list[str] = []
    cursor: dict[str, str] = {}
    for size, more in [(2, True), (2, True), (1, False)]:
        page = list_requests(http, limit=2, **cursor)
        assert (len(page["items"]), page["has_more"]) == (size, more)
        found += ids(page)
        cursor = {"cursor": page["next_cursor"]}
    assert cursor == {"cursor": None}
    assert sorted(found) == sorted(sent)


def test_listing_is_filtered(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> Arguments:
        if status := arguments.get("status"):
            raise AppError(status, "no")
        return arguments

    kinds = {"success": 0, "user_error": 422, "error": 500}
    sent = {kind: submit(http, json={"status": kinds[kind]})["request_id"] for kind in kinds}
    wait_for_completed(fal, 3)
    for kind, request_id in sent.items():
        assert ids(list_requests(http, status=kind)) == [request_id]
        assert ids(list_requests(http, request_id=request_id)) == [request_id]
    assert ids(list_requests(http, request_id=str(uuid.uuid4()))) == []
    assert len(ids(list_requests(http, sort_by="duration"))) == 3
    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert len(ids(list_requests(http, end=soon.isoformat()))) == 3
    assert ids(list_requests(http, start=soon.isoformat())) == []
    assert ids(list_requests(http, end="2025-01-01")) == []
    assert ids(list_requests(http, endpoint_id="acme/other")) == []


def test_expired_results_stay_listed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http, json={"a": 1})
    wait_for_completed(fal)
    fal.expire(submitted["request_id"])
    (item,) = list_requests(http, expand="payloads")["items"]
    assert (item["status_code"], item["json_output"]) == (200, {"a": 1})
    fal.reset()
    assert list_requests(http)["items"] == []


def test_listing_can_be_late() -> None:
    now = 0.0
    with Emulator(clock=lambda: now, listing_delay=5) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        submitted = submit(http)
        assert ids(list_requests(http)) == []
        now = 5.0
        assert ids(list_requests(http)) == [submitted["request_id"]]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"endpoint_id": ""},
        {"endpoint_id": ",".join(f"acme/{number}" for number in range(51))},
        {"endpoint_id": "acme/app", "limit": "101"},
        {"endpoint_id": "acme/app", "limit": "0"},
        {"endpoint_id": "acme/app", "cursor": "?"},
        {"endpoint_id": "acme/app", "start": "yesterday"},
        {"endpoint_id": "acme/app", "status": "done"},
        {"endpoint_id": "acme/app", "request_id": "764"},
    ],
)
def test_invalid_parameters_are_refused(http: httpx.Client, parameters: dict[str, str]) -> None:
    response = http.get(LISTING, params=parameters)
    assert (response.status_code, response.json().keys()) == (400, {"error"})
    assert response.json()["error"]["type"] == "validation_error"


@pytest.mark.parametrize("path", [LISTING, PRICING, BILLING])
def test_key_is_required(fal: Emulator, path: str) -> None:
    response = httpx.get(f"{fal.url}{path}", params={"endpoint_id": "acme/app"})
    assert (response.status_code, response.json()) == (
        401,
        {"error": {"type": "authorization_error", "message": "Authentication required"}},
    )


@pytest.mark.parametrize("path", ["/platform/v1/models", "/platform/v1/meta"])
def test_public_documents_need_no_key(fal: Emulator, path: str) -> None:
    assert httpx.get(f"{fal.url}{path}").status_code == 200
    wrong = httpx.get(f"{fal.url}{path}", headers={"Authorization": "Key a:b"})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (401, "authorization_error")


@pytest.mark.parametrize(("method", "path"), [("GET", "/platform/v1/nothing"), ("POST", LISTING)])
def test_unknown_operation_is_not_found(http: httpx.Client, method: str, path: str) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found")


def test_models_are_the_registered_endpoints(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/upscale", echo)
    fal.register("acme/app", echo)
    page = http.get("/platform/v1/models").json()
    assert [model["endpoint_id"] for model in page["models"]] == ["acme/app", "acme/upscale"]
    assert page["models"][0]["metadata"]["status"] == "active"
    found = http.get("/platform/v1/models", params={"q": "UPSCALE", "expand": "openapi-3.0"}).json()
    (model,) = found["models"]
    assert model["openapi"]["error"]["code"] == "not_found"
    for nothing in ({"status": "deprecated"}, {"category": "x"}, {"endpoint_id": "acme/none"}):
        assert http.get("/platform/v1/models", params=nothing).json()["models"] == []
    first = http.get("/platform/v1/models", params={"limit": 1}).json()
    assert (len(first["models"]), first["has_more"], first["next_cursor"]) == (1, True, "Mg==")


def test_prices_are_listed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/free", echo)
    fal.set_price("acme/app", "0.025", unit="image")
    response = http.get(PRICING, params={"endpoint_id": ["acme/app", "acme/free"]})
    assert response.json() == {
        "prices": [
            {"endpoint_id": "acme/app", "unit_price": 0.025, "unit": "image", "currency": "USD"}
        ],
        "next_cursor": None,
        "has_more": False,
    }
    missing = http.get(PRICING, params={"endpoint_id": "acme/none"})
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize("price", [-1, "much", float("nan")])
def test_price_must_be_a_number(fal: Emulator, price: Any) -> None:
    with pytest.raises(InvalidRequestError, match="unit_price must be a number of at least 0"):
        fal.set_price("acme/app", price)


def test_estimates_use_prices_and_history(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> Arguments:
        job.billable_units = 3
        return arguments

    fal.set_price("acme/app", "0.1")
    units = {"estimate_type": "unit_price", "endpoints": {"acme/app": {"unit_quantity": 3}}}
    calls = {
        "estimate_type": "historical_api_price",
        "endpoints": {"acme/app": {"call_quantity": 10}},
    }
    assert http.post(ESTIMATE, json=units).json() == {
        "estimate_type": "unit_price",
        "total_cost": 0.3,
        "currency": "USD",
    }
    assert http.post(ESTIMATE, json=calls).status_code == 404  # no history yet
    assert http.post("/run/acme/app", json={}).headers["x-fal-billable-units"] == "3"
    fal.wait_for(lambda: fal.counters("acme/app").running == 0)
    assert http.post(ESTIMATE, json=calls).json()["total_cost"] == 3.0


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"estimate_type": "guess", "endpoints": {"acme/app": {"unit_quantity": 1}}},
        {"estimate_type": "unit_price", "endpoints": {}},
        {"estimate_type": "unit_price", "endpoints": {"acme/app": {"unit_quantity": 0}}},
        {"estimate_type": "unit_price", "endpoints": {"acme/app": {"call_quantity": 1}}},
    ],
)
def test_invalid_estimate_is_refused(fal: Emulator, http: httpx.Client, body: Any) -> None:
    fal.set_price("acme/app", 1)
    response = http.post(ESTIMATE, json=body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "validation_error")


def test_costs_require_an_admin_key(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.set_price("acme/app", "0.025")
    request_id = http.post("/run/acme/app", json={}).headers["x-fal-request-id"]
    fal.wait_for(lambda: fal.counters("acme/app").running == 0)
    parameters = {"request_id": request_id}
    denied = http.get(BILLING, params=parameters)
    assert (denied.status_code, denied.json()) == (
        403,
        {"error": {"type": "authorization_error", "message": "Access denied"}},
    )
    fal.accept_key("admin:key", admin=True)
    headers = {"Authorization": "Key admin:key"}
    (event,) = http.get(BILLING, params=parameters, headers=headers).json()["billing_events"]
    assert datetime.fromisoformat(event.pop("timestamp")) <= datetime.now(UTC)
    assert event == {
        "request_id": request_id,
        "endpoint_id": "acme/app",
        "output_units": 1,
        "unit_price": 0.025,
        "percent_discount": None,
        "cost_subtotal": 0.025,
        "cost_discount": 0,
        "cost_total": 0.025,
        "cost_estimate_nano_usd": 25_000_000,
    }


def test_host_is_known_by_its_name(fal: Emulator, http: httpx.Client) -> None:
    response = http.get("/v1/meta", headers={"Host": "api.fal.ai"})
    assert response.json() == {"webhook_ip_ranges": ["127.0.0.1/32"]}
    assert fal.requests[-1].host == "platform"
    assert f"{fal.url}/platform" == fal.hosts.platform
