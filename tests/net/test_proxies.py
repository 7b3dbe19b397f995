"""Proxies: selection per URL, the environment and errors."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._http.httpx_backend import ProxiedBackend
from fal_async._http.transmission import Transmission
from fal_async._http.transports import PooledBackend, select_transport
from fal_async._net.errors import ExchangeError, InvalidURL, ProxyError
from fal_async._net.proxies import ProxyRules
from tests.support.raw_server import OK, RawServer, respond_with

if TYPE_CHECKING:
    from fal_async._http.response import Transport

NAMES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without proxy variables."""
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
def test_each_scheme_has_its_own_proxy(url: str, proxy: str) -> None:
    rules = ProxyRules({"http": "http://one:1", "https": "two:2"})
    assert rules.find(httpx.URL(url)) == proxy


def test_default_proxy_covers_other_schemes() -> None:
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
def test_exceptions_are_connected_directly(
    entry: str, direct: list[str], proxied: list[str]
) -> None:
    rules = ProxyRules({"all": "http://proxy:1", "no": entry})
    for url in direct:
        assert rules.find(httpx.URL(url)) is None, url
    for url in proxied:
        assert rules.find(httpx.URL(url)) == "http://proxy:1", url


async def ask(transport: Transport, url: str) -> bytes:
    response = await (await transport.send("GET", url, {}, b"", {}, Transmission())).read(
        limit=1000
    )
    return response.body


def test_clients_without_proxies_use_the_pool(environment: pytest.MonkeyPatch) -> None:
    assert isinstance(select_transport(None), PooledBackend)
    environment.setenv("NO_PROXY", "localhost")
    assert isinstance(select_transport(None), PooledBackend)
    environment.setenv("ALL_PROXY", " ")
    assert isinstance(select_transport(None), PooledBackend)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_environment_proxies_are_used(environment: pytest.MonkeyPatch, name: str) -> None:
    with RawServer(respond_with(OK)) as proxy:
        environment.setenv(name, f"http://user:pass@127.0.0.1:{proxy.port}")
        transport = select_transport(None)
        for _ in range(3):
            assert await ask(transport, "http://fal.example/path") == b"ok"
        await transport.aclose()
        assert len(proxy.connections) == 1
        assert (
            proxy.connections[0].requests[0].startswith(b"GET http://fal.example/path HTTP/1.1\r\n")
        )
        assert b"Proxy-Authorization: Basic " in proxy.connections[0].requests[0]


async def test_environment_exceptions_are_used(environment: pytest.MonkeyPatch) -> None:
    with RawServer(respond_with(OK)) as server:
        environment.setenv("ALL_PROXY", "http://127.0.0.1:1")
        environment.setenv("NO_PROXY", "127.0.0.0/8")
        transport = select_transport(None)
        assert isinstance(transport, ProxiedBackend)
        assert await ask(transport, server.url) == b"ok"
        await transport.aclose()


async def test_https_uses_a_tunnel() -> None:
    with RawServer(respond_with(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) as proxy:
        transport = select_transport(None, {"all": proxy.url})
        with pytest.raises(ProxyError):
            await ask(transport, "https://fal.example/")
        await transport.aclose()
        assert proxy.connections[0].requests[0].startswith(b"CONNECT fal.example:443 HTTP/1.1\r\n")


@pytest.mark.parametrize("proxy", ["ftp://proxy:21", "http://"])
async def test_invalid_proxy_is_a_proxy_error(proxy: str) -> None:
    transport = select_transport(None, {"all": proxy})
    with pytest.raises(ExchangeError):
        await ask(transport, "http://fal.example/")
    await transport.aclose()


@pytest.mark.parametrize("proxies", [{}, {"all": "http://proxy:1"}])
async def test_invalid_url_is_an_error_with_any_proxy(proxies: dict[str, str]) -> None:
    transport = select_transport(None, proxies)
    with pytest.raises(InvalidURL):
        await ask(transport, "http://fal.example:port/")
    await transport.aclose()


async def test_proxied_transport_is_prepared_and_closed() -> None:
    transport = select_transport(None, {"all": "http://proxy:1"})
    await transport.prepare()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await ask(transport, "http://fal.example/")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_proxy_connections_close_with_their_loop(backend: str) -> None:
    with RawServer(respond_with(OK)) as proxy:
        transport = select_transport(None, {"all": proxy.url})
        for _ in range(2):
            anyio.run(ask, transport, "http://fal.example/", backend=backend)
        gc.collect()
        proxy.wait_ended(2)
