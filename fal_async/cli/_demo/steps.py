"""The demo: what can be done with an endpoint, each shown with the code that runs.

The steps are ordinary uses of the library; read them first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel

from fal_async import AsyncClient, File, Result
from fal_async.cli._demo.app import PHOTO, register_image_app
from fal_async.cli._demo.images import make_thumbnail
from fal_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL.Image import Image

    from fal_async.cli._console import ProgressDisplay
    from fal_async.cli._demo.presenter import StepPresenter

__all__ = ["demonstrate", "demonstrate_live"]

#: How many jobs are put before the one of the last step, so that there is a queue to see.
_CROWD: Final = 3


async def run_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> Result:
    """run: one call, one answer; files among the arguments are uploaded first."""
    return await client.run(endpoint, arguments)


class Preview(BaseModel):
    """What the endpoint tells while it works."""

    step: int
    steps: int
    image: File


async def watch(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> None:
    """stream: previews, each better than the one before."""
    async with client.stream(endpoint, arguments, output=Preview) as previews:
        async for preview in previews:
            content = await preview.image.read()
            show.picture(f"step {preview.step} of {preview.steps}", content)


async def realtime_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, picture: bytes
) -> None:
    """realtime: question and answer over one socket, pictures as bytes both ways."""
    async with client.realtime(endpoint) as session:
        show.say("connected")
        for look in ("sketch", "poster", "duotone"):
            await session.send({"image": picture, "filter": look})
            answer = await session.recv()
            show.picture(look, answer["images"][0]["content"])


async def submit_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> Result:
    """submit: leave a job in the queue, and come back for it with its handle."""
    handle = await client.submit(endpoint, arguments)
    show(await handle.status())
    result = await handle.get()
    show(await handle.status())
    return result


async def subscribe_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> Result:
    """subscribe: wait in the queue, and hear of each change and each line of log."""
    return await client.subscribe(
        endpoint,
        arguments,
        with_logs=True,
        on_queue_update=show,
    )


async def download_step(show: ProgressDisplay, result: Result, folder: Path) -> list[Path]:
    """files: what came out is downloaded, each file whole or not at all."""
    paths = [await file.save(folder) for file in result.files()]
    show.files(paths)
    return paths


async def demonstrate(
    picture: Path | Image, look: str, folder: Path, stage: StepPresenter
) -> tuple[object, list[Path]]:
    """Show the steps on an emulated platform.

    Args:
        picture: What to take a photo of.
        look: The name of a filter for it.
        folder: Where to put the files of the result.
        stage: Shows the steps.

    Returns:
        The result, and its files.
    """
    async with (
        Emulator() as platform,
        AsyncClient(platform.key, hosts=platform.hosts) as client,
    ):
        register_image_app(platform)
        stage.begin(f"an emulated platform at {platform.url}")
        arguments: dict[str, Any] = {"image_url": picture}
        stage.show_arguments(arguments)
        taken = await stage.show(run_step, client, PHOTO, arguments)

        (photo,) = taken.files()
        arguments = {"image_url": photo.url, "filter": look}
        stage.show_arguments(arguments)
        await stage.show(watch, client, PHOTO, arguments)
        await stage.show(realtime_step, client, PHOTO, make_thumbnail(await photo.read()))
        await stage.show(submit_step, client, PHOTO, arguments)
        for _ in range(_CROWD):
            await client.submit(PHOTO, arguments)
        result = await stage.show(subscribe_step, client, PHOTO, arguments)
        return result, await stage.show(download_step, result, folder)


async def demonstrate_live(
    endpoint: str, arguments: Mapping[str, Any], folder: Path, stage: StepPresenter
) -> tuple[object, list[Path]]:
    """Show the steps that any endpoint can do, on the real platform; see `demonstrate`."""
    async with AsyncClient() as client:
        stage.begin(f"three jobs of {endpoint}, billed to your account")
        stage.show_arguments(arguments)
        await stage.show(run_step, client, endpoint, arguments)
        stage.skip(watch, "what its events hold is up to the endpoint")
        stage.skip(realtime_step, "what it understands is up to the endpoint")
        await stage.show(submit_step, client, endpoint, arguments)
        result = await stage.show(subscribe_step, client, endpoint, arguments)
        if not isinstance(cast("object", result), Result):  # it may be anything that JSON can say
            stage.skip(download_step, "the output is no object that could hold files")
            return result, []
        return result, await stage.show(download_step, result, folder)
