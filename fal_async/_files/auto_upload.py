"""Files in arguments: upload them before the arguments are sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fal_async._core.checks import check_flag
from fal_async._files.attachments import find_files
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.attachment_uploads import Reuse
    from fal_async._files.attachments import Attachment
    from fal_async.types import Arguments

__all__ = ["attach_files", "prepare_auto_upload"]


async def attach_files(
    dispatcher: Dispatcher, arguments: Arguments, *, auto_upload: bool, reuse: Reuse | None = None
) -> Arguments:
    """Upload the files in arguments and return the arguments with their URLs.

    Args:
        dispatcher: Executes the uploads.
        arguments: The arguments.
        auto_upload: Whether the arguments may contain files.
        reuse: Returns the URL of a content; ``None`` uses the cache of the client.

    Raises:
        InvalidRequestError: The arguments contain files, and `auto_upload` is off.
        FalClientError: An upload failed.
    """
    upload = prepare_auto_upload(dispatcher, arguments, auto_upload=auto_upload, reuse=reuse)
    return arguments if upload is None else await upload()


def prepare_auto_upload(
    dispatcher: Dispatcher, arguments: Arguments, *, auto_upload: bool, reuse: Reuse | None = None
) -> Callable[[], Awaitable[Arguments]] | None:
    """Find the files in arguments and return the function that uploads them; see `attach_files`.

    Returns:
        A coroutine function that returns the arguments with the URLs of the files. ``None`` if the
        arguments contain no files.

    Raises:
        InvalidRequestError: The arguments contain files, and `auto_upload` is off.
    """
    files: dict[int, Attachment] = {}
    try:
        find_files(arguments, files)
    except RecursionError:  # the JSON encoder explains arguments that contain themselves
        return None
    if not files:
        return None
    if not check_flag("auto_upload", auto_upload):
        kinds = ", ".join(sorted({type(file).__name__ for file in files.values()}))
        raise InvalidRequestError(f"the arguments contain files ({kinds}), and auto_upload is off")
    # Most arguments contain no files, and what uploads them is slow to import.
    from fal_async._files.attachment_uploads import upload_attachments

    return partial(upload_attachments, dispatcher, arguments, files, reuse)
