"""Events: bodies of callbacks, and the results and errors in them."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any, cast

import pydantic
import pytest

import fal_async
import fal_async.sync
from fal_async import (
    ContentPolicyError,
    FalClientHTTPError,
    InvalidInputError,
    InvalidRequestError,
    InvalidResponseError,
    InvalidWebhookEventError,
    JobCancelledError,
    Result,
    ServerError,
)
from fal_async.emulator import AppError
from fal_async.webhooks import WebhookEvent, Webhooks
from tests.support.webhooks import JOB, vector

if TYPE_CHECKING:
    from fal_async import AsyncClient
    from fal_async.emulator import Emulator

OK, _ = vector("first key")
ERROR, _ = vector("failed job")


def event(**fields: Any) -> WebhookEvent:
    return WebhookEvent.parse(json.dumps({"request_id": JOB, "status": "OK", **fields}).encode())


def test_successful_job_is_parsed() -> None:
    parsed = WebhookEvent.parse(OK, user_id="user_own")
    assert (parsed.request_id, parsed.gateway_request_id, parsed.ok) == (JOB, JOB, True)
    assert (parsed.error, parsed.payload_error, parsed.user_id) == (None, None, "user_own")
    assert parsed.payload["images"][0]["width"] == 4
    assert parsed.raw == OK
    assert "request_id=" in repr(parsed)
    assert "raw" not in repr(parsed)


def test_unsigned_64_bit_seeds_survive() -> None:
    assert WebhookEvent.parse(OK).result()["seed"] == 17454220438242315174
    assert event(payload={"seed": 2**64 - 1}).result()["seed"] == 2**64 - 1


def test_result_is_what_the_handle_returns() -> None:
    result = WebhookEvent.parse(OK).result()
    assert isinstance(result, Result)
    assert result.request_id == JOB
    [file] = result.files()
    assert (file.url, file.width) == ("https://v3.fal.media/files/a/fox.png", 4)


class Picture(pydantic.BaseModel):
    images: list[fal_async.File]
    seed: int


def test_result_is_validated_like_outputs() -> None:
    picture = WebhookEvent.parse(OK).result(output=Picture)
    assert picture.images[0].content_type == "image/png"
    with pytest.raises(InvalidResponseError, match="output must be of type Picture") as caught:
        event(payload={"seed": "x"}).result(output=Picture)
    assert (caught.value.stage, caught.value.started) == ("result", True)
    with pytest.raises(InvalidRequestError, match="output must be a type"):
        WebhookEvent.parse(OK).result(output=7)  # type: ignore[arg-type]  # as the test is about


@pytest.mark.parametrize("payload", [None, [1], "text", 1.5])
def test_output_that_is_no_object_is_plain(payload: Any) -> None:
    assert event(payload=payload).result() == payload


def test_output_that_was_not_sent_is_an_error() -> None:
    with pytest.raises(InvalidResponseError, match=r"not JSON serializable.*fetch it from the"):
        event(payload=None, payload_error="not JSON serializable").result()


def test_failed_job_raises_its_typed_error() -> None:
    failed = WebhookEvent.parse(ERROR)
    assert (failed.ok, failed.error) == (False, "Invalid status code: 422")
    with pytest.raises(InvalidInputError, match="prompt: field required") as caught:
        failed.result()
    error = caught.value
    assert (error.status_code, error.request_id) == (422, JOB)
    assert (error.stage, error.started, error.details[0].type) == ("job", True, "missing")


@pytest.mark.parametrize(
    ("error", "payload", "kind", "status"),
    [
        ("Invalid status code: 500", {"detail": "boom"}, ServerError, 500),
        ("Invalid status code: 503", None, ServerError, 503),
        ("Invalid status code: 499", None, JobCancelledError, 499),
        ("status code 418", "text", FalClientHTTPError, 418),
        ("Something failed", None, ServerError, 500),
        ("Something failed", {"detail": [{"msg": "no", "loc": ["body"]}]}, InvalidInputError, 422),
        (None, None, ServerError, 500),
        (
            "Invalid status code: 422",
            {"detail": [{"msg": "no", "type": "content_policy_violation"}]},
            ContentPolicyError,
            422,
        ),
        ("Invalid status code: 99", [1], ServerError, 500),
    ],
)
def test_kind_of_the_error_follows_the_status(
    error: Any, payload: Any, kind: type[FalClientHTTPError], status: int
) -> None:
    with pytest.raises(FalClientHTTPError) as caught:
        event(status="ERROR", error=error, payload=payload).result()
    assert type(caught.value) is kind
    assert caught.value.status_code == status


def test_error_without_a_body_names_the_reason() -> None:
    with pytest.raises(ServerError, match="Something failed"):
        event(status="ERROR", error="Something failed").result()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the callback must be JSON, got b''"),
        (b"{", "the callback must be JSON, got b'{'"),
        (b"[1]", "the callback must have a request id"),
        (b"{}", "the callback must have a request id"),
        (b'{"request_id": 7, "status": "OK"}', "the callback must have a request id"),
        (b'{"request_id": "a\\n", "status": "OK"}', "the callback must have a request id"),
        (b'{"request_id": "a", "status": "LATER"}', "the status 'OK' or 'ERROR', got 'LATER'"),
        (b'{"request_id": "a", "status": ["OK"]}', r"the status 'OK' or 'ERROR', got \['OK'\]"),
        (b'{"request_id": "a"}', "the status 'OK' or 'ERROR', got None"),
        (b'\xff{"request_id": "a"}', "the callback must be JSON"),
    ],
)
def test_body_that_is_no_event_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(InvalidWebhookEventError, match=says) as caught:
        WebhookEvent.parse(body)
    assert caught.value.body == body


def test_stored_text_of_an_event_is_parsed() -> None:
    parsed = WebhookEvent.parse(OK.decode())
    assert (parsed, parsed.raw) == (WebhookEvent.parse(OK), OK)


def test_decoded_body_is_no_raw_body() -> None:
    with pytest.raises(InvalidRequestError, match="raw must be the bytes of the body, got"):
        WebhookEvent.parse(cast("bytes", {"status": "OK"}))


def test_odd_optional_fields_become_none() -> None:
    odd = event(gateway_request_id=7, error=["x"], payload_error={})
    assert (odd.gateway_request_id, odd.error, odd.payload_error) == (None, None, None)


def test_events_can_be_stored() -> None:
    parsed = WebhookEvent.parse(OK, user_id="user_own")
    for again in (copy.copy(parsed), copy.deepcopy(parsed), pickle.loads(pickle.dumps(parsed))):
        assert again == parsed
    assert WebhookEvent.parse(parsed.raw, user_id="user_own") == parsed


def test_handle_and_event_meet_by_id() -> None:
    with fal_async.sync.SyncClient("a:b") as blocking:
        for client in (fal_async.AsyncClient("a:b"), blocking):
            handle = WebhookEvent.parse(OK).handle(client, "acme/draw")
            assert handle == client.attach({"application": "acme/draw", "request_id": JOB})
    with pytest.raises(InvalidRequestError, match="client must be a client of fal_async"):
        WebhookEvent.parse(OK).handle(object(), "acme/draw")  # type: ignore[arg-type]  # as the test is about


async def test_files_use_the_client_of_the_webhooks(fal: Emulator, client: AsyncClient) -> None:
    url = await client.upload(b"pixels", "image/png")
    signed = fal.sign({"image": {"url": url}})
    unwrapped = await Webhooks(client).unwrap(signed.body, signed.headers)
    [file] = unwrapped.result().files()
    assert await file.read() == b"pixels"

    class Output(pydantic.BaseModel):
        image: fal_async.File

    assert await unwrapped.result(Output).image.read() == b"pixels"


@pytest.mark.parametrize(
    "app_error",
    [
        AppError(422, [{"loc": ["body", "prompt"], "msg": "no", "type": "missing"}]),
        AppError(500, "boom"),
    ],
)
async def test_event_raises_what_the_result_call_does(
    fal: Emulator, client: AsyncClient, app_error: AppError
) -> None:
    def draw(_: dict[str, Any]) -> None:
        raise app_error

    fal.register("acme/draw", draw)
    handle = await client.submit("acme/draw", {}, no_retry=True)
    with pytest.raises(FalClientHTTPError) as from_queue:
        await handle.get()
    failed = event(
        request_id=handle.request_id,
        status="ERROR",
        error=f"Invalid status code: {from_queue.value.status_code}",
        payload=from_queue.value.body,
    )
    with pytest.raises(FalClientHTTPError) as from_event:
        failed.result()
    assert type(from_event.value) is type(from_queue.value)
    for name in ("message", "status_code", "details", "request_id", "body", "stage", "started"):
        assert getattr(from_event.value, name) == getattr(from_queue.value, name), name
