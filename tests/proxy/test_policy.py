"""The policy of the proxy: no request reaches another host, endpoint or job than it may."""

from __future__ import annotations

import json
import random
import subprocess
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fal_async import Hosts, InvalidRequestError
from fal_async.proxy._policy import EndpointPatterns, PolicyViolation, ProxyPolicy, Target
from tests.support.javascript import NODE

POLICY = ProxyPolicy(Hosts(), ["acme/live", "fal-ai/flux/dev", "demo/*"])
OPEN = ProxyPolicy(Hosts(), ["**"], allow_uploads=True, allow_realtime=True)
JOB = "https://queue.fal.run/acme/live/requests/abc-1"
UPLOAD = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"


@pytest.mark.parametrize(
    ("method", "url", "action", "endpoint"),
    [
        ("POST", "https://fal.run/acme/live", "run", "acme/live"),
        ("GET", "https://fal.run/acme/live?size=1&a=b+c", "run", "acme/live"),
        ("POST", "https://fal.run/acme/live/stream", "run", "acme/live/stream"),
        ("POST", "https://fal.run/fal-ai/flux/dev", "run", "fal-ai/flux/dev"),
        ("POST", "https://queue.fal.run/fal-ai/flux/dev", "submit", "fal-ai/flux/dev"),
        ("POST", "https://queue.fal.run/demo/anything", "submit", "demo/anything"),
    ],
)
def test_listed_endpoint_is_forwarded(method: str, url: str, action: str, endpoint: str) -> None:
    target = POLICY.check(method, url)
    assert (target.action, target.url, target.endpoint) == (action, url, endpoint)
    assert target.request_id is None


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "", "result"),
        ("GET", "/status", "status"),
        ("GET", "/status?logs=1", "status"),
        ("GET", "/status/stream?logs=false", "status_stream"),
        ("PUT", "/cancel", "cancel"),
    ],
)
def test_job_of_listed_endpoint_is_forwarded(method: str, path: str, action: str) -> None:
    target = POLICY.check(method, JOB + path)
    assert target == Target(action, JOB + path, "acme/live", "abc-1")  # type: ignore[arg-type]  # a text of the parameters


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        (f"{JOB}/response", JOB),
        (f"{JOB}/status/", f"{JOB}/status"),
        ("https://queue.fal.run/fal-ai/flux/dev/requests/x", "fal-ai/flux/requests/x"),
        ("https://queue.fal.run/fal-ai%2Fflux/requests/x", "fal-ai/flux/requests/x"),
    ],
)
def test_job_url_becomes_canonical(url: str, canonical: str) -> None:
    assert POLICY.check("GET", url).url.endswith(canonical)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("POST", "https://fal.run/acme/other"),
        ("POST", "https://fal.run/acme/live/admin"),
        ("POST", "https://fal.run/fal-ai/flux"),
        ("POST", "https://fal.run/fal-ai/flux/dev/other"),
        ("POST", "https://fal.run/demo"),
        ("POST", "https://fal.run/demo/one/two"),
        ("POST", "https://fal.run/execute"),
        ("POST", "https://fal.run/workflows/execute"),
        ("POST", "https://fal.run/workflows/acme/live"),
        ("PUT", "https://fal.run/acme/live"),
        ("DELETE", "https://fal.run/acme/live"),
        ("GET", "https://queue.fal.run/acme/live"),
        ("POST", "https://queue.fal.run/acme/live/stream"),
        ("POST", "https://queue.fal.run/acme/live?fal_webhook=https://evil.example"),
        ("POST", "https://queue.fal.run/acme/live?x=1&%66al_webhook=https://evil.example"),
        ("POST", "https://queue.fal.run/acme/live?FAL_Webhook=https://evil.example"),
        ("GET", "https://queue.fal.run/acme/other/requests/abc"),
        ("GET", "https://queue.fal.run/acme/live/requests"),
        ("GET", "https://queue.fal.run/acme/live/requests/a:b"),
        ("GET", f"{JOB}/status?logs=2"),
        ("GET", f"{JOB}/status?fal_jwt_token=x"),
        ("GET", f"{JOB}?logs=1"),
        ("GET", f"{JOB}/cancel"),
        ("GET", f"{JOB}/other"),
        ("PUT", JOB),
        ("PUT", f"{JOB}/status"),
        ("POST", f"{JOB}/cancel"),
        ("POST", JOB),
        ("DELETE", JOB),
        ("POST", UPLOAD),
        ("POST", "https://rest.fal.ai/tokens/"),
        ("GET", "https://rest.fal.ai/users/current"),
    ],
)
def test_request_that_is_not_listed_is_refused(method: str, url: str) -> None:
    with pytest.raises(PolicyViolation):
        POLICY.check(method, url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fal.run/acme/live",
        "//fal.run/acme/live",
        "http://fal.run/acme/live",
        "HTTPS://fal.run/acme/live",
        "https://FAL.run/acme/live",
        "https://fal.run",
        "https://fal.run/",
        "https://fal.run:443/acme/live",
        "https://fal.run:/acme/live",
        "https://fal.run./acme/live",
        "https://user@fal.run/acme/live",
        "https://fal.run@evil.example/acme/live",
        "https://fal.run\\@evil.example/acme/live",
        "https://fal.run/\\evil.example/acme/live",
        "https:\\\\fal.run/acme/live",
        "https://fal.run%2eevil.example/acme/live",
        "https://fal.run.evil.example/acme/live",
        "https://evil.example/https://fal.run/acme/live",
        "https://falrun.com/acme/live",
        "https://fal.ai/acme/live",
        "https://api.fal.ai/acme/live",
        "https://fal.run/acme/live#fragment",
        "https://fal.run/acme//live",
        "https://fal.run//acme/live",
        "https://fal.run/./acme/live",
        "https://fal.run/demo/../acme/live",
        "https://fal.run/demo/%2e%2e/acme/live",
        "https://fal.run/demo/.%2E/acme/live",
        "https://fal.run/demo%2f..%2facme/live",
        "https://fal.run/acme%5clive",
        "https://fal.run/acme%252Flive",
        "https://fal.run/acme/live%00",
        "https://fal.run/acme/live%20",
        "https://fal.run/acme/live\t",
        "https://fal.run/ac\tme/live",
        "https://fal.run/acme/live\r\nx: y",
        " https://fal.run/acme/live",
        "https://fal.run/acme/live?x=%ff",
        "https://fal.run/acme/l\u0456ve",
        "https://fal.run\uff0facme/live",
        "https://fal.run/" + "a/" * 5000,
        "https://fal.run/acme/live?" + "a&" * 200,
    ],
)
def test_trick_in_url_is_refused(url: str) -> None:
    with pytest.raises(PolicyViolation):
        OPEN.check("POST", url)


