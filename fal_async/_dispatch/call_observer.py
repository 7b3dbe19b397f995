"""`CallObserver`: receives the steps of one call, and ignores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._core.status import Status
    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async._protocol.retry import NetworkFailure

__all__ = ["NO_OBSERVER", "CallObserver"]


class CallObserver:
    """Receives the steps of a call without hooks; `HookObserver` reports them to hooks.

    Attributes:
        traceparent: The trace context of the call, which the handle of its job keeps; ``None``
            without one.
    """

    traceparent: str | None = None

    def trace_headers(self) -> Mapping[str, str]:
        """Return the trace headers of requests to the app of the call."""
        return {}

    def wait_for_slot(self, limit: str) -> None:
        """Begin to wait for a slot of a limit."""

    def acquire_slot(self, limit: str, seconds: float) -> None:
        """Acquire a slot after a wait of some seconds."""

    def start_attempt(self, operation: Operation[Any], url: str) -> None:
        """Start an attempt to send the request of an operation to a URL."""

    def start_response(self, operation: Operation[Any], response: StreamedResponse) -> None:
        """Receive the status and the headers of a response."""

    def fail_attempt(self, operation: Operation[Any], failure: NetworkFailure) -> None:
        """Fail an attempt, which had no complete response."""

    def receive(self, operation: Operation[Any], response: Response) -> None:
        """Receive a response with its body."""

    def receive_bytes(self, count: int) -> None:
        """Receive a part of a streamed body."""

    def schedule_retry(
        self, operation: Operation[Any], delay: float, outcome: Response | NetworkFailure
    ) -> None:
        """Schedule another attempt after a delay in seconds."""

    def change_status(self, request_id: str, status: Status) -> None:
        """Receive a new status of a job."""

    def receive_event(self) -> None:
        """Return an event of a stream to the caller."""

    def start_upload(self, name: str | None, size: int | None) -> int:
        """Start to upload a file, and return its number."""
        return 0

    def advance_upload(self, file: int, sent: int) -> None:
        """Send a part of a file, up to a position in bytes."""

    def complete_upload(self, file: int) -> None:
        """Complete the upload of a file."""

    def advance_download(
        self, url: str, received: int, size: int | None, *, complete: bool
    ) -> None:
        """Receive a part of a file, up to a position in bytes."""

    def end(self, error: BaseException | None, *, closed: bool = False) -> None:
        """End the call.

        Args:
            error: The exception that ends it; ``None`` if it succeeded.
            closed: Whether the caller closed it before its end.
        """


#: The observer of calls without hooks.
NO_OBSERVER = CallObserver()
