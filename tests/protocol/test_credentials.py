"""Keys, logins and CDN tokens: validation, expiry and refresh requests."""

from __future__ import annotations

import base64
import math
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async import Hosts
from fal_async._core.secrets import Secret
from fal_async._protocol.credentials import (
    LEEWAY,
    MIN_CDN_LIFETIME,
    MIN_LIFETIME,
    AuthHeader,
    LoginTokens,
    auth_header_from_key,
    auth_header_from_token,
    cdn_token,
    expiry,
    parse_login,
    parse_refresh_response,
    parse_timestamp,
    refresh_form,
    similar_variables,
    validate_key,
)
from fal_async._protocol.operation import Credential
from fal_async._protocol.response import Response
from fal_async._protocol.retry import Retry
from fal_async.errors import (
    FalClientError,
    FalClientHTTPError,
    InvalidResponseError,
    MissingCredentialsError,
    ServerError,
)

HOSTS = Hosts()
CDN = "https://v3.fal.media"


def jwt(claims: object) -> str:
    parts = [base64.urlsafe_b64encode(orjson.dumps(part)) for part in ({"alg": "none"}, claims)]
    return ".".join(part.decode().rstrip("=") for part in (*parts, b"sig"))


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("id:secret", None),
        ("0f6d2a8e-1c3b:9a8b7c6d", None),
        ("no-colon", None),
        ("~!#$%&'()*+,-./", None),
        ("", "is empty"),
        (" ", "holds whitespace"),
        ("id: secret", "holds whitespace"),
        ("Key id:secret", "holds whitespace"),
        ("id:secret\n", "holds whitespace"),
        ("id\r\nX-Evil: 1", "holds whitespace"),
        ("id\u2028secret", "holds whitespace"),
        ("id\0secret", "holds characters that are not printable ASCII"),
        ("id\x7f", "holds characters that are not printable ASCII"),
        ("id:sécret", "holds characters that are not printable ASCII"),
        ("id:secret\u200b", "holds characters that are not printable ASCII"),
    ],
)
def test_key_must_be_printable_ascii(key: str, problem: str | None) -> None:
    assert validate_key(key) == problem


@pytest.mark.slow
@given(st.text())
def test_valid_key_fits_into_a_header(key: str) -> None:
    if validate_key(key) is None:
        assert key.encode("ascii").strip().split() == [key.encode()]


def test_key_is_sent_with_the_key_scheme() -> None:
    assert auth_header_from_key(Secret("id:secret"), "FAL_KEY") == AuthHeader(
        Secret("Key id:secret"), "FAL_KEY", math.inf
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET", "FAL_RUN_HOST", "PATH", "API_KEY"], []),
        (["FAL_API_KEY"], ["FAL_API_KEY"]),
        (["FALAI_API_KEY", "FAL_AI_KEY", "fal_key"], ["FALAI_API_KEY", "FAL_AI_KEY", "fal_key"]),
        (["VITE_FAL_KEY", "NEXT_PUBLIC_FAL_KEY"], ["NEXT_PUBLIC_FAL_KEY", "VITE_FAL_KEY"]),
        (
            ["FAL_TOKEN", "FAL_SECRET", "FAL_CREDENTIALS"],
            ["FAL_CREDENTIALS", "FAL_SECRET", "FAL_TOKEN"],
        ),
        (["FALCON_KEY", "OFFAL_KEY", "FALLBACK_TOKEN", "FAL_LOG_LEVEL"], []),
    ],
)
def test_variables_resembling_a_key_are_found(names: list[str], found: list[str]) -> None:
    assert similar_variables(names) == found


