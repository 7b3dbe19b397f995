"""Programs for the official client, run with either client."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fal_async.emulator import AppError, Emulator, Job, Socket
from tests.support.subprocesses import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = pytest.mark.slow

#: What stands before a program: which client its `import fal_client` finds.
OURS = """
import sys
import fal_async.sync
sys.modules["fal_client"] = fal_async.sync
"""
OURS_ASYNC = OURS.replace("fal_async.sync", "fal_async")
OFFICIAL = """
import os
from fal_client import client
base = os.environ["FAL_ASYNC_BASE_URL"]
client.RUN_URL_FORMAT, client.QUEUE_URL_FORMAT = f"{base}/run/", f"{base}/queue/"
client.REALTIME_URL_FORMAT = client.RUN_URL_FORMAT.replace("http", "ws", 1)
client.REST_URL, client.CDN_URL = f"{base}/rest", f"{base}/cdn"
"""

PROGRAMS = {
    "the first lines of its README": """
import fal_client

response = fal_client.run("fal-ai/fast-sdxl", arguments={"prompt": "a cute cat, orange"})
print(response["images"][0]["url"])
""",
    "asynchronous requests": """
import asyncio
import fal_client

async def main():
    response = await fal_client.run_async("fal-ai/fast-sdxl", arguments={"prompt": "a cute cat"})
    print(response["images"][0]["url"])

asyncio.run(main())
""",
    "uploading files": """
import fal_client

audio_url = fal_client.upload_file("audio.wav")
response = fal_client.run("fal-ai/whisper", arguments={"audio_url": audio_url})
print(response["text"])
print(fal_client.upload(b"some text", "text/plain", file_name="some.txt").rpartition("/")[2])
""",
    "uploading images": """
import fal_client
from PIL import Image

url = fal_client.upload_image(Image.new("RGB", (4, 4), "red"), format="png")
print(fal_client.run("fal-ai/whisper", arguments={"audio_url": url})["text"])
""",
    "files as data URLs": """
import fal_client
from PIL import Image

audio_data_url = fal_client.encode_file("audio.wav")
response = fal_client.run("fal-ai/whisper", arguments={"audio_url": audio_data_url})
print(response["text"])
print(fal_client.encode("hello", "text/plain"))
print(fal_client.encode_image(Image.new("RGB", (4, 4), "red"), format="png"))
""",
    "queuing requests": """
import asyncio
import fal_client

async def main():
    response = await fal_client.submit_async("fal-ai/fast-sdxl", arguments={"prompt": "a cat"})

    async for event in response.iter_events(with_logs=True):
        if isinstance(event, fal_client.Queued):
            assert event.position == 0
        elif isinstance(event, (fal_client.InProgress, fal_client.Completed)):
            for log in event.logs:
                print(log["message"])

    result = await response.get()
    print(result["images"][0]["url"])

asyncio.run(main())
""",
    "its README's way to skip the logs that were seen, with a job that has ended": """
import asyncio
import fal_client

async def main():
    response = await fal_client.submit_async("fal-ai/fast-sdxl", arguments={"prompt": "a cat"})
    await response.get()

    logs_index = 0
    async for event in response.iter_events(with_logs=True):
        if isinstance(event, fal_client.Queued):
            print("Queued. Position:", event.position)
        elif isinstance(event, (fal_client.InProgress, fal_client.Completed)):
            new_logs = event.logs[logs_index:]
            for log in new_logs:
                print(log["message"])
            logs_index = len(event.logs)

asyncio.run(main())
""",
    "subscribe with logs": """
import fal_client

def on_queue_update(update):
    if isinstance(update, fal_client.InProgress):
        for log in update.logs:
            print(log["message"])
        if update.logs:
            fal_client.run("acme/open", arguments={})

request_ids = []
result = fal_client.subscribe(
    "acme/gated",
    arguments={"prompt": "a fox"},
    with_logs=True,
    on_enqueue=request_ids.append,
    on_queue_update=on_queue_update,
)
print(result, len(request_ids))
""",
    "subscribe, asynchronously": """
import asyncio
import fal_client

def on_queue_update(update):
    if isinstance(update, fal_client.InProgress) and update.logs:
        print(update.logs[0]["message"])
        opening.append(asyncio.create_task(fal_client.run_async("acme/open", arguments={})))

opening = []

async def main():
    result = await fal_client.subscribe_async(
        "acme/gated", arguments={"prompt": "a fox"}, with_logs=True, on_queue_update=on_queue_update
    )
    await asyncio.gather(*opening)
    print(result)

asyncio.run(main())
""",
    "a handle and its events": """
import fal_client

