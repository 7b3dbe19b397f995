from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from starlette.responses import PlainTextResponse

from fal_async.cli._drawing import draw
from fal_async.cli._pictures import as_data_uri, from_data_uri
from fal_async.emulator import AppError, Emulator
from tests.cli.shell import Shell, run_on_terminal, run_program

if TYPE_CHECKING:
    from pathlib import Path

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def events(stdout: str) -> list[str]:
    """The lines with a time, without it."""
    return re.findall(r"^ +\d+\.\d\d s  (.*)$", stdout, re.MULTILINE)


def test_the_real_program_shows_three_ways_to_call_and_saves_a_picture(tmp_path: Path) -> None:
    outcome = run_program("demo")
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert re.findall(r"^\d  (\w+):", outcome.stdout, re.MULTILINE) == [
        "run",
        "submit",
        "subscribe",
    ]
    assert "return await client.run(endpoint, arguments)" in outcome.stdout
    assert len(set(re.findall(f"request ({UUID})$", outcome.stdout, re.MULTILINE))) == 3
    told = events(outcome.stdout.partition("3  subscribe")[2])
    started = told.index("in progress")
    line = ["in the queue, 2 jobs ahead", "in the queue, 1 job ahead", "in the queue, next in line"]
    assert told[:started] == line[-started:]
    assert told[started + 1 : -2] == [
        "| drawing 'a cat watching the moon rise over the sea'",
        "| applying the filter 'dream'",
        "| encoding the picture as PNG",
    ]
    assert re.fullmatch(r"completed, after \d+\.\d\d s of work", told[-2])
    assert all(character.isprintable() or character == "\n" for character in outcome.stdout)
    with Image.open(tmp_path / "fal_async_demo.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (768, 512))
    assert f"Saved  {tmp_path / 'fal_async_demo.png'} (768 x 512)" in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["fal_async_demo.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_on_a_terminal_the_queue_is_seen_in_place_and_the_picture_in_rough(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), "#ff0000").save(tmp_path / "mine.png")
    exit_status, written = run_on_terminal("demo", "--image", "mine.png", "--filter", "none")
    assert exit_status == 0
    assert re.search(r"in the queue, \d jobs? ahead[^\n]*●[^\n]*\x1b\[2K", written)
    assert not re.search(r"in the queue, \d jobs? ahead\r\n", written)
    assert "| developing the picture" in written
    assert written.count("▀") == 54 * 18
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")


@pytest.mark.usefixtures("restless")
def test_a_picture_of_ones_own_is_worked_on_and_saved_in_the_format_of_the_name(
    shell: Shell, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30), "#ff0000").save(tmp_path / "mine.png")
    outcome = shell("demo", "--image", "mine.png", "--filter", "none", "--out", "yours.webp")
    assert outcome.exit_status == 0
    assert "| developing the picture" in events(outcome.stdout)
    with Image.open(tmp_path / "yours.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (40, 30))
        red, green, blue = picture.convert("RGB").getpixel((20, 15))  # type: ignore[misc]  # a tuple
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


@pytest.mark.usefixtures("restless")
def test_a_file_that_is_in_the_way_is_replaced(shell: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    (tmp_path / "out.png").write_text("old")
    assert shell("demo", "--image", "mine.png", "--out", "out.png").exit_status == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (40, 30))


def test_live_it_calls_the_given_endpoint_of_the_platform_with_the_prompt(
    shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    picture = as_data_uri(draw("a cat", (32, 32)), "JPEG")
    fal.register("acme/photo", lambda arguments: {"images": [{"url": picture}], **arguments})
    outcome = shell("demo", "--live", "acme/photo", "--prompt", "a boat")
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "a boat"}] * 2
    assert (fal.count("run"), fal.count("submit")) == (1, 2)
    with Image.open(tmp_path / "fal_async_demo.png") as saved:
        assert saved.size == (32, 32)


def test_live_it_sends_ones_own_picture_as_a_data_uri(
    shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    fal.register("acme/photo", lambda arguments: {"image": arguments["image_url"]})
    assert shell("demo", "--live", "acme/photo", "--image", "mine.png").exit_status == 0
    with Image.open(tmp_path / "fal_async_demo.png") as saved:
        assert saved.size == (40, 30)


def test_live_a_picture_behind_a_url_is_fetched_without_the_key(
    shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    content = from_data_uri(as_data_uri(draw("a cat", (32, 32)), "PNG"))
    fal.register("acme/file", PlainTextResponse(content), auth=False)
    fal.register("acme/photo", lambda: {"image": {"url": f"{fal.url}/run/acme/file"}})
    assert shell("demo", "--live", "acme/photo").exit_status == 0
    fetched = [request for request in fal.requests if request.endpoint == "acme/file"]
    assert [request.headers.get("authorization") for request in fetched] == [None]
    with Image.open(tmp_path / "fal_async_demo.png") as saved:
        assert saved.size == (32, 32)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("{fal.url}/run/acme/missing", "/run/acme/missing cannot be fetched: HTTP 401"),
        ("{fal.url}/run/acme/page", "/run/acme/page is not a picture"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA is not a picture"),
        ("data:image/png,AAAA", "is not a data URI in base64"),
        ("ftp://example.com/cat.png", "ftp://example.com/cat.png cannot be fetched"),
        ("http://[cat/", "http://[cat/ cannot be fetched"),
    ],
)
def test_live_a_picture_that_cannot_be_had_is_one_line_and_leaves_no_file(
    url: str, what: str, shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    fal.register("acme/page", PlainTextResponse("<html>"), auth=False)
    fal.register("acme/photo", lambda: {"image": {"url": url.format(fal=fal)}})
    outcome = shell("demo", "--live", "acme/photo")
    assert outcome.exit_status == 1
    assert what in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_live_an_output_without_a_picture_is_printed(
    shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    fal.register("acme/poet", lambda: {"output": "a haiku"})
    outcome = shell("demo", "--live", "acme/poet")
    assert outcome.exit_status == 0
    assert outcome.stdout.endswith('{\n  "output": "a haiku"\n}\n')
    assert not list(tmp_path.glob("*.png"))


def test_live_an_error_of_the_platform_is_one_line_and_leaves_no_file(
    shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise AppError(422, "no cats today")

    fal.register("acme/photo", refuse)
    outcome = shell("demo", "--live", "acme/photo")
    assert outcome.exit_status == 1
    assert outcome.stderr.startswith("fal_async: no cats today")
    assert outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
