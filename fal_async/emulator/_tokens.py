"""Short-lived tokens for WebSockets and streams: JWTs signed by the emulator."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Any

from fal_async.emulator._json import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fal_async.emulator._registry import CalledId

_HEADER = {"alg": "HS256", "typ": "JWT"}


class Tokens:
    """Creates and verifies tokens. Tokens are not stored: each contains its own claims."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The clock may count from any time, but a token expires at a Unix time.
        self._offset = time.time() - clock()
        self._secret = secrets.token_bytes(32)

    def create(self, apps: Sequence[str], seconds: float) -> str:
        """Create a token for apps, each an alias or an endpoint id with or without a path."""
        now = self._now()
        claims = {"allowed_apps": list(apps), "iat": int(now), "exp": now + seconds}
        content = f"{_encode_segment(encode(_HEADER))}.{_encode_segment(encode(claims))}"
        return f"{content}.{self._sign(content)}"

    def is_valid_for(self, token: str, called: CalledId) -> bool:
        """Return whether a token is valid now, for this app."""
        content, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return False
        segment = content.partition(".")[2]
        padded = segment + "=" * (-len(segment) % 4)
        claims: dict[str, Any] = decode(base64.urlsafe_b64decode(padded))
        if self._now() >= claims["exp"]:
            return False
        allowed = [app.strip("/") for app in claims["allowed_apps"]]
        return called.alias in allowed or any(
            "/" in app and f"{called}/".startswith(f"{app}/") for app in allowed
        )

    def revoke(self) -> None:
        """Invalidate all tokens that were created."""
        self._secret = secrets.token_bytes(32)

    def _now(self) -> float:
        return self._clock() + self._offset

    def _sign(self, content: str) -> str:
        return _encode_segment(hmac.digest(self._secret, content.encode(), hashlib.sha256))


def _encode_segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
