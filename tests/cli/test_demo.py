"""The command `demo`: its steps, its image file, and the real platform."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image
from starlette.responses import PlainTextResponse

import fal_async
from fal_async.cli._demo.images import encode_image, make_gradient
from fal_async.cli._demo.presenter import format_arguments
from fal_async.emulator import AppError, Emulator
from tests.support.cli_runner import Shell, run_on_terminal, run_program, started

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def step_names(stdout: str) -> list[str]:
    """Return the names of the steps."""
    return re.findall(r"^\d  (\w+):", stdout, re.MULTILINE)


def progress_lines(stdout: str, step: str) -> list[str]:
    """Return the lines of a step that begin with a time, without the time."""
    _, _, rest = stdout.partition(f"  {step}: ")
    own, *_ = re.split(r"^\d  ", rest, maxsplit=1, flags=re.MULTILINE)
    return re.findall(r"^ +\d+\.\d\d s  (.*)$", own, re.MULTILINE)


def parse_image_line(line: str) -> tuple[str, int, int, float]:
    """Return the name, the width, the height and the kilobytes."""
    found = re.fullmatch(r"(.+): (\d+) x (\d+), (\d+\.\d) kB, \d+ ms later", line)
    assert found is not None
    return found[1], int(found[2]), int(found[3]), float(found[4])


@pytest.mark.slow
def test_program_shows_every_call_and_saves_image(tmp_path: Path) -> None:
    outcome = run_program("demo")
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert step_names(outcome.stdout) == [
        "run",
        "stream",
        "realtime",
        "submit",
        "subscribe",
        "files",
    ]
    assert 'arguments = {"image_url": picture}' in outcome.stdout
    assert "return await client.run(endpoint, arguments)" in outcome.stdout
    assert "async with client.realtime(endpoint) as session:" in outcome.stdout
    assert len(set(re.findall(f"request ({UUID})$", outcome.stdout, re.MULTILINE))) == 3
    assert all(character.isprintable() or character == "\n" for character in outcome.stdout)
    with Image.open(tmp_path / "fal_async_demo.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (768, 512))
    assert f"Saved  {tmp_path / 'fal_async_demo.png'} (768 x 512)" in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["fal_async_demo.png"]


@pytest.mark.usefixtures("no_step_delay")
def test_previews_and_messages_are_shown(shell: Shell) -> None:
    stdout = shell("demo", "--prompt", "a cat").stdout
    previews = [parse_image_line(line) for line in progress_lines(stdout, "stream")]
    assert [name for name, *_ in previews] == [f"step {n} of 4" for n in (1, 2, 3, 4)]
    assert [size for _, *size, _ in previews] == [[24, 16], [72, 48], [216, 144], [768, 512]]
    assert [kilobytes for *_, kilobytes in previews] == sorted(kb for *_, kb in previews)
    connected, *lines = progress_lines(stdout, "realtime")
    responses = [parse_image_line(line)[:3] for line in lines]
    assert connected == "connected"
    assert responses == [(name, 192, 128) for name in ("mosaic", "poster", "duotone")]


@pytest.mark.usefixtures("no_step_delay")
def test_queue_logs_and_file_are_shown(shell: Shell, tmp_path: Path) -> None:
    stdout = shell("demo", "--filter", "mosaic").stdout
    lines = progress_lines(stdout, "subscribe")
    started = lines.index("in progress")
    queue = [
        "in the queue, 2 jobs ahead",
        "in the queue, 1 job ahead",
        "next in the queue",
    ]
    assert started == 0 or lines[:started] == queue[-started:]
    assert lines[started + 1 : -2] == [
        "| loading the image",
        "| applying the filter 'mosaic'",
        "| encoding the image as PNG",
    ]
    assert re.fullmatch(r"completed, after \d+\.\d\d s of work", lines[-2])
    size = (tmp_path / "fal_async_demo.png").stat().st_size
    assert progress_lines(stdout, "files") == [f"picture.png: {size / 1000:.1f} kB"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pty")
def test_terminal_shows_queue_in_place_and_images(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (96, 64), "#ff0000").save(tmp_path / "mine.png")
    exit_status, written = run_on_terminal("demo", "--image", "mine.png", "--filter", "none")
    assert exit_status == 0
    assert re.search(r"in the queue, \d jobs? ahead[^\n]*●[^\n]*\x1b\[2K", written)
    assert not re.search(r"in the queue, \d jobs? ahead\r\n", written)
    assert "| loading the image" in written
    kept = written.rpartition("\x1b[2K")[2]
    assert kept.count("▄") == 54 * 18
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_no_files(tmp_path: Path) -> None:
    with started("demo") as program:
        assert program.stdout is not None
        while "4  submit" not in program.stdout.readline():
            assert program.poll() is None
        program.send_signal(signal.SIGINT)
        _, stderr = program.communicate(timeout=30)
    assert (program.returncode, stderr) == (130, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_step_delay")
def test_own_image_is_saved_in_the_named_format(shell: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "#ff0000").save(tmp_path / "mine.png")
    outcome = shell("demo", "--image", "mine.png", "--filter", "none", "--out", "yours.webp")
    assert outcome.exit_status == 0
    assert 'arguments = {"image_url": Path("mine.png")}' in outcome.stdout
    with Image.open(tmp_path / "yours.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (40, 30))
        red, green, blue = picture.convert("RGB").getpixel((20, 15))  # type: ignore[misc]  # a tuple
    assert (red > 240, green < 15, blue < 15) == (True, True, True)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.png", "yours.webp"}


@pytest.mark.usefixtures("no_step_delay")
def test_existing_file_is_replaced(shell: Shell, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    (tmp_path / "out.png").write_text("old")
    assert shell("demo", "--image", "mine.png", "--out", "out.png").exit_status == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (40, 30))


def test_live_calls_the_endpoint_with_the_prompt(
    shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    picture = fal_async.encode_image(make_gradient("a cat", (32, 32)))
    fal.register("acme/photo", lambda arguments: {"images": [{"url": picture}], **arguments})
    outcome = shell("demo", "--live", "acme/photo", "--prompt", "a boat")
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert 'arguments = {"prompt": "a boat"}' in outcome.stdout
    assert step_names(outcome.stdout) == [
        "run",
        "stream",
        "realtime",
        "submit",
        "subscribe",
        "files",
    ]
    assert outcome.stdout.count(": skipped, since its ") == 2
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "a boat"}] * 2
    assert not {"stream", "realtime", "token"} & {request.route for request in fal.requests}
    assert (fal.count("run"), fal.count("submit")) == (1, 2)
    with Image.open(tmp_path / "fal_async_demo.png") as saved:
        assert (saved.format, saved.size) == ("PNG", (32, 32))


def test_live_uploads_own_image_unchanged(shell: Shell, fal: Emulator, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "mine.png")
    content = (tmp_path / "mine.png").read_bytes()
    fal.register("acme/photo", lambda arguments: {"image": {"url": arguments["image_url"]}})
    assert shell("demo", "--live", "acme/photo", "--image", "mine.png").exit_status == 0
    assert {(file.file_name, file.content) for file in fal.files.values()} == {
        ("mine.png", content)
    }
    assert (tmp_path / "fal_async_demo.png").read_bytes() == content


def test_live_download_does_not_send_the_key(shell: Shell, fal: Emulator, tmp_path: Path) -> None:
    content = encode_image(make_gradient("a cat", (2000, 40)), "PNG")
    fal.register("acme/file", PlainTextResponse(content), auth=False)
    fal.register("acme/photo", lambda: {"image": {"url": f"{fal.url}/run/acme/file"}})
    outcome = shell("demo", "--live", "acme/photo")
    assert outcome.exit_status == 0
    fetched = [request for request in fal.requests if request.endpoint == "acme/file"]
    assert [request.headers.get("authorization") for request in fetched] == [None]
    assert (tmp_path / "fal_async_demo.png").read_bytes() == content
    assert "(2000 x 40)" in outcome.stdout


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("{fal.url}/run/acme/missing", "HTTP 401"),
        ("data:image/png;base64,A", "base64"),
        ("http://127.0.0.1:1/cat.png", "127.0.0.1"),
    ],
)
def test_live_failed_download_keeps_the_old_file(
    url: str, what: str, shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "fal_async_demo.png").write_text("old")
    fal.register("acme/photo", lambda: {"image": {"url": url.format(fal=fal)}})
    outcome = shell("demo", "--live", "acme/photo")
    assert outcome.exit_status == 1
    assert what in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        ({"output": "a haiku"}, '{\n  "output": "a haiku"\n}\n'),
        (["a", "haiku"], '[\n  "a",\n  "haiku"\n]\n'),
        ({"url": "data:,text"}, '{\n  "url": "data:,text"\n}\n'),
    ],
    ids=["object", "list", "a file that is no image"],
)
def test_live_output_without_image_is_printed(
    output: object, printed: str, shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    fal.register("acme/poet", lambda: output)
    outcome = shell("demo", "--live", "acme/poet")
    assert outcome.exit_status == 0
    assert outcome.stdout.endswith(f"\n\nThe output  holds no image:\n{printed}")
    assert not list(tmp_path.iterdir())


def test_live_saves_the_first_image(shell: Shell, fal: Emulator, tmp_path: Path) -> None:
    urls = ["data:,text", fal_async.encode_image(make_gradient("a cat", (32, 16)), "png")]
    fal.register("acme/photo", lambda: {"files": [{"url": url} for url in urls]})
    assert shell("demo", "--live", "acme/photo").exit_status == 0
    with Image.open(tmp_path / "fal_async_demo.png") as saved:
        assert saved.size == (32, 16)


def test_live_platform_error_leaves_no_file(shell: Shell, fal: Emulator, tmp_path: Path) -> None:
    def refuse() -> None:
        raise AppError(422, "no cats today")

    fal.register("acme/photo", refuse)
    outcome = shell("demo", "--live", "acme/photo")
    assert outcome.exit_status == 1
    assert outcome.stderr.startswith("fal_async: no cats today")
    assert outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_live_without_a_key_is_one_line(shell: Shell, tmp_path: Path) -> None:
    outcome = shell("demo", "--live", "acme/photo")
    assert (outcome.exit_status, outcome.stderr.count("\n")) == (2, 1)
    assert "FAL_KEY" in outcome.stderr
    assert not list(tmp_path.iterdir())


def test_arguments_are_shown_as_python() -> None:
    assert format_arguments({"a": 'x"\n'}) == 'arguments = {"a": "x\\"\\n"}'
    assert format_arguments({"a": "x" * 60, "b": Path("y")}).splitlines() == [
        "arguments = {",
        f'    "a": "{"x" * 27}…{"x" * 26}",',
        '    "b": Path("y"),',
        "}",
    ]
