"""How far a call came, as its reply tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fal_async._protocol.operations import Lane
from fal_async._protocol.retry import Retry, was_refused
from fal_async.errors import FalClientHTTPError, InvalidReplyError

if TYPE_CHECKING:
    from fal_async._protocol.operations import Operation
    from fal_async._protocol.replies import Reply
    from fal_async.errors import FalClientError
    from fal_async.types import Stage

__all__ = ["failed_stage", "started_by"]

#: The gateway answers with these before it looks for a runner.
_REFUSALS: Final = frozenset({401, 403, 429})
#: The queue answers a request for an output with these on its own behalf.
_OF_THE_QUEUE: Final = frozenset({401, 403, 404, 408, 429})


def started_by(reply: Reply, *, direct: bool) -> bool | None:
    """Whether the call that a reply belongs to has started a job; ``None`` when it does not tell.

    Args:
        reply: The reply, of which status and headers count.
        direct: Whether the job runs over the same connection: then an error may be the job's own.
    """
    if reply.ok or reply.answered_by_app:
        return True
    if reply.status_code in _REFUSALS or reply.missed_start or was_refused(reply):
        return False
    if reply.status_code >= 500:
        return None
    return None if direct else False


def failed_stage(error: FalClientError, operation: Operation[Any]) -> Stage | None:
    """The stage that an error itself shows to have failed; ``None`` for that of the operation.

    A job that failed is told of by the request for its output, and an output that cannot be read
    by whatever brought it.
    """
    if isinstance(error, InvalidReplyError) and operation.lane is Lane.HELD:
        return "result"
    if isinstance(error, FalClientHTTPError) and operation.stage == "result":
        of_the_queue = error.status_code in _OF_THE_QUEUE or error.status_code >= 500
        return "job" if operation.retry is Retry.SETTLED or not of_the_queue else None
    return None