@pytest.mark.parametrize("kind", ["initiate", "initiate-multipart", "complete-multipart"])
def test_uploads_are_allowed_explicitly(kind: str) -> None:
    url = f"https://rest.fal.ai/storage/upload/{kind}?storage_type=fal-cdn-v3"
    policy = ProxyPolicy(Hosts(), ["acme/live"], allow_uploads=True)
    assert policy.check("POST", url) == Target("upload", url)
    for other in (url.replace("v3", "v2"), f"{url}&x=1", url.partition("?")[0]):
        with pytest.raises(PolicyViolation):
            policy.check("POST", other)
    with pytest.raises(PolicyViolation):
        policy.check("GET", url)


@pytest.mark.parametrize("path", ["tokens/", "tokens/realtime"])
def test_tokens_are_allowed_explicitly(path: str) -> None:
    policy = ProxyPolicy(Hosts(), ["acme/live"], allow_realtime=True)
    url = f"https://rest.fal.ai/{path}"
    assert policy.check("POST", url) == Target("token", url)
    for method, other in (("GET", url), ("POST", f"{url}?x=1"), ("POST", f"{url}/x")):
        with pytest.raises(PolicyViolation):
            policy.check(method, other)


def test_token_has_listed_apps_and_lifetime() -> None:
    policy = ProxyPolicy(Hosts(), ["acme/live", "fal-ai/flux/dev", "demo/*"], token_lifetime=60)
    for app in ("acme/live", "acme/live/realtime", "fal-ai/flux/dev/stream", "demo/x/realtime"):
        body = {"allowed_apps": [app], "duration": 600, "other": "x"}
        assert policy.limit_token(body) == {"allowed_apps": [app], "duration": 60}
    legacy = {"allowed_apps": ["live"], "token_expiration": 30}
    assert policy.limit_token(legacy) == legacy
    assert policy.limit_token({"allowed_apps": ["flux"]})["token_expiration"] == 60


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"allowed_apps": []},
        {"allowed_apps": "live"},
        {"allowed_apps": ["acme/other"]},
        {"allowed_apps": ["acme/live/admin"]},
        {"allowed_apps": ["acme/live", "acme/other"]},
        {"allowed_apps": ["*"]},
        {"allowed_apps": ["demo"]},
        {"allowed_apps": ["x"]},  # the alias of an app that a wildcard lists has no owner
        {"allowed_apps": ["demo/../live"]},
        {"allowed_apps": [7]},
        {"allowed_apps": ["live"], "duration": "60"},
        {"allowed_apps": ["live"], "duration": True},
        {"allowed_apps": ["live"], "duration": 0},
        {"allowed_apps": ["live"], "duration": float("nan")},
        {"allowed_apps": ["live"], "duration": float("inf")},
    ],
)
def test_token_for_other_apps_is_refused(body: object) -> None:
    with pytest.raises(PolicyViolation):
        POLICY.limit_token(body)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("acme/*", "acme/a acme/b", "acme acme/a/b acmex/a"),
        ("acme/**", "acme/a acme/a/b/c acme", "acmex/a other/acme"),
        ("**", "acme/a workflows/acme/flow", ""),
        ("*/live", "acme/live other/live", "acme/live/x live"),
        ("fal-ai/flux*", "fal-ai/flux fal-ai/flux-pro", "fal-ai/flux/dev"),
        ("fal-ai/**/dev", "fal-ai/dev fal-ai/flux/dev", "fal-ai/flux"),
        ("acme/a.b", "acme/a.b", "acme/axb"),
    ],
)
def test_pattern_matches_whole_ids(pattern: str, matching: str, other: str) -> None:
    patterns = EndpointPatterns([pattern])
    assert all(map(patterns.match, matching.split()))
    assert not any(map(patterns.match, other.split()))


