"""Trusted origins: the key is sent only to the platform."""

from __future__ import annotations

from typing import cast

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fal_async._config import Hosts
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.origins import (
    BACKUPS,
    TrustedOrigins,
    append_path,
    is_cdn,
    origin_of,
    replace_origin,
)
from fal_async._protocol.queue import JobUrls, Submission, job_urls

HOSTS = Hosts()
OWN = JobUrls(
    status_url="https://queue.fal.run/fal-ai/flux/requests/abc/status",
    response_url="https://queue.fal.run/fal-ai/flux/requests/abc",
    cancel_url="https://queue.fal.run/fal-ai/flux/requests/abc/cancel",
)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://queue.fal.run", "https://queue.fal.run"),
        ("https://queue.fal.run/a?b#c", "https://queue.fal.run"),
        ("https://queue.fal.run?x=@evil.example", "https://queue.fal.run"),
        ("HTTPS://QUEUE.Fal.Run/A", "https://queue.fal.run"),
        ("https://queue.fal.run:443/", "https://queue.fal.run"),
        ("https://queue.fal.run:0443/", "https://queue.fal.run"),
        ("https://queue.fal.run:/", "https://queue.fal.run"),
        ("https://queue.fal.run:444/", "https://queue.fal.run:444"),
        ("http://queue.fal.run/", "http://queue.fal.run"),
        ("http://127.0.0.1:8000/queue", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/queue", "http://[::1]:8000"),
        ("https://[2001:DB8::1]/", "https://[2001:db8::1]"),
        ("wss://ws.fal.run:443", "wss://ws.fal.run"),
        ("ws://localhost:80", "ws://localhost"),
        ("http://localhost:80/", "http://localhost"),
        ("https://localhost:80/", "https://localhost:80"),
        ("https://queue.fal.run./", "https://queue.fal.run."),
        ("https://bücher.example/", "https://bücher.example"),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a/b",
        "queue.fal.run",
        "//queue.fal.run/a",
        "https:queue.fal.run",
        "https:/queue.fal.run",
        "https:///a",
        "https://",
        "https://:443",
        "ftp://queue.fal.run",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user@queue.fal.run/",
        "https://user:pw@queue.fal.run/",
        "https://queue.fal.run@evil.example/",
        "https://@queue.fal.run/",
        "https://queue.fal.run\\@evil.example/",
        "https:\\\\queue.fal.run/",
        "https://queue.fal.run\\.evil.example/",
        "https://queue.fal.run /",
        " https://queue.fal.run/",
        "https://queue.fal.run\t.evil.example/",
        "https://queue.fal.run\r\n/",
        "https://queue.fal.run\x00.evil.example/",
        "https://queue.fal.run\u200b/",
        "https://queue.fal.run:port/",
        "https://queue.fal.run:-1/",
        "https://queue.fal.run:+443/",
        "https://queue.fal.run:٤٤٣/",
        "https://queue.fal.run:99999/",
        "https://[::1/",
        "https://[nonsense]/",
        "https://queue.fal.run\uff0fevil.example/",
        "https://\ud800/",
    ],
)
def test_invalid_url_has_no_origin(url: str) -> None:
    assert origin_of(url) is None


