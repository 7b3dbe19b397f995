"""Retry policy: conditions, attempts and delays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async._config import RetryPolicy
from fal_async._protocol.response import Response
from fal_async._protocol.retry import NetworkFailure, Retry, retry_delay

SENT = NetworkFailure("reset", sent=True)
UNSENT = NetworkFailure("refused", sent=False)
READING = {Retry.IDEMPOTENT, Retry.RESULT, Retry.FAILED_RESULT}


def almost_one() -> float:
    return 1.0


def delay(
    outcome: Response | NetworkFailure,
    retry: Retry = Retry.IDEMPOTENT,
    policy: RetryPolicy | None = None,
    **more: Any,
) -> float | None:
    settings: dict[str, Any] = {"attempt": 1, "elapsed": 0.0, "random": almost_one} | more
    return retry_delay(outcome, retry, policy or RetryPolicy(), **settings)


def response(status: int, body: bytes = b"", /, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status_code=status, headers=named, body=body)


@pytest.mark.parametrize("retry", Retry)
def test_unsent_request_is_retried(retry: Retry) -> None:
    assert delay(UNSENT, retry) is not None


@pytest.mark.parametrize("retry", Retry)
def test_possibly_received_read_is_retried(retry: Retry) -> None:
    assert (delay(SENT, retry) is not None) is (retry in READING)


@pytest.mark.parametrize("retry", Retry)
@pytest.mark.parametrize(
    "outcome",
    [
        response(200),
        response(204, x_fal_needs_retry="1"),
        response(504, x_fal_request_timeout_type="user"),
        response(504, x_fal_request_timeout_type="user", x_fal_needs_retry="1"),
        response(503, x_fal_needs_retry="0"),
        response(429, x_fal_retryable="false"),
        response(302),
        response(400),
        response(401),
        response(404),
        response(409),
        response(422),
        response(499),
    ],
    ids=lambda outcome: f"{outcome.status_code}-{'-'.join(outcome.headers)}",
)
def test_final_error_is_never_retried(outcome: Response, retry: Retry) -> None:
    assert delay(outcome, retry) is None


@pytest.mark.parametrize(
    ("status", "safe", "on_refusal"),
    [
        (408, True, False),
        (429, True, True),
        (500, True, False),
        (502, True, True),
        (503, True, True),
        (504, True, False),
        (599, True, False),
    ],
)
def test_status_decides_without_retry_header(status: int, safe: bool, on_refusal: bool) -> None:
    outcome = response(status)
    assert (delay(outcome, Retry.IDEMPOTENT) is not None) is safe
    assert (delay(outcome, Retry.RESULT) is not None) is safe
    assert (delay(outcome, Retry.FAILED_RESULT) is not None) is (status >= 500)
    assert (delay(outcome, Retry.IF_REJECTED) is not None) is on_refusal
    assert delay(outcome, Retry.IF_NOT_SENT) is None


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_accepted_job_is_not_started_again(status: int) -> None:
    outcome = response(status, x_fal_request_id="abc")
    assert delay(outcome, Retry.IF_REJECTED) is None
    assert delay(outcome, Retry.IDEMPOTENT) is not None


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("header", ["x_fal_needs_retry", "x_fal_retryable"])
def test_platform_may_request_a_retry_of_run(status: int, header: str) -> None:
    outcome = response(status, x_fal_request_id="abc", **{header: "1"})
    assert delay(outcome, Retry.IF_REJECTED) is not None
    assert delay(outcome, Retry.IF_NOT_SENT) is None


def test_validation_error_is_never_retried() -> None:
    assert delay(response(422, x_fal_needs_retry="1"), Retry.IF_REJECTED) is None


def test_queue_limit_raises_immediately() -> None:
    assert delay(response(429), Retry.IF_NOT_SENT) is None
    assert delay(response(429, x_fal_needs_retry="1", retry_after="1"), Retry.IF_NOT_SENT) is None


def test_failed_job_error_is_not_retried() -> None:
    outcome = response(503, x_fal_request_id="abc", x_fal_needs_retry="1")
    assert delay(outcome, Retry.FAILED_RESULT) is None
    assert delay(response(503), Retry.FAILED_RESULT) is not None  # of an ingress, not of the job


def test_repeated_identical_500_is_final() -> None:
    first, second = response(500, b"boom"), response(500, b"boom")
    assert delay(first, Retry.RESULT) is not None
    assert delay(second, Retry.RESULT, attempt=2, previous=first) is None
    assert delay(second, Retry.IDEMPOTENT, attempt=2, previous=first) is not None
    assert delay(response(500, b"other"), Retry.RESULT, attempt=2, previous=first) is not None
    assert delay(SENT, Retry.RESULT, attempt=2, previous=first) is not None
    gone = response(503, b"boom")
    assert delay(gone, Retry.RESULT, attempt=2, previous=gone) is not None


def test_attempts_are_limited() -> None:
    policy = RetryPolicy(attempts=3)
    assert delay(UNSENT, policy=policy, attempt=2) is not None
    assert delay(UNSENT, policy=policy, attempt=3) is None
    assert delay(UNSENT, policy=RetryPolicy(attempts=1)) is None


def test_time_budget_includes_the_delay() -> None:
    policy = RetryPolicy(budget=10.0, base_delay=1.0)
    assert delay(UNSENT, policy=policy, elapsed=9.0) == 1.0
    assert delay(UNSENT, policy=policy, elapsed=9.1) is None
    assert delay(response(503, retry_after="11"), policy=policy) is None
    assert delay(UNSENT, policy=RetryPolicy(budget=0)) is None


def test_maximum_delay_doubles_up_to_its_limit() -> None:
    policy = RetryPolicy(attempts=9, base_delay=0.25, max_delay=8.0)
    delays = [delay(SENT, policy=policy, attempt=attempt) for attempt in range(1, 9)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_delay_is_random_below_its_maximum() -> None:
    assert delay(SENT, random=lambda: 0.0) == 0.0
    assert delay(SENT, random=lambda: 0.5, attempt=2) == 0.25


def test_rate_limit_starts_with_the_advised_delay() -> None:
    assert [delay(response(429), attempt=attempt) for attempt in range(1, 5)] == [
        1.0,
        2.0,
        4.0,
        8.0,
    ]
    assert delay(response(429), policy=RetryPolicy(base_delay=3.0)) == 3.0
    assert delay(response(429), policy=RetryPolicy(max_delay=0.5)) == 0.5
    assert delay(response(503)) == 0.25


def test_zero_delay_policy_covers_rate_limits() -> None:
    assert delay(response(429), policy=RetryPolicy(base_delay=0)) == 0.0


def test_retry_after_is_respected() -> None:
    assert delay(response(429, retry_after="20")) == 20.0
    assert delay(response(503, retry_after="0")) == 0.0
    dates = {
        "retry_after": "Wed, 21 Oct 2015 07:28:30 GMT",
        "date": "Wed, 21 Oct 2015 07:28:00 GMT",
    }
    assert delay(response(503, **dates)) == 30.0


def test_excessive_retry_after_is_final() -> None:
    policy = RetryPolicy(max_retry_after=5.0)
    assert delay(response(429, retry_after="5"), policy=policy) == 5.0
    assert delay(response(429, retry_after="5.1"), policy=policy) is None


def test_many_attempts_do_not_overflow() -> None:
    policy = RetryPolicy(attempts=10**6, budget=1e9)
    assert delay(SENT, policy=policy, attempt=10**5) == policy.max_delay
    eager = RetryPolicy(attempts=10**6, base_delay=0)
    assert delay(SENT, policy=eager, attempt=10**5) == 0.0


@pytest.mark.parametrize("retry", [Retry.RESULT, Retry.FAILED_RESULT])
@pytest.mark.parametrize("outcome", [SENT, UNSENT, response(502), response(503), response(504)])
def test_outage_does_not_end_reading_of_outputs(
    outcome: Response | NetworkFailure, retry: Retry
) -> None:
    policy = RetryPolicy()
    delays = [delay(outcome, retry, attempt=attempt) for attempt in (1, 4, 5, 6, 9, 99)]
    assert delays == [0.25, 2.0, 4.0, 8.0, 60.0, 60.0]
    assert delay(outcome, retry, attempt=99, elapsed=3540) == 60.0
    assert delay(outcome, retry, attempt=99, elapsed=3541) is None
    assert delay(outcome, Retry.IDEMPOTENT, attempt=policy.attempts) is None
    assert delay(outcome, retry, RetryPolicy(attempts=1)) is None
    assert delay(outcome, retry, RetryPolicy(result_budget=0), attempt=5) is None
    assert delay(outcome, retry, RetryPolicy(base_delay=0, max_delay=0), attempt=5) == 4.0


def test_overload_does_not_end_reading_of_outputs() -> None:
    assert delay(response(429, retry_after="600"), Retry.RESULT, attempt=9) == 600.0
    assert delay(response(429, retry_after="3601"), Retry.RESULT) is None
    assert delay(response(429, retry_after="600"), Retry.IDEMPOTENT) is None


def test_error_of_the_job_is_read_few_times() -> None:
    for headers in ({"x_fal_request_id": "abc"}, {"x_fal_served_from": "runner"}):
        own = response(500, **headers)
        assert delay(own, Retry.RESULT, attempt=4) is not None
        assert delay(own, Retry.RESULT, attempt=5) is None


@given(
    outcome=st.one_of(
        st.sampled_from([SENT, UNSENT]),
        st.builds(
            Response,
            status_code=st.integers(100, 999),
            headers=st.dictionaries(
                st.sampled_from(["retry-after", "x-fal-needs-retry", "x-fal-request-id"]),
                st.sampled_from(["0", "1", "3600", "1e999", "-1", "inf", "9" * 400]),
            ),
        ),
    ),
    retry=st.sampled_from(Retry),
    policy=st.builds(
        RetryPolicy,
        attempts=st.integers(1, 10**6),
        base_delay=st.floats(0, 1e300),
        max_delay=st.floats(0, 1e6),
        budget=st.floats(0, 1e6),
        max_retry_after=st.floats(0, 1e6),
        result_budget=st.just(0),
    ),
    attempt=st.integers(1, 10**6),
    elapsed=st.floats(0, 1e6),
    number=st.floats(0, 1, exclude_max=True),
)
def test_policy_limits_every_delay(
    outcome: Response | NetworkFailure,
    retry: Retry,
    policy: RetryPolicy,
    attempt: int,
    elapsed: float,
    number: float,
) -> None:
    drawn = retry_delay(
        outcome, retry, policy, attempt=attempt, elapsed=elapsed, random=lambda: number
    )
    if drawn is not None:
        assert 0 <= drawn <= max(policy.max_delay, policy.max_retry_after)
        assert elapsed + drawn <= policy.budget
        assert attempt < policy.attempts
