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
    from fal_async.emulator._webhooks.delivery import WebhookDelivery

__all__ = ["InspectionMixin"]


class InspectionMixin:
    """Access to the state of an `Emulator`, and waits for changes."""

    _platform: PlatformState
    _server: Server | None

    @property
    def url(self) -> str:
        """The origin of the emulator."""
        raise NotImplementedError

    @property
    def endpoints(self) -> list[str]:
        """The ids of the registered endpoints, sorted."""
        return sorted(endpoint.id for endpoint in self._platform.registry)

    @property
    def requests(self) -> list[RecordedRequest]:
        """The received requests, oldest first, limited to the latest 10,000."""
        return list(self._platform.recorder.requests)

    @property
    def unexpected_requests(self) -> list[RecordedRequest]:
        """The requests for endpoints that were not registered, oldest first."""
        return list(self._platform.recorder.unexpected)

    @property
    def runner_errors(self) -> list[BaseException]:
        """The exceptions that runners raised, oldest first, except for `AppError`."""
        return list(self._platform.recorder.errors)

    def raise_runner_errors(self) -> None:
        """Raise the first exception that a runner raised, with its traceback, if there is one.

        Callers of the endpoint receive nothing but a 500. The exception is also logged.

        Example:
            >>> import httpx
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     fal.register("acme/app", lambda arguments: arguments["text"])
            ...     headers = {"Authorization": f"Key {fal.key}"}
            ...     response = httpx.post(f"{fal.hosts.run}/acme/app", json={}, headers=headers)
            ...     fal.raise_runner_errors()
            Traceback (most recent call last):
                ...
            KeyError: 'text'
        """
        for error in self.runner_errors:
            raise error

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs of the queue by request id, until they expire."""
        return self._platform.jobs.snapshot()

    @property
    def files(self) -> Mapping[str, StoredFile]:
        """The files on the CDN by URL, oldest first."""
        return self._platform.files.snapshot()

    @property
    def webhooks(self) -> Mapping[str, WebhookDelivery]:
        """The deliveries to webhooks by request id, oldest first, limited to the latest 10,000."""
        return self._platform.webhooks.snapshot()

    @property
    def connections(self) -> int:
        """The number of open client connections."""
        return 0 if self._server is None else len(self._server.connections)

    def counters(self, endpoint_id: str) -> Counters:
        """Return the counters of a registered endpoint. The object keeps counting.

        Raises:
            KeyError: No endpoint is registered under this id.

        Example:
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     fal.register("acme/app", lambda arguments: arguments)
            ...     fal.counters("acme/app").executions
            0
        """
        endpoint = self._platform.registry.get(str(parse_id(endpoint_id)))
        if endpoint is None:
            raise KeyError(endpoint_id)
        return endpoint.counters

    def count(self, route: Route) -> int:
        """Return the number of received requests of a route, for all endpoints together."""
        return self._platform.recorder.routes[route]

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = 10.0) -> None:
        """Block this thread until a condition is true.

        Args:
            predicate: The condition. It is evaluated after every change in the emulator.
            timeout: The maximum time to wait, in seconds. ``None`` disables the timeout.

        Raises:
            TimeoutError: The condition is still false after the timeout.

        Example:
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     fal.wait_for(lambda: fal.connections == 0)
        """
        self._platform.recorder.wait(predicate, timeout, self._describe)

    async def wait_for_async(
        self, predicate: Callable[[], bool], timeout: float | None = 10.0
    ) -> None:
        """Wait until a condition is true, as `wait_for` does, without blocking the event loop.

        Args:
            predicate: The condition. It is evaluated after every change in the emulator.
            timeout: The maximum time to wait, in seconds. ``None`` disables the timeout.

        Raises:
            TimeoutError: The condition is still false after the timeout.
        """
        await self._platform.recorder.wait_async(predicate, timeout, self._describe)

    async def wait_for_counters(
        self, endpoint_id: str, *, timeout: float | None = 10.0, **at_least: int
    ) -> None:
        """Wait until counters of an endpoint have reached given values.

        Args:
            endpoint_id: The endpoint id.
            timeout: The maximum time to wait, in seconds. ``None`` disables the timeout.
            at_least: The values by the names in `Counters`, such as ``executions=1``.

        Raises:
            TimeoutError: The counters have not reached the values after the timeout.
        """
        counters = self.counters(endpoint_id)

        def reached() -> bool:
            return all(getattr(counters, name) >= value for name, value in at_least.items())

        def describe() -> str:
            wanted = " ".join(f"{name}={value}" for name, value in at_least.items())
            return f"waited for {wanted} of {endpoint_id}, but {self._describe()}"

        await self._platform.recorder.wait_async(reached, timeout, describe)

    def _describe(self) -> str:
        """Describe the counters of all endpoints, for the error of a wait."""
        counts = [f"{endpoint.id} has {endpoint.counters}" for endpoint in self._platform.registry]
        missing = sorted({request.endpoint for request in self.unexpected_requests})
        counts += [f"{endpoint_id} is not registered" for endpoint_id in missing]
        return "; ".join(counts) or "no endpoint is registered"

    async def wait_for_webhook(
        self, request_id: str, *, timeout: float | None = 10.0
    ) -> WebhookDelivery:
        """Wait until the delivery of a job to its webhook has ended, and return it.

        Args:
            request_id: The id of the job.
            timeout: The maximum time to wait, in seconds. ``None`` disables the timeout.

        Raises:
            KeyError: There is no such job, or it has no webhook.
            TimeoutError: The delivery has not ended after the timeout.
        """
        delivery = self.webhooks[request_id]

        def describe() -> str:
            statuses = ", ".join(str(attempt.status or "none") for attempt in delivery.attempts)
            return (
                f"the delivery of {request_id} to {delivery.url} is {delivery.state}, "
                f"statuses of its attempts: {statuses or 'no attempt yet'}"
            )

        await self._platform.recorder.wait_async(
            lambda: delivery.state != "pending", timeout, describe
        )
        return delivery

    def store(
        self,
        content: bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        lifecycle: Mapping[str, Any] | None = None,
    ) -> str:
        """Store a file on the CDN, as runners do with their outputs.

        Args:
            content: The content.
            content_type: The media type.
            file_name: The file name. ``None`` chooses one.
            lifecycle: The lifecycle and access rules, as the platform's JSON. ``None`` keeps the
                file and lets everyone read it.

        Returns:
            The URL of the file.

        Example:
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     url = fal.store(b"%PDF", "application/pdf", "report.pdf")
            >>> url.endswith("/report.pdf")
            True
        """
        metadata = FileMetadata(
            content_type=content_type, file_name=file_name, lifecycle=lifecycle or {}
        )
        key = self._platform.files.begin(f"{self.url}/cdn", metadata)
        return self._platform.files.complete(key, content).url

    def cdn_token(self, user: str) -> str:
        """Create a token with which another user reads files, to test access rules.

        Args:
            user: The id of the user in the access rules.
        """
        return self._platform.files.create_token(user)
