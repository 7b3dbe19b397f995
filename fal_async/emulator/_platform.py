"""What all hosts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fal_async.emulator._faults import Faults
from fal_async.emulator._files import Files
from fal_async.emulator._jobs import Jobs
from fal_async.emulator._record import Record
from fal_async.emulator._registry import Registry
from fal_async.emulator._scheduler import Scheduler
from fal_async.emulator._threads import Threads
from fal_async.emulator._tokens import Tokens

if TYPE_CHECKING:
    from fal_async.emulator._auth import Accounts
    from fal_async.emulator._settings import Settings


@dataclass(eq=False)
class Platform:
    """The state behind the gateway."""

    settings: Settings
    accounts: Accounts
    registry: Registry = field(default_factory=Registry)
    record: Record = field(default_factory=Record)
    faults: Faults = field(default_factory=Faults)
    threads: Threads = field(default_factory=Threads)
    jobs: Jobs = field(init=False)
    files: Files = field(init=False)
    tokens: Tokens = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.settings.clock)
        self.files = Files(self.settings.clock)
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
