"""Standard streams that are missing, full, or in another encoding."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.cli_runner import PROGRAM, environment

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX"),
]


def run(words: str, *arguments: str | bytes, **environ: str) -> tuple[int, bytes, list[str]]:
    """Run the program in a shell with redirections; return its status, stdout and stderr lines."""
    done = subprocess.run(
        ["sh", "-c", f'{shlex.join(PROGRAM)} {words} "$@"', "sh", *arguments],
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


@pytest.fixture(autouse=True)
def echo(fal: Emulator) -> None:
    fal.register("acme/echo", lambda arguments: arguments)


def test_closed_stdout_prevents_the_request(fal: Emulator) -> None:
    for command in ("run", "submit"):
        status, _, lines = run(f"{command} acme/echo a=1 >&-")
        assert (status, len(lines)) == (2, 1)
        assert "stdout is closed" in lines[0]
    assert fal.requests == []


def test_help_needs_no_stdout() -> None:
    assert run("--help >&-") == (0, b"", [])


def test_closed_stdin_is_a_usage_error() -> None:
    status, output, lines = run("run acme/echo -i - <&-")
    assert (status, output, len(lines)) == (2, b"", 1)
    assert "stdin is closed" in lines[0]


@pytest.mark.slow
def test_closed_stderr_keeps_the_output() -> None:
    assert run("subscribe acme/echo a=1 2>&-") == (0, b'{\n  "a": "1"\n}\n', [])
    assert run("run nonsense 2>&-") == (2, b"", [])


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 -- a device
def test_full_disk_is_one_line() -> None:
    status, _, lines = run("run acme/echo a=1 >/dev/full")
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("fal_async: cannot write the output of request ")
    assert lines[0].endswith(": No space left on device")
    assert run("run acme/echo a=1 2>/dev/full") == (0, b'{\n  "a": "1"\n}\n', [])
    assert run("run nonsense 2>/dev/full") == (2, b"", [])


def test_closed_pipe_ends_quietly() -> None:
    status, _, lines = run("run acme/echo a=1 | true")
    assert (status, lines) == (0, [])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_piped_output_is_utf_8(encoding: str) -> None:
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environ["PYTHONIOENCODING"] = encoding
    status, output, _ = run("run acme/echo", "-i", r'{"a":"\u732b"}', **environ)
    assert (status, output) == (0, '{\n  "a": "猫"\n}\n'.encode())


@pytest.mark.slow
def test_undecodable_arguments_are_rejected(fal: Emulator) -> None:
    for argument in (b"a=\xff", b'--input={"a":"\xff"}'):
        status, _, lines = run("run acme/echo", argument)
        assert (status, len(lines)) == (2, 1)
        assert "is not text" in lines[0]
    assert fal.requests == []
