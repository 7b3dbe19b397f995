"""Headers of all requests of a client, and its User-Agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import fal_async
from fal_async import AsyncClient, InvalidRequestError
from fal_async._version import USER_AGENT

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

ECHO = "acme/echo"


async def test_default_headers_reach_apps(fal: Emulator) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    headers = {"X-Team": "art", "x-trace": "1"}
    async with AsyncClient(fal.key, hosts=fal.hosts, default_headers=headers) as client:
        await client.run(ECHO, {}, headers={"x-trace": "2"})
        await client.with_options(default_headers=None).run(ECHO, {})
        await client.with_options(default_headers={"x-team": "video"}).run(ECHO, {})
    sent = [(each.headers.get("x-team"), each.headers.get("x-trace")) for each in fal.requests]
    assert sent == [("art", "2"), (None, None), ("video", None)]


async def test_default_headers_stay_on_the_platform(fal: Emulator) -> None:
    async with AsyncClient(fal.key, hosts=fal.hosts, default_headers={"x-team": "art"}) as client:
        url = await client.upload(b"...", "text/plain", "a.txt")
        file = fal_async.File(url=url)._bind(client._dispatcher)
        assert await file.read() == b"..."
    by_host = {request.host: request.headers.get("x-team") for request in fal.requests}
    assert by_host == {"rest": "art", "cdn": None}


async def test_user_agent_names_the_program(fal: Emulator) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    fal.realtime(ECHO)(lambda arguments: arguments)
    async with AsyncClient(fal.key, hosts=fal.hosts, user_agent="my-app/1.0") as client:
        await client.run(ECHO, {})
        async with client.realtime(ECHO):
            pass
        await client.with_options(user_agent=None).run(ECHO, {})
    agents = [request.headers["user-agent"] for request in fal.requests]
    assert agents == [f"{USER_AGENT} my-app/1.0"] * 3 + [USER_AGENT]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"default_headers": {"X-Fal-Tags": "a=b"}}, "must not contain 'x-fal-tags'"),
        ({"default_headers": {"Authorization": "Key x"}}, "must not contain 'authorization'"),
        ({"default_headers": {"User-Agent": "x"}}, "use the argument user_agent"),
        ({"default_headers": {"host": "x"}}, "the transport sets it"),
        ({"default_headers": {"x": "a\nb"}}, "must be printable ASCII"),
        ({"default_headers": "x: y"}, "default_headers must be a mapping"),
        ({"user_agent": "a\r\nb"}, "user_agent must be printable ASCII"),
        ({"user_agent": ""}, "user_agent must be printable ASCII"),
        ({"user_agent": 7}, "user_agent must be printable ASCII"),
    ],
)
def test_unsafe_default_headers_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        AsyncClient("a:b", **options)
    with pytest.raises(InvalidRequestError, match=message):
        AsyncClient("a:b").with_options(**options)
