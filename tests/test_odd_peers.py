"""Whatever a peer sends: a value comes back, or an error of ours that can be shown and pickled."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from websockets.frames import Opcode

from fal_async import AsyncClient, FalClientError, Hosts, Limits, RetryPolicy
from tests.support.raw_server import PATIENCE, RawConnection, RawServer
from tests.support.websocket_server import ScriptedWebSocket, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

APP = "demo/echo"
#: Texts, as JSON would have them, where another text is expected.
TEXTS = [
    b'""',
    b'" "',
    b'"\xc3\xa9"',
    b'"a\\r\\nB: c"',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"http://[::1"',
    b'"http://a:99999999/"',
    b'"http://\xc3\xa9\xef\xbc\x8e/"',
    b'"//x"',
    b'"' + b"a" * 70000 + b'"',
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"1" * 5000,
    b"NaN",
    b"[]",
    b"{}",
    b"[" * 3000 + b"]" * 3000,
    b"[[" * 100_000,
    b'{"a":{"b":[1]}}',
    b'{"":"","\\ud800":"\\udfff"}',
]
#: Values of headers, and other lines of a head.
LINES = [
    b"\xe9",
    b"\xff\xfe\xfd",
    b'"\xc3\xa9"',
    b"",
    b" ",
    b"\t\t",
    b"a" * 40000,
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"NaN",
    b"Infinity",
    b"bytes 9-1/0",
    b"bytes 0-0/" + b"9" * 5000,
    b"Thu, 99 Foo 99999 99:99:99 GMT",
    b"Mon, 01 Jan 0001 00:00:00 -2359",
    b"http://[::1",
    b"//\xe9",
    b"text/event-stream; charset=\xe9",
    b"application/json; charset=utf-7",
    b"x" + b";a" * 1000,
    b"\xc2\xb2",
]
HEADERS = [
    b"Content-Type",
    b"ETag",
    b"Content-Range",
    b"Content-Disposition",
    b"Content-Encoding",
    b"Location",
    b"Retry-After",
    b"Date",
    b"X-Fal-Request-Id",
    b"X-Fal-Error-Type",
    b"X-Fal-Billable-Units",
    b"X-Fal-Needs-Retry",
    b"X-Fal-Request-Timeout-Type",
    b"Connection",
    b"Set-Cookie",
]
STATUS_LINES = [
    b"HTTP/1.1 200 \xe9",
    b"HTTP/1.1 200",
    b"HTTP/1.1 999 X",
    b"HTTP/1.1 099 X",
    b"HTTP/1.1 100 X",
    b"HTTP/1.1 204 X",
    b"HTTP/1.1 304 X",
    b"HTTP/1.1 416 X",
    b"HTTP/1.1 \xb2\xb2\xb2 X",
    b"HTTP/9.9 200 X",
    b"\xe9/1.1 200 X",
    b"",
]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """What is read is text and bytes, which is the same on every event loop."""
    return str(request.param)


def head(line: bytes = b"HTTP/1.1 200 OK", *lines: bytes, body: bytes = b"{}") -> bytes:
    framing = b"Content-Length: %d" % len(body)
    return b"\r\n".join([line, framing, *lines, b"", body])


def responses() -> Iterator[tuple[str, bytes]]:
    """Responses with something odd in their heads."""
    for line in STATUS_LINES:
        yield f"status line {line!r}", head(line)
    for name in HEADERS:
        for status in (b"200 OK", b"206 Part", b"302 Found", b"429 No"):
            for value in LINES:
                yield (
                    f"{status.decode()} {name.decode()}: {value[:30]!r}",
                    head(b"HTTP/1.1 " + status, name + b": " + value, body=b'{"detail":"x"}'),
                )


def bodies(fields: list[str]) -> Iterator[tuple[str, bytes]]:
    """Bodies with something odd in one of their fields, or instead of all."""
    yield from ((repr(text[:30]), text) for text in TEXTS)
    for field in fields:
        for text in TEXTS:
            rest = {name: "http://127.0.0.1:9/x" for name in fields if name != field}
            rest |= {"request_id": "r-1", "uploadId": "u"} if field != "request_id" else {}
            rest.pop(field, None)
            whole = orjson.dumps(rest)[:-1] + b"," * bool(rest)
            yield f"{field}: {text[:30]!r}", whole + f'"{field}":'.encode() + text + b"}"


async def settle(call: Callable[[], Awaitable[object]]) -> str | None:
    """Make a call; what it came to, if that is a fault."""
    try:
        with anyio.fail_after(PATIENCE):
            str(await call())
    except FalClientError as error:
        try:
            str(error).encode()
            repr(error)
            pickle.loads(pickle.dumps(error))
        except Exception as failure:  # noqa: BLE001 -- whatever it is, it is a fault
            return f"{type(error).__name__} cannot be shown: {failure!r}"
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
        return f"{type(error).__name__}: {ascii(str(error))[:120]}"
    return None


class Answers:
    """Answers all requests below a path in the same way, and others as a platform does."""

    def __init__(self, below: str) -> None:
        self.answer = b""
        self._below = below.encode()

    def __call__(self, connection: RawConnection) -> None:
        while request := connection.request():
            path = request.split(b" ")[1]
            if self._below in path:
                connection.send(self.answer)
                if b"Content-Length" not in self.answer or not self.answer:
                    return
            else:
                connection.send(
                    head(body=b'{"request_id":"r-1","status":"IN_PROGRESS","token":"t"}')
                )


def client_of(peer: RawServer) -> AsyncClient:
    retry, limits = RetryPolicy(attempts=1), Limits(single_shot=10, part_size=10)
    return AsyncClient("id:secret", 0.2, hosts=Hosts.at(peer.url), retry=retry, limits=limits)


async def run(client: AsyncClient) -> object:
    return await client.run(APP, {})


async def submit(client: AsyncClient) -> object:
    return (await client.submit(APP, {})).to_dict()


async def status(client: AsyncClient) -> object:
    return await client.status(APP, "r-1", with_logs=True)


async def cancel(client: AsyncClient) -> object:
    return await client.cancel(APP, "r-1")


async def stream(client: AsyncClient) -> object:
    return [event async for event in client.stream(APP, {})]


async def upload(client: AsyncClient) -> object:
    return await client.upload(b"x", "image/png", fallback_repository=[])


async def upload_parts(client: AsyncClient) -> object:
    return await client.upload(b"x" * 30, "image/png", fallback_repository=[])


async def upload_presigned(client: AsyncClient) -> object:
    return await client.upload(b"x", "image/png", repository="fal", fallback_repository=[])


async def realtime(client: AsyncClient) -> None:
    async with client.realtime(APP, open_timeout=1):
        pass


async def realtime_with_key(client: AsyncClient) -> None:
    async with client.realtime(APP, use_jwt=False, open_timeout=1):
        pass


#: Calls, the path that is answered oddly, and the fields that are read of the answer.
CALLS: list[tuple[Callable[[AsyncClient], Awaitable[object]], str, list[str]]] = [
    (run, "/run/", ["images", "url", "detail", "error", "type"]),
    (submit, "/queue/", ["request_id", "status_url", "response_url", "cancel_url"]),
    (status, "/queue/", ["status", "queue_position", "logs", "metrics", "error"]),
    (cancel, "/queue/", ["status"]),
    (stream, "/run/", ["detail"]),
    (upload, "/storage/auth", ["token", "token_type", "base_url", "expires_at"]),
    (upload, "/cdn/", ["access_url"]),
    (upload_parts, "/multipart", ["access_url", "uploadId", "etag"]),
    (upload_presigned, "/storage/upload", ["upload_url", "file_url"]),
    (realtime, "/tokens/", ["token", "detail"]),
    (realtime_with_key, "/run/", []),
]


@pytest.mark.parametrize(("call", "path", "fields"), CALLS)
@pytest.mark.parametrize("code", [200, 422])
async def test_any_body_raises_our_error(
    call: Callable[[AsyncClient], Awaitable[object]], path: str, fields: list[str], code: int
) -> None:
    answers, faults = Answers(path), list[str]()
    with RawServer(answers) as peer:
        async with client_of(peer) as client:
            for label, body in bodies(fields):
                line = f"HTTP/1.1 {code} X".encode()
                answers.answer = head(line, b"Content-Type: application/json", body=body)
                if fault := await settle(lambda: call(client)):
                    faults.append(f"{label}: {fault}")
    assert not faults, "\n".join(["", *faults])


@pytest.mark.parametrize(("call", "path"), [(run, "/run/"), (upload_parts, "/multipart")])
async def test_any_head_raises_our_error(
    call: Callable[[AsyncClient], Awaitable[object]], path: str
) -> None:
    answers, faults = Answers(path), list[str]()
    with RawServer(answers) as peer:
        async with client_of(peer) as client:
            for label, answer in responses():
                answers.answer = answer
                if fault := await settle(lambda: call(client)):
                    faults.append(f"{label}: {fault}")
    assert not faults, "\n".join(["", *faults])


async def test_any_file_head_raises_our_error(tmp_path: Path) -> None:
    faults = list[str]()
    first = b""

    def script(connection: RawConnection) -> None:
        if connection.request():
            connection.send(
                first if connection.number % 2 else head(b"HTTP/1.1 206 P", body=b"x" * 5)
            )

    with RawServer(script) as peer:
        async with client_of(peer) as client:
            for label, answer in responses():
                first = answer
                if fault := await settle(lambda: client.download(f"{peer.url}a", tmp_path / "f")):
                    faults.append(f"{label}: {fault}")
    assert not faults, "\n".join(["", *faults])


EVENTS = [b"\xff", b"\xed\xa0\x80", b"{" * 100_000, b'{"a":', b'"\\ud800"', b"\0", b""]


@pytest.mark.parametrize("event", [*EVENTS, *TEXTS])
async def test_any_event_raises_our_error(event: bytes) -> None:
    answers = Answers("/run/")
    kinds = [b"data: %b\n\n", b"event: error\ndata: %b\n\n", b"id: %b\nretry: x\n\n", b"%b\n\n"]
    with RawServer(answers) as peer:
        async with client_of(peer) as client:
            for kind in kinds:
                answers.answer = head(
                    b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", body=kind % event
                )
                assert await settle(lambda: stream(client)) is None


@pytest.mark.parametrize("event", [*EVENTS, *TEXTS])
async def test_any_websocket_message_raises_our_error(event: bytes) -> None:
    said = event[:60000]

    def script(connection: RawConnection) -> None:
        ScriptedWebSocket(connection)
        connection.send(frame(Opcode.TEXT, said), frame(Opcode.BINARY, said))
        connection.send(
            frame(Opcode.TEXT, b'{"type":"x-fal-error","error":%b,"reason":%b}' % (said, said))
        )
        connection.send(frame(Opcode.CLOSE, b"\x0f\xa0" + said[:100]))
        connection.wait_closed()

    async def session(client: AsyncClient) -> Any:
        async with client.realtime(APP, use_jwt=False) as connection:
            return [await connection.recv() for _ in range(4)]

    with RawServer(script) as peer:
        async with client_of(peer) as client:
            assert await settle(lambda: session(client)) is None
