"""The state that the hosts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fal_async.emulator._faults import Faults
from fal_async.emulator._jobs import Jobs
from fal_async.emulator._recorder import Recorder
from fal_async.emulator._registry import Registry
from fal_async.emulator._responses import error_response
from fal_async.emulator._runners.execution import Executor
from fal_async.emulator._runners.threads import DaemonThreads
from fal_async.emulator._scheduler import Scheduler
from fal_async.emulator._storage import FileStore
from fal_async.emulator._tokens import Tokens

if TYPE_CHECKING:
    from fal_async.emulator._responses import Response
    from fal_async.emulator._settings import Settings

__all__ = ["Accounts", "PlatformState"]


class Accounts:
    """The accepted credentials. All of them belong to one account.

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
        """Lock the account for this reason; ``None`` unlocks it."""
        self._lock_reason = reason

    def reject_reason(
        self, authorization: str | None, app: str, *, private: bool
    ) -> Response | None:
        """Return the error response for credentials that are not valid.

        Args:
            authorization: The value of the ``Authorization`` header, or ``None``.
            app: The app of the request, for the message.
            private: Whether credentials are required.
        """
        if authorization is None:
            return error_response(401, f'Cannot access application "{app}"') if private else None
        scheme, _, credentials = authorization.partition(" ")
        if (scheme.lower(), credentials.strip()) in self._accepted:
            return None
        if scheme.lower() == "bearer":
            return error_response(401, "bearer: unable to decode issuer")
        return error_response(401, "invalid key credentials")

    def reject_locked(self) -> Response | None:
        """Return the error response of a locked account, or ``None`` if it is not locked."""
        if self._lock_reason is None:
            return None
        return error_response(403, f"User is locked. Reason: {self._lock_reason}")


@dataclass(eq=False)
class PlatformState:
    """The state that the hosts share."""

    settings: Settings
    accounts: Accounts
    registry: Registry = field(default_factory=Registry)
    recorder: Recorder = field(default_factory=Recorder)
    faults: Faults = field(default_factory=Faults)
    threads: DaemonThreads = field(default_factory=DaemonThreads)
    jobs: Jobs = field(init=False)
    files: FileStore = field(init=False)
    tokens: Tokens = field(init=False)
    executor: Executor = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.settings.clock)
        self.files = FileStore(self.settings.clock)
        self.tokens = Tokens(self.settings.clock)
        self.executor = Executor(self.faults, self.recorder)
        self.scheduler = Scheduler(self.settings, self.jobs, self.recorder, self.executor)

    async def reset(self) -> None:
        """Cancel all runs, and clear everything but the registered endpoints."""
        await self.scheduler.cancel_all()
        self.clear()

    def clear(self) -> None:
        """Clear everything but the registered endpoints while nothing runs."""
        self.faults.clear()
        self.recorder.clear()
        self.accounts.lock(None)
        self.jobs.clear()
        self.files.clear()
        for endpoint in self.registry:
            endpoint.counters.clear()

    async def aclose(self) -> None:
        """Cancel all runs, and shut the apps down."""
        self.scheduler.stop()
        for endpoint in self.registry:
            await endpoint.runner.aclose()
            if endpoint.socket is not None:
                await endpoint.socket.aclose()
