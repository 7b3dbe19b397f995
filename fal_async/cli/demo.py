"""The demo: three ways to call an endpoint, each shown with the code that runs.

The steps are ordinary uses of the library; read them first.
"""

from __future__ import annotations

import inspect
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

from fal_async import AsyncClient, __version__
from fal_async.cli._studio import PHOTO, photo
from fal_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async import Result
    from fal_async.cli._screen import Screen, Wait

    Step = Callable[[AsyncClient, str, Mapping[str, Any], Wait], Awaitable[Result]]

__all__ = ["demonstrate", "demonstrate_live"]

#: How many jobs are put before the one of the last step, so that there is a queue to see.
_CROWD: Final = 3


async def ask(
    client: AsyncClient, endpoint: str, arguments: Mapping[str, Any], show: Wait
) -> Result:
    """run: one call, one answer, past the queue."""
    return await client.run(endpoint, arguments)


async def come_back(
    client: AsyncClient, endpoint: str, arguments: Mapping[str, Any], show: Wait
) -> Result:
    """submit: leave a job in the queue, and come back for it with its handle."""
    handle = await client.submit(endpoint, arguments)
    show(await handle.status())
    result = await handle.get()
    show(await handle.status())
    return result


async def stand_in_line(
    client: AsyncClient, endpoint: str, arguments: Mapping[str, Any], show: Wait
) -> Result:
    """subscribe: wait in the queue, and hear of each change and each line of the log."""
    return await client.subscribe(
        endpoint,
        arguments,
        with_logs=True,
        on_queue_update=show,
    )


async def demonstrate(arguments: Mapping[str, Any], screen: Screen) -> Result:
    """Show the steps on an emulated platform."""
    async with (
        Emulator() as platform,
        AsyncClient(platform.key, hosts=platform.hosts) as client,
    ):
        platform.register(PHOTO, photo, concurrency=1)
        screen.title(f"fal_async {__version__}", f"an emulated platform at {platform.url}")
        await _show(ask, client, PHOTO, arguments, screen)
        await _show(come_back, client, PHOTO, arguments, screen)
        for _ in range(_CROWD):
            await client.submit(PHOTO, arguments)
        return await _show(stand_in_line, client, PHOTO, arguments, screen)


async def demonstrate_live(endpoint: str, arguments: Mapping[str, Any], screen: Screen) -> Result:
    """Show the steps on the real platform."""
    async with AsyncClient() as client:
        screen.title(
            f"fal_async {__version__}", f"three jobs of {endpoint}, billed to your account"
        )
        await _show(ask, client, endpoint, arguments, screen)
        await _show(come_back, client, endpoint, arguments, screen)
        return await _show(stand_in_line, client, endpoint, arguments, screen)


async def _show(
    step: Step, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any], screen: Screen
) -> Result:
    screen.heading((inspect.getdoc(step) or "").rstrip("."))
    screen.code(_body(step))
    with screen.wait() as wait:
        result = await step(client, endpoint, arguments, wait)
        wait.say(f"request {result.request_id}", "dim")
    return result


def _body(step: Step) -> str:
    """The code of a step, from the file that it runs from."""
    _, _, code = inspect.getsource(step).partition('"""\n')
    return dedent(code)
