"""Error responses: class, message, type and details of the error they become."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_async import errors
from fal_async._protocol.error_mapping import exception_from_response, raise_for_status
from fal_async._protocol.response import Response
from fal_async.errors import ErrorDetail, FalClientHTTPError


def error(status: int, body: Any = None, /, **headers: str) -> FalClientHTTPError:
    return exception_from_response(
        Response(
            status_code=status,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            body=body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body),
        )
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidInputError),
        (401, errors.AuthenticationError),
        (402, errors.FalClientHTTPError),
        (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError),
        (408, errors.FalClientHTTPError),
        (409, errors.FalClientHTTPError),
        (422, errors.InvalidInputError),
        (429, errors.RateLimitError),
        (499, errors.JobCancelledError),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (504, errors.ServerError),
        (599, errors.ServerError),
        (302, errors.FalClientHTTPError),
    ],
)
def test_status_selects_the_error_class(status: int, kind: type[FalClientHTTPError]) -> None:
    assert type(error(status, {"detail": "no"})) is kind


def test_request_error_has_a_message_and_type() -> None:
    body = {"detail": "Request timed out", "error_type": "request_timeout"}
    raised = error(504, body, x_fal_request_id="abc")
    assert type(raised) is errors.ServerError
    assert raised.message == "Request timed out"
    assert raised.error_type == "request_timeout"
    assert raised.status_code == 504
    assert raised.request_id == "abc"
    assert raised.details == ()
    assert raised.body == body
    assert str(raised) == "Request timed out (HTTP 504, request_timeout, request abc)"


def test_model_error_lists_its_details() -> None:
    raised = error(
        422,
        {
            "detail": [
                {
                    "loc": ["body", "image_url"],
                    "msg": "too small",
                    "type": "image_too_small",
                    "url": "https://docs.fal.ai/errors#image_too_small",
                    "ctx": {"min_width": 64},
                    "input": "https://secret.example/prompt",
                },
                {"loc": ["body", "images", 2], "msg": "missing", "type": "missing"},
            ]
        },
    )
    assert type(raised) is errors.InvalidInputError
    assert raised.message == "image_url: too small; images.2: missing"
    assert raised.error_type == "image_too_small"
    assert raised.details == (
        ErrorDetail(
            message="too small",
            type="image_too_small",
            loc=("body", "image_url"),
            ctx={"min_width": 64},
            url="https://docs.fal.ai/errors#image_too_small",
        ),
        ErrorDetail(message="missing", type="missing", loc=("body", "images", 2)),
    )
    assert "secret" not in str(raised) + repr(raised)


@pytest.mark.parametrize(
    ("status", "error_type", "kind"),
    [
        (400, "validation_error", errors.InvalidInputError),
        (401, "authorization_error", errors.AuthenticationError),
        (403, "authorization_error", errors.PermissionDeniedError),
        (404, "not_found", errors.NotFoundError),
        (429, "rate_limited", errors.RateLimitError),
        (500, "server_error", errors.ServerError),
    ],
)
def test_platform_api_errors_have_the_same_classes(
    status: int, error_type: str, kind: type[FalClientHTTPError]
) -> None:
    facts = {
        "type": error_type,
        "message": "No such model",
        "docs_url": "https://docs.example/errors",
        "request_id": "r1",
    }
    raised = error(status, {"error": facts})
    assert type(raised) is kind
    assert str(raised) == f"No such model (HTTP {status}, {error_type}, request r1)"
    assert (raised.details, raised.body) == ((), {"error": facts})
    assert error(status, {"error": facts}, x_fal_request_id="r2").request_id == "r2"


def test_error_object_beside_a_detail_is_not_read() -> None:
    raised = error(500, {"detail": "ours", "error": {"message": "theirs", "type": "x"}})
    assert (raised.message, raised.error_type) == ("ours", None)
    assert error(500, {"error": {}, "message": "m"}).message == "m"


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"msg": "no"}, ErrorDetail(message="no", type="unknown")),
        ({"message": "no", "type": "x"}, ErrorDetail(message="no", type="x")),
        ({"type": "x"}, ErrorDetail(message="invalid", type="x")),
        ({"type": "x", "url": ""}, ErrorDetail(message="invalid", type="x")),
        ({"msg": 7, "type": 7, "loc": "body", "ctx": [], "url": 7, "x": 1}, None),
        ({"msg": None, "loc": [None, 1.5, ["a"], {}, "a", 0], "x": 1}, ("a", 0)),
    ],
)
def test_incomplete_detail_is_parsed_leniently(item: dict[str, Any], problem: object) -> None:
    raised = error(422, {"detail": [item, "text", None, 7, {}]})
    expected = problem
    if not isinstance(expected, ErrorDetail):
        loc = expected if isinstance(expected, tuple) else ()
        expected = ErrorDetail(message="invalid", type="unknown", loc=loc)
    assert raised.details == (expected,)


def test_detail_without_type_sets_no_error_type() -> None:
    assert error(422, {"detail": [{"msg": "no"}]}).error_type is None
    assert error(422, {"detail": [{"msg": "no"}, {"msg": "b", "type": "x"}]}).error_type == "x"


@pytest.mark.parametrize(
    ("body", "headers", "name"),
    [
        ({"error_type": "a", "type": "c"}, {"x_fal_error_type": "b"}, "a"),
        ({"type": "c"}, {"x_fal_error_type": "b"}, "b"),
        ({"type": "c", "detail": [{"type": "d", "msg": ""}]}, {}, "c"),
        ({"detail": [{"type": "d", "msg": ""}]}, {}, "d"),
        ({"error_type": 7, "type": ["c"]}, {"x_fal_error_type": ""}, None),
        (None, {}, None),
    ],
)
def test_error_type_is_found_in_every_location(
    body: object, headers: dict[str, str], name: str | None
) -> None:
    assert error(500, body, **headers).error_type == name


PAGE = b"<!DOCTYPE html>\n<html><head><title>502</title></head><center>nginx</center></html>"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, {"detail": "text"}, "text"),
        (500, {"detail": {"a": 1}}, '{"a":1}'),
        (500, {"detail": ["a", "b"]}, '["a","b"]'),
        (500, {"detail": 7}, "7"),
        (500, {"detail": "", "message": "m"}, "m"),
        (500, {"error": "e", "message": "m"}, "m"),
        (500, {"error": "Unauthorized", "status": "error"}, "Unauthorized"),
        (404, {"status": "NOT_FOUND"}, "NOT_FOUND"),
        (500, {"success": False}, '{"success":false}'),
        (500, "just text", "just text"),
        (500, ["a"], '["a"]'),
        (500, b"upstream  went\n away", "upstream went away"),
        (500, b"\xff!", "\ufffd!"),
        (499, {"detail": ""}, "the job was cancelled"),
        (499, b"", "the job was cancelled"),
        (500, {"detail": ""}, "the platform returned status 500 without a reason"),
        (500, {}, "the platform returned status 500 without a reason"),
        (500, [], "the platform returned status 500 without a reason"),
        (500, b"null", "the platform returned status 500 without a reason"),
        (500, b" \n ", "the platform returned status 500 without a reason"),
        (502, PAGE, "the platform returned status 502 without a reason"),
        (502, b"\n<HTML>x", "the platform returned status 502 without a reason"),
        (502, b"nginx says: <html>", "the platform returned status 502 without a reason"),
        (302, b"<a>moved</a>", "the platform returned a redirect, which is not followed"),
        (300, b"choose", "the platform returned a redirect, which is not followed"),
        (399, b"moved", "the platform returned a redirect, which is not followed"),
        (400, b"moved", "moved"),
        (299, b"moved", "moved"),
        (403, b"<?xml version='1.0'?>", "the platform returned status 403 without a reason"),
        (307, b"moved", "the platform returned a redirect, which is not followed"),
    ],
)
def test_message_is_one_readable_string(status: int, body: object, message: str) -> None:
    assert error(status, body).message == message


def test_long_body_is_shortened_in_the_message() -> None:
    raised = error(500, b"x" * 10_000)
    assert raised.message == "x" * 500
    assert raised.body == "x" * 10_000
    assert len(error(500, {"detail": ["x" * 10_000]}).message) == 500


def test_unserializable_nesting_is_accepted() -> None:
    deep = b"[" * 1000 + b"]" * 1000  # json of some versions writes less than orjson reads
    shown = {"a value of type list", deep.decode()[:500]}
    assert error(500, b'{"detail":' + deep + b"}").message in shown
    assert error(500, deep).message in shown
    item = b'{"detail":[{"msg":%b,"type":%b,"loc":[%b]}]}' % (deep, deep, deep)
    assert error(500, item).details == (ErrorDetail(message="invalid", type="unknown"),)


@pytest.mark.parametrize(
    ("text", "locked"),
    [
        ("User is locked. Reason: Exhausted balance. Top up your balance.", True),
        ("Account Locked", True),
        ("Insufficient balance", True),
        ("Your request was blocked", False),
        ("unlocked models only", False),
        ("forbidden", False),
    ],
)
def test_locked_account_is_not_a_permission_error(text: str, locked: bool) -> None:
    kind = errors.AccountLockedError if locked else errors.PermissionDeniedError
    assert type(error(403, {"detail": text})) is kind
    assert type(error(404, {"detail": text})) is errors.NotFoundError


@pytest.mark.parametrize("status", [400, 422])
def test_content_policy_has_its_own_error(status: int) -> None:
    body = {"detail": [{"loc": ["body"], "msg": "no", "type": "content_policy_violation"}]}
    assert type(error(status, body)) is errors.ContentPolicyError


def test_cancelled_job_is_recognized_by_its_type() -> None:
    body = {"detail": "x", "error_type": "client_cancelled"}
    assert type(error(500, body)) is errors.JobCancelledError


def test_missed_start_deadline_is_final() -> None:
    raised = error(
        504,
        {"detail": "late", "error_type": "request_timeout"},
        x_fal_request_timeout_type="user",
        x_fal_needs_retry="1",
    )
    assert type(raised) is errors.StartTimeoutError
    assert raised.retryable is False


@pytest.mark.parametrize(
    ("status", "body", "headers", "retryable"),
    [
        (400, None, {}, False),
        (422, None, {"x_fal_needs_retry": "1"}, True),
        (422, None, {"x_fal_retryable": "true"}, True),
        (503, None, {}, True),
        (503, None, {"x_fal_needs_retry": "0"}, False),
        (408, None, {}, True),
        (429, None, {}, True),
        (502, None, {}, True),
        (504, None, {}, True),
        (500, None, {}, False),
        (500, {"error_type": "runner_server_error"}, {}, True),
        (500, {"error_type": "internal_error"}, {}, False),
        (500, {"error_type": "runner_disconnected"}, {"x_fal_needs_retry": "false"}, False),
    ],
)
def test_retryable_header_sets_retryable(
    status: int, body: object, headers: dict[str, str], retryable: bool
) -> None:
    assert error(status, body, **headers).retryable is retryable


@pytest.mark.parametrize(
    ("error_type", "retryable"),
    [
        ("request_timeout", True),
        ("startup_timeout", True),
        ("runner_scheduling_failure", True),
        ("runner_connection_timeout", True),
        ("runner_disconnected", True),
        ("runner_connection_refused", True),
        ("runner_connection_error", True),
        ("runner_incomplete_response", True),
        ("runner_server_error", True),
        ("client_disconnected", False),
        ("client_cancelled", False),
        ("bad_request", False),
        ("internal_error", False),
        ("image_too_small", False),
    ],
)
def test_error_type_marks_temporary_errors(error_type: str, retryable: bool) -> None:
    assert error(500, {"detail": "x", "error_type": error_type}).retryable is retryable


def test_headers_and_retry_after_are_kept() -> None:
    raised = error(429, {"detail": "slow down"}, retry_after="7", x_fal_served_from="r1")
    assert raised.retry_after == 7.0
    assert raised.response_headers == {"retry-after": "7", "x-fal-served-from": "r1"}


def test_known_request_id_is_the_fallback() -> None:
    bare = Response(status_code=500)
    named = Response(status_code=500, headers={"x-fal-request-id": "own"})
    assert exception_from_response(bare, request_id="known").request_id == "known"
    assert exception_from_response(named, request_id="known").request_id == "own"
    assert exception_from_response(bare).request_id is None


def test_only_success_responses_pass() -> None:
    raise_for_status(Response(status_code=204))
    with pytest.raises(errors.NotFoundError) as caught:
        raise_for_status(Response(status_code=404), request_id="abc")
    assert caught.value.request_id == "abc"


@given(
    st.integers(100, 999),
    st.binary()
    | st.sampled_from(["detail", "message", "error", "status"]).flatmap(
        lambda name: st.recursive(
            st.none() | st.booleans() | st.integers(-9, 2**60) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["msg", "type", "loc", "ctx", "url", "x"]), inner)
            ),
        ).map(lambda value: orjson.dumps({name: value}))
    ),
    st.dictionaries(
        st.sampled_from(
            [
                "content-type",
                "date",
                "retry-after",
                "x-fal-error-type",
                "x-fal-needs-retry",
                "x-fal-request-id",
                "x-fal-request-timeout-type",
            ]
        ),
        st.text(),
    ),
)
@settings(max_examples=50)
def test_any_error_response_can_be_pickled(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    raised = exception_from_response(Response(status_code=status, headers=headers, body=body))
    assert raised.message
    assert str(status) in str(raised)
    assert hash(raised.details) is not None
    for again in (pickle.loads(pickle.dumps(raised)), copy.deepcopy(raised)):
        assert type(again) is type(raised)
        assert vars(again) == vars(raised)
