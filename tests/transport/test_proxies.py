"""Which proxy is for which URL, and what the default transport makes of it."""

from __future__ import annotations

import gc

import anyio
import httpx
import pytest

from fal_async._transport.pool import PooledTransport
from fal_async._transport.proxies import ProxyRules, default_transport
from tests.transport.peers import OK, Peer, replying

NAMES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without a word of proxies."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://fal.run/", "http://one:1"),
        ("https://fal.run/", "http://two:2"),
        ("ws://fal.run/", "http://one:1"),
        ("wss://fal.run/", "http://two:2"),
    ],
)
def test_each_scheme_has_its_proxy(url: str, proxy: str) -> None:
    rules = ProxyRules({"http": "http://one:1", "https": "two:2"})
    assert rules.find(httpx.URL(url)) == proxy


def test_one_proxy_may_be_for_all_that_have_none() -> None:
    rules = ProxyRules({"all": "http://all:1", "https": "http://two:2"})
    assert rules.find(httpx.URL("http://fal.run/")) == "http://all:1"
    assert rules.find(httpx.URL("https://fal.run/")) == "http://two:2"


@pytest.mark.parametrize(
    ("entry", "direct", "proxied"),
    [
        ("*", ["http://fal.run", "http://127.0.0.1"], []),
        (
            "fal.run",
            ["http://fal.run", "http://queue.fal.run", "http://FAL.RUN."],
            ["http://xfal.run"],
        ),
        (".fal.run", ["http://queue.fal.run", "http://fal.run"], ["http://xfal.run"]),
        ("*.fal.run", ["http://queue.fal.run"], ["http://xfal.run"]),
        ("FAL.run", ["http://fal.run"], ["http://fal.ai"]),
        ("fal.run:8000", ["http://fal.run:8000"], ["http://fal.run", "http://fal.run:80"]),
        ("fal.run:443", ["https://fal.run"], ["http://fal.run"]),
        ("localhost", ["http://localhost:8000"], ["http://127.0.0.1"]),
        ("127.0.0.1", ["http://127.0.0.1:8000"], ["http://127.0.0.2"]),
        ("127.0.0.1:8000", ["http://127.0.0.1:8000"], ["http://127.0.0.1"]),
        ("10.0.0.0/8", ["http://10.1.2.3"], ["http://11.1.2.3", "http://fal.run"]),
        ("10.1.2.3/8", ["http://10.9.9.9"], ["http://11.1.2.3"]),
        ("::1", ["http://[::1]:8000"], ["http://[::2]"]),
        ("[::1]:8000", ["http://[::1]:8000"], ["http://[::1]"]),
        ("fd00::/8", ["http://[fd12::1]"], ["http://[fe80::1]"]),
        (" a.example , fal.run,", ["http://fal.run", "http://a.example"], ["http://b.example"]),
        ("", [], ["http://fal.run", "http://localhost"]),
    ],
)
def test_exceptions_are_reached_directly(entry: str, direct: list[str], proxied: list[str]) -> None:
    rules = ProxyRules({"all": "http://proxy:1", "no": entry})
    for url in direct:
        assert rules.find(httpx.URL(url)) is None, url
    for url in proxied:
        assert rules.find(httpx.URL(url)) == "http://proxy:1", url


def test_without_proxies_the_transport_is_the_pool(environment: pytest.MonkeyPatch) -> None:
    assert isinstance(default_transport(), PooledTransport)
    environment.setenv("NO_PROXY", "localhost")
    assert isinstance(default_transport(), PooledTransport)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_the_environment_is_obeyed(environment: pytest.MonkeyPatch, name: str) -> None:
    with Peer(replying(OK)) as proxy, anyio.fail_after(10):
        environment.setenv(name, f"http://user:pass@127.0.0.1:{proxy.port}")
        async with default_transport() as transport:
            for _ in range(3):
                request = httpx.Request("GET", "http://fal.example/path")
                response = await transport.handle_async_request(request)
                assert await response.aread() == b"ok"
        assert len(proxy.lines) == 1
        assert proxy.lines[0].got[0].startswith(b"GET http://fal.example/path HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic " in proxy.lines[0].got[0]


async def test_exceptions_of_the_environment_are_obeyed(environment: pytest.MonkeyPatch) -> None:
    with Peer(replying(OK)) as server, anyio.fail_after(10):
        environment.setenv("ALL_PROXY", "http://127.0.0.1:1")
        environment.setenv("NO_PROXY", "127.0.0.0/8")
        async with default_transport() as transport:
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            assert await response.aread() == b"ok"


async def test_https_goes_through_a_tunnel() -> None:
    with Peer(replying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) as proxy:
        async with default_transport({"all": proxy.url}) as transport:
            request = httpx.Request("GET", "https://fal.example/")
            with pytest.raises(httpx.ProxyError), anyio.fail_after(10):
                await transport.handle_async_request(request)
        assert proxy.lines[0].got[0].startswith(b"CONNECT fal.example:443 HTTP/1.1\r\n")


@pytest.mark.parametrize("proxy", ["ftp://proxy:21", "http://"])
async def test_a_proxy_that_cannot_be_is_an_error_of_the_proxy(proxy: str) -> None:
    async with default_transport({"all": proxy}) as transport:
        with pytest.raises(httpx.TransportError):
            await transport.handle_async_request(httpx.Request("GET", "http://fal.example/"))


async def test_a_transport_with_proxies_can_be_prepared_and_is_closed_once() -> None:
    transport = default_transport({"all": "http://proxy:1"})
    await transport.prepare()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await transport.handle_async_request(httpx.Request("GET", "http://fal.example/"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_connections_to_proxies_are_closed_with_their_loop(backend: str) -> None:
    with Peer(replying(OK)) as proxy:
        transport = default_transport({"all": proxy.url})

        async def ask() -> None:
            request = httpx.Request("GET", "http://fal.example/")
            await (await transport.handle_async_request(request)).aread()

        for _ in range(2):
            anyio.run(ask, backend=backend)
        gc.collect()
        proxy.wait_ended(2)
