"""`Webhooks` in blocking code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fal_async import InvalidInputError, InvalidWebhookSignatureError
from fal_async.sync import SyncClient, SyncResult, SyncWebhookEvent, Webhooks
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
