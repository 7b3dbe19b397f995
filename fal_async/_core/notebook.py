"""Notebook output: HTML of files, outputs, jobs and statuses, and short tracebacks."""

from __future__ import annotations

import json
import mimetypes
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["file_html", "handle_html", "render_traceback", "result_html", "status_html"]

#: Files that are known to be larger are links instead of images, in bytes.
MAX_EMBEDDED: Final = 10 * 1024 * 1024
#: Data URLs that are longer are described instead of embedded: the notebook would store them.
MAX_DATA_URL: Final = 1024 * 1024
#: Longer texts in an output are shortened.
MAX_TEXT: Final = 200
#: Log lines that are shown; earlier ones are counted.
MAX_LOGS: Final = 20
#: The packages whose frames a short traceback omits after the first frame of the library.
_HIDDEN: Final = frozenset(
    {"anyio", "asyncio", "concurrent", "contextlib", "fal_async", "outcome", "threading", "trio"}
)
_PLAYERS: Final = {"video": "video", "audio": "audio"}


def file_html(url: str, content_type: str | None, name: str | None, size: int | None) -> str:
    """Return an image, a player or a link for a file.

    The page loads an image from its URL, and a video or a sound once it is played; this function
    downloads nothing.

    Args:
        url: The URL of the file.
        content_type: The media type; ``None`` guesses it from the URL.
        name: The name of the file; ``None`` takes it from the URL.
        size: The size in bytes, or ``None``.
    """
    is_data = url.startswith("data:")
    if is_data:
        name = name or "data URL"
        content_type = content_type or url[5:].partition(",")[0].partition(";")[0]
        size = len(url) if size is None else size
    path = "" if is_data else urlsplit(url).path
    name = name or unquote(path.rpartition("/")[2]) or url
    kind = (content_type or mimetypes.guess_type(path)[0] or "").partition("/")[0]
    link, text = escape(url), escape(name)
    note = "" if size is None else f" ({_size(size)})"
    if not url.startswith(("https://", "http://", "data:image/", "data:video/", "data:audio/")) or (
        is_data and len(url) > MAX_DATA_URL
    ):
        return f"<span>{text}{note}</span>"  # neither embedded nor a link: it may run code
    if kind == "image" and (size or 0) <= MAX_EMBEDDED:
        return (
            f'<img src="{link}" alt="{text}" title="{text}{note}" loading="lazy" '
            'style="max-width: 512px; max-height: 512px">'
        )
    if player := _PLAYERS.get(kind):
        return (
            f'<{player} src="{link}" title="{text}{note}" controls preload="none" '
            f'style="max-width: 512px"></{player}>'
        )
    return f'<a href="{link}" target="_blank" rel="noopener noreferrer">{text}</a>{note}'


def result_html(
    output: Mapping[str, Any],
    files: Iterable[str],
    request_id: str | None,
    billable_units: float | None,
) -> str:
    """Return an output with its files, long texts shortened.

    Args:
        output: The output.
        files: The HTML of its files.
        request_id: The id of the request, or ``None``.
        billable_units: The charged units, or ``None``.
    """
    text = json.dumps(_truncate(output), indent=2, ensure_ascii=False, default=repr)
    facts = [] if request_id is None else [f"request {request_id}"]
    if billable_units is not None:
        facts.append(f"billable units: {billable_units:g}")
    shown = "".join(f"<div>{file}</div>" for file in files)
    return (
        f"{shown}<details{'' if shown else ' open'}><summary>Output"
        f"{': ' if facts else ''}{escape(', '.join(facts))}</summary>"
        f'<pre style="white-space: pre-wrap">{escape(text)}</pre></details>'
    )


def handle_html(application: str, request_id: str) -> str:
    """Return a job: its endpoint and its request id."""
    return (
        f"<div>Job of <code>{escape(application)}</code>: <code>{escape(request_id)}</code></div>"
    )


def status_html(text: str, logs: Sequence[Mapping[str, Any]]) -> str:
    """Return a status with the last lines of its log."""
    earlier = len(logs) - MAX_LOGS
    lines = [f"... {earlier:,} earlier lines"] if earlier > 0 else []
    lines += [line["message"] for line in logs[-MAX_LOGS:]]
    log = f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
    return f"<div>{escape(text)}</div>{log}"


def render_traceback(error: BaseException) -> list[str]:
    """Render a traceback as IPython does, without the frames of the library.

    IPython calls this for errors of the library. The traceback of the error itself is unchanged,
    for debuggers.
    """
    from IPython.core.getipython import get_ipython  # only IPython calls this

    shell: Any = get_ipython()
    chain: list[BaseException] = []  # the error and those that caused it, which IPython shows
    link: BaseException | None = error
    while link is not None and not any(link is earlier for earlier in chain):
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    complete = [link.__traceback__ for link in chain]
    try:
        for link in chain:
            link.__traceback__ = _without_hidden_frames(link.__traceback__)
        return cast(
            "list[str]",
            shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__),
        )
    finally:
        for link, traceback in zip(chain, complete, strict=True):
            link.__traceback__ = traceback


def _without_hidden_frames(traceback: TracebackType | None) -> TracebackType | None:
    entries: list[TracebackType] = []
    in_library = False
    while traceback is not None:
        package = str(traceback.tb_frame.f_globals.get("__name__")).partition(".")[0]
        in_library = in_library or package == "fal_async"
        if not in_library or package not in _HIDDEN:
            entries.append(traceback)
        traceback = traceback.tb_next
    for entry in reversed(entries):
        traceback = TracebackType(traceback, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return traceback


def _truncate(value: object) -> object:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}... ({len(value):,} characters)"
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        return {str(name): _truncate(item) for name, item in items.items()}
    if isinstance(value, list | tuple):
        return [_truncate(item) for item in cast("list[object]", value)]
    return f"{len(value):,} bytes" if isinstance(value, bytes) else value


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
