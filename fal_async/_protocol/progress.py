"""The progress of a failed call, by its response: the stage, and whether a job was started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fal_async._protocol.operation import Lane
from fal_async._protocol.retry import Retry, is_rejected
from fal_async.errors import FalClientHTTPError, InvalidResponseError

if TYPE_CHECKING:
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async.errors import FalClientError
    from fal_async.types import Stage

__all__ = ["failed_stage", "started_by"]

#: The gateway returns these before it looks for a runner.
_REJECTIONS: Final = frozenset({401, 403, 429})
#: The queue itself returns these for an output.
_QUEUE_ERRORS: Final = frozenset({401, 403, 404, 408, 429})


def started_by(response: Response, *, direct: bool) -> bool | None:
    """Return whether a call has started a job; ``None`` if its response does not show it.

    Args:
        response: The response; its body is ignored.
        direct: Whether the job runs over the same connection, so that errors may be the job's own.
    """
    if response.ok or response.is_from_runner:
        return True
    if response.status_code in _REJECTIONS or response.is_start_timeout or is_rejected(response):
        return False
    if response.status_code >= 500:
        return None
    return None if direct else False


def failed_stage(error: FalClientError, operation: Operation[Any]) -> Stage | None:
    """Return the stage that an error shows to have failed; ``None`` for that of the operation.

    The request for an output reports a failed job, and any request may return an invalid output.
    """
    if isinstance(error, InvalidResponseError) and operation.lane is Lane.HELD:
        return "result"
    if isinstance(error, FalClientHTTPError) and operation.stage == "result":
        of_the_queue = error.status_code in _QUEUE_ERRORS or error.status_code >= 500
        return "job" if operation.retry is Retry.FAILED_RESULT or not of_the_queue else None
    return None
