"""Errors carry facts, say what to do, survive storage, and hold no secrets."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import traceback
from typing import Any

import pytest

from fal_async import errors
from fal_async.errors import (
    AccountLockedError,
    AuthenticationError,
    ClientClosedError,
    ConnectionFailedError,
    ContentPolicyError,
    ErrorDetail,
    FalClientError,
    FalClientHTTPError,
    FalClientTimeoutError,
    ForeignWebhookError,
    InvalidInputError,
    InvalidRequestError,
    InvalidResponseError,
    InvalidWebhookEventError,
    InvalidWebhookSignatureError,
    JobCancelledError,
    MissingCredentialsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RealtimeDisconnectedError,
    RealtimeError,
    ServerError,
    StartTimeoutError,
    StreamError,
    StreamInterruptedError,
    SubmitOutcomeUnknownError,
    TransportError,
    UnknownJobError,
    UnverifiedWebhookError,
    UploadError,
    WebhookError,
)
from fal_async.types import InProgress, Queued

PROBLEM = ErrorDetail(
    message="too small",
    type="image_too_small",
    loc=("body", "images", 0),
    ctx={"min_width": 64},
    url="https://docs.fal.ai/errors#image_too_small",
)


def http(cls: type[FalClientHTTPError] = FalClientHTTPError) -> FalClientHTTPError:
    return cls(
        "too small",
        422,
        error_type="image_too_small",
        details=[PROBLEM],
        request_id="abc",
        retry_after=1.5,
        retryable=True,
        response_headers={"x-fal-request-id": "abc"},
        body={"detail": ["secret prompt"]},
    )


HTTP_ERRORS = [
    FalClientHTTPError,
    AuthenticationError,
    PermissionDeniedError,
    AccountLockedError,
    NotFoundError,
    InvalidInputError,
    ContentPolicyError,
    RateLimitError,
    JobCancelledError,
    ServerError,
    StartTimeoutError,
]
TEXTS: list[tuple[FalClientError, str]] = [
    (FalClientError("no"), "no"),
    (MissingCredentialsError("set FAL_KEY"), "set FAL_KEY"),
    (InvalidRequestError("no id"), "no id"),
    (ClientClosedError("the client is closed"), "the client is closed"),
    (FalClientTimeoutError(2), "request timed out after 2 seconds"),
    (FalClientTimeoutError(0.25, "abc"), "request abc timed out after 0.25 seconds"),
    (
        FalClientTimeoutError(60.0, "abc", Queued(3)),
        "request abc timed out after 60 seconds, last seen Queued(position=3)",
    ),
    (TransportError("reset", request_id="abc"), "reset"),
    (ConnectionFailedError("refused"), "refused"),
    (RealtimeDisconnectedError(), "the socket is closed (code 1006)"),
    (RealtimeDisconnectedError(1000, "bye"), "the socket is closed (code 1000): bye"),
    (
        SubmitOutcomeUnknownError("fal-ai/flux", "reset"),
        (
            "the call that starts a job on 'fal-ai/flux' was sent, but its response was lost "
            "(reset); the job may be running, so it was not sent again"
        ),
    ),
    (StreamInterruptedError("reset", 3), "the stream broke off after 3 events: reset"),
    (StreamError("boom", {"error": "boom"}, request_id="abc"), "boom"),
    (UploadError("the file has changed", 7, 9), "the file has changed"),
    (InvalidResponseError("no JSON", request_id="abc"), "no JSON"),
    (RealtimeError("TIMEOUT"), "TIMEOUT"),
    (RealtimeError("INTERNAL_ERROR", "boom", {"type": "x-fal-error"}), "INTERNAL_ERROR: boom"),
    (WebhookError("no"), "no"),
    (InvalidWebhookSignatureError("too old"), "too old"),
    (ForeignWebhookError("not yours", "user_2"), "not yours"),
    (InvalidWebhookEventError("no JSON", b"{"), "no JSON"),
    (UnverifiedWebhookError("no keys"), "no keys"),
    (UnknownJobError("no job"), "no job"),
    (FalClientHTTPError("no", 418), "no (HTTP 418)"),
    (FalClientHTTPError("no", 500, request_id="abc"), "no (HTTP 500, request abc)"),
    *((http(cls), "too small (HTTP 422, image_too_small, request abc)") for cls in HTTP_ERRORS),
]
CLASSES = [name for name in errors.__all__ if name not in {"ErrorDetail", "from_dict"}]
ERRORS = [pytest.param(error, id=type(error).__name__) for error, _ in TEXTS]


def restored(error: Any) -> list[Any]:
    return [
        copy.copy(error),
        copy.deepcopy(error),
        *(
            pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ]


def test_every_error_is_in_the_table() -> None:
    known = {getattr(errors, name) for name in CLASSES}
    assert {type(error) for error, _ in TEXTS} == known


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=lambda value: type(value).__name__)
def test_an_error_says_what_happened(error: FalClientError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_survives_copies_and_storage(error: FalClientError) -> None:
    for again in restored(error):
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert again.args == error.args
        assert (str(again), repr(again)) == (str(error), repr(error))


@pytest.mark.parametrize("error", ERRORS)
def test_errors_survive_storage_as_json(error: FalClientError) -> None:
    told = copy.copy(error)
    told.stage, told.started = "result", True
    data = json.loads(json.dumps(told.to_dict()))
    again = errors.from_dict(data)
    assert type(again) is type(error)
    assert vars(again) == vars(told) | (
        {"response_headers": {}} if isinstance(error, FalClientHTTPError) else {}
    )
    assert (again.args, str(again), again.final) == (told.args, str(told), told.final)
    assert again.to_dict() == data


def test_stored_error_has_facts_by_name() -> None:
    data = http(ContentPolicyError).to_dict()
    assert data == {
        "type": "ContentPolicyError",
        "message": "too small",
        "stage": None,
        "started": None,
        "final": False,
        "args": ["too small"],
        "status_code": 422,
        "error_type": "image_too_small",
        "details": [
            {
                "message": "too small",
                "type": "image_too_small",
                "loc": ["body", "images", 0],
                "ctx": {"min_width": 64},
                "url": "https://docs.fal.ai/errors#image_too_small",
            }
        ],
        "request_id": "abc",
        "retry_after": 1.5,
        "retryable": True,
        "body": {"detail": ["secret prompt"]},
    }


def test_values_beyond_json_survive_storage() -> None:
    payload = {"image": b"\xff", "at": [b"", {"$base64": 7}], "own": {1, 2}}
    error = StreamError("boom", payload)
    again = errors.from_dict(json.loads(json.dumps(error.to_dict())))
    assert isinstance(again, StreamError)
    assert again.payload == {"image": b"\xff", "at": [b"", {"$base64": 7}], "own": "{1, 2}"}
    wrong = InvalidResponseError("no JSON", body=b"\x00")
    assert vars(errors.from_dict(wrong.to_dict()))["body"] == b"\x00"


def test_error_of_a_later_version_is_readable() -> None:
    data = {
        **FalClientError("no").to_dict(),
        "type": "NewError",
        "to_dict": 1,
        "_x": 2,
        "region": "eu",
    }
    again = errors.from_dict(data)
    assert (type(again), str(again), vars(again)["region"]) == (FalClientError, "no", "eu")
    assert again.to_dict()["message"] == "no"
    assert "_x" not in vars(again)
    own = OwnError(7).to_dict()
    assert (own["type"], own["number"]) == ("InvalidInputError", 7)


@pytest.mark.parametrize(
    "data",
    [
        {},
        None,
        [],
        {"type": 7},
        {"type": "ServerError", "details": [{"loc": []}]},
        {"type": "ServerError", "details": [7]},
        {"type": "ServerError", "details": [{"message": "a", "type": "b", "loc": [], "x": 1}]},
        {"type": "FalClientTimeoutError", "last_status": {"type": "Gone"}},
        {"type": "FalClientError", "args": 7},
        {"type": "StreamError", "payload": {"$base64": "?"}},
    ],
)
def test_data_of_no_error_is_refused(data: Any) -> None:
    with pytest.raises(InvalidRequestError, match="data must be that of an error"):
        errors.from_dict(data)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (InvalidRequestError("x"), True),
        (MissingCredentialsError("x"), True),
        (InvalidInputError("x", 422), True),
        (ContentPolicyError("x", 422), True),
        (AuthenticationError("x", 401), True),
        (FalClientHTTPError("x", 402), True),
        (InvalidInputError("x", 422, retryable=True), False),
        (RateLimitError("x", 429), False),
        (JobCancelledError("x", 499), False),
        (ServerError("x", 500), False),
        (StartTimeoutError("x", 504), False),
        (TransportError("x"), False),
        (FalClientTimeoutError(1), False),
    ],
)
def test_error_of_the_input_is_final(error: FalClientError, final: bool) -> None:
    assert error.final is final


@pytest.mark.parametrize("error", ERRORS)
def test_errors_are_hashable_and_distinct(error: FalClientError) -> None:
    assert {error: 1}[error] == 1
    assert error == error
    assert copy.copy(error) != error


@pytest.mark.parametrize("error", ERRORS)
def test_notes_survive_storage(error: FalClientError) -> None:
    noted = copy.copy(error)
    noted.add_note("while testing")
    assert pickle.loads(pickle.dumps(noted)).__notes__ == ["while testing"]
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("error", ERRORS)
def test_errors_can_be_raised_and_printed(error: FalClientError) -> None:
    with pytest.raises(FalClientError) as caught:
        raise copy.copy(error)
    assert str(error) in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("cls", HTTP_ERRORS)
def test_platform_data_is_not_in_the_text(cls: type[FalClientHTTPError]) -> None:
    error = cls(
        "no",
        500,
        response_headers={"x-fal-cdn-token": "token-1234"},
        body={"input": "secret prompt"},
    )
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error) + f"{error!s}"
    assert "token-1234" not in shown
    assert "secret prompt" not in shown


def test_realtime_details_are_not_in_the_text() -> None:
    error = RealtimeError("X", "y", {"input": "secret"})
    assert "secret" not in str(error) + repr(error)
    assert error.payload == {"input": "secret"}


def test_attributes_are_copies() -> None:
    headers, payload, problems = {"a": "1"}, {"b": 2}, [PROBLEM]
    error = FalClientHTTPError("no", 500, response_headers=headers, details=problems)
    realtime = RealtimeError("X", payload=payload)
    headers.clear()
    payload.clear()
    problems.clear()
    assert error.response_headers == {"a": "1"}
    assert error.details == (PROBLEM,)
    assert realtime.payload == {"b": 2}


def test_unknown_attributes_are_none_or_empty() -> None:
    error = FalClientHTTPError("no", 500)
    assert vars(error) == {
        "message": "no",
        "status_code": 500,
        "error_type": None,
        "details": (),
        "request_id": None,
        "retry_after": None,
        "retryable": False,
        "response_headers": {},
        "body": None,
    }
    assert TransportError("x").request_id is None
    assert SubmitOutcomeUnknownError("a/b", "x").request_id is None
    assert InvalidResponseError("x").request_id is None


def test_timeout_is_a_timeout_error_without_errno() -> None:
    error = FalClientTimeoutError(2.0, "abc", InProgress([]))
    assert isinstance(error, TimeoutError)
    assert isinstance(error, asyncio.TimeoutError)
    assert (error.timeout, error.request_id, error.last_status) == (2.0, "abc", InProgress([]))
    for one in [error, *restored(error)]:
        assert one.errno is None
        assert one.strerror is None


def test_a_wrong_call_is_a_value_error() -> None:
    assert isinstance(InvalidRequestError("x"), ValueError)


def test_subclass_may_take_other_arguments() -> None:
    again = pickle.loads(pickle.dumps(OwnError(7)))
    assert (again.number, again.message, str(again)) == (7, "no 7", "no 7 (HTTP 400)")


class OwnError(InvalidInputError):
    def __init__(self, number: int) -> None:
        super().__init__(f"no {number}", 400)
        self.number = number


@pytest.mark.parametrize(
    ("cls", "parent"),
    [
        (ConnectionFailedError, TransportError),
        (SubmitOutcomeUnknownError, TransportError),
        (RealtimeDisconnectedError, TransportError),
        (AccountLockedError, PermissionDeniedError),
        (ContentPolicyError, InvalidInputError),
        (StartTimeoutError, ServerError),
        *((cls, FalClientHTTPError) for cls in HTTP_ERRORS),
        *((getattr(errors, name), FalClientError) for name in CLASSES),
    ],
)
def test_the_tree_is_by_remedy(cls: type, parent: type) -> None:
    assert issubclass(cls, parent)


def test_documented_tree_lists_every_error() -> None:
    parents: dict[int, str] = {}
    drawn: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├── ", "    ").replace("└── ", "    ")
        name = words.split()[0] if words.strip() else ""
        if name in errors.__all__:
            depth = len(words) - len(words.lstrip())
            drawn[name] = parents.get(depth - 4, "")
            parents[depth] = name
    assert drawn == {
        name: getattr(errors, name).__bases__[0].__name__.replace("Exception", "")
        for name in CLASSES
    }


def test_a_problem_is_a_value() -> None:
    for again in (copy.deepcopy(PROBLEM), pickle.loads(pickle.dumps(PROBLEM))):
        assert again == PROBLEM
        assert hash(again) == hash(PROBLEM)
    assert {PROBLEM} == {copy.copy(PROBLEM)}
    assert ErrorDetail(message="a", type="b") != ErrorDetail(message="a", type="b", ctx={"x": 1})
    assert ErrorDetail(message="a", type="b").ctx == {}
