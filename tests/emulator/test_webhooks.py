"""Delivery of webhooks: bodies, signatures, retries, and when they end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature

from fal_async.emulator import AppError, Emulator, Fault, WebhookDelivery
from tests.support.http import Arguments, echo, gated_echo, make_client, submit
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with
from tests.support.signatures import PREFIX, fetch_key, verify

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
MOVED = b"HTTP/1.1 308 Moved\r\nLocation: /hook/\r\nContent-Length: 0\r\n\r\n"


def respond_in_turn(*responses: bytes) -> Callable[[RawConnection], None]:
    """Return a script that sends one response for each connection; the last one for all others."""

    def script(connection: RawConnection) -> None:
        connection.respond(responses[min(connection.number, len(responses)) - 1])

    return script


def deliver(
    fal: Emulator, http: httpx.Client, receiver: RawServer, **options: Any
) -> WebhookDelivery:
    """Submit a job, and wait until its delivery has ended."""
    submitted = submit(http, params={"fal_webhook": f"{receiver.url}hook?a=b"}, **options)
    request_id = submitted["request_id"]
    fal.wait_for(lambda: fal.webhooks[request_id].state != "pending")
    return fal.webhooks[request_id]


def received(receiver: RawServer) -> list[bytes]:
    receiver.wait_idle()
    return [request for connection in receiver.connections for request in connection.requests]


def test_output_is_delivered_byte_for_byte(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver, json={"b": "ü", "a": [1.5, 17454220438242315174]})
        (request,) = received(receiver)
    head, _, body = request.partition(b"\r\n\r\n")
    name = delivery.request_id.encode()
    assert head.startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert body == (
        b'{"error": null, "gateway_request_id": "%b", "payload": {"a": [1.5, '
        b'17454220438242315174], "b": "\\u00fc"}, "request_id": "%b", "status": "OK"}'
        % (name, name)
    )
    (attempt,) = delivery.attempts
    assert (delivery.state, attempt.status, attempt.error) == ("delivered", 200, None)
    assert attempt.body == body
    verify(fetch_key(fal), attempt.headers, body)
    assert attempt.headers[f"{PREFIX}Request-Id"] == delivery.request_id
    assert attempt.headers[f"{PREFIX}User-Id"] == fal.user_id
    for header, value in attempt.headers.items():
        assert f"{header}: {value}".encode() in head


def test_failed_job_is_delivered_as_error(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def fail(arguments: Arguments) -> None:
        problem = {"loc": ["body", "prompt"], "msg": "field required", "type": "missing"}
        raise AppError(422, [problem])

    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver)
    name = delivery.request_id.encode()
    assert delivery.attempts[0].body == (
        b'{"error": "Invalid status code: 422", "gateway_request_id": "%b", "payload": '
        b'{"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "missing"}]}, '
        b'"request_id": "%b", "status": "ERROR"}' % (name, name)
    )


@pytest.mark.parametrize("output", [b"\x89PNG", {"score": float("nan")}], ids=["bytes", "nan"])
def test_output_without_json_is_named(fal: Emulator, http: httpx.Client, output: object) -> None:
    fal.register("acme/app", lambda _: output)
    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver)
    name = delivery.request_id.encode()
    assert delivery.attempts[0].body == (
        b'{"request_id": "%b", "gateway_request_id": "%b", "status": "OK", "payload": null, '
        b'"payload_error": "Response payload is not JSON serializable. Either return a JSON '
        b'serializable object or use the queue endpoint to retrieve the response."}' % (name, name)
    )


def test_retried_job_has_another_gateway_id(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="runner", status=503))
    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver)
    job = fal.jobs[delivery.request_id]
    assert job.gateway_request_id != job.request_id
    assert f'"gateway_request_id": "{job.gateway_request_id}"'.encode() in delivery.attempts[0].body


def test_each_attempt_is_signed_anew() -> None:
    def refuse_for_a_second(connection: RawConnection) -> None:
        connection.request()
        now = int(time.time())
        while connection.number == 1 and int(time.time()) == now:
            pass  # timestamps count seconds
        connection.send(BUSY if connection.number == 1 else OK)

    with Emulator(speed=1000) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        with RawServer(refuse_for_a_second) as receiver:
            delivery = deliver(fal, http, receiver)
        first, second = delivery.attempts
        assert (first.status, second.status, first.body) == (503, 200, second.body)
        for attempt in delivery.attempts:
            verify(fetch_key(fal), attempt.headers, attempt.body)
        timestamps = [int(x.headers[f"{PREFIX}Timestamp"]) for x in delivery.attempts]
        assert timestamps[0] < timestamps[1]


def test_silent_receiver_is_tried_again() -> None:
    def ignore_the_first(connection: RawConnection) -> None:
        connection.request()
        if connection.number == 1:
            connection.wait_closed()
        else:
            connection.send(OK)

    with Emulator(speed=1000, webhook_timeouts=(0.2, 10)) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        with RawServer(ignore_the_first) as receiver:
            delivery = deliver(fal, http, receiver)
    assert [attempt.status for attempt in delivery.attempts] == [None, 200]
    assert delivery.attempts[0].error == "no response within 0.2 seconds"


def test_unreachable_receiver_is_tried_again(http: httpx.Client, fal: Emulator) -> None:
    fal.register("acme/app", echo)
    with RawServer(respond_with(OK)) as receiver:
        url = receiver.url
    request_id = submit(http, params={"fal_webhook": url})["request_id"]
    fal.wait_for(lambda: bool(fal.webhooks[request_id].attempts))
    delivery = fal.webhooks[request_id]
    assert (delivery.state, delivery.attempts[0].status) == ("pending", None)
    assert delivery.attempts[0].error


@pytest.mark.parametrize("response", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 2", b"", b"x" * 100_000])
def test_receiver_without_http_is_tried_again(response: bytes) -> None:
    with Emulator(speed=1000) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        with RawServer(respond_in_turn(response, OK)) as receiver:
            delivery = deliver(fal, http, receiver)
    assert [attempt.status for attempt in delivery.attempts] == [None, 200]
    assert delivery.attempts[0].error


def test_url_is_sent_as_a_valid_target(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    with RawServer(respond_with(OK)) as receiver:
        url = receiver.url.replace("http://", "http://me:secret@") + "hö ok%20?q=ü \r\nX: 1"
        request_id = submit(http, params={"fal_webhook": url})["request_id"]
        fal.wait_for(lambda: fal.webhooks[request_id].state == "delivered")
        (request,) = received(receiver)
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0] == b"POST /h%C3%B6%20ok%20?q=%C3%BC%20X:%201 HTTP/1.1"
    assert lines[1] == f"Host: 127.0.0.1:{receiver.port}".encode()


def test_redirect_is_final_and_not_followed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    with RawServer(respond_with(MOVED)) as receiver:
        delivery = deliver(fal, http, receiver)
        assert len(received(receiver)) == 1
    assert (delivery.state, delivery.reason) == ("failed", "redirects are not followed")
    assert [attempt.status for attempt in delivery.attempts] == [308]


def test_attempts_end_after_thirty_one() -> None:
    with Emulator(speed=1e6, clock=lambda: 0.0) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        with RawServer(respond_with(BUSY)) as receiver:
            delivery = deliver(fal, http, receiver)
            assert len(received(receiver)) == 31
    assert (delivery.state, delivery.reason) == ("failed", "31 attempts failed")
    assert len(delivery.attempts) == 31


def test_attempts_end_when_the_result_expires() -> None:
    now = 0.0

    def refuse_for_an_hour(connection: RawConnection) -> None:
        nonlocal now
        connection.request()
        now += 3600 / 1000
        connection.send(BUSY)

    with Emulator(speed=1000, clock=lambda: now) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        with RawServer(refuse_for_an_hour) as receiver:
            delivery = deliver(fal, http, receiver)
    assert (delivery.state, delivery.reason) == ("failed", "the result has expired")
    assert len(delivery.attempts) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]"])
def test_private_receivers_can_be_dropped(host: str) -> None:
    with Emulator(private_webhooks=False) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        request_id = submit(http, params={"fal_webhook": f"http://{host}:9/"})["request_id"]
        fal.wait_for(lambda: fal.webhooks[request_id].state == "dropped")
        assert fal.webhooks[request_id].attempts == []


@pytest.mark.parametrize("delivered", [False, True])
def test_cancelled_job_is_delivered_on_demand(*, delivered: bool) -> None:
    with Emulator(cancelled_webhooks=delivered) as fal, make_client(fal) as http:
        fal.register("acme/app", gated_echo(fal.gate()))
        with RawServer(respond_with(OK)) as receiver:
            submitted = submit(http, params={"fal_webhook": receiver.url})
            http.put(submitted["cancel_url"])
            fal.wait_for(lambda: fal.webhooks[submitted["request_id"]].state != "pending")
        delivery = fal.webhooks[submitted["request_id"]]
    assert delivery.state == ("delivered" if delivered else "dropped")
    assert len(delivery.attempts) == delivered
    if delivered:
        assert b'"error": "Invalid status code: 499"' in delivery.attempts[0].body


@pytest.mark.parametrize("url", ["", "me.example/hook", "ftp://me.example", "http://", "http://["])
def test_webhook_url_must_be_absolute(fal: Emulator, http: httpx.Client, url: str) -> None:
    fal.register("acme/app", echo)
    response = http.post("/queue/acme/app", params={"fal_webhook": url}, json={})
    assert (response.status_code, response.json()["error_type"]) == (400, "bad_request")
    assert (dict(fal.jobs), dict(fal.webhooks)) == ({}, {})


@pytest.mark.parametrize(
    "fault", [Fault(route="webhook", drop=True), Fault(route="webhook", reset=True)]
)
def test_lost_webhook_is_sent_again(fault: Fault) -> None:
    with Emulator(speed=1000) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        fal.fail("acme/app", fault)
        with RawServer(respond_with(OK)) as receiver:
            delivery = deliver(fal, http, receiver)
            assert len(received(receiver)) == 1
    assert [attempt.error for attempt in delivery.attempts] == ["the request was lost", None]


def test_lost_acknowledgement_repeats_a_webhook() -> None:
    with Emulator(speed=1000) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        fal.fail(None, Fault(route="webhook", drop_response=True))
        with RawServer(respond_with(OK)) as receiver:
            delivery = deliver(fal, http, receiver)
            assert len(received(receiver)) == 2
    assert [attempt.error for attempt in delivery.attempts] == ["the response was lost", None]


def test_webhook_can_be_sent_twice_at_once(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="webhook", duplicate=True))
    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver)
        first, second = received(receiver)
    assert first == second
    assert [attempt.status for attempt in delivery.attempts] == [200, 200]


def test_tampered_webhook_does_not_verify(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="webhook", transform=lambda body: {**body, "status": "ERROR"}))
    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver)
        (request,) = received(receiver)
    (attempt,) = delivery.attempts
    assert request.endswith(attempt.body)
    assert b'"status": "ERROR"' in attempt.body
    with pytest.raises(InvalidSignature):
        verify(fetch_key(fal), attempt.headers, attempt.body)


def test_webhook_headers_can_be_changed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    headers = {"x-fal-webhook-user-id": "user_other", "X-Fal-Webhook-Timestamp": None}
    fal.fail("acme/app", Fault(route="webhook", headers=headers))
    with RawServer(respond_with(OK)) as receiver:
        deliver(fal, http, receiver)
        (request,) = received(receiver)
    assert b"x-fal-webhook-user-id: user_other" in request
    assert b"timestamp" not in request.lower().partition(b"\r\n\r\n")[0]


def test_slow_webhook_waits_for_a_gate(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="webhook", delay=gate))
    with RawServer(respond_with(OK)) as receiver:
        request_id = submit(http, params={"fal_webhook": receiver.url})["request_id"]
        fal.wait_for(lambda: fal.jobs[request_id].status == "COMPLETED")
        assert (fal.webhooks[request_id].state, receiver.connections) == ("pending", [])
        gate.open()
        fal.wait_for(lambda: fal.webhooks[request_id].state == "delivered")


def test_webhook_can_overtake_the_response(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="submit", delay_response=gate))

    def release_the_response(connection: RawConnection) -> None:
        connection.respond(OK)
        gate.open()

    with RawServer(release_the_response) as receiver:
        submitted = submit(http, params={"fal_webhook": receiver.url})
        assert len(receiver.connections) == 1
        fal.wait_for(lambda: fal.webhooks[submitted["request_id"]].state == "delivered")


def test_faults_without_route_spare_webhooks(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate))
    with RawServer(respond_with(OK)) as receiver:
        request_id = submit(http, params={"fal_webhook": receiver.url})["request_id"]
        fal.fail("acme/app", Fault(status=500))
        gate.open()
        fal.wait_for(lambda: fal.webhooks[request_id].state == "delivered")
        assert [attempt.status for attempt in fal.webhooks[request_id].attempts] == [200]


@pytest.mark.parametrize("end", ["reset", "stop"])
def test_deliveries_end_with_the_emulator(end: str) -> None:
    def wait_for_the_end(connection: RawConnection) -> None:
        connection.request()
        connection.wait_closed()

    with RawServer(wait_for_the_end) as receiver:
        with Emulator() as fal, make_client(fal) as http:
            fal.register("acme/app", echo)
            submit(http, params={"fal_webhook": receiver.url})
            fal.wait_for(lambda: any(x.requests for x in receiver.connections))
            if end == "reset":
                fal.reset()
                assert dict(fal.webhooks) == {}
                receiver.wait_ended()
        receiver.wait_ended()
        assert len(receiver.connections) == 1


def test_missing_package_fails_the_delivery(
    fal: Emulator, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    fal.register("acme/app", echo)
    with RawServer(respond_with(OK)) as receiver:
        delivery = deliver(fal, http, receiver)
        assert receiver.connections == []
    assert delivery.state == "failed"
    assert "fal-async[webhooks]" in str(delivery.reason)


async def test_wait_that_fails_names_the_attempts(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    headers = {"Authorization": f"Key {fal.key}"}
    async with httpx.AsyncClient(base_url=fal.url, headers=headers) as http:
        response = await http.post(
            "/queue/acme/app", params={"fal_webhook": f"{fal.url}/nobody"}, json={}
        )
    request_id = response.json()["request_id"]
    await fal.wait_for_async(lambda: bool(fal.webhooks[request_id].attempts))
    with pytest.raises(TimeoutError, match=r"/nobody is pending, statuses of its attempts: 404"):
        await fal.wait_for_webhook(request_id, timeout=0.01)


async def test_delivery_can_be_awaited(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    with RawServer(respond_with(OK)) as receiver:
        headers = {"Authorization": f"Key {fal.key}"}
        async with httpx.AsyncClient(base_url=fal.url, headers=headers) as http:
            response = await http.post(
                "/queue/acme/app", params={"fal_webhook": receiver.url}, json={}
            )
        delivery = await fal.wait_for_webhook(response.json()["request_id"])
        assert (delivery.state, delivery.url) == ("delivered", receiver.url)
        with pytest.raises(KeyError):
            await fal.wait_for_webhook("unknown")