handle = fal_client.submit("acme/gated", {"prompt": "a fox"}, hint="lora", priority="low")
for event in handle.iter_events(with_logs=True, interval=0.05):
    if isinstance(event, fal_client.InProgress) and event.logs:
        print("in progress:", [log["message"] for log in event.logs])
        fal_client.run("acme/open", arguments={})
print(handle.get())
status = handle.status(with_logs=True)
print(type(status).__name__, [log["message"] for log in status.logs], sorted(status.metrics))
print(handle.status().logs or None, status.error, status.error_type)
print(fal_client.result("acme/gated", handle.request_id))
print(type(fal_client.status("acme/gated", handle.request_id, with_logs=False)).__name__)
""",
    "asynchronous calls by id": """
import asyncio
import fal_client

async def main():
    handle = await fal_client.submit_async("fal-ai/fast-sdxl", arguments={"prompt": "a fox"})
    print(await fal_client.result_async("fal-ai/fast-sdxl", handle.request_id))
    status = await fal_client.status_async("fal-ai/fast-sdxl", handle.request_id, with_logs=True)
    print(isinstance(status, fal_client.Completed), [log["message"] for log in status.logs])

asyncio.run(main())
""",
    "a client of its own": """
import os
import fal_client

client = fal_client.SyncClient(key=os.environ.pop("FAL_KEY"), default_timeout=30.0)
print(client.run("acme/echo", arguments={"n": 1}))
print(client.subscribe("acme/echo", arguments={"n": 2}))
handle = client.submit("acme/echo", arguments={"n": 3})
print(client.get_handle("acme/echo", handle.request_id).get())
print(client.result("acme/echo", handle.request_id))
options = {"timeout": 5, "start_timeout": 10, "headers": {"x": "y"}}
print(client.run("acme/echo", {"n": 4}, path="/fast", **options))
""",
    "an async client of its own": """
import asyncio, os
import fal_client

async def main():
    client = fal_client.AsyncClient(key=os.environ["FAL_KEY"])
    results = await asyncio.gather(*(client.subscribe("acme/echo", {"n": n}) for n in range(5)))
    print(results)

asyncio.run(main())
""",
    "streams": """
import asyncio
import fal_client

for event in fal_client.stream("acme/talk", arguments={"prompt": "foxes"}):
    print(event)

async def main():
    async for event in fal_client.stream_async("acme/talk", {"prompt": "hens"}, path="/stream"):
        print(event["output"])

asyncio.run(main())
""",
    "realtime": """
import asyncio
import fal_client

with fal_client.realtime("acme/live") as connection:
    for n in range(3):
        connection.send({"n": n, "image": b"raw"})
        print(connection.recv())

async def main():
    async with fal_client.realtime_async("acme/live", use_jwt=False) as connection:
        await connection.send({"prompt": "a fox"})
        print(await connection.recv())

asyncio.run(main())
""",
    "sockets": """
import fal_client

with fal_client.ws_connect("acme/socket", path="/chat") as ws:
    ws.send("hello")
    print(ws.recv())
    ws.send(b"raw")
    print(ws.recv())
""",
    "errors": """
import fal_client

try:
    fal_client.run("acme/strict", arguments={})
except fal_client.FalClientHTTPError as error:
    print(error.status_code, isinstance(error, fal_client.FalClientError))
try:
    fal_client.subscribe("acme/nothing", arguments={})
except fal_client.FalClientError as error:
    print(error.status_code, error.response_headers["content-type"])
try:
    fal_client.subscribe("acme/slow", arguments={}, client_timeout=1.1)
except TimeoutError as error:
    print(isinstance(error, fal_client.FalClientTimeoutError))
    print(error.timeout, bool(error.request_id))
""",
    "a job that is cancelled": """
import fal_client

handle = fal_client.submit("acme/slow", arguments={})
handle.cancel()
try:
    handle.get()
except fal_client.FalClientHTTPError as error:
    print(error.status_code, error.error_type)
handle = fal_client.submit("acme/slow", arguments={})
fal_client.cancel("acme/slow", handle.request_id)
try:
    fal_client.result("acme/slow", handle.request_id)
except fal_client.FalClientHTTPError as error:
    print(error.status_code)
""",
    "errors by the name of their module, and what httpx knows of them": """
import fal_client
from fal_client.auth import MissingCredentialsError
from fal_client.client import FalClientHTTPError

try:
    fal_client.subscribe("acme/strict", arguments={})
except fal_client.client.FalClientError as error:
    print(isinstance(error, FalClientHTTPError), isinstance(error, MissingCredentialsError))
    response = getattr(error, "response", None)
    print(response.status_code, response.headers["Content-Type"], response.is_client_error)
    print(response.json()["detail"][0]["msg"], len(response.content) == len(response.text) > 0)
""",
    "errors that tests of programs raise": """
import fal_client
import httpx

