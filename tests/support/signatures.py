"""Verification of webhooks as the documentation of the platform describes it."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator import Emulator

PREFIX = "X-Fal-Webhook-"


def fetch_key(fal: Emulator) -> Ed25519PublicKey:
    """Return the only key of an emulator's key set."""
    (key,) = httpx.get(f"{fal.url}/rest/.well-known/jwks.json").raise_for_status().json()["keys"]
    assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
    assert not key["x"].endswith("=")
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))


def verify(key: Ed25519PublicKey, headers: Mapping[str, str], body: bytes) -> None:
    """Verify a signature, or raise InvalidSignature."""
    names = ["Request-Id", "User-Id", "Timestamp"]
    lines = [*(headers[PREFIX + name] for name in names), hashlib.sha256(body).hexdigest()]
    key.verify(bytes.fromhex(headers[f"{PREFIX}Signature"]), "\n".join(lines).encode())
