"""Code blocks of Markdown documents: read them, and run them against the emulator."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from fal_async.emulator import AppError, Emulator, Job, Socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        document: The path of the document, from the root of the repository.
        line: The number of its first line of code.
        language: The language of the block, such as ``"python"``.
        title: The file that the block is, or ``""``.
        code: Its text.
    """

    document: str
    line: int
    language: str
    title: str
    code: str

    async def run_as_cell(self, names: dict[str, Any]) -> None:
        """Run it as a cell of a notebook does, so that it may await at the top level."""
        source = "\n" * (self.line - 1) + self.code  # tracebacks show the line of the document
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        ran = eval(compile(source, self.document, "exec", flags, dont_inherit=True), names)
        if inspect.isawaitable(ran):
            await ran


def read_blocks(document: Path) -> list[Block]:
    """Return the blocks of a document in their order."""
    text = document.read_text("utf-8")
    name = document.relative_to(ROOT).as_posix()
    return [
        Block(name, text.count("\n", 0, found.start(3)) + 1, *found.groups(default=""))
        for found in _BLOCK.finditer(text)
    ]


def write_files(blocks: Iterable[Block], folder: Path) -> list[Path]:
    """Write blocks that are files into a folder."""
    files = []
    for block in blocks:
        files.append(folder / block.title)
        files[-1].write_text(block.code, "utf-8")
    return files


def run_program(
    arguments: Iterable[str | Path], environ: Mapping[str, str], folder: Path, timeout: float = 50
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, and check that it succeeds in time."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def draw(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
    job.log(f"drawing {arguments['prompt']}")
    url = "https://v3b.fal.media/files/b/lighthouse.png"
    return {"images": [{"url": url}], "seed": arguments.get("seed", 7)}


def talk(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for text in ("foxes", "foxes are", "foxes are red"):
        yield {"output": text, "partial": text != "foxes are red", "error": None}


def flow(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "submit", "node_id": "draw", "app_id": "fal-ai/flux/dev", "request_id": "1"}
    yield {"type": "completion", "node_id": "draw", "output": {"seed": 7}}
    yield {"type": "output", "output": {"seed": 7}}


def live(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def edit(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"image": {"url": arguments["image_url"], "content_type": "image/png"}}


async def slow(arguments: dict[str, Any]) -> None:
    await anyio.sleep_forever()


def strict(arguments: dict[str, Any]) -> None:
    raise AppError(422, [{"loc": ["body", "image_url"], "msg": "too small", "type": "too_small"}])


async def chat(socket: Socket) -> None:
    async for message in socket:
        await socket.send(message)


async def page(scope: Any, receive: Any, send: Callable[..., Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def register_endpoints(fal: Emulator) -> None:
    """Register what documents and example programs call."""
    fal.register("fal-ai/flux/dev", draw)
    fal.set_price("fal-ai/flux/dev", "0.025")
    fal.register("fal-ai/any-llm", talk)
    fal.register("acme/edit", edit)
    fal.register("workflows/acme/portrait", flow)
    fal.register("acme/slow", slow)
    fal.register("acme/strict", strict)
    fal.register("acme/page", page, auth=False)
    fal.realtime("acme/live")(live)
    fal.websocket("acme/chat")(chat)
    fal.accept_key("id:secret")
    fal.accept_key("another:key")