@pytest.mark.parametrize(
    ("token", "expires_at"),
    [
        (jwt({"exp": 1_800_000_000}), 1_800_000_000),
        (jwt({"exp": 1_800_000_000.5}), 1_800_000_000.5),
        (jwt({"exp": "1800000000"}), 1_800_000_000),
        (jwt({"exp": None}), None),
        (jwt({"exp": [1]}), None),
        (jwt({"iat": 5}), None),
        (jwt([1]), None),
        (jwt("exp"), None),
        ("", None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.%%%.c", None),
        ("a.é.c", None),
        ("a." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".c", None),
    ],
)
def test_token_expiry_is_parsed_or_unknown(token: str, expires_at: float | None) -> None:
    assert expiry(Secret(token)) == expires_at


@given(st.text(alphabet="abcXYZ019-_=.é %"))
def test_any_token_has_an_expiry_or_none(token: str) -> None:
    assert expiry(Secret(token)) is None or isinstance(expiry(Secret(token)), float)


@pytest.mark.parametrize(
    ("expires_at", "issued_at", "refresh_at"),
    [
        (10_000, None, 10_000 - LEEWAY),
        (None, None, -math.inf),
        (10_000, 5_000, 10_000 - LEEWAY),
        (5_100, 5_000, 5_000 + MIN_LIFETIME),
        (1_000, 5_000, 5_000 + MIN_LIFETIME),
        (None, 5_000, 5_000 + MIN_LIFETIME),
    ],
    ids=["found", "found, unreadable", "issued", "short-lived", "clocks disagree", "unreadable"],
)
def test_bearer_token_is_refreshed_before_expiry(
    expires_at: float | None, issued_at: float | None, refresh_at: float
) -> None:
    token = jwt({"exp": expires_at})
    grant = auth_header_from_token(Secret(token), "here", issued_at=issued_at)
    assert grant == AuthHeader(Secret(f"Bearer {token}"), "here", refresh_at)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", None),
        ("\n \n", None),
        ("refresh", LoginTokens(Secret("refresh"))),
        ("refresh\naccess", LoginTokens(Secret("refresh"), Secret("access"))),
        ("  refresh \r\n\r\n access \r\n", LoginTokens(Secret("refresh"), Secret("access"))),
        ("refresh\naccess\nmore\n", LoginTokens(Secret("refresh"), Secret("access"))),
        ("refresh\nacc ess", LoginTokens(Secret("refresh"))),
        ("ref\ufffdresh\naccess", None),
    ],
)
def test_token_file_has_two_lines(text: str, tokens: LoginTokens | None) -> None:
    assert parse_login(text) == tokens


@pytest.mark.parametrize(
    "tokens", [LoginTokens(Secret("refresh")), LoginTokens(Secret("refresh"), Secret("access"))]
)
def test_token_file_survives_a_round_trip(tokens: LoginTokens) -> None:
    assert parse_login(tokens.to_text().reveal()) == tokens


def test_refresh_request_sends_the_refresh_token() -> None:
    assert refresh_form(LoginTokens(Secret("r1"), Secret("a1"))) == {
        "grant_type": "refresh_token",
        "client_id": "TwXR51Vz8JbY8GUUMy6EyuVR0fTO7N4N",
        "refresh_token": "r1",
    }


@pytest.mark.parametrize(
    ("response", "tokens"),
    [
        ({"access_token": "a2", "refresh_token": "r2"}, LoginTokens(Secret("r2"), Secret("a2"))),
        ({"access_token": "a2", "expires_in": 86400}, LoginTokens(Secret("r1"), Secret("a2"))),
        ({"access_token": "a2", "refresh_token": None}, LoginTokens(Secret("r1"), Secret("a2"))),
    ],
)
def test_refresh_response_contains_tokens(response: dict[str, Any], tokens: LoginTokens) -> None:
    assert (
        parse_refresh_response(200, orjson.dumps(response), LoginTokens(Secret("r1"), Secret("a1")))
        == tokens
    )


