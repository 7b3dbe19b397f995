"""Scripted HTTP faults, as clients see them."""

from __future__ import annotations

import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fal_async.emulator import Emulator, Fault
from fal_async.errors import InvalidRequestError
from tests.support.http import echo, make_client, submit, wait_for_completed
from tests.support.raw_client import RESET, connect, encode_request, send_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    import httpx

    from tests.support.http import Arguments


@pytest.fixture(params=["uvloop", "asyncio"])
def fal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)  # makes its import fail
    with Emulator() as emulator:
        emulator.register("acme/app", echo)
        yield emulator


def test_status_fault_has_headers_and_body(fal: Emulator, http: httpx.Client) -> None:
    fal.fail(
        "acme/app",
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=502, body="<html>nginx</html>", headers={"Content-Type": "text/html"}),
        Fault(status=200, body={"odd": True}),
        Fault(status=500, body=b"\xff"),
    )
    responses = [http.post("/run/acme/app", json={}) for _ in range(5)]
    assert [response.status_code for response in responses] == [503, 502, 200, 500, 200]
    assert responses[0].json() == {"detail": "scripted fault 503"}
    assert responses[0].headers["retry-after"] == "7"
    assert responses[1].text == "<html>nginx</html>"
    assert responses[2].json() == {"odd": True}
    assert responses[3].content == b"\xff"
    assert all(response.headers["x-fal-request-id"] for response in responses)
    assert fal.counters("acme/app").executions == 1


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_status_is_a_complete_response(
    fal: Emulator, http: httpx.Client, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    fal.fail("acme/app", Fault(status=status))
    response = http.post("/run/acme/app", json={})
    assert (response.status_code, response.content) == (status, b"")
    assert http.post("/run/acme/app", json={}).status_code == 200
    assert caplog.records == []


def test_fault_applies_to_matching_requests(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/other", echo)
    fal.fail("acme/app", Fault(route="status", status=503, times=2, skip=1))
    submitted = submit(http)
    other = submit(http, "acme/other")
    wait_for_completed(fal)
    wait_for_completed(fal, 1, "acme/other")
    assert http.get(other["status_url"]).status_code == 200
    statuses = [http.get(submitted["status_url"]).status_code for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert http.get(submitted["response_url"]).status_code == 200


def test_fault_supports_a_condition_and_no_limit(fal: Emulator, http: httpx.Client) -> None:
    fal.fail(None, Fault(when=lambda call: call.arguments == {"bad": 1}, status=500, times=None))
    for _ in range(3):
        assert http.post("/run/acme/app", json={"bad": 1}).status_code == 500
        assert http.post("/run/acme/app", json={"bad": 0}).status_code == 200
    fal.reset()
    assert http.post("/run/acme/app", json={"bad": 1}).status_code == 200


def test_fault_of_app_applies_to_its_paths(fal: Emulator, http: httpx.Client) -> None:
    fal.fail("acme/app", Fault(status=503))
    fal.fail("acme/app/path", Fault(status=502))
    assert http.post("/run/acme/app/path", json={}).status_code == 503
    assert http.post("/run/acme/app/path", json={}).status_code == 502


def test_headers_are_added_to_the_real_response(fal: Emulator, http: httpx.Client) -> None:
    fal.fail("acme/app", Fault(headers={"Content-Type": "text/plain", "X-Odd": "1"}))
    response = http.post("/run/acme/app", json={"a": 1})
    assert (response.status_code, response.text) == (200, '{"a":1}')
    assert response.headers.get_list("content-type") == ["text/plain"]
    assert response.headers["x-odd"] == "1"


def test_headers_are_removed_from_the_response(fal: Emulator, http: httpx.Client) -> None:
    fal.fail("acme/app", Fault(route="submit", headers={"X-Fal-Request-Id": None}))
    submitted = http.post("/queue/acme/app", json={})
    assert "x-fal-request-id" not in submitted.headers
    assert "x-fal-request-id" in http.get(submitted.json()["status_url"]).headers


def test_share_of_the_requests_fails(fal: Emulator, http: httpx.Client) -> None:
    def fail(seed: int) -> list[int]:
        fal.reset()
        fal.fail("acme/app", Fault(share=0.2, seed=seed, status=503))
        return [http.post("/run/acme/app", json={}).status_code for _ in range(100)]

    first = fail(1)
    assert set(first) == {200, 503}
    assert 10 <= first.count(503) <= 30
    assert first == fail(1) != fail(2)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_must_be_from_zero_to_one(share: float) -> None:
    with pytest.raises(InvalidRequestError, match="share must be from 0 to 1, got"):
        Fault(share=share)


def test_delayed_response_was_processed(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.fail("acme/app", Fault(route="submit", delay_response=gate))
    with ThreadPoolExecutor(1) as executor:
        response = executor.submit(submit, http)
        wait_for_completed(fal)
        assert not response.done()
        gate.open()
        assert response.result()["status"] == "IN_QUEUE"


def test_edit_changes_the_real_response(fal: Emulator, http: httpx.Client) -> None:
    fal.fail(
        "acme/app",
        Fault(
            route="submit", transform=lambda body: body | {"status_url": "https://evil.example/"}
        ),
        Fault(
            route="status_stream", transform=lambda body: {"status": body["status"], "new": True}
        ),
    )
    submitted = submit(http)
    assert submitted["status_url"] == "https://evil.example/"
    wait_for_completed(fal)
    response = http.get(submitted["response_url"] + "/status/stream")
    assert response.text == 'data: {"status":"COMPLETED","new":true}\n\n'


def test_response_waits_for_the_gate(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.fail("acme/app", Fault(route="run", delay=gate), Fault(route="run", delay=0.0))
    responses: list[httpx.Response] = []

    def call() -> None:
        responses.append(http.post("/run/acme/app", json={"a": 1}))

    thread = threading.Thread(target=call)
    thread.start()
    fal.wait_for(lambda: fal.count("run") == 1)
    assert fal.counters("acme/app").executions == 0
    gate.open()
    thread.join()
    assert responses[0].json() == {"a": 1}
    assert http.post("/run/acme/app", json={}).status_code == 200


@pytest.mark.parametrize("end", [b"", RESET])
def test_dropped_request_is_not_processed(fal: Emulator, end: bytes) -> None:
    fal.fail("acme/app", Fault(drop=True, reset=end == RESET))
    assert send_request(fal, "POST", "/queue/acme/app") == end
    assert fal.jobs == {}
    assert fal.requests[0].status is None


def test_reset_alone_drops_the_request(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(reset=True))
    assert send_request(fal, "POST", "/run/acme/app") == RESET
    assert fal.counters("acme/app").executions == 0


@pytest.mark.parametrize("end", [b"", RESET])
def test_lost_response_keeps_the_job(fal: Emulator, end: bytes) -> None:
    fal.fail("acme/app", Fault(drop_response=True, reset=end == RESET))
    assert send_request(fal, "POST", "/queue/acme/app") == end
    wait_for_completed(fal)
    assert len(fal.jobs) == 1
    assert fal.requests[0].request_id in fal.jobs


@pytest.mark.parametrize("end", [b"", RESET])
def test_garbage_replaces_the_response(fal: Emulator, end: bytes) -> None:
    fal.fail("acme/app", Fault(raw_bytes=b"HTTP/9.9 \x00 what?\r\n", reset=end == RESET))
    assert send_request(fal, "POST", "/run/acme/app") == b"HTTP/9.9 \x00 what?\r\n" + end


def test_long_garbage_arrives_before_the_reset(fal: Emulator) -> None:
    content = bytes(5_000_000)
    fal.fail("acme/app", Fault(raw_bytes=content, reset=True))
    assert send_request(fal, "POST", "/run/acme/app") == content + RESET


@pytest.mark.parametrize("end", [b"", RESET])
@pytest.mark.parametrize("cut", [0, 1, 6, 7])
def test_response_is_truncated_within_its_body(fal: Emulator, cut: int, end: bytes) -> None:
    fal.fail("acme/app", Fault(cut=cut, reset=end == RESET))
    received = send_request(fal, "POST", "/run/acme/app", b'{"a":1}')
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 7" in head
    assert body == b'{"a":1}'[:cut] + end


def test_short_response_is_not_truncated(fal: Emulator, http: httpx.Client) -> None:
    fal.fail("acme/app", Fault(cut=8))
    assert http.post("/run/acme/app", json={"a": 1}).json() == {"a": 1}


@pytest.mark.parametrize("end", [b"", RESET])
def test_stream_is_truncated_within_an_event(fal: Emulator, end: bytes) -> None:
    @fal.endpoint("acme/stream")
    async def stream(arguments: Arguments) -> AsyncGenerator[int]:
        for step in range(1000):
            yield step

    fal.fail("acme/stream", Fault(cut=15, reset=end == RESET))
    received = send_request(fal, "POST", "/run/acme/stream")
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"9\r\ndata: 0\n\n\r\n6\r\ndata: \r\n" + end
    fal.wait_for(lambda: fal.counters("acme/stream").running == 0)


def test_delayed_cut_stalls_the_response(fal: Emulator) -> None:
    gate = fal.gate()
    fal.fail("acme/app", Fault(cut=2, delay=gate))
    with connect(fal) as peer:
        peer.sendall(encode_request(fal, "POST", "/run/acme/app", b'{"a":1}'))
        received = b""
        while not received.endswith(b'\r\n\r\n{"'):
            received += peer.recv(65536)
        peer.settimeout(0.05)
        with pytest.raises(TimeoutError):
            peer.recv(65536)
        peer.settimeout(10)
        gate.open()
        assert peer.recv(65536) == b""


def test_status_stream_is_truncated(fal: Emulator, http: httpx.Client) -> None:
    submitted = submit(http)
    wait_for_completed(fal)
    fal.fail("acme/app", Fault(route="status_stream", cut=20))
    received = send_request(
        fal, "GET", f"/queue/acme/app/requests/{submitted['request_id']}/status/stream", b""
    )
    assert received.endswith(b'\r\n14\r\ndata: {"status":"COM\r\n')


def test_fault_closes_only_its_own_connection(fal: Emulator, http: httpx.Client) -> None:
    assert http.post("/run/acme/app", json={}).status_code == 200
    fal.fail("acme/app", Fault(when=lambda call: "x-drop" in call.headers, reset=True))
    with make_client(fal) as other, pytest.raises(Exception, match=r"reset|disconnected"):
        other.post("/run/acme/app", json={}, headers={"X-Drop": "1"})
    assert http.post("/run/acme/app", json={}).status_code == 200
    assert fal.connections == 1


@pytest.mark.parametrize(
    ("fault", "status", "error_type"),
    [
        (Fault(route="runner", status=500), 500, "runner_server_error"),
        (Fault(route="runner", drop=True, times=None), 503, "runner_disconnected"),
        (Fault(route="runner", cut=3, times=None), 503, "runner_disconnected"),
    ],
)
def test_runner_fault_fails_the_job(
    fal: Emulator, http: httpx.Client, fault: Fault, status: int, error_type: str
) -> None:
    fal.fail("acme/app", fault)
    submitted = submit(http, headers={"X-Fal-No-Retry": "1"})
    wait_for_completed(fal)
    body: dict[str, Any] = http.get(submitted["status_url"]).json()
    assert body["error_type"] == error_type
    assert http.get(submitted["response_url"]).status_code == status


def test_small_responses_are_not_delayed(fal: Emulator, http: httpx.Client) -> None:
    http.get("/")
    assert fal._server is not None
    (connection,) = fal._server.connections
    assert connection._transport is not None
    peer = connection._transport.get_extra_info("socket")
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
