"""Signed webhooks for unit tests, the keys that verify them, and the account they belong to."""

from __future__ import annotations

import json
import sys
import time

import httpx
import pytest
from cryptography.exceptions import InvalidSignature

from fal_async.emulator import Emulator
from tests.support.signatures import PREFIX, fetch_key, verify


def test_signature_is_valid_for_the_key_set(fal: Emulator) -> None:
    before = int(time.time())
    signed = fal.sign({"b": 1.5, "a": ["ü"]}, request_id="764cabcf")
    verify(fetch_key(fal), signed.headers, signed.body)
    assert signed.body == (
        b'{"error": null, "gateway_request_id": "764cabcf", "payload": {"a": ["\\u00fc"], '
        b'"b": 1.5}, "request_id": "764cabcf", "status": "OK"}'
    )
    assert signed.headers[f"{PREFIX}User-Id"] == fal.user_id
    assert before <= int(signed.headers[f"{PREFIX}Timestamp"]) <= time.time()


def test_failed_jobs_are_signed_too(fal: Emulator) -> None:
    signed = fal.sign({"detail": "no"}, error="Invalid status code: 422")
    verify(fetch_key(fal), signed.headers, signed.body)
    body = json.loads(signed.body)
    assert (body["status"], body["error"]) == ("ERROR", "Invalid status code: 422")
    assert body["payload"] == {"detail": "no"}
    assert body["request_id"] == signed.headers[f"{PREFIX}Request-Id"]


@pytest.mark.parametrize("payload", [b"", b"no JSON", {"a": 1}])
def test_tampered_body_has_a_wrong_signature(fal: Emulator, payload: object) -> None:
    signed = fal.sign(payload, tampered=True)
    with pytest.raises(InvalidSignature):
        verify(fetch_key(fal), signed.headers, signed.body)


def test_age_and_user_id_are_signed(fal: Emulator) -> None:
    signed = fal.sign(b"raw", user_id="user_other", age=301)
    verify(fetch_key(fal), signed.headers, signed.body)
    assert signed.body == b"raw"
    assert signed.headers[f"{PREFIX}User-Id"] == "user_other"
    assert int(signed.headers[f"{PREFIX}Timestamp"]) <= time.time() - 300


def test_each_emulator_has_its_own_keys(fal: Emulator) -> None:
    with Emulator() as other:
        signed = other.sign({})
        verify(fetch_key(other), signed.headers, signed.body)
    with pytest.raises(InvalidSignature):
        verify(fetch_key(fal), signed.headers, signed.body)


def test_output_without_json_form_is_named(fal: Emulator) -> None:
    body = json.loads(fal.sign({"score": float("nan")}).body)
    assert (body["status"], body["payload"]) == ("OK", None)
    assert body["payload_error"].startswith("Response payload is not JSON serializable.")


def test_missing_cryptography_is_named(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ImportError, match=r"fal-async\[webhooks\]"):
        fal.sign({})
    response = httpx.get(f"{fal.url}/rest/.well-known/jwks.json")
    assert response.status_code == 501
    assert "fal-async[webhooks]" in response.json()["detail"]


def test_current_user_is_the_owner_of_the_key(fal: Emulator, http: httpx.Client) -> None:
    assert httpx.get(f"{fal.url}/rest/users/current").status_code == 401
    user = http.get("/rest/users/current").json()
    assert (user["user_id"], user["is_locked"]) == (fal.user_id, False)
    fal.lock("Exhausted balance.")
    user = http.get("/rest/users/current").json()
    assert (user["is_locked"], user["lock_reason"]) == (True, "Exhausted balance.")
    assert (fal.count("user"), http.post("/rest/users/current").status_code) == (3, 405)


def test_user_id_can_be_chosen() -> None:
    assert Emulator(user_id="user_2abcDEF").user_id == "user_2abcDEF"
    assert Emulator().user_id != Emulator().user_id
