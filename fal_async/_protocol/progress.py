"""How far a call came, as its response tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fal_async._protocol.operation import Lane
from fal_async._protocol.retry import Retry, was_refused
from fal_async.errors import FalClientHTTPError, InvalidResponseError

if TYPE_CHECKING:
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async.errors import FalClientError
    from fal_async.types import Stage

__all__ = ["failed_stage", "started_by"]

#: The gateway answers with these before it looks for a runner.
_REFUSALS: Final = frozenset({401, 403, 429})
#: The queue answers a request for an output with these on its own behalf.
_OF_THE_QUEUE: Final = frozenset({401, 403, 404, 408, 429})


def started_by(response: Response, *, direct: bool) -> bool | None:
    """Return whether a call has started a job; ``None`` when its response does not show it.

    Args:
        response: The response, of which status and headers count.
        direct: Whether the job runs over the same connection: then an error may be the job's own.
    """
    if response.ok or response.answered_by_app:
        return True
    if response.status_code in _REFUSALS or response.is_start_timeout or was_refused(response):
        return False
    if response.status_code >= 500:
        return None
    return None if direct else False


def failed_stage(error: FalClientError, operation: Operation[Any]) -> Stage | None:
    """The stage that an error itself shows to have failed; ``None`` for that of the operation.

    A job that failed is told of by the request for its output, and an output that cannot be read
    by whatever brought it.
    """
    if isinstance(error, InvalidResponseError) and operation.lane is Lane.HELD:
        return "result"
    if isinstance(error, FalClientHTTPError) and operation.stage == "result":
        of_the_queue = error.status_code in _OF_THE_QUEUE or error.status_code >= 500
        return "job" if operation.retry is Retry.FAILED_RESULT or not of_the_queue else None
    return None
