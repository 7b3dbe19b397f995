"""Commands, run in this process or as real programs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import fal_async
from fal_async._protocol.serialization import decode_json
from fal_async.cli import main
from tests.support import subprocesses

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import pytest

ROOT = Path(fal_async.__file__).parents[1]
PROGRAM = [sys.executable, "-W", "error", "-m", "fal_async"]


@dataclass(frozen=True)
class Outcome:
    """The exit status and the output of a command."""

    exit_status: int
    output: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.output.decode()

    @property
    def json(self) -> object:
        return decode_json(self.stdout)


class Terminal(io.TextIOWrapper):
    """A terminal as stdout; the kind ``dumb`` has no colours."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, kind: str = "dumb", encoding: str = "utf-8"
    ) -> None:
        self._content = io.BytesIO()
        super().__init__(self._content, encoding=encoding, errors="replace", write_through=True)
        monkeypatch.setattr(sys, "stdout", self)
        monkeypatch.setenv("TERM", kind)

    def isatty(self) -> bool:
        return True

    @property
    def written(self) -> str:
        return self._content.getvalue().decode(self.encoding)


class Shell:
    """The command line in this process."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        exit_status = main(arguments)
        out, err = self._capture.readouterr()
        return Outcome(exit_status, out, err.decode())

    def read_stdout(self) -> str:
        """Return the text written to stdout since the last call."""
        return self._capture.readouterr().out.decode()


def environment(**more: str) -> Mapping[str, str]:
    """Return the environment of a program that runs this package from another folder."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


def run_program(*arguments: str, **environ: str) -> Outcome:
    """Run the real program."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        env=environment(**environ),
        capture_output=True,
        timeout=30,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


def started(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start the real program, and kill it at the end of the block."""
    command = [*PROGRAM, *arguments]
    return subprocesses.started(command, env=environment(), stderr=subprocess.PIPE)


def run_on_terminal(*arguments: str) -> tuple[int, str]:
    """Run the real program on a pseudo-terminal; return its exit status and its output."""
    import pty

    primary, secondary = pty.openpty()
    environ = environment(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS="100", LINES="40")
    program = subprocess.Popen(
        [*PROGRAM, *arguments], env=environ, stdin=secondary, stdout=secondary, stderr=secondary
    )
    os.close(secondary)
    written = b""
    try:
        while chunk := _read(primary):
            written += chunk
    finally:
        os.close(primary)
    return program.wait(30), written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux raises this when the other side is closed
        return b""
