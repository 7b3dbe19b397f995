"""Files of a batch: those of arguments, uploaded once, and those of outputs, saved by a pattern."""

from __future__ import annotations

import mimetypes
import os
import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fal_async._core.checks import describe
from fal_async._dispatch.cache import reuse_until
from fal_async._files.downloads import exists
from fal_async._files.file import File, download_to, files_in_output
from fal_async._net.files import remove_hidden_files
from fal_async._net.threads import Work, run_in_thread
from fal_async.batch.entries import KnownUpload, Update
from fal_async.batch.jobs import ErrorFacts
from fal_async.errors import FalClientError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.attachment_uploads import UploadContent
    from fal_async.batch.inputs import Item
    from fal_async.batch.jobs import Job
    from fal_async.batch.journal import Journal
    from fal_async.batch.journal_store import JournalStore

__all__ = ["FileSaver", "JournalUploads", "upload_each"]

#: Characters of values that would select another folder, or that file systems reserve.
_UNSAFE: Final = re.compile(r"[/\\:\x00-\x1f]|^\.+")


class JournalUploads:
    """Uploads each content once, also over several runs of a journal.

    A known URL is reused for half of its life, after a check that it has the content. The check is
    repeated after some time.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal, which is open when files are uploaded.
    """

    def __init__(self, dispatcher: Dispatcher, journal: Journal) -> None:
        self._dispatcher = dispatcher
        self._journal = journal

    async def __call__(self, content: UploadContent, upload: Callable[[], Awaitable[str]]) -> str:
        """Return the URL of a content, which is uploaded unless the journal knows it."""
        fetch = partial(self._find_or_upload, content, upload)
        return await self._journal._uploads.get().get(replace(content, file_name=None), fetch)

    async def _find_or_upload(
        self, content: UploadContent, upload: Callable[[], Awaitable[str]]
    ) -> tuple[str, float]:
        known = await self._journal._read(lambda store: store.find_upload(content))
        now, lifetime = time.time(), content.lifetime
        if known is not None:
            # Only the check limits the reuse of a file whose life is unknown.
            since = now if lifetime is None else known.uploaded_at
            is_recent = now < reuse_until(since, lifetime)
            if is_recent and await exists(self._dispatcher, known.url, content.size):
                return known.url, reuse_until(since, lifetime)
        url = await upload()
        now = time.time()
        expires_at = None if lifetime is None else now + lifetime
        self._journal._commit_soon(KnownUpload(content, url, now, expires_at))
        return url, reuse_until(now, lifetime)


async def upload_each(_: UploadContent, upload: Callable[[], Awaitable[str]]) -> str:
    """Upload a content, whether it was uploaded before or not."""
    return await upload()


class FileSaver:
    """Saves the files of outputs, and records them in the journal.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal, which is open when files are saved. Parts of files that earlier runs
            of it have left are removed from the folders of files.
        target: A pattern such as ``"images/{index}-{n}{ext}"``, or a function of the job and the
            number of the file that returns a path.

    Raises:
        InvalidRequestError: The pattern is invalid.
    """

    def __init__(
        self, dispatcher: Dispatcher, journal: Journal, target: str | Callable[[Job, int], Path]
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._target = target
        self._directories: set[Path] = set()
        if isinstance(target, str) and "{" not in target:
            raise InvalidRequestError(
                f"save must be a pattern with {{index}}, {{key}} or {{request_id}}, got "
                f"{describe(target)}: all files would have the same name"
            )

    def check(self, item: Item) -> None:
        """Check that the pattern has a path for the files of an input.

        Raises:
            InvalidRequestError: The pattern has a field that the input does not have.
        """
        if isinstance(self._target, str):
            _format_path(self._target, item, 0, "", "")

    async def has_saved(self, job: Job) -> bool:
        """Return whether the files of a job's output are at their paths."""
        files = files_in_output(job.output, File, self._dispatcher)
        paths = [self._path(job, number, file) for number, file in enumerate(files)]

        def exist() -> bool:
            return len(paths) == len(job.files) and all(
                path in {file, file.parent} and file.is_file()  # or its folder was given
                for path, file in zip(paths, job.files, strict=True)
            )

        return await run_in_thread(exist, Work.FILES)

    async def save(self, job: Job) -> Job:
        """Save all files of a job's output, and record them.

        Returns:
            The job with the paths; with an error if a file cannot be downloaded or written.
        """
        paths: list[Path] = []
        values: dict[str, Any]
        try:
            run = await self._journal._open()
            for number, file in enumerate(files_in_output(job.output, File, self._dispatcher)):
                path = self._path(job, number, file)
                await self._prepare_folder(path if path.is_dir() else path.parent)
                names = file.file_name, file.content_type
                paths.append(
                    await download_to(self._dispatcher, file.url, path, None, *names, run.name)
                )
            job = replace(job, files=tuple(paths))
            files = [str(path) for path in paths]
            values = {"state": "saved" if files else "ended", "error": None, "files": files}
        except (FalClientError, OSError) as error:
            facts = ErrorFacts.from_error(error)
            facts = replace(facts, stage="download", started=True, final=False)
            job = replace(job, ok=False, error=facts)
            values = {"state": "failed", "error": facts.to_dict()}
        self._journal._commit_soon(Update(job.key, job.attempts, values))
        return job

    async def _prepare_folder(self, folder: Path) -> None:
        """Make a folder, and remove what killed runs of this journal have left in it, once."""
        if folder in self._directories:
            return

        def prepare(store: JournalStore) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            remove_hidden_files(folder, {run.name for run in store.ended_runs()})

        await self._journal._read(prepare)
        self._directories.add(folder)

    def _path(self, job: Job, number: int, file: File) -> Path:
        if not isinstance(self._target, str):
            return Path(self._target(job, number))
        return _format_path(self._target, job, number, job.request_id, _suffix(file))


def _format_path(
    pattern: str, job: Job | Item, number: int, request_id: str | None, suffix: str
) -> Path:
    """Return the path of a file by a pattern.

    Raises:
        InvalidRequestError: The pattern is malformed, or has an unknown field.
    """
    columns: dict[str, Any] = {
        str(name): _UNSAFE.sub("_", str(value))
        for name, value in job.row.items()
        if isinstance(value, str | int | float)
    }
    columns |= {
        "index": job.index,
        "n": number,
        "key": _UNSAFE.sub("_", job.key),
        "request_id": request_id,
        "ext": suffix,
    }
    try:
        return Path(pattern.format_map(columns))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        known = ", ".join(f"{{{name}}}" for name in columns)
        raise InvalidRequestError(
            f"save must be a pattern of {known}, got {describe(pattern)}: {error!r}"
        ) from error


def _suffix(file: File) -> str:
    """Return the suffix of a file's name, with a dot; empty if it is unknown."""
    guessed = mimetypes.guess_extension(file.content_type or "") or ""
    for name in (file.file_name, urlsplit(file.url).path):
        suffix = PurePosixPath(name or "").suffix
        if suffix and not set(suffix) & set(f"{os.sep}\\:"):
            return guessed or suffix if suffix == ".bin" else suffix
    return guessed