response = httpx.Response(429, text="slow down")
for error in (
    fal_client.FalClientHTTPError("slow down", 429, {"retry-after": "1"}, response),
    fal_client.client.FalClientHTTPError(
        message="slow down", status_code=429, response_headers={}, response=response
    ),
    fal_client.FalClientTimeoutError(timeout=3.0, request_id="764cabcf"),
):
    print(getattr(error, "response", None) is response, isinstance(error, TimeoutError))
    print(getattr(error, "message", None), getattr(error, "error_type", None))
""",
    "names that are imported from the module of the client": """
from fal_client.client import (
    AsyncClient, Completed, FalClientHTTPError, FalClientTimeoutError, InProgress, Queued,
    RealtimeError, Status, StorageACL, StorageACLRule, StorageSettings, SyncClient,
    SyncRequestHandle, encode, encode_file, encode_image,
)

client = SyncClient(default_timeout=30.0)
print(client.default_timeout, AsyncClient(default_timeout=12).default_timeout)
handle = client.submit("acme/echo", arguments={"n": 3})
print(isinstance(handle, SyncRequestHandle), handle.get())
print(isinstance(handle.status(), Completed), issubclass(Queued, Status))
""",
    "a job of another run, collected by its id": """
import fal_client

earlier = fal_client.submit("acme/echo", arguments={"n": 1})
request_id = earlier.get() and earlier.request_id

handle = fal_client.SyncRequestHandle.from_request_id(
    fal_client.sync_client._client, "acme/echo", request_id
)
if isinstance(handle.status(), fal_client.Completed):
    print("collected", handle.get())
own = fal_client.SyncClient()
print(fal_client.SyncRequestHandle.from_request_id(own._client, "acme/echo", request_id).get())
print(fal_client.sync_client.result("acme/echo", request_id))
""",
    "a job of another run, collected by its id from async code": """
import asyncio
import fal_client
from fal_client.client import AsyncRequestHandle

async def main():
    request_id = (await fal_client.submit_async("acme/echo", arguments={"n": 1})).request_id
    client = await fal_client.async_client._client
    print(await AsyncRequestHandle.from_request_id(client, "acme/echo", request_id).get())
    print(await fal_client.async_client.result("acme/echo", request_id))

asyncio.run(main())
""",
    "a wait with a clock of its own": """
import time
import fal_client

handle = fal_client.submit("acme/slow", arguments={})
start = time.monotonic()
try:
    for status in handle.iter_events(with_logs=True, interval=0.1):
        if time.monotonic() - start > 0.5:
            raise TimeoutError("gave up")
except TimeoutError as error:
    print(error, time.monotonic() - start < 5)
handle.cancel()
""",
    "a stop button": """
import fal_client

class Stopped(Exception):
    pass

seen = []

def look(status):
    seen.append(status)
    if len(seen) > 4:
        raise Stopped

try:
    fal_client.subscribe("acme/slow", arguments={}, on_queue_update=look, interval=0.05)
except Stopped:
    print("stopped", len(seen))
""",
    "credentials for requests of its own": """
from fal_client.auth import FAL_RUN_HOST, AuthCredentials, fetch_auth_credentials, fetch_credentials

found = fetch_auth_credentials()
print(found.scheme, found.header_value == f"Key {fetch_credentials()}", found.as_headers().keys())
print(AuthCredentials("Key", "a:b").as_headers(), bool(FAL_RUN_HOST))
""",
    "threads": """
from concurrent.futures import ThreadPoolExecutor
import fal_client

with ThreadPoolExecutor(8) as pool:
    results = pool.map(lambda n: fal_client.subscribe("acme/echo", arguments={"n": n}), range(20))
print(list(results))
""",
}

#: Programs that tell the clients apart, with what the official one prints, and what ours does: the
#: table in the README.
DIFFERENCES = {
    "lines of logs": (
        """
import fal_client

opened, lines = False, []
handle = fal_client.submit("acme/gated", arguments={})
for event in handle.iter_events(with_logs=True, interval=0.05):
    if isinstance(event, (fal_client.InProgress, fal_client.Completed)):
        lines += event.logs
    if lines and not opened:
        fal_client.run("acme/open", arguments={})
        opened = True
print(len(lines) > 1)
""",
        ["True"],
        ["False"],
    ),
    "logs that were not asked for": (
        """
import fal_client

handle = fal_client.submit("acme/echo", arguments={})
handle.get()
print(handle.status().logs)
""",
        ["None"],
        ["[]"],
    ),
    "several event loops": (
        """
import asyncio
import fal_client

for _ in range(2):
    try:
        print(asyncio.run(fal_client.run_async("acme/echo", arguments={})))
    except RuntimeError as error:
        print(error)
""",
        ["{}", "Event loop is closed"],
        ["{}"],
    ),
    "errors as data": (
        """
