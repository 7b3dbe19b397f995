"""Short-lived tokens that open sockets: JWTs of the emulator's own."""

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
    """The tokens that were given out. They are not kept: each says itself what it is good for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The platform's clock may be any; the expiry of a token is in seconds of Unix time.
        self._offset = time.time() - clock()
        self._secret = secrets.token_bytes(32)

    def create(self, apps: Sequence[str], seconds: float) -> str:
        """A token for these apps, each an alias or an id with or without a path."""
        now = self._now()
        claims = {"allowed_apps": list(apps), "iat": int(now), "exp": now + seconds}
        content = f"{_segment(encode(_HEADER))}.{_segment(encode(claims))}"
        return f"{content}.{self._signature(content)}"

    def is_valid_for(self, token: str, called: CalledId) -> bool:
        """Whether a token opens a socket of this app now."""
        content, _, signature = token.rpartition(".")
        genuine = self._signature(content)
        if not hmac.compare_digest(signature.encode(), genuine.encode()):
            return False
        claims: dict[str, Any] = decode(_bytes_of(content.partition(".")[2]))
        in_time = self._now() < claims["exp"]
        return in_time and any(_covers(app, called) for app in claims["allowed_apps"])

    def revoke(self) -> None:
        """Let no token that was given out be good for anything."""
        self._secret = secrets.token_bytes(32)

    def _now(self) -> float:
        return self._clock() + self._offset

    def _signature(self, content: str) -> str:
        return _segment(hmac.digest(self._secret, content.encode(), hashlib.sha256))


def _covers(allowed: str, called: CalledId) -> bool:
    allowed = allowed.strip("/")
    if "/" not in allowed:
        return called.alias == allowed
    return f"{called}/".startswith(f"{allowed}/")


def _segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes_of(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
