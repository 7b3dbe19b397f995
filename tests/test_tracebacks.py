"""Whatever fails, and wherever: no traceback, error, pickle or log record holds a secret."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import orjson
import pytest

import fal_async
import fal_async.sync as fal_client
from fal_async import AsyncClient, Hosts, RetryPolicy
from fal_async._auth.credentials import Credentials
from fal_async.errors import FalClientError
from tests.support.raw_server import PATIENCE, RawConnection, RawServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

pytestmark = pytest.mark.slow

PACKAGE = str(Path(fal_async.__file__).parent)
#: What every secret of these tests has in it. No frame of the library may show it.
MARK = "S3CRET"
KEY = f"id:{MARK}-key"
APP = "demo/echo"
QUICK = RetryPolicy(attempts=2, base_delay=0)


def errors_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what led to it, and what was going on."""
    if error is not None:
        yield error
        yield from errors_of(error.__cause__)
        yield from errors_of(error.__context__)
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from errors_of(part)


def frames_of(error: BaseException) -> Iterator[FrameType]:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE):
            yield frame


def shown(value: object, depth: int = 4) -> Iterator[str]:
    """What reporters make of a value: its repr, and those of what it holds."""
    yield repr(value)
    if depth and isinstance(value, dict):
        for item in [*value, *value.values()]:
            yield from shown(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from shown(item, depth - 1)
    elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.repr:
                yield from shown(getattr(value, field.name, None), depth - 1)


def leaks(error: BaseException, *, everywhere: bool = True) -> list[str]:
    """Where an error shows a secret."""
    found: list[str] = []
    for each in errors_of(error):
        for frame in frames_of(each):
            for name, value in frame.f_locals.items():
                if any(MARK in text for text in shown(value)):
                    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    found.append(f"{name} in {frame.f_code.co_qualname} at {place}")
        said = [str(each), repr(each), repr(each.args), *shown(each.__dict__)]
        if everywhere and any(MARK in text for text in said):
            found.append(f"the error {type(each).__name__}")
    if everywhere and isinstance(error, FalClientError) and MARK.encode() in pickle.dumps(error):
        found.append("the pickle of the error")
    return found


@pytest.fixture(autouse=True)
def no_secret_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    for record in caplog.records:
        if record.name != "asyncio":  # which tells of the test's own tasks
            assert MARK not in record.getMessage() + repr(record.__dict__)


# --- What a peer may do to a request.


def drop(_: RawConnection) -> bool:
    return False


def stay_silent(connection: RawConnection) -> bool:
    connection.wait_closed()
    return False


def sending(*parts: bytes, end: bool = False) -> Callable[[RawConnection], bool]:
    def fault(connection: RawConnection) -> bool:
        connection.send(*parts)
        return not end

    return fault


def response(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


FAULTS: dict[str, Callable[[RawConnection], bool]] = {
    "401": sending(response(401, b'{"detail":"no"}')),
    "403": sending(response(403, b'{"detail":"no"}')),
    "429": sending(response(429, b"{}")),
    "500": sending(response(500, b"oops", "text/plain")),
    "redirect": sending(b"HTTP/1.1 302 X\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n"),
    "garbage": sending(b"\0\xff garbage\r\n\r\n", end=True),
    "no JSON": sending(response(200, b"{oops")),
    "cut": sending(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", end=True),
    "dropped": drop,
    "silence": stay_silent,
}
#: Answers that hold secrets but not where they belong.
ODD_TOKENS: dict[str, Callable[[RawConnection], bool]] = {
    "bare": sending(response(200, f'"{MARK} token"'.encode())),
    "list": sending(response(200, f'["{MARK}-token"]'.encode())),
    "not ASCII": sending(response(200, f'{{"token":"{MARK}\u00e9"}}'.encode())),
    "two lines": sending(response(200, f'{{"token":"{MARK}\\r\\nX: y"}}'.encode())),
    "elsewhere": sending(response(200, f'{{"jwt":"{MARK}","refresh_token":"{MARK}"}}'.encode())),
    "no JSON": sending(response(200, f"{MARK}{{".encode())),
    "cut": sending(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        f'{{"token":"{MARK}"'.encode(),
        end=True,
    ),
    "cut later": sending(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        f'a0\r\n{{"token":"{MARK}"'.encode(),
        end=True,
    ),
}
TOKENS = ("/rest/tokens/", "/rest/storage/auth/token")


class Platform:
    """Answers with tokens and presigned URLs, until the step that goes wrong."""

    def __init__(self, fault: Callable[[RawConnection], bool], at: str) -> None:
        self._fault = fault
        self._at = at
        self.url = ""
        self.reached = False

    def __call__(self, connection: RawConnection) -> None:
        while request := connection.request():
            path = request.split(b" ")[1].decode()
            if path.startswith(self._at):
                self.reached = True
                if not self._fault(connection):
                    return
            else:
                connection.send(response(200, orjson.dumps(self._answer(path))))

    def _answer(self, path: str) -> object:
        if path.startswith("/rest/tokens/"):
            return f"{MARK}.jwt.token"
        if path.startswith("/rest/storage/auth/token"):
            base_url = f"{self.url}cdn"
            return {"token": f"{MARK}-cdn", "token_type": "Bearer", "base_url": base_url}
        if path.startswith("/rest/storage/upload"):
            signed = f"{self.url}bucket/a?signature={MARK}"
            return {"upload_url": signed, "file_url": f"{self.url}file"}
        if path.startswith("/queue"):
            return {"request_id": "r-1", "status": "IN_QUEUE"}
        return {}


async def run(client: AsyncClient) -> object:
    return await client.run(APP, {})


async def submit(client: AsyncClient) -> object:
    return await client.submit(APP, {})


async def subscribe(client: AsyncClient) -> object:
    return await client.subscribe(APP, {})


async def stream(client: AsyncClient) -> object:
    return [event async for event in client.stream(APP, {})]


async def upload(client: AsyncClient) -> object:
    return await client.upload(b"x", "image/png", fallback_repository=[])


async def upload_presigned(client: AsyncClient) -> object:
    return await client.upload(b"x", "image/png", repository="fal", fallback_repository=[])


async def upload_parts(client: AsyncClient) -> object:
    content = b"x" * 5000
    return await client.upload(content, "image/png", repository="fal", fallback_repository=[])


async def realtime(client: AsyncClient) -> None:
    async with client.realtime(APP):
        pass


async def realtime_with_key(client: AsyncClient) -> None:
    async with client.realtime(APP, use_jwt=False):
        pass


async def over_websocket(client: AsyncClient) -> None:
    async with client.http_over_websocket(APP):
        pass


#: The calls, and the steps at which each can go wrong.
CALLS: list[tuple[Callable[[AsyncClient], Awaitable[object]], str]] = [
    (run, "/run/"),
    (submit, "/queue/"),
    (subscribe, "/queue/"),
    (stream, "/run/"),
    (upload, "/rest/storage/auth"),
    (upload, "/cdn/"),
    (upload_presigned, "/rest/storage/upload"),
    (upload_presigned, "/bucket/"),
    (upload_parts, "/bucket/"),
    (realtime, "/rest/tokens/"),
    (realtime, "/run/"),
    (realtime_with_key, "/run/"),
    (over_websocket, "/ws/"),
]


async def failure_of(
    call: Callable[[AsyncClient], Awaitable[object]],
    step: str,
    fault: Callable[[RawConnection], bool],
    transport: httpx.AsyncBaseTransport | None = None,
) -> BaseException | None:
    platform = Platform(fault, step)
    limits = fal_async.Limits(single_shot=4000, part_size=2000)
    with RawServer(platform) as peer, anyio.fail_after(PATIENCE):
        platform.url = peer.url
        client = AsyncClient(
            KEY, 0.2, hosts=Hosts.at(peer.url), retry=QUICK, limits=limits, transport=transport
        )
        async with client:
            try:
                with anyio.fail_after(0.5 if fault is stay_silent else PATIENCE):
                    await call(client)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
                assert platform.reached
                return error
    return None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("call", "step"), CALLS)
async def test_no_failure_shows_a_secret(
    call: Callable[[AsyncClient], Awaitable[object]], step: str, fault: str
) -> None:
    error = await failure_of(call, step, FAULTS[fault])
    if error is not None:
        assert leaks(error) == []


@pytest.mark.parametrize("fault", ODD_TOKENS)
@pytest.mark.parametrize(("call", "step"), [(upload, TOKENS[1]), (realtime, TOKENS[0])])
async def test_misplaced_token_is_not_shown(
    call: Callable[[AsyncClient], Awaitable[object]], step: str, fault: str
) -> None:
    error = await failure_of(call, step, ODD_TOKENS[fault])
    assert isinstance(error, FalClientError)
    assert leaks(error) == []


@pytest.mark.parametrize("fault", ["500", "garbage", "cut", "dropped"])
@pytest.mark.parametrize(("call", "step"), CALLS[:8])
async def test_httpx_transport_error_hides_secrets(
    call: Callable[[AsyncClient], Awaitable[object]], step: str, fault: str
) -> None:
    transport = httpx.AsyncHTTPTransport(verify=False)  # loads no authorities, for plain HTTP
    error = await failure_of(call, step, FAULTS[fault], transport)
    assert error is not None
    assert leaks(error) == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("call", dict.fromkeys(call for call, _ in CALLS))
async def test_no_failure_to_connect_shows_a_secret(
    call: Callable[[AsyncClient], Awaitable[object]], scheme: str
) -> None:
    with RawServer(lambda connection: connection.close()) as peer:  # speaks no TLS
        port = peer.port if scheme == "https" else 9
        hosts = Hosts.at(f"{scheme}://127.0.0.1:{port}")
        async with AsyncClient(KEY, 1, hosts=hosts, retry=QUICK) as client:
            with pytest.raises(FalClientError) as caught:
                await call(client)
    assert leaks(caught.value) == []


@pytest.mark.parametrize(("call", "step"), CALLS)
async def test_no_cancelled_call_shows_a_secret(
    call: Callable[[AsyncClient], Awaitable[object]], step: str
) -> None:
    caught: list[BaseException] = []
    cancellation = threading.Event()

    def wait_for_cancellation(connection: RawConnection) -> bool:
        cancellation.wait(PATIENCE)  # a submit goes on until its connection is closed
        return False

    platform = Platform(wait_for_cancellation, step)

    async def watched(client: AsyncClient) -> None:
        try:
            await call(client)
        except BaseException as error:
            caught.append(error)
            raise

    async def cancelled(client: AsyncClient) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(watched, client)
            while not platform.reached:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    with RawServer(platform) as peer, anyio.fail_after(PATIENCE):
        platform.url = peer.url
        async with AsyncClient(KEY, None, hosts=Hosts.at(peer.url), retry=QUICK) as client:
            await cancelled(client)
            cancellation.set()
    assert [leaks(error) for error in caught] == [[]]


async def test_no_error_of_a_callback_shows_a_secret() -> None:
    def callback(_: object) -> None:
        raise LookupError("the caller's own")

    platform = Platform(drop, "/nowhere")
    with RawServer(platform) as peer, anyio.fail_after(PATIENCE):
        async with AsyncClient(KEY, 1, hosts=Hosts.at(peer.url), retry=QUICK) as client:
            with pytest.raises(LookupError) as caught:
                await client.subscribe(APP, {}, on_queue_update=callback, interval=0.01)
    assert leaks(caught.value) == []


MAKERS: list[Callable[[Any], object]] = [
    lambda key: AsyncClient(key, hosts=Hosts.at("http://x"), default_timeout=-1),
    lambda key: AsyncClient(f"{key} \u00e9"),
    lambda key: AsyncClient(key.encode()),
    lambda key: AsyncClient([key]),  # type: ignore[arg-type]  # an invalid key
    lambda key: fal_client.SyncClient(f"{key} \u00e9"),
    lambda key: fal_client.SyncClient(key, -1),
    lambda key: AsyncClient("a").with_options(key=f"{key}\n\n{key}"),
    lambda key: AsyncClient("a").with_options(key=key, default_timeout=-1),
    lambda key: fal_client.SyncClient("a").with_options(key=f"{key}\0"),
    lambda key: Credentials(f"{key} "[:-1] + "\0"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_constructor_error_hides_secrets(make: Callable[[Any], object]) -> None:
    with pytest.raises(FalClientError) as caught:
        make(KEY)
    assert leaks(caught.value) == []
    assert MARK not in "".join(traceback.format_exception(caught.value))
    traceback.TracebackException.from_exception(caught.value, capture_locals=True)


def test_no_variable_of_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", KEY)
    monkeypatch.setenv("FAL_RUN_HOST", "http://fal.run")
    with pytest.raises(FalClientError) as caught:
        AsyncClient()
    assert leaks(caught.value) == []


@pytest.mark.parametrize("given", [f"{MARK} \u00e9", f"{MARK}\n{MARK}", "", None, 5, [MARK]])
@pytest.mark.parametrize("is_async", [False, True])
async def test_no_key_that_a_function_gives_is_shown(given: Any, is_async: bool) -> None:
    def give() -> Any:
        return given

    async def give_later() -> Any:
        return given

    async with AsyncClient(give_later if is_async else give) as client:
        with pytest.raises(FalClientError) as caught:
            await client.run(APP, {})
    assert leaks(caught.value) == []


@pytest.mark.parametrize("variable", ["FAL_KEY", "FAL_KEY_SECRET"])
async def test_no_key_of_the_environment_is_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("FAL_KEY_ID", "id")
    monkeypatch.setenv(variable, f"{MARK} \u00e9")
    async with AsyncClient() as client:
        with pytest.raises(FalClientError) as caught:
            await client.run(APP, {})
    assert leaks(caught.value) == []


@pytest.mark.parametrize(
    "answer",
    [
        (403, f'{{"error":"{MARK}"}}'),
        (500, MARK),
        (200, MARK),
        (200, f'{{"refresh_token":"{MARK}"}}'),
        (200, f'{{"access_token":"{MARK} \u00e9"}}'),
        (200, f'["{MARK}"]'),
        None,
    ],
)
async def test_no_login_that_cannot_be_renewed_is_shown(
    tmp_path: Path, answer: tuple[int, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "auth0_token").write_text(f"{MARK}-refresh\n{MARK}-access")
    for name in ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAL_HOME_DIR", str(tmp_path))

    def script(connection: RawConnection) -> None:
        request = connection.request()
        assert f"refresh_token={MARK}-refresh".encode() in request
        if answer is not None:
            connection.send(response(answer[0], answer[1].encode()))

    with RawServer(script) as peer:
        monkeypatch.setattr("fal_async._auth.login.TOKEN_URL", f"{peer.url}oauth/token")
        async with AsyncClient(hosts=Hosts.at(peer.url)) as client:
            with pytest.raises(FalClientError) as caught:
                await client.run(APP, {})
    assert leaks(caught.value) == []
