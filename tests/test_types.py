"""The values that calls return."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError
from decimal import Decimal
from typing import Any

import pytest

from fal_async import (
    Cancellation,
    Completed,
    InProgress,
    InvalidRequestError,
    Queued,
    Result,
    Status,
    Unknown,
)
from fal_async.sync import SyncResult

STATUSES = [
    Queued(3),
    Queued(None),
    InProgress([]),
    InProgress([{"message": "a", "level": "INFO"}]),
    Completed([], {"inference_time": 0.5}),
    Completed([], {}, "boom", "runner_disconnected"),
    Unknown({"status": "PAUSED"}),
]


@pytest.mark.parametrize("status", STATUSES, ids=repr)
def test_a_status_is_a_value(status: Status) -> None:
    for again in (copy.copy(status), copy.deepcopy(status), pickle.loads(pickle.dumps(status))):
        assert again == status
        assert type(again) is type(status)
    assert isinstance(status, Status)
    assert eval(repr(status)) == status
    assert sum(status == other for other in STATUSES) == 1


def test_logs_are_always_a_list() -> None:
    nothing: Any = None
    assert InProgress(nothing) == InProgress(logs=nothing) == InProgress([])
    assert Completed(logs=nothing, metrics={}).logs == []


def test_a_status_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Queued(3).position = 2  # type: ignore[misc] # what is under test


def test_statuses_are_matched_by_their_class() -> None:
    def word(status: Status) -> str:
        match status:
            case Queued(position):
                return f"queued {position}"
            case InProgress(logs):
                return f"working {logs}"
            case Completed(error=None):
                return "done"
            case Completed(error=error):
                return f"failed {error}"
            case _:
                return "unknown"

    assert [word(status) for status in STATUSES] == [
        "queued 3",
        "queued None",
        "working []",
        "working [{'message': 'a', 'level': 'INFO'}]",
        "done",
        "failed boom",
        "unknown",
    ]


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [("OK", True), ("CANCELLATION_REQUESTED", True), ("ALREADY_COMPLETED", False)],
)
def test_cancellation_is_a_string_with_properties(answer: str, accepted: bool) -> None:
    cancellation = Cancellation(answer)
    assert cancellation == answer
    assert cancellation.accepted is accepted
    for again in (copy.deepcopy(cancellation), pickle.loads(pickle.dumps(cancellation))):
        assert type(again) is Cancellation
        assert again == answer


def full() -> Result:
    return Result(
        {"images": [{"url": "u"}], "seed": 7},
        request_id="abc",
        billable_units=1.5,
        cost=Decimal("0.0375"),
        metrics={"inference_time": 0.5},
        retries=2,
        headers={"x-fal-request-id": "abc"},
    )


def facts(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in Result.__slots__ if name[0] != "_"}


def test_a_result_is_a_dictionary() -> None:
    result = full()
    assert result == {"images": [{"url": "u"}], "seed": 7}
    assert result["seed"] == 7
    assert {**result} == dict(result)
    assert json.loads(json.dumps(result)) == result
    assert repr(result) == "{'images': [{'url': 'u'}], 'seed': 7}"
    assert isinstance(result, dict)


@pytest.mark.parametrize("result", [full(), Result({}), SyncResult({"seed": 7})])
def test_a_result_survives_storage_as_json(result: Result) -> None:
    data = json.loads(json.dumps(result.to_dict()))
    again = type(result).from_dict(data | {"region": "eu"})
    assert (type(again), again) == (type(result), result)
    assert facts(again) == facts(result) | {"headers": {}}
    assert again.to_dict() == data


@pytest.mark.parametrize("data", [{}, [], None, {"output": 7}, {"output": {}, "cost": "much"}])
def test_data_of_no_result_is_refused(data: Any) -> None:
    with pytest.raises(InvalidRequestError, match="data must be that of a result"):
        Result.from_dict(data)


def test_unknown_metadata_is_none_or_empty() -> None:
    assert facts(full())["metrics"] == {"inference_time": 0.5}
    assert facts(full())["headers"] == {"x-fal-request-id": "abc"}
    assert facts(Result({})) == {
        "request_id": None,
        "billable_units": None,
        "cost": None,
        "metrics": {},
        "retries": 0,
        "headers": {},
    }


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda result, protocol=protocol: pickle.loads(pickle.dumps(result, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_result_survives_copy_and_pickle(again: Any) -> None:
    result = again(full())
    assert type(result) is Result
    assert result == full()
    assert facts(result) == facts(full())


def test_a_deep_copy_shares_nothing() -> None:
    result = full()
    other = copy.deepcopy(result)
    other["images"].append("more")
    assert result == full()
    other = copy.copy(result)
    other["seed"] = 8
    assert result == full()


def test_result_equals_its_output() -> None:
    assert full() == Result(dict(full()), request_id="other")
    assert full() != Result({})


def test_a_result_has_no_attributes_of_its_own() -> None:
    with pytest.raises(AttributeError):
        full().seed = 7  # type: ignore[attr-defined] # what is under test
