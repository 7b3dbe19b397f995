"""`missed`: jobs that have ended without a callback."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import TYPE_CHECKING, Final, cast

from fal_async._client.default import load_default_client
from fal_async._client.handle import AsyncRequestHandle
from fal_async._core.checks import describe
from fal_async._net.tasks import open_task_group
from fal_async.errors import InvalidRequestError, NotFoundError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from fal_async._client.client import AsyncClient

__all__ = ["missed"]

#: The number of jobs that are asked for at once.
BATCH: Final = 32


async def missed(
    jobs: Iterable[AsyncRequestHandle | Mapping[str, str]]
    | AsyncIterable[AsyncRequestHandle | Mapping[str, str]],
    *,
    client: AsyncClient | None = None,
) -> AsyncGenerator[AsyncRequestHandle, None]:
    """Yield those of the jobs that have ended.

    The platform gives up on a callback after some time. So run this every few minutes over the jobs
    that were submitted minutes ago and have no outcome yet. `AsyncRequestHandle.get` of the handles
    returns the output, or raises the error of the job. A callback may arrive meanwhile, so record
    outcomes in a way that works twice.

    Jobs that the platform does not know any more are yielded too: `AsyncRequestHandle.get` raises
    `NotFoundError`. Jobs that are waiting or running are not.

    Args:
        jobs: Handles, or the data of `AsyncRequestHandle.to_dict`.
        client: The client of the handles; ``None`` uses that of each handle, or the module-level
            client for data.

    Raises:
        InvalidRequestError: One of the jobs is neither a handle nor its data.
        FalClientHTTPError: The platform responded with an error, such as a wrong key.
        TransportError: The platform cannot be reached.

    Example:
        >>> async def main() -> None:
        ...     handle = await fal_async.submit("demo/echo", {"prompt": "a cat"})
        ...     await handle.get()
        ...     async for ended in fal_async.webhooks.missed([handle.to_dict()]):
        ...         print((await ended.get())["prompt"])
        >>> anyio.run(main)
        a cat
    """
    found = [job async for job in jobs] if isinstance(jobs, AsyncIterable) else list(jobs)
    handles = [await _bind(job, client) for job in found]
    ended: set[str] = set()

    async def check(handle: AsyncRequestHandle) -> None:
        try:
            if isinstance(await handle.status(), Completed):
                ended.add(handle.request_id)
        except NotFoundError:
            ended.add(handle.request_id)

    for start in range(0, len(handles), BATCH):
        batch = handles[start : start + BATCH]
        async with open_task_group() as group:
            for handle in batch:
                group.start_soon(check, handle)
        for handle in batch:
            if handle.request_id in ended:
                yield handle


async def _bind(job: object, client: AsyncClient | None) -> AsyncRequestHandle:
    if isinstance(job, AsyncRequestHandle):
        return job if client is None else client.attach(job.to_dict())
    if isinstance(job, Mapping):
        data = cast("Mapping[str, str]", job)
        return (await load_default_client() if client is None else client).attach(data)
    raise InvalidRequestError(f"a job must be a handle or its data, got {describe(job)}")