@pytest.mark.parametrize(
    ("status_code", "body", "error"),
    [
        (400, b'{"error":"invalid_request"}', MissingCredentialsError),
        (401, b"", MissingCredentialsError),
        (403, b'{"error":"invalid_grant","token":"r1"}', MissingCredentialsError),
        (429, b"slow down, r1", FalClientHTTPError),
        (302, b"", FalClientHTTPError),
        (503, b"<html>r1</html>", ServerError),
        (200, b"not JSON r1", InvalidResponseError),
        (200, b"[]", InvalidResponseError),
        (200, b'{"refresh_token":"r2"}', InvalidResponseError),
        (200, b'{"access_token":5}', InvalidResponseError),
        (200, b'{"access_token":"a\\nb"}', InvalidResponseError),
    ],
)
def test_failed_refresh_hides_the_tokens(
    status_code: int, body: bytes, error: type[FalClientError]
) -> None:
    with pytest.raises(error) as caught:
        parse_refresh_response(status_code, body, LoginTokens(Secret("r1"), Secret("a1")))
    assert type(caught.value) is error
    for secret in ("r1", "r2", "a1"):
        assert secret not in f"{caught.value!s} {caught.value!r} {vars(caught.value)}"


def test_token_repr_hides_secrets() -> None:
    values = [
        LoginTokens(Secret("r1"), Secret("a1")),
        auth_header_from_token(Secret("a1"), "here"),
        auth_header_from_key(Secret("r1:a1"), "there"),
    ]
    assert not any(secret in repr(value) for value in values for secret in ("r1", "a1"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T00:01:00+00:00", 60),
        ("1970-01-01T00:01:00.5Z", 60.5),
        ("1970-01-01T02:01:00.000+02:00", 60),
        ("1970-01-01T00:01:00.000001", 60.000001),
        ("soon", None),
        ("", None),
        (60, None),
        (None, None),
    ],
)
def test_timestamps_are_parsed(text: object, moment: float | None) -> None:
    assert parse_timestamp(text) == moment


def token(**changes: object) -> Any:
    body = {
        "token": "t",
        "token_type": "Bearer",
        "base_url": CDN,
        "expires_at": "1970-01-01T01:00:00Z",
    }
    response = Response(status_code=200, body=orjson.dumps({**body, **changes}))
    return cdn_token(HOSTS, now=lambda: 1000.0).parse(response)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the system's zone cannot be changed")
def test_timestamps_without_zone_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_timestamp("1970-01-01T00:00:07") == 7
    finally:
        monkeypatch.undo()
        time.tzset()


def test_token_request_uses_the_key() -> None:
    operation = cdn_token(HOSTS, now=lambda: 0.0)
    url = "https://rest.fal.ai/storage/auth/token?storage_type=fal-cdn-v3"
    assert (operation.request.method, operation.request.url) == ("POST", url)
    assert operation.request.content == b"{}"
    assert (operation.credential, operation.retry) == (Credential.KEY, Retry.IDEMPOTENT)


def test_token_is_refreshed_before_expiry() -> None:
    assert token().refresh_at == 3600 - LEEWAY
    half = token(expires_at="1970-01-01T00:20:00Z")
    assert half.refresh_at == 1000 + 100  # half of the remaining lifetime
    for end in ("1970-01-01T00:16:41Z", "1970-01-01T00:00:00Z", None):
        assert token(expires_at=end).refresh_at == 1000 + MIN_CDN_LIFETIME


def test_token_type_and_base_url_are_validated() -> None:
    assert (token().authorization, token().base_url) == ("Bearer t", CDN)
    assert token(token_type=None).authorization == "Bearer t"
    assert token(token_type="Key").authorization == "Key t"
    assert token(base_url="https://v3b.fal.media/").base_url == "https://v3b.fal.media"
    for elsewhere in (None, 7, "https://evil.test", "http://v3.fal.media"):
        assert token(base_url=elsewhere).base_url == CDN
    assert " t" not in repr(token())


@pytest.mark.parametrize("missing", [None, "", 7])
def test_incomplete_token_response_is_an_error(missing: object) -> None:
    with pytest.raises(InvalidResponseError, match="token"):
        token(token=missing)
