"""Receivers and the dependency behind real servers and frameworks."""

from __future__ import annotations

import ssl
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from fal_async import AsyncClient, PooledTransport
from fal_async.emulator._webhooks import delivery
from fal_async.webhooks import WebhookEvent, WebhookReceiver, Webhooks
from tests.support.http import echo
from tests.support.servers import authority, serve_with_hypercorn, serve_with_uvicorn
from tests.support.webhooks import JOB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trustme

    from fal_async.emulator import Emulator
    from fal_async.emulator._webhooks.signing import SignedWebhook

__all__ = ["authority"]


def post(url: str, signed: SignedWebhook) -> httpx.Response:
    return httpx.post(url, content=signed.body, headers=signed.headers, timeout=20)


class Service:
    """A receiver with a client of its own."""

    def __init__(self, fal: Emulator) -> None:
        self.events: list[WebhookEvent] = []
        self.webhooks = Webhooks(AsyncClient(fal.key, hosts=fal.hosts), max_body=10_000)
        self.receiver = WebhookReceiver(self.on_event, webhooks=self.webhooks)

    async def on_event(self, event: WebhookEvent) -> None:
        self.events.append(event)


@pytest.fixture
def service(fal: Emulator) -> Service:
    return Service(fal)


@pytest.fixture(params=["uvicorn", "hypercorn"])
def bare_url(request: pytest.FixtureRequest, service: Service) -> Iterator[str]:
    run = serve_with_uvicorn(service.receiver, "on") if request.param == "uvicorn" else None
    with run or serve_with_hypercorn(service.receiver) as url:
        yield url


def test_receiver_is_a_whole_app(fal: Emulator, service: Service, bare_url: str) -> None:
    for _ in range(2):
        assert post(bare_url, fal.sign({"seed": 7}, request_id=JOB)).status_code == 200
    assert [event.result() for event in service.events] == [{"seed": 7}]
    assert post(bare_url, fal.sign({}, tampered=True)).status_code == 401
    assert post(bare_url, fal.sign({"text": "x" * 10_000})).status_code == 413
    assert httpx.get(bare_url).status_code == 405


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_callback_arrives_over_https(
    fal: Emulator,
    client: AsyncClient,
    service: Service,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(delivery, "_default_tls_context", lambda: trusting)
    certificate = tmp_path / "server.pem"
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    fal.register("acme/echo", echo)
    with serve_with_uvicorn(service.receiver, "on", certificate) as url:
        handle = await client.submit("acme/echo", {"seed": 7}, webhook_url=url)
        delivered = await fal.wait_for_webhook(handle.request_id)
    assert [attempt.status for attempt in delivered.attempts] == [200]
    assert [event.result() for event in service.events] == [{"seed": 7}]


def test_receiver_is_a_route_of_starlette(fal: Emulator, service: Service) -> None:
    app = Starlette(routes=[Route("/hooks/fal", service.receiver)])
    with serve_with_uvicorn(app) as url:
        assert post(f"{url}/hooks/fal", fal.sign({"seed": 7})).status_code == 200
        assert httpx.get(f"{url}/hooks/fal").status_code == 405
    assert len(service.events) == 1


def test_receiver_is_a_route_of_fastapi(fal: Emulator, service: Service) -> None:
    app = FastAPI()
    app.add_route("/hooks/fal", service.receiver)  # type: ignore[arg-type]  # an ASGI app, which works
    with serve_with_hypercorn(app) as url:
        assert post(f"{url}/hooks/fal", fal.sign({"seed": 7})).status_code == 200
        assert post(f"{url}/hooks/fal", fal.sign({}, age=400)).status_code == 401
    assert len(service.events) == 1


def test_event_is_a_dependency_of_fastapi(fal: Emulator, service: Service) -> None:
    app = FastAPI()
    verified = Depends(service.webhooks.event)

    @app.post("/hooks/fal")
    async def receive(event: WebhookEvent = verified) -> dict[str, Any]:
        return {"job": event.request_id, "result": event.result()}

    with serve_with_uvicorn(app) as url:
        hook = f"{url}/hooks/fal"
        response = post(hook, fal.sign({"seed": 2**64 - 1}, request_id=JOB))
        assert response.json() == {"job": JOB, "result": {"seed": 2**64 - 1}}
        statuses = {
            name: post(hook, signed).status_code
            for name, signed in {
                "tampered": fal.sign({}, tampered=True),
                "foreign": fal.sign({}, user_id="user_attacker"),
                "stale": fal.sign({}, age=301),
                "no event": fal.sign(b"{}"),
                "large": fal.sign({"text": "x" * 10_000}),
            }.items()
        }
        assert statuses == dict.fromkeys(["tampered", "foreign", "stale"], 401) | {
            "no event": 400,
            "large": 413,
        }
        assert httpx.post(hook).json() == {"detail": "the signature is invalid"}
    assert app.openapi()["paths"]["/hooks/fal"]["post"].get("parameters") is None


@pytest.mark.slow
async def test_1000_callbacks_at_once_are_handled_once(fal: Emulator, service: Service) -> None:
    signed = [fal.sign({"number": number}, request_id=f"job-{number}") for number in range(500)]
    statuses: Counter[int] = Counter()
    transport = PooledTransport()  # the pool of httpx takes minutes for so many requests
    with serve_with_uvicorn(service.receiver, "on") as url:
        async with httpx.AsyncClient(timeout=60, transport=transport) as http:

            async def send(one: SignedWebhook) -> None:
                response = await http.post(url, content=one.body, headers=one.headers)
                statuses[response.status_code] += 1

            async with anyio.create_task_group() as group:
                for one in [*signed, *signed]:
                    group.start_soon(send, one)
    assert statuses.keys() <= {200, 503}
    assert statuses.total() == 1000
    assert Counter(event.request_id for event in service.events) == {
        f"job-{number}": 1 for number in range(500)
    }
    requests = [request.path for request in fal.requests]
    assert sum(path.endswith("jwks.json") for path in requests) == 1
    assert sum(path.endswith("users/current") for path in requests) == 1
