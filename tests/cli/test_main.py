"""The program: help, version, usage errors and exit statuses."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import fal_async
from fal_async.emulator import Emulator, Fault
from tests.support.cli_runner import Shell, run_program

if TYPE_CHECKING:
    from pathlib import Path


def test_version_is_that_of_the_library(shell: Shell) -> None:
    assert shell("--version").stdout == f"fal_async {fal_async.__version__}\n"


def test_no_arguments_show_the_help(shell: Shell) -> None:
    outcome = shell()
    assert outcome == shell("--help")
    assert outcome.exit_status == 0
    assert "fal-async [OPTIONS] COMMAND" in outcome.stdout
    words = outcome.stdout.split()
    for command in ("demo", "emulate", "run", "subscribe", "submit", "status", "result", "cancel"):
        assert command in words


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["paint"], "'paint'"),
        (["--nonsense"], "--nonsense"),
        (["demo", "--nonsense"], "--nonsense"),
        (["demo", "surplus"], "surplus"),
        (["demo", "--filter", "sepia"], "sepia"),
        (["demo", "--filter", ""], "--filter"),
        (["demo", "--image", "missing.jpg"], "missing.jpg: No such file"),
        (["demo", "--image", "."], ".: Is a directory"),
        (["demo", "--image", "text.txt"], "text.txt is not an image"),
        (["demo", "--out", "picture.txt"], ".png"),
        (["demo", "--out", "picture"], ".png"),
        (["demo", "--out", "nowhere/picture.png"], "nowhere"),
        (["demo", "--out", "folder.png"], "folder.png"),
        pytest.param(
            ["demo", "--out", "/proc/picture.png"],
            "--out /proc/picture.png cannot be written: ",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc"),
        ),
        (["demo", "--live", "acme/photo", "--filter", "duotone"], "--filter"),
        (["demo", "--live", "nonsense"], "'nonsense'"),
        (["emulate", "--port", "http"], "--port"),
        (["emulate", "--port", "65536"], "--port"),
        (["emulate", "--app", "nonsense"], "module:attribute"),
        (["emulate", "--app", "no_such_module:app"], "No module named 'no_such_module'"),
        (["emulate", "--app", "json:no_such_name"], "no_such_name"),
        (["emulate", "--app", "json:__name__"], "got str"),
        (["emulate", "--app", "json.decoder:BACKSLASH"], "'\"'"),
        (["emulate", "--app", "json:loads"], "TypeError: "),
        (["emulate", "--host", "256.0.0.1"], "256.0.0.1"),
        (["run"], "ENDPOINT"),
        (["run", "nonsense"], "'nonsense'"),
        (["run", "acme/echo", "prompt"], "'prompt'"),
        (["run", "acme/echo", "=a cat"], "'=a cat'"),
        (["run", "acme/echo", "seed:=seven"], "'seed:=seven'"),
        (["run", "acme/echo", "--input", "{"], "--input"),
        (["run", "acme/echo", "--input", "[1]"], "--input"),
        (["run", "acme/echo", "--input", "@missing.json"], "missing.json"),
        (["run", "acme/echo", "--timeout", "soon"], "--timeout"),
        (["run", "acme/echo", "--timeout", "-1"], "timeout"),
        (["status", "acme/echo"], "REQUEST_ID"),
        (["status", "acme/echo", "not/an/id"], "not/an/id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_error_is_one_line(
    arguments: list[str], what: str, shell: Shell, fal: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    outcome = shell(*arguments)
    assert outcome.exit_status == 2
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("fal_async: ")
    assert what in outcome.stderr
    assert not fal.requests


@pytest.mark.parametrize(
    ("module", "command", "what", "extra"),
    [
        ("typer", ["--help"], "typer", "cli"),
        ("rich", ["run", "acme/echo"], "rich", "cli"),
        ("PIL", ["demo"], "pillow", "demo"),
        ("rich_pixels", ["demo"], "rich-pixels", "demo"),
        ("starlette", ["demo"], "starlette", "emulator"),
        ("uvicorn", ["emulate"], "uvicorn", "emulator"),
    ],
)
def test_missing_extra_names_the_install_command(
    module: str,
    command: list[str],
    what: str,
    extra: str,
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    outcome = shell(*command)
    assert outcome.exit_status == 2
    assert outcome.stderr == f'fal_async: {what} missing: pip install "fal-async[{extra}]"\n'


def test_missing_key_is_one_line(shell: Shell) -> None:
    outcome = shell("run", "acme/echo")
    assert (outcome.exit_status, outcome.stderr.count("\n")) == (2, 1)
    assert "FAL_KEY" in outcome.stderr


def test_platform_error_is_one_printable_line(shell: Shell, fal: Emulator) -> None:
    fal.register("acme/echo", lambda arguments: arguments)
    fal.fail("acme/echo", Fault(status=400, body={"detail": "no\n\x1b[31mcats\tplease"}))
    outcome = shell("run", "acme/echo")
    assert (outcome.exit_status, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("fal_async: no [31mcats please (HTTP 400")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.slow
def test_program_prints_in_any_encoding() -> None:
    outcome = run_program("run", "猫", PYTHONIOENCODING="ascii", FAL_KEY="key")
    assert outcome.exit_status == 2
    assert outcome.stderr.startswith("fal_async: '?' is not an endpoint id")
    assert outcome.stderr.count("\n") == 1
