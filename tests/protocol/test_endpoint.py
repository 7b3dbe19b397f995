"""Endpoint ids, paths and request ids: normalization and validation."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fal_async._protocol.endpoint import Endpoint, parse_endpoint, parse_path, parse_request_id
from fal_async.errors import InvalidRequestError

IDS = [
    ("fal-ai/flux", Endpoint("fal-ai", "flux")),
    ("fal-ai/flux/dev", Endpoint("fal-ai", "flux", "dev")),
    ("fal-ai/kling-video/v1.6/pro", Endpoint("fal-ai", "kling-video", "v1.6/pro")),
    ("workflows/me/mine", Endpoint("me", "mine", namespace="workflows")),
    ("workflows/me/mine/a/b", Endpoint("me", "mine", "a/b", "workflows")),
    ("comfy/me/mine", Endpoint("me", "mine", namespace="comfy")),
    ("workflow/me/mine", Endpoint("workflow", "me", "mine")),
    ("123-app", Endpoint("123", "app")),
    ("123-my-app-2", Endpoint("123", "my-app-2")),
    ("/fal-ai//flux/", Endpoint("fal-ai", "flux")),
    ("  fal-ai/flux/dev \n", Endpoint("fal-ai", "flux", "dev")),
    ("/123-app/", Endpoint("123", "app")),
    ("me_too/app@1.0/~x+y", Endpoint("me_too", "app@1.0", "~x+y")),
]
NOT_IDS = [
    "",
    "/",
    "flux",
    "fal-ai",
    "fal-ai/",
    "123-",
    "123-ap_p",
    "-app",
    "workflows",
    "workflows/me",
    "comfy/me/",
    "fal-ai/flux?x=1",
    "fal-ai/flux#dev",
    "fal-ai/fl ux",
    "fal-ai/../secrets",
    "fal-ai/./flux",
    "fal-ai/%2e%2e",
    "fal-ai\\flux",
    "fal-ai/flüx",
    "fal-ai/flux\x00",
    "fal-ai/fl\r\nux",
    "https://fal.run/fal-ai/flux",
    "fal.run://fal-ai/flux",
    "user:pw@host/app",
]


@pytest.mark.parametrize(("text", "endpoint"), IDS)
def test_endpoint_id_is_parsed(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", NOT_IDS)
def test_invalid_endpoint_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_endpoint(text)


@pytest.mark.parametrize("value", [None, 7, b"fal-ai/flux", ["fal-ai", "flux"]])
def test_non_string_endpoint_id_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="must be a string"):
        parse_endpoint(value)


def test_error_shows_a_valid_endpoint_id() -> None:
    with pytest.raises(InvalidRequestError, match=r"'flux' is not an endpoint id.*fal-ai/flux/dev"):
        parse_endpoint("flux")


def test_url_as_endpoint_id_is_explained() -> None:
    with pytest.raises(InvalidRequestError, match="is a URL"):
        parse_endpoint("https://fal.run/fal-ai/flux")


@pytest.mark.parametrize(
    ("text", "app", "whole"),
    [
        ("fal-ai/flux/dev", "fal-ai/flux", "fal-ai/flux/dev"),
        ("workflows/me/mine/a/b", "workflows/me/mine", "workflows/me/mine/a/b"),
        ("123-app", "123/app", "123/app"),
    ],
)
def test_queue_urls_omit_the_path_of_the_id(text: str, app: str, whole: str) -> None:
    endpoint = parse_endpoint(text)
    assert endpoint.app == app
    assert str(endpoint) == whole


@given(st.one_of(st.text(), st.text("ab1-./~ %?#\\\x00", max_size=12), st.none(), st.binary()))
def test_any_id_parses_or_raises_our_error(value: object) -> None:
    try:
        endpoint = parse_endpoint(value)
    except InvalidRequestError:
        return
    assert str(endpoint).isascii()
    assert not set(" ?#%\\:") & set(str(endpoint))
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("path", "encoded", "query"),
    [
        ("", "", ""),
        ("dev", "dev", ""),
        ("/dev/", "dev", ""),
        ("a//b", "a/b", ""),
        ("a b/ü", "a%20b/%C3%BC", ""),
        ("a%20b", "a%20b", ""),
        ("100%", "100%25", ""),
        ("50%zz", "50%25zz", ""),
        ("dev?x=1&y=a b", "dev", "x=1&y=a%20b"),
        ("?x=ü?", "", "x=%C3%BC?"),
        (".well-known/...", ".well-known/...", ""),
        ("v1:predict@2", "v1:predict@2", ""),
    ],
)
def test_path_is_encoded_once_without_its_query(path: str, encoded: str, query: str) -> None:
    assert parse_path(path) == (encoded, query)


@pytest.mark.parametrize(
    "path",
    [
        "a#b",
        "..",
        "a/../b",
        ".",
        "%2e%2E/b",
        ".%2e",
        "a\r\nb",
        "a\x00",
        "\ud800",
        "\\..\\b",
        None,
        7,
    ],
)
def test_path_outside_the_app_is_refused(path: object) -> None:
    with pytest.raises(InvalidRequestError):
        parse_path(path)


@given(st.text())
@example("?%")
def test_any_path_is_encoded_or_raises_our_error(path: str) -> None:
    try:
        encoded, query = parse_path(path)
    except InvalidRequestError:
        return
    assert (encoded + query).isascii()
    assert (encoded + query).isprintable()
    assert not set(' "<>\\#') & set(encoded + query)
    assert "?" not in encoded
    assert not {".", ".."} & set(encoded.split("/"))
    assert parse_path(f"{encoded}?{query}") == (encoded, query)


@pytest.mark.parametrize("text", ["764cabcf-b745-4b3e-ae38-1200304cf45b", "a_B-9"])
def test_request_id_is_kept_unchanged(text: str) -> None:
    assert parse_request_id(text) == text


@pytest.mark.parametrize("value", ["", "a/b", "..", "a b", "a?b", "a\n", "ü", None, 7, b"abc"])
def test_invalid_request_id_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="is not a request id"):
        parse_request_id(value)
