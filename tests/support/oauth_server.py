"""A login for tests: its directory, its token server, and a clock."""

from __future__ import annotations

import base64
import fcntl
import json
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async._auth.credentials import Credentials
from fal_async._core.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fal_async._auth.login import FormPoster

NOW = 1_800_000_000.0


def jwt(name: str, exp: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": exp, "name": name}).encode())
    return f"e30.{claims.decode().rstrip('=')}.sig"


class Held:
    """The pause of a token server.

    Attributes:
        asked: Set when a request has arrived.
        may_answer: Set by the test to end the pause.
    """

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.may_answer = anyio.Event()


class Issuer:
    """A token server: a refresh token is valid once, an access token for a day."""

    def __init__(self) -> None:
        self.status = 200
        self.forms: list[Mapping[str, str]] = []
        self.held: Held | None = None

    async def __call__(self, url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        assert url == "https://auth.fal.ai/oauth/token"
        used = any(form["refresh_token"] == fields["refresh_token"] for form in self.forms)
        self.forms.append(dict(fields))
        if self.held is not None:
            self.held.asked.set()
            await self.held.may_answer.wait()
        status = 403 if used else self.status
        if status != 200:
            return status, b'{"error":"invalid_grant"}'
        serial = len(self.forms)
        response = {"access_token": self.access(serial), "refresh_token": f"refresh-{serial}"}
        return 200, json.dumps(response).encode()

    def hold(self) -> Held:
        """Pause all further responses."""
        self.held = Held()
        return self.held

    @staticmethod
    def access(serial: int) -> str:
        return jwt(f"access-{serial}", NOW + serial * 86_400)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def log_in(directory: Path, refresh: str = "refresh-0", access: str | None = None) -> Path:
    """Write the file of ``fal auth login``."""
    file = directory / "auth0_token"
    file.write_text("\n".join(filter(None, (refresh, access))))
    return file


def credentials_of(
    directory: Path, post_form: FormPoster | None, clock: Callable[[], float] | None = None
) -> Credentials:
    """Return credentials whose only source is the login in a directory."""
    environ = {"FAL_HOME_DIR": str(directory)}
    return Credentials(post_form=post_form, environ=environ, clock=clock or Clock())


def at_once(credentials: Credentials) -> str:
    """Return the header value, which must not require waiting: there is no event loop."""
    with pytest.raises(StopIteration) as stopped:
        credentials.authorization().send(None)
    value = stopped.value.value
    assert isinstance(value, Secret)
    return value.reveal()


def lock_is_free(fal_home: Path) -> bool:
    with (fal_home / ".portalock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