FOREIGN = [
    "https://evil.example/requests/abc",
    "https://queue.fal.run.evil.example/x",
    "https://notqueue.fal.run/x",
    "https://evilqueue.fal.run/x",
    "https://fal.run/x",
    "https://queue.fal.run./x",
    "http://queue.fal.run/x",
    "https://queue.fal.run:8443/x",
    "https://queue.fal.run@evil.example/x",
    "https://queue.fal.run:443@evil.example/x",
    "https://queue.fal.run\\@evil.example/x",
    "https://queue.fal.run\\.evil.example",
    "https://queue.fal.run%2eevil.example/x",
    "https://queue.fal.run%00.evil.example/x",
    "https://queue.fal.run,evil.example/x",
    "https://queue.fal.run;evil.example/x",
    "https://queue.fal.run\uff0eevil.example/x",
    "https://queue.f\u0430l.run/x",
    "https://[::1]/x",
    "https://169.254.169.254/latest",
    "//evil.example/x",
    "/fal-ai/flux/requests/abc",
    "https:evil.example",
    "wss://queue.fal.run/x",
    "https://queue.fal.run/x\r\nAuthorization: stolen",
    "https://queue.fal.run/\x00",
    "",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_foreign_response_url_is_replaced(url: str) -> None:
    endpoint = parse_endpoint("fal-ai/flux/dev")
    named = Submission(request_id="abc", status_url=url, response_url=url, cancel_url=url)
    assert job_urls(HOSTS, endpoint, named) == OWN


@pytest.mark.parametrize("value", [7, b"https://queue.fal.run/x", ["x"], None])
def test_invalid_response_url_is_replaced(value: object) -> None:
    url = cast("str", value)
    named = Submission(request_id="abc", status_url=url, response_url=url, cancel_url=url)
    assert job_urls(HOSTS, parse_endpoint("fal-ai/flux"), named) == OWN


@pytest.mark.parametrize(
    "base",
    [
        "https://queue.fal.run/fal-ai/flux/dev/requests/abc",
        "https://queue.falrun.com/fal-ai/flux/requests/abc",
        "https://QUEUE.fal.run:443/fal-ai/flux/requests/abc",
    ],
)
def test_queue_and_backup_urls_are_trusted(base: str) -> None:
    named = Submission(
        request_id="abc",
        status_url=f"{base}/status",
        response_url=f"{base}/response",
        cancel_url=f"{base}/cancel",
    )
    urls = job_urls(HOSTS, parse_endpoint("fal-ai/flux/dev"), named)
    assert urls == JobUrls(
        status_url=f"{base}/status", response_url=f"{base}/response", cancel_url=f"{base}/cancel"
    )


def test_each_url_is_checked_separately() -> None:
    good = "https://queue.fal.run/elsewhere"
    named = Submission(request_id="abc", status_url="https://evil.example", response_url=good)
    urls = job_urls(HOSTS, parse_endpoint("fal-ai/flux"), named)
    assert (urls.status_url, urls.response_url, urls.cancel_url) == (
        OWN.status_url,
        good,
        OWN.cancel_url,
    )


def test_custom_platform_trusts_only_itself() -> None:
    hosts = Hosts.at("http://127.0.0.1:8000")
    endpoint = parse_endpoint("workflows/me/mine/path")
    own = "http://127.0.0.1:8000/queue/workflows/me/mine/requests/abc"
    for url in (
        "https://queue.fal.run/x",
        "https://queue.falrun.com/x",
        "http://127.0.0.1:8001/queue/x",
        "http://127.0.0.1/queue/x",
        "http://localhost:8000/queue/x",
    ):
        named = Submission(request_id="abc", response_url=url)
        assert job_urls(hosts, endpoint, named).response_url == own
    named = Submission(request_id="abc", response_url="http://127.0.0.1:8000/queue/y")
    assert job_urls(hosts, endpoint, named).response_url == "http://127.0.0.1:8000/queue/y"


@pytest.mark.parametrize(
    ("request_id", "segment"),
    [("a/b", "a%2Fb"), ("../x", "..%2Fx"), ("a?b#c", "a%3Fb%23c"), ("ü", "%C3%BC")],
)
def test_request_id_stays_one_path_segment(request_id: str, segment: str) -> None:
    urls = job_urls(HOSTS, parse_endpoint("fal-ai/flux"), Submission(request_id=request_id))
    assert urls.response_url == f"https://queue.fal.run/fal-ai/flux/requests/{segment}"


FRAGMENTS = st.sampled_from(
    [
        "https://",
        "http://",
        "https:",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "443",
        "queue.fal.run",
        "QUEUE.FAL.RUN",
        "queue.falrun.com",
        "evil.example",
        ".",
        "?",
        "#",
        "%2e",
        "%40",
        "%5c",
        "[::1]",
        "[",
        "]",
        "\t",
        "\n",
        " ",
        "\x00",
        "\uff0e",
        "\uff20",
        "\u3002",
        ";",
        "user",
    ]
)
URLS = st.lists(FRAGMENTS, max_size=9).map("".join) | st.text().map("https://{}".format)


@given(
    URLS | FRAGMENTS.flatmap(lambda tail: URLS.map(lambda url: f"https://queue.fal.run{tail}{url}"))
)
@example("https://queue.fal.run/\\@evil.example")
@example("https://queue.fal.run?@evil.example/")
def test_checked_host_is_the_contacted_host(url: str) -> None:
    if not TrustedOrigins(HOSTS.queue).contains(url):
        assert origin_of(url) not in {"https://queue.fal.run", "https://queue.falrun.com"}
        return
    try:
        seen = httpx.URL(url)
    except httpx.InvalidURL:
        return
    assert seen.scheme == "https"
    assert seen.host in {"queue.fal.run", "queue.falrun.com"}
    assert seen.port is None
    assert not seen.userinfo


def test_origins_cover_only_their_backups() -> None:
    origins = TrustedOrigins(HOSTS.run, HOSTS.queue, "not a url")
    assert origins.contains("https://fal.run/a/b")
    assert origins.contains("https://falrun.com/a/b")
    assert origins.contains("https://queue.falrun.com/a/b")
    assert not origins.contains("https://rest.fal.ai/a/b")
    assert not origins.contains("not a url")
    assert not TrustedOrigins("https://rest.fal.ai").contains("https://falrun.com/a")
    assert not TrustedOrigins().contains("")


def test_origin_without_a_path_is_covered() -> None:
    assert TrustedOrigins(HOSTS.run).contains("https://fal.run")
    assert TrustedOrigins(HOSTS.run).contains("https://fal.run?x")


def test_moved_url_keeps_path_and_query() -> None:
    assert (
        replace_origin("https://queue.falrun.com", "https://queue.fal.run/a/b%20c?x=1&y=%26")
        == "https://queue.falrun.com/a/b%20c?x=1&y=%26"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://fal.run/a", "https://fal.run/a/x"),
        ("https://fal.run/a/", "https://fal.run/a/x"),
        ("https://fal.run/a?b=/c/", "https://fal.run/a/x?b=/c/"),
        ("https://fal.run", "https://fal.run/x"),
    ],
)
def test_appended_path_keeps_the_query(url: str, expected: str) -> None:
    assert append_path(url, "x") == expected


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://fal.media/files/x", True),
        ("https://v3.fal.media/files/x", True),
        ("https://V3B.FAL.media/files/x", True),
        ("https://v3.fal.media:443/x", True),
        ("https://v3.fal.media:8443/x", False),
        ("http://v3.fal.media/x", False),
        ("wss://v3.fal.media/x", False),
        ("https://evilfal.media/x", False),
        ("https://fal.media.evil.example/x", False),
        ("https://fal.media@evil.example/x", False),
        ("https://fal.media\\.evil.example/x", False),
        ("https://fal.media./x", False),
        ("https://storage.googleapis.com/fal.media", False),
        ("https://fal.run/x", False),
        ("", False),
    ],
)
def test_file_token_is_limited_to_the_cdn(url: str, trusted: bool) -> None:
    assert is_cdn(url, HOSTS) is trusted


def test_custom_cdn_is_trusted() -> None:
    hosts = Hosts.at("http://127.0.0.1:8000")
    assert is_cdn("http://127.0.0.1:8000/cdn/x", hosts)
    assert is_cdn("https://v3.fal.media/x", hosts)
    assert not is_cdn("http://127.0.0.1:8001/cdn/x", hosts)


def test_default_hosts_have_backup_origins() -> None:
    assert set(BACKUPS) == {origin_of(HOSTS.run), origin_of(HOSTS.queue)}
    for origin in [*BACKUPS, *BACKUPS.values()]:
        assert origin_of(origin) == origin
