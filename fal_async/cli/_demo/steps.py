"""The steps of the demo: one for each way to call an endpoint, shown with the code that runs.

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

__all__ = ["run_demo", "run_live_demo"]

#: The number of jobs that are submitted before the one of the last step, so that it has to queue.
_JOBS_AHEAD: Final = 3


async def run_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> Result:
    """run: one request, one response; files in the arguments are uploaded first."""
    return await client.run(endpoint, arguments)


class Preview(BaseModel):
    """An event of the endpoint's stream."""

    step: int
    steps: int
    image: File


async def stream_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> None:
    """stream: typed events, here previews of growing size."""
    async with client.stream(endpoint, arguments, output=Preview) as previews:
        async for preview in previews:
            content = await preview.image.read()
            show.picture(f"step {preview.step} of {preview.steps}", content)


async def realtime_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, picture: bytes
) -> None:
    """realtime: messages over one WebSocket, with images as bytes both ways."""
    async with client.realtime(endpoint) as session:
        show.write("connected")
        for name in ("mosaic", "poster", "duotone"):
            await session.send({"image": picture, "filter": name})
            message = await session.recv()
            show.picture(name, message["images"][0]["content"])


async def submit_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> Result:
    """submit: put a job into the queue, and get its result later by its handle."""
    handle = await client.submit(endpoint, arguments)
    show(await handle.status())
    result = await handle.get()
    show(await handle.status())
    return result


async def subscribe_step(
    show: ProgressDisplay, client: AsyncClient, endpoint: str, arguments: Mapping[str, Any]
) -> Result:
    """subscribe: wait in the queue, with each change of the status and each log line."""
    return await client.subscribe(
        endpoint,
        arguments,
        with_logs=True,
        on_queue_update=show,
    )


async def download_step(show: ProgressDisplay, result: Result, directory: Path) -> list[Path]:
    """files: download the files of the result, each one whole or not at all."""
    paths = [await file.save(directory) for file in result.files()]
    show.files(paths)
    return paths


async def run_demo(
    picture: Path | Image, filter_name: str, directory: Path, presenter: StepPresenter
) -> tuple[object, list[Path]]:
    """Show the steps on an emulated platform.

    Args:
        picture: The image to upload.
        filter_name: The name of the filter to apply.
        directory: The directory for the files of the result.
        presenter: Runs and shows the steps.

    Returns:
        The result and the paths of its files.
    """
    async with (
        Emulator() as platform,
        AsyncClient(platform.key, hosts=platform.hosts) as client,
    ):
        register_image_app(platform)
        presenter.begin(f"an emulated platform at {platform.url}")
        arguments: dict[str, Any] = {"image_url": picture}
        presenter.show_arguments(arguments)
        first = await presenter.show(run_step, client, PHOTO, arguments)

        (photo,) = first.files()
        arguments = {"image_url": photo.url, "filter": filter_name}
        presenter.show_arguments(arguments)
        await presenter.show(stream_step, client, PHOTO, arguments)
        await presenter.show(realtime_step, client, PHOTO, make_thumbnail(await photo.read()))
        await presenter.show(submit_step, client, PHOTO, arguments)
        for _ in range(_JOBS_AHEAD):
            await client.submit(PHOTO, arguments)
        result = await presenter.show(subscribe_step, client, PHOTO, arguments)
        return result, await presenter.show(download_step, result, directory)


async def run_live_demo(
    endpoint: str, arguments: Mapping[str, Any], directory: Path, presenter: StepPresenter
) -> tuple[object, list[Path]]:
    """Show the steps that work with any endpoint on the real platform; see `run_demo`."""
    async with AsyncClient() as client:
        presenter.begin(f"three jobs of {endpoint}, billed to your account")
        presenter.show_arguments(arguments)
        await presenter.show(run_step, client, endpoint, arguments)
        presenter.skip(stream_step, "its events depend on the endpoint")
        presenter.skip(realtime_step, "its messages depend on the endpoint")
        await presenter.show(submit_step, client, endpoint, arguments)
        result = await presenter.show(subscribe_step, client, endpoint, arguments)
        if not isinstance(cast("object", result), Result):  # the output is any JSON value
            presenter.skip(download_step, "the output is no object that could hold files")
            return result, []
        return result, await presenter.show(download_step, result, directory)
