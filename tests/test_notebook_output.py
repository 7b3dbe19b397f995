"""The HTML that notebooks show, and images of files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import PIL.Image
import pytest

import fal_async
import fal_async.sync
from fal_async import Completed, File, InProgress, Queued, Result
from fal_async.errors import InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from fal_async import AsyncClient

HANDLE = {"application": "acme/<b>", "request_id": "764cabcf"}


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        (File(url="https://v3.fal.media/a.png"), '<img src="https://v3.fal.media/a.png"'),
        (File(url="https://v3.fal.media/a", content_type="image/png"), "<img "),
        (File(url="https://v3.fal.media/a.mp4"), "<video "),
        (File(url="https://v3.fal.media/a.mp3"), "<audio "),
        (File(url="https://v3.fal.media/a.glb"), '<a href="https://v3.fal.media/a.glb"'),
        (File(url="https://v3.fal.media/a.png", file_size=10**8), ">a.png</a> (100 MB)"),
        (File(url="data:image/png;base64,iVBORw0KGgo="), '<img src="data:image/png'),
        (File(url="data:image/png;base64," + "A" * 2_000_000), "<span>data URL (2 MB)</span>"),
        (File(url="data:text/html,<script>", file_name="a.html"), "<span>a.html"),
        (File(url="javascript:alert(1)//a.png"), "<span>"),
        (File(url='https://x/a.png?"><script>'), "?&quot;&gt;&lt;script&gt;"),
    ],
)
def test_files_are_pictures_players_or_links(file: File, shown: str) -> None:
    html = file._repr_html_()
    assert shown in html
    assert "<script" not in html


def test_players_load_nothing_by_themselves() -> None:
    assert 'preload="none"' in File(url="https://v3.fal.media/a.mp4")._repr_html_()
    assert 'loading="lazy"' in File(url="https://v3.fal.media/a.png")._repr_html_()


def test_results_shorten_long_texts() -> None:
    result = Result({"text": "x" * 5000, "parts": [b"abc"]}, request_id="<id>", billable_units=2.0)
    html = result._repr_html_()
    assert "(5,000 characters)" in html
    assert "3 bytes" in html
    assert "request &lt;id&gt;, billable units: 2" in html
    assert len(html) < 1000


def test_statuses_show_their_latest_log_lines() -> None:
    logs = [fal_async.LogLine(message=f"<step {n}>") for n in range(25)]
    assert Queued(3)._repr_html_() == "<div>In the queue, 3 ahead</div>"
    assert Queued(None)._repr_html_() == "<div>In the queue</div>"
    running = InProgress(logs)._repr_html_()
    assert "... 5 earlier lines\n&lt;step 5&gt;" in running
    assert "Completed in 1.50 s" in Completed([], {"inference_time": 1.5})._repr_html_()
    assert "Completed: &lt;x&gt;" in Completed([], {}, error="<x>")._repr_html_()


async def test_handles_of_both_apis_show_their_job() -> None:
    async with fal_async.AsyncClient(key="a:b") as client:
        shown = client.attach(HANDLE | {"application": "acme/app"})._repr_html_()
    assert "<code>acme/app</code>" in shown
    assert "<code>764cabcf</code>" in shown
    with fal_async.sync.SyncClient(key="a:b") as blocking:
        handle = blocking.attach(HANDLE | {"application": "acme/app"})
    assert handle._repr_html_() == shown


async def test_image_files_open_with_pillow(client: AsyncClient) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), "red").save(buffer, "png")
    url = await client.upload(buffer.getvalue(), "image/png")
    image = await File(url=url)._bind(client._dispatcher).image()
    assert image.size == (3, 2)
    assert image.getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(InvalidResponseError, match="cannot open the file as an image"):
        await File(url="data:,hello")._bind(client._dispatcher).image()


async def test_images_without_pillow_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(InvalidRequestError, match=r"fal-async\[images\]"):
        await File(url="https://v3.fal.media/a.png").image()