def test_app_matches_if_an_endpoint_may() -> None:
    patterns = EndpointPatterns(["fal-ai/flux/dev", "workflows/acme/*"])
    assert patterns.match_app("fal-ai/flux")
    assert patterns.match_app("workflows/acme/flow")
    assert not patterns.match_app("fal-ai/sdxl")
    assert not patterns.match_app("acme/flow")


@pytest.mark.parametrize(
    "patterns",
    [
        [],
        (),
        None,
        "acme/live",
        ["acme"],
        ["*"],
        [""],
        ["/acme/live"],
        ["acme//live"],
        ["https://fal.run/acme/live"],
        ["acme/a**"],
        ["acme/[ab]"],
        ["acme/ live"],
        [b"acme/live"],
        ["acme/live", 7],
        ["workflows/acme"],
    ],
)
def test_list_without_endpoints_is_an_error(patterns: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        ProxyPolicy(Hosts(), patterns)


def test_hosts_of_the_client_are_used() -> None:
    hosts = Hosts.at("http://127.0.0.1:8000")
    policy = ProxyPolicy(hosts, ["acme/live"], allow_uploads=True)
    expected = Target("run", "http://127.0.0.1:8000/run/acme/live", "acme/live")
    assert policy.check("POST", "https://fal.run/acme/live") == expected
    assert policy.check("POST", "http://127.0.0.1:8000/run/acme/live") == expected
    assert policy.check("POST", UPLOAD).url.startswith("http://127.0.0.1:8000/rest/storage/")
    for url in ("http://127.0.0.1:8000/acme/live", "http://127.0.0.1:8001/run/acme/live"):
        with pytest.raises(PolicyViolation):
            policy.check("POST", url)


#: Parts of URLs that parsers read in different ways.
PARTS = [
    *("https://", "http://", "HTTPS://", "https:/", "https:\\\\", "//", "https:", "wss://"),
    *("fal.run", "queue.fal.run", "rest.fal.ai", "evil.example", "localhost", "[::1]"),
    *("/", "/", "/", "\\", "?", "#", "@", ":", ":443", ".", "..", ";", "&", "=", "+", "*"),
    *("%2e", "%2E%2e", "%2f", "%5c", "%00", "%09", "%25", "%252e", "%252f", "%40", "%"),
    *("\t", "\r\n", " ", "\0", "\uff0f", "\u3002", "\u00ad", "\u0456", "\ud800"),
    *("acme", "live", "acme/live", "/acme/live", "demo", "stream", "x", "tokens", "storage"),
    *("requests", "/requests/abc", "/status", "/cancel", "logs=1", "fal_webhook=x"),
]
PREFIXES = [
    *("https://fal.run/", "https://queue.fal.run/", "https://rest.fal.ai/", "https://fal.run"),
    *("https://fal.run/acme/live", f"{JOB}", "https://queue.fal.run/demo/", ""),
]
METHODS = ["GET", "POST", "PUT", "DELETE"]

tricks = st.builds(
    lambda prefix, parts: prefix + "".join(parts),
    st.sampled_from(PREFIXES),
    st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=2)), max_size=6),
)
ORIGINS = {"https://fal.run", "https://queue.fal.run", "https://rest.fal.ai"}


