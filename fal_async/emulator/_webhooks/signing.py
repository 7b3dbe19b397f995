"""Signatures of webhooks: the key pair of an emulator, and what it signs."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["SignedWebhook"]


@dataclass(frozen=True, slots=True)
class SignedWebhook:
    """A request as the platform sends it to a webhook. `Emulator.sign` makes it.

    Attributes:
        headers: The headers, with the four that verification requires.
        body: The body, byte for byte as it is sent.

    Example:
        >>> from fal_async.emulator import Emulator
        >>> signed = Emulator().sign({"images": []}, request_id="764cabcf")
        >>> signed.headers["X-Fal-Webhook-Request-Id"]
        '764cabcf'
    """

    headers: dict[str, str]
    body: bytes


class WebhookSigner:
    """Signs webhooks with a key pair of its own, which is made when it is first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Ed25519PrivateKey | None = None

    def sign(self, body: bytes, *, request_id: str, user_id: str, timestamp: int) -> SignedWebhook:
        """Return the request with this body.

        Args:
            body: The body.
            request_id: The request id.
            user_id: The id of the account.
            timestamp: The time of signing, in seconds since 1970.

        Raises:
            ImportError: The package cryptography is not installed.
        """
        digest = hashlib.sha256(body).hexdigest()
        message = "\n".join([request_id, user_id, str(timestamp), digest])
        headers = {
            "Content-Type": "application/json",
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": str(timestamp),
            "X-Fal-Webhook-Signature": self._private_key().sign(message.encode()).hex(),
        }
        return SignedWebhook(headers, body)

    def key_set(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key as a JSON Web Key Set.

        Raises:
            ImportError: The package cryptography is not installed.
        """
        public = self._private_key().public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}

    def _private_key(self) -> Ed25519PrivateKey:
        try:
            # An optional dependency, which takes 0.1 s to import.
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise ImportError(
                'signed webhooks require cryptography: pip install "fal-async[webhooks]"'
            ) from error
        with self._lock:  # threads that sign at once must not make two keys
            if self._key is None:
                self._key = Ed25519PrivateKey.generate()
            return self._key
