"""Callbacks for tests: the vectors, and a server of keys that can misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.raw_server import RawServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.raw_server import RawConnection

VECTORS = Path(__file__).parents[1] / "data" / "webhooks.json"
JOB = "764cabcf-b745-4b3e-ae38-1200304cf45b"
#: The time at which the vectors were signed, in seconds of Unix time.
SIGNED_AT = 1764400000


@cache
def vectors() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))
    return data


def vector(name: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a vector."""
    [case] = [case for case in vectors()["cases"] if case["name"] == name]
    return base64.b64decode(case["body_base64"]), dict(case["headers"])


class Clock:
    """A clock that tests set."""

    def __init__(self, now: float = SIGNED_AT + 10.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Signer:
    """A key pair that signs callbacks as the platform does."""

    def __init__(self, seed: int = 100) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(range(seed, seed + 32)))

    @property
    def jwk(self) -> dict[str, str]:
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw())
        return {"kty": "OKP", "crv": "Ed25519", "x": x.decode().rstrip("=")}

    def sign(
        self, body: bytes, *, request_id: str = JOB, user_id: str = "user_own", at: int = SIGNED_AT
    ) -> dict[str, str]:
        """Return the headers of a callback."""
        lines = [request_id, user_id, str(at), hashlib.sha256(body).hexdigest()]
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": str(at),
            "X-Fal-Webhook-Signature": self._key.sign("\n".join(lines).encode()).hex(),
        }


class KeyServer:
    """A server whose one response tests set.

    Attributes:
        response: The bytes of the response; empty to disconnect instead.
        requests: The requests, as bytes.
    """

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.response = b""
        self.serve(Signer())
        self._server = RawServer(self._script)

    @property
    def url(self) -> str:
        return f"{self._server.url}keys"

    def serve(self, *signers: Signer) -> None:
        """Respond with the keys of these signers."""
        self.respond(200, json.dumps({"keys": [signer.jwk for signer in signers]}).encode())

    def respond(self, status: int, body: bytes, headers: str = "") -> None:
        """Respond with this status, body and additional headers, each with its line end."""
        head = f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.response = head.encode() + body

    def pause(self) -> None:
        """Hold new connections until `resume` is called."""
        self._server.pause()

    def resume(self) -> None:
        """Handle the connections that were held."""
        self._server.resume()

    def _script(self, connection: RawConnection) -> None:
        while request := connection.request():
            self.requests.append(request)
            if not self.response:
                return
            connection.send(self.response)


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """Run a server of keys."""
    server = KeyServer()
    with server._server:
        yield server
