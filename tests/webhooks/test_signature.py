"""The pure part: the vectors, the forms that headers have, and key sets."""

from __future__ import annotations

import base64
import email.message
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers as StarletteHeaders

from fal_async import InvalidRequestError, InvalidResponseError, InvalidWebhookSignatureError
from fal_async.webhooks._signature import (
    MAX_KEYS,
    check_age,
    find_key,
    parse_keys,
    raw_body,
    read_headers,
    signed_message,
)
from tests.support.webhooks import JOB, SIGNED_AT, Signer, vector, vectors

OK, HEADERS = vector("first key")
SIGNATURE = "X-Fal-Webhook-Signature"


@pytest.mark.parametrize("case", vectors()["cases"], ids=lambda case: case["name"])
def test_vectors_have_their_verdict(case: dict[str, Any]) -> None:
    keys = parse_keys(json.dumps(vectors()["jwks"]).encode())
    body = base64.b64decode(case["body_base64"])
    try:
        headers = read_headers(case["headers"])
        check_age(headers, case["now"], 300)
    except InvalidWebhookSignatureError:
        assert not case["valid"]
        return
    key = find_key(keys, headers.signature, signed_message(headers, body))
    assert (key is not None) == case["valid"]


class WerkzeugLike:
    """Headers that are no mapping."""

    def items(self) -> Any:
        return iter(HEADERS.items())


def message() -> email.message.Message:
    made = email.message.Message()
    for name, value in HEADERS.items():
        made[name] = value
    return made


def environ() -> dict[str, Any]:
    named = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}
    return {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": 12, "wsgi.input": object(), **named}


RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
FORMS: dict[str, Any] = {
    "dict": HEADERS,
    "lower case": {name.lower(): value for name, value in HEADERS.items()},
    "upper case": {name.upper(): value for name, value in HEADERS.items()},
    "bytes": {name.encode(): value.encode() for name, value in HEADERS.items()},
    "lists of values": {name: [value] for name, value in HEADERS.items()},
    "spaces around": {name: f" {value}\t" for name, value in HEADERS.items()},
    "pairs": list(HEADERS.items()),
    "pairs of ASGI": RAW,
    "generator": (pair for pair in RAW),
    "Starlette": StarletteHeaders(raw=RAW),
    "httpx": httpx.Headers(HEADERS),
    "WSGI, Django's META": environ(),
    "email": message(),
    "Werkzeug": WerkzeugLike(),
    "with others": {"Host": "example.com", 1: 2, **HEADERS},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_headers_of_every_form_are_read(form: Any) -> None:
    headers = read_headers(form)
    assert (headers.request_id, headers.user_id) == (JOB, "user_own")
    assert headers.timestamp == str(SIGNED_AT)
    assert headers.signature == bytes.fromhex(HEADERS[SIGNATURE])


def test_headers_of_django_are_read() -> None:
    django = pytest.importorskip("django.http.request")
    assert read_headers(django.HttpHeaders(environ())) == read_headers(HEADERS)


DUPLICATES: dict[str, Any] = {
    "pairs": [*RAW, RAW[3]],
    "Starlette": StarletteHeaders(raw=[*RAW, RAW[3]]),
    "httpx": httpx.Headers([*RAW, RAW[3]]),
    "other case": {**HEADERS, SIGNATURE.lower(): "00"},
    "two names": {**environ(), SIGNATURE: HEADERS[SIGNATURE]},
    "lists": {**HEADERS, SIGNATURE: [HEADERS[SIGNATURE]] * 2},
}


@pytest.mark.parametrize("form", DUPLICATES.values(), ids=DUPLICATES)
def test_duplicated_header_is_refused(form: Any) -> None:
    with pytest.raises(InvalidWebhookSignatureError, match=r"^the header x-fal-.* is duplicated$"):
        read_headers(form)


@pytest.mark.parametrize("value", ["a, b", "", " ", "a\nb", "ü", "a" * 1025, 7, None, b"\xff"])
@pytest.mark.parametrize("name", list(HEADERS))
def test_malformed_header_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidWebhookSignatureError, match=f"the header {name.lower()} must be"):
        read_headers({**HEADERS, name: value})


@pytest.mark.parametrize("value", ["", "-1", "1e9", "1.5", "soon", "1" * 16, "\u0661"])
def test_timestamp_must_be_plain_digits(value: str) -> None:
    with pytest.raises(InvalidWebhookSignatureError, match="the header x-fal-webhook-timestamp"):
        read_headers({**HEADERS, "X-Fal-Webhook-Timestamp": value})


@pytest.mark.parametrize("value", ["ab" * 63, "ab" * 65, "xy" * 64, "0x" + "ab" * 63])
def test_signature_must_be_64_bytes_of_hex(value: str) -> None:
    with pytest.raises(InvalidWebhookSignatureError, match="must be 64 bytes in hexadecimal"):
        read_headers({**HEADERS, SIGNATURE: value})


@pytest.mark.parametrize("headers", [None, 7, "a: b", b"a: b", ["a"], [("a", "b", "c")], [7]])
def test_what_is_no_headers_is_refused(headers: Any) -> None:
    with pytest.raises(InvalidRequestError, match="headers must be the headers of the request"):
        read_headers(headers)


@given(st.data())
def test_case_of_names_never_matters(data: st.DataObject) -> None:
    def vary(name: str) -> str:
        flips = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
        return "".join(c.upper() if up else c.lower() for c, up in zip(name, flips, strict=True))

    pairs = data.draw(st.permutations([(vary(name), value) for name, value in HEADERS.items()]))
    as_bytes = [(name.encode(), value.encode()) for name, value in pairs]
    assert read_headers(dict(pairs)) == read_headers(pairs) == read_headers(as_bytes)
    assert read_headers(pairs) == read_headers(HEADERS)


ANYTHING = st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text()))