@given(st.sampled_from(METHODS), tricks)
@example("POST", "https://fal.run/acme/live")
@example("GET", f"{JOB}/status?logs=1")
def test_no_url_leads_elsewhere(method: str, url: str) -> None:
    try:
        target = OPEN.check(method, url)
    except PolicyViolation:
        return
    sent, reached = httpx.URL(url), httpx.URL(target.url)
    for parsed in (sent, reached):
        assert f"{parsed.scheme}://{parsed.netloc.decode()}" in ORIGINS
        assert not parsed.userinfo
    assert sent.host == reached.host == urlsplit(url).netloc
    # No parser changes the path that was checked.
    assert target.url == f"https://{reached.host}{reached.raw_path.decode()}"
    assert reached.path.startswith(f"/{target.endpoint}")


@given(st.sampled_from(METHODS), tricks)
def test_no_url_reaches_another_endpoint(method: str, url: str) -> None:
    policy = ProxyPolicy(Hosts(), ["acme/live"])
    try:
        target = policy.check(method, url)
    except PolicyViolation:
        return
    path = httpx.URL(target.url).path
    if target.action == "run":
        assert path in {"/acme/live", "/acme/live/stream", "/acme/live/realtime"}
    elif target.action == "submit":
        assert path == "/acme/live"
    else:
        assert path.startswith(f"/acme/live/requests/{target.request_id}")
        assert (method == "PUT") == path.endswith("/cancel")
    assert "fal_webhook" not in target.url


@pytest.mark.slow
@pytest.mark.skipif(not NODE, reason="node is not installed")
def test_browsers_see_the_same_host() -> None:
    choose = random.Random(11)
    urls = [
        choose.choice(PREFIXES) + "".join(choose.choices(PARTS, k=choose.randrange(5)))
        for _ in range(40_000)
    ]
    passed = {}
    for url in urls:
        for method in METHODS:
            try:
                passed[url] = OPEN.check(method, url)
            except PolicyViolation:
                continue
    program = """
        const urls = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
        const parse = ({ origin, username, password, pathname }) =>
          [origin, username + password, pathname];
        console.log(JSON.stringify(urls.map((url) => parse(new URL(url)))));
    """
    pairs = [text for url, target in passed.items() for text in (url, target.url)]
    done = subprocess.run(
        [str(NODE), "-e", program],
        input=json.dumps(pairs),
        text=True,
        capture_output=True,
        check=True,
    )
    parsed = json.loads(done.stdout)
    assert len(passed) > 500
    for target, sent, reached in zip(passed.values(), parsed[::2], parsed[1::2], strict=True):
        assert sent[0] == reached[0] in ORIGINS
        assert sent[1] == reached[1] == ""
        assert target.url.startswith(reached[0] + reached[2])
