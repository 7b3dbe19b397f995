"""Shared state of the hosts."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fal_async.emulator._faults import Faults
from fal_async.emulator._jobs import Jobs
from fal_async.emulator._recorder import Recorder
from fal_async.emulator._registry import Registry
from fal_async.emulator._responses import error_response
from fal_async.emulator._runners.threads import DaemonThreads
from fal_async.emulator._scheduler import Scheduler
from fal_async.emulator._storage import FileStore
from fal_async.emulator._tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._responses import Response

__all__ = []


class Accounts:
    """The credentials that are accepted; all of them belong to one account.

    Attributes:
        key: The API key of the account.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._accepted = {("key", key)}
        self._lock_reason: str | None = None

    def accept_key(self, key: str) -> None:
        """Accept an API key."""
        self._accepted.add(("key", key))

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login."""
        self._accepted.add(("bearer", token))

    def lock(self, reason: str | None) -> None:
        """Let the account start nothing, for this reason; ``None`` lets it again."""
        self._lock_reason = reason

    def reject_reason(
        self, authorization: str | None, app: str, *, private: bool
    ) -> Response | None:
        """Why this caller may not call this app; ``None`` when it may."""
        if authorization is None:
            return error_response(401, f'Cannot access application "{app}"') if private else None
        scheme, _, credentials = authorization.partition(" ")
        if (scheme.lower(), credentials.strip()) in self._accepted:
            return None
        if scheme.lower() == "bearer":
            return error_response(401, "bearer: unable to decode issuer")
        return error_response(401, "invalid key credentials")

    def locked(self) -> Response | None:
        """Why nothing may be started; ``None`` when something may."""
        if self._lock_reason is None:
            return None
        return error_response(403, f"User is locked. Reason: {self._lock_reason}")


@dataclass(eq=False)
class PlatformState:
    """The state behind the gateway."""

    settings: Settings
    accounts: Accounts
    registry: Registry = field(default_factory=Registry)
    record: Recorder = field(default_factory=Recorder)
    faults: Faults = field(default_factory=Faults)
    threads: DaemonThreads = field(default_factory=DaemonThreads)
    jobs: Jobs = field(init=False)
    files: FileStore = field(init=False)
    tokens: Tokens = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.settings.clock)
        self.files = FileStore(self.settings.clock)
        self.tokens = Tokens(self.settings.clock)
        self.scheduler = Scheduler(self)

    async def reset(self) -> None:
        """Cancel whatever runs; forget what happened and what was scripted."""
        await self.scheduler.cancel_all()
        self.clear()

    def clear(self) -> None:
        """Forget what happened and what was scripted, while nothing runs."""
        self.faults.clear()
        self.record.clear()
        self.accounts.lock(None)
        self.jobs.clear()
        self.files.clear()
        for endpoint in self.registry:
            endpoint.counters.clear()

    async def aclose(self) -> None:
        """Cancel whatever runs, and shut the apps down."""
        self.scheduler.stop()
        for endpoint in self.registry:
            await endpoint.runner.aclose()
            if endpoint.socket is not None:
                await endpoint.socket.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the platform's behaviour depends on; `Emulator` documents each."""

    concurrency: int | None = None
    attempts: int = 10
    backoff: float = 0.01
    keep_alive: float = 15.0
    log_window: int | None = None
    bandwidth: float | None = None
    compression: bool = False
    clock: Callable[[], float] = time.monotonic
    allow_origins: frozenset[str] = frozenset()

    def allows(self, origin: str) -> bool:
        """Whether web pages of an origin may call; those of this machine always may."""
        if origin in self.allow_origins or "*" in self.allow_origins:
            return True
        try:
            host = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
