"""Inspection for tests: requests, jobs, counters, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async.emulator._registry import parse_id
from fal_async.emulator._storage import FileMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Counters, RecordedRequest, Route
    from fal_async.emulator._server.http import Server
    from fal_async.emulator._state import PlatformState
    from fal_async.emulator._storage import StoredFile

__all__ = ["FileKeeper", "InspectionMixin"]


class FileKeeper:
    """The part of an `Emulator` that keeps files."""

    _platform: PlatformState

    @property
    def url(self) -> str:
        """The origin of the emulator."""
        raise NotImplementedError

    @property
    def files(self) -> Mapping[str, StoredFile]:
        """The files on the CDN by URL, oldest first."""
        return self._platform.files.snapshot()

    def store(
        self,
        content: bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        lifecycle: Mapping[str, Any] | None = None,
    ) -> str:
        """Put a file on the CDN, as runners do with what they produce; gives its URL.

        Args:
            content: Its bytes.
            content_type: Its media type.
            file_name: Its name; ``None`` for any.
            lifecycle: How long it lives and who may read it, in the platform's JSON; ``None`` for
                ever and for everyone.
        """
        label = FileMetadata(
            content_type=content_type, file_name=file_name, lifecycle=lifecycle or {}
        )
        key = self._platform.files.expect(f"{self.url}/cdn", label)
        return self._platform.files.keep(key, content).url

    def cdn_token(self, user: str) -> str:
        """A token with which somebody else than the account reads files, for rules about users."""
        return self._platform.files.mint(user)


class InspectionMixin:
    """The half of an `Emulator` that looks."""

    _platform: PlatformState
    _server: Server | None

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests that arrived, oldest first: the latest ten thousand of them."""
        return list(self._platform.record.requests)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs of the queue by request id, as long as they are kept."""
        return self._platform.jobs.snapshot()

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return 0 if self._server is None else len(self._server.connections)

    def counters(self, endpoint_id: str) -> Counters:
        """What happened at a registered endpoint so far; the object goes on counting.

        Raises:
            KeyError: Nothing is registered under this id.
        """
        endpoint = self._platform.registry.get(str(parse_id(endpoint_id)))
        if endpoint is None:
            raise KeyError(endpoint_id)
        return endpoint.counters

    def count(self, route: Route) -> int:
        """How many requests of a route arrived, for whatever endpoint."""
        return self._platform.record.routes[route]

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = 10.0) -> None:
        """Block this thread until something is so.

        Args:
            predicate: Asked again whenever something happened.
            timeout: How many seconds to wait at most; ``None`` for ever.

        Raises:
            TimeoutError: It did not come to be so in time.
        """
        self._platform.record.wait(predicate, timeout)

    async def wait_for_async(
        self, predicate: Callable[[], bool], timeout: float | None = 10.0
    ) -> None:
        """`wait_for`, without blocking the event loop that this is awaited in."""
        await self._platform.record.wait_async(predicate, timeout)

    async def wait_for_counters(
        self, endpoint_id: str, *, timeout: float | None = 10.0, **at_least: int
    ) -> None:
        """Wait until an endpoint's counters are so high, or higher.

        Args:
            endpoint_id: The endpoint.
            timeout: How many seconds to wait at most; ``None`` for ever.
            at_least: What to wait for, by the names of `Counters`, such as ``executions=1``.

        Raises:
            TimeoutError: They were not in time.
        """
        counters = self.counters(endpoint_id)

        def high_enough() -> bool:
            return all(getattr(counters, name) >= value for name, value in at_least.items())

        await self.wait_for_async(high_enough, timeout)