@given(st.dictionaries(st.one_of(st.sampled_from(list(HEADERS)), st.text()), ANYTHING))
def test_any_other_headers_are_one_error(headers: dict[str, Any]) -> None:
    with pytest.raises(InvalidWebhookSignatureError):
        read_headers(headers)


@given(st.binary(max_size=64), st.text(max_size=8), st.text(max_size=8))
def test_no_change_keeps_the_signature(body: bytes, first: str, second: str) -> None:
    signed = read_headers(HEADERS)
    keys = parse_keys(json.dumps(vectors()["jwks"]).encode())
    try:
        changed = read_headers(
            {**HEADERS, "X-Fal-Webhook-Request-Id": first, "X-Fal-Webhook-User-Id": second}
        )
    except InvalidWebhookSignatureError:
        changed = signed
    if (changed, body) != (signed, OK):
        assert find_key(keys, signed.signature, signed_message(changed, body)) is None


@pytest.mark.parametrize("payload", [OK, bytearray(OK), memoryview(OK), OK.decode()])
def test_body_is_bytes_or_their_text(payload: Any) -> None:
    assert raw_body(payload) == OK


@pytest.mark.parametrize("payload", [{}, json.loads(OK), None, 7, ["a"]])
def test_decoded_body_is_refused(payload: Any) -> None:
    with pytest.raises(InvalidRequestError, match="payload must be the raw body of the request"):
        raw_body(payload)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (SIGNED_AT + 301.0, "signed 301 seconds ago, which is more than 300 seconds"),
        (SIGNED_AT - 301.0, "signed 301 seconds ahead of this clock, which"),
    ],
)
def test_age_beyond_the_tolerance_is_named(now: float, says: str) -> None:
    with pytest.raises(InvalidWebhookSignatureError, match=says):
        check_age(read_headers(HEADERS), now, 300)


@pytest.mark.parametrize("offset", [-300.0, -299.5, 0.0, 300.0, 300.9])
def test_age_of_300_seconds_is_accepted(offset: float) -> None:
    check_age(read_headers(HEADERS), SIGNED_AT + offset, 300)


X = Signer().jwk["x"]


@pytest.mark.parametrize("entry", [{"x": X}, {"x": X + "="}, {"x": X, "kid": "1", "use": "sig"}])
def test_key_needs_its_bytes_alone(entry: dict[str, str]) -> None:
    assert len(parse_keys(json.dumps({"keys": [entry]}).encode())) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"x": X, "kty": "RSA"},
        {"x": X, "crv": "X25519"},
        {"x": X[:-2]},
        {"x": "ü" + X},
        {"x": X.replace(X[0], "*")},
        {"x": 7},
        {},
        None,
        "x",
    ],
)
def test_other_keys_are_left_out(entry: Any) -> None:
    assert len(parse_keys(json.dumps({"keys": [entry, Signer().jwk]}).encode())) == 1
    with pytest.raises(InvalidResponseError, match="the key set has no Ed25519 key"):
        parse_keys(json.dumps({"keys": [entry]}).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"[" * 100_000])
def test_key_set_must_be_json(body: bytes) -> None:
    with pytest.raises(InvalidResponseError, match="the key set is not JSON"):
        parse_keys(body)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"keys": {}}', b"null"])
def test_key_set_must_have_keys(body: bytes) -> None:
    with pytest.raises(InvalidResponseError, match="the key set has no Ed25519 key"):
        parse_keys(body)


def test_number_of_keys_is_bounded() -> None:
    body = json.dumps({"keys": [Signer().jwk] * 1000}).encode()
    assert len(parse_keys(body)) == MAX_KEYS


def make_counting(keys: Any, tried: list[int]) -> Any:
    class Counting:
        def __init__(self, number: int) -> None:
            self.number = number

        def verify(self, signature: bytes, message: bytes) -> None:
            tried.append(self.number)
            keys[self.number].verify(signature, message)

    return [Counting(number) for number in range(len(keys))]


def test_every_key_is_tried_in_order() -> None:
    body, given_headers = vector("second key")
    headers, tried = read_headers(given_headers), list[int]()
    keys = make_counting(parse_keys(json.dumps(vectors()["jwks"]).encode()), tried)
    assert find_key(keys, headers.signature, signed_message(headers, body)) is keys[1]
    assert tried == [0, 1]
