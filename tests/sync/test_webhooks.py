"""`Webhooks` in blocking code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fal_async import InvalidInputError, InvalidRequestError, InvalidWebhookSignatureError
from fal_async.sync import SyncClient, SyncResult, SyncWebhookEvent, Webhooks, missed
from tests.support.http import echo, gated_echo
from tests.support.webhooks import JOB

if TYPE_CHECKING:
    from fal_async.emulator import Emulator


def test_blocking_callback_is_verified(fal: Emulator) -> None:
    with SyncClient(fal.key, hosts=fal.hosts) as client:
        webhooks = Webhooks(client)
        url = client.upload(b"pixels", "image/png")
        signed = fal.sign({"image": {"url": url}}, request_id=JOB)
        webhooks.verify_signature(signed.body, signed.headers)
        event = webhooks.unwrap(signed.body, signed.headers)
        assert (event.request_id, event.user_id) == (JOB, fal.user_id)
        result = event.result()
        assert isinstance(result, SyncResult)
        assert [file.read() for file in result.files()] == [b"pixels"]
        assert event.handle(client, "acme/draw").request_id == JOB


def test_blocking_callback_may_be_refused(fal: Emulator) -> None:
    with SyncClient(fal.key, hosts=fal.hosts) as client:
        webhooks = Webhooks(client)
        forged = fal.sign({}, tampered=True)
        with pytest.raises(InvalidWebhookSignatureError):
            webhooks.unwrap(forged.body, forged.headers)
        failed = fal.sign({"detail": [{"msg": "no"}]}, error="Invalid status code: 422")
        with pytest.raises(InvalidInputError):
            webhooks.unwrap(failed.body, failed.headers).result()


def test_default_client_verifies_too(fal: Emulator) -> None:
    webhooks = Webhooks(user_id=fal.user_id, jwks_url=f"{fal.hosts.rest}/.well-known/jwks.json")
    signed = fal.sign({"seed": 7})
    event = webhooks.unwrap(signed.body, signed.headers)
    assert event == SyncWebhookEvent.parse(signed.body, user_id=fal.user_id)
    assert event.result() == {"seed": 7}


def test_blocking_code_finds_missed_jobs(fal: Emulator) -> None:
    gate = fal.gate()
    fal.register("acme/echo", echo)
    fal.register("acme/held", gated_echo(gate))
    with SyncClient(fal.key, hosts=fal.hosts) as client:
        handles = [client.submit("acme/echo", {"number": number}) for number in range(2)]
        for handle in handles:
            handle.get()
        running = client.submit("acme/held", {})
        with SyncClient(fal.key, hosts=fal.hosts) as other:
            theirs = other.attach(handles[1])
            assert list(missed([handles[0], running, theirs])) == [handles[0], theirs]
        [found] = missed([handles[1].to_dict(), running], client=client)
        assert found.get() == {"number": 1}
        wrong: Any = 7
        with pytest.raises(InvalidRequestError, match="must be a mapping, got 7"):
            next(missed([wrong]))
        gate.open()
