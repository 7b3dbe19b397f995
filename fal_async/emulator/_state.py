"""The state that the hosts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fal_async.emulator._credentials import Tokens
from fal_async.emulator._faults import Faults
from fal_async.emulator._history import History
from fal_async.emulator._jobs import Jobs
from fal_async.emulator._recorder import Recorder
from fal_async.emulator._registry import Registry
from fal_async.emulator._runners.execution import Executor
from fal_async.emulator._runners.threads import DaemonThreads
from fal_async.emulator._scheduler import Scheduler
from fal_async.emulator._storage import FileStore
from fal_async.emulator._webhooks.delivery import WebhookSender
from fal_async.emulator._webhooks.signing import WebhookSigner

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._credentials import Accounts
    from fal_async.emulator._history import Price
    from fal_async.emulator._request import Responder
    from fal_async.emulator._settings import Settings

__all__ = ["PlatformState"]


@dataclass(eq=False)
class PlatformState:
    """The state that the hosts share."""

    settings: Settings
    accounts: Accounts
    registry: Registry = field(default_factory=Registry)
    recorder: Recorder = field(default_factory=Recorder)
    faults: Faults = field(default_factory=Faults)
    threads: DaemonThreads = field(default_factory=DaemonThreads)
    signer: WebhookSigner = field(default_factory=WebhookSigner)
    prices: dict[str, Price] = field(default_factory=dict[str, "Price"])
    cassette: Responder | None = None
    upstream_key: Callable[[], str | None] = field(default=lambda: None, repr=False)
    history: History = field(init=False)
    jobs: Jobs = field(init=False)
    files: FileStore = field(init=False)
    tokens: Tokens = field(init=False)
    executor: Executor = field(init=False)
    scheduler: Scheduler = field(init=False)
    webhooks: WebhookSender = field(init=False)

    def __post_init__(self) -> None:
        self.history = History(self.settings)
        self.jobs = Jobs(self.settings)
        self.files = FileStore(self.settings.clock)
        self.tokens = Tokens(self.settings.clock)
        self.executor = Executor(self.faults, self.recorder, self.history)
        self.scheduler = Scheduler(
            self.settings, self.jobs, self.history, self.recorder, self.executor
        )
        self.webhooks = WebhookSender(
            self.settings, self.signer, self.jobs, self.faults, self.recorder
        )

    async def reset(self) -> None:
        """Cancel all runs, and clear everything but the registered endpoints."""
        await self.webhooks.cancel()
        await self.scheduler.cancel_all()
        self.clear()

    def clear(self) -> None:
        """Clear everything but the registered endpoints while nothing runs."""
        self.faults.clear()
        self.recorder.clear()
        self.accounts.unlock()
        self.jobs.clear()
        self.history.clear()
        self.webhooks.clear()
        self.files.clear()
        for endpoint in self.registry:
            endpoint.counters.clear()

    async def restore(self, endpoints: Registry) -> None:
        """Reset the state, and keep only endpoints of an earlier copy of the registry."""
        await self.reset()
        kept = {runner for endpoint in endpoints for runner in (endpoint.runner, endpoint.socket)}
        for endpoint in self.registry.restore(endpoints):
            self.scheduler.forget(endpoint)
            for runner in {endpoint.runner, endpoint.socket} - kept:
                if runner is not None:
                    await runner.aclose()

    async def aclose(self) -> None:
        """Cancel all runs, and shut the apps down."""
        await self.webhooks.cancel()
        self.scheduler.stop()
        for endpoint in self.registry:
            await endpoint.runner.aclose()
            if endpoint.socket is not None:
                await endpoint.socket.aclose()
