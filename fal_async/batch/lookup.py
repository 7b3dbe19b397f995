"""Search among the requests that the platform lists: for jobs without ids, and lost outputs."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._client.result import make_result
from fal_async._platform.requests import AsyncRequests
from fal_async._protocol.response import Output
from fal_async._protocol.serialization import arguments_to_json
from fal_async.errors import FalClientError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fal_async._core.platform import RequestInfo
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.inputs import Item
    from fal_async.batch.journal import Journal

__all__ = ["Found", "find_jobs", "find_output", "is_settled"]

_log = logging.getLogger("fal_async")

#: The difference of clocks that is tolerated, in seconds.
CLOCK_MARGIN: Final = 60.0
#: The time after a submit at which the platform lists a request for certain, if it is not running.
SETTLED_AFTER: Final = 10.0

#: The id of the job of each input by key; ``None`` if certainly none was started. Inputs
#: for which neither is certain are missing.
Found = dict[str, str | None]


async def find_jobs(
    dispatcher: Dispatcher, journal: Journal, items: Sequence[Item], longest: float
) -> Found:
    """Look up the jobs of unsure inputs of one endpoint.

    A request belongs to an input if it has its arguments, and to no other input of the journal.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal, which is open.
        items: The inputs.
        longest: The longest time that a job of the batch took, in seconds.

    Raises:
        FalClientError: The platform cannot be asked.
    """
    first = min(item.started_at for item in items) - CLOCK_MARGIN
    listing = AsyncRequests(dispatcher).list(
        items[0].application,
        start=datetime.fromtimestamp(first, UTC),
        limit=100,
        expand_payloads=True,
    )
    requests = [request async for request in listing]
    await journal._flush()
    taken = await journal._read(lambda store: store.known_jobs([r.request_id for r in requests]))
    free = [request for request in requests if request.request_id not in taken]
    is_complete = all(request.input is not None for request in requests)
    found: Found = {}
    for item in sorted(items, key=lambda item: item.started_at):
        arguments = _comparable(item)
        if arguments is None:
            continue
        request = _first_match(free, item, arguments)
        if request is not None:
            free.remove(request)
            found[item.key] = request.request_id
        elif is_complete and is_settled(item.started_at, longest):
            found[item.key] = None
    return found


def is_settled(submitted_at: float, longest: float) -> bool:
    """Return whether the platform lists a request that was submitted then, if there is one.

    Args:
        submitted_at: The time of the submit, in seconds since 1970.
        longest: The longest time that a job of the batch took, in seconds.
    """
    return time.time() - submitted_at > SETTLED_AFTER + longest


async def find_output(dispatcher: Dispatcher, application: str, request_id: str) -> Any:
    """Look up the output of a job whose result has expired.

    Args:
        dispatcher: The dispatcher of the client.
        application: The endpoint id.
        request_id: The id of the job.

    Returns:
        The output; ``None`` if the account does not store it, the job has failed, or the platform
        cannot be asked.
    """
    listing = AsyncRequests(dispatcher).list(
        application, request_ids=[request_id], expand_payloads=True
    )
    try:
        requests = [request async for request in listing]
    except FalClientError as error:
        _log.warning("Cannot look up the expired result of %s: %s", request_id, error)
        return None
    for request in requests:
        if request.request_id == request_id and request.status_code == 200:
            output: Any = make_result(Output(value=request.output), request_id=request_id)
            if isinstance(request.output, dict):
                output._dispatcher = dispatcher
            return output
    return None


def _first_match(
    requests: Sequence[RequestInfo], item: Item, arguments: Mapping[str, Any]
) -> RequestInfo | None:
    """Return the earliest request with the arguments of an input."""
    earliest = item.started_at - CLOCK_MARGIN
    matching = [
        request
        for request in requests
        if _contains(request.input, arguments)
        and (request.sent_at is None or request.sent_at.timestamp() >= earliest)
    ]
    return min(matching, key=lambda r: r.sent_at or datetime.min.replace(tzinfo=UTC), default=None)


def _comparable(item: Item) -> dict[str, Any] | None:
    """Return the arguments that the platform stores as they are; ``None`` without any.

    Files are stored as the URLs of their uploads, which a later run does not know.
    """
    arguments: dict[str, Any] = {}
    for name, value in item.arguments.items():
        try:
            arguments |= arguments_to_json({name: value})
        except InvalidRequestError:
            continue
    return arguments or None


def _contains(stored: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether a stored input has the arguments; the platform may have added defaults."""
    if not isinstance(stored, dict):
        return False
    given = cast("dict[str, Any]", stored)
    return all(name in given and given[name] == value for name, value in arguments.items())