import pickle
import fal_client

try:
    fal_client.run("acme/strict", arguments={})
except fal_client.FalClientHTTPError as error:
    print(type(error.message).__name__)
    try:
        print(pickle.loads(pickle.dumps(error)).status_code)
    except TypeError:
        print("not to be pickled")
""",
        ["list", "not to be pickled"],
        ["str", "422"],
    ),
    "a job that has ended is cancelled": (
        """
import fal_client

handle = fal_client.submit("acme/echo", arguments={})
handle.get()
try:
    print(handle.cancel())
except fal_client.FalClientHTTPError as error:
    print(error.status_code)
""",
        ["400"],
        ["ALREADY_COMPLETED"],
    ),
    "a session that the other side closes": (
        """
import fal_client

with fal_client.ws_connect("acme/socket", path="/chat") as ws:
    print(type(ws).__name__)
with fal_client.realtime("acme/brief") as connection:
    connection.send({})
    print(connection.recv())
    try:
        print(connection.recv())
    except RuntimeError as error:
        print(type(error).__name__, error.error)
    try:
        print(connection.recv())
    except fal_client.FalClientError as error:
        print(type(error).__name__)
""",
        ["ClientConnection", "{'n': 1}", "RealtimeError TIMEOUT", "None"],
        [
            "SyncWebSocketConnection",
            "{'n': 1}",
            "RealtimeError TIMEOUT",
            "RealtimeDisconnectedError",
        ],
    ),
}


def draw(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
    job.log("mixing colours")
    job.log("drawing")
    return {"images": [{"url": "https://v3.fal.media/files/b/cat.png"}], "seed": 7}


def listen(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"text": f"from a {arguments['audio_url'].partition(':')[0]} URL"}


async def talk(arguments: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    for text in ("all", "all of", f"all of {arguments['prompt']}"):
        yield {"output": text, "partial": len(text) < 7}


def refuse(arguments: dict[str, Any]) -> None:
    raise AppError(422, [{"loc": ["body", "image_url"], "msg": "too small", "type": "too_small"}])


async def once(arguments: dict[str, Any]) -> AsyncGenerator[dict[str, int], None]:
    yield {"n": 1}


async def repeat(socket: Socket) -> None:
    async for message in socket:
        await socket.send(message)


def furnish(fal: Emulator) -> None:
    """What the programs call."""
    gate, never = fal.gate(), fal.gate()

    async def gated(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        job.log("warming up")
        await gate.wait()
        return arguments

    async def slow(arguments: dict[str, Any]) -> None:
        await never.wait()

    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    fal.register("fal-ai/fast-sdxl", draw)
    fal.register("fal-ai/whisper", listen)
    fal.register("acme/gated", gated)
    fal.register("acme/open", lambda arguments: gate.open())
    fal.register("acme/slow", slow)
    fal.register("acme/echo", echo)
    fal.register("acme/echo/fast", echo)
    fal.register("acme/talk", talk)
    fal.register("acme/strict", refuse)
    fal.realtime("acme/live")(echo)
    fal.realtime("acme/brief")(once)
    fal.websocket("acme/socket/chat")(repeat)


def printed(prelude: str, program: str, folder: Path) -> list[str]:
    """What a program prints, each line once, since the official client tells things repeatedly."""
    with Emulator() as fal:
        furnish(fal)
        done = subprocess.run(
            [sys.executable, "-c", prelude + program],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "", **fal.environ},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.stderr == "", done.stderr
    assert done.returncode == 0
    lines = re.sub(r"http://[\d.:]+", "http://emulator", done.stdout).splitlines()
    return list(dict.fromkeys(lines))


#: The programs that do not block, which `fal_async` itself runs as well.
ASYNC = [name for name, program in PROGRAMS.items() if "_async(" in program or "AsyncC" in program]
ASYNC = [name for name in ASYNC if not re.search(r"fal_client\.[a-z]+\(|SyncC", PROGRAMS[name])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audio.wav").write_bytes(b"RIFF")
    return tmp_path


@pytest.mark.parametrize("name", PROGRAMS)
def test_official_program_prints_the_same(name: str, folder: Path) -> None:
    official = printed(OFFICIAL, PROGRAMS[name], folder)
    assert official
    assert printed(OURS, PROGRAMS[name], folder) == official
    if name in ASYNC:
        assert printed(OURS_ASYNC, PROGRAMS[name], folder) == official


def test_async_programs_exist() -> None:
    assert len(ASYNC) >= 5


@pytest.mark.parametrize("name", DIFFERENCES)
def test_documented_differences(name: str, folder: Path) -> None:
    program, official, ours = DIFFERENCES[name]
    assert printed(OFFICIAL, program, folder) == official
    assert printed(OURS, program, folder) == ours
