"""Output types: validation of types and outputs."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from fal_async._client.result import Result, check_output_type, finalize_output
from fal_async.errors import InvalidRequestError, InvalidResponseError


class Picture(BaseModel):
    url: str
    width: int = Field(512, alias="w")


def test_output_without_type_is_unchanged() -> None:
    output = Result({"a": 1})
    assert finalize_output(output, None, None) is output


def test_output_becomes_the_requested_model() -> None:
    picture = finalize_output(Result({"url": "u", "w": 64}), Picture, None)
    assert (picture.url, picture.width) == ("u", 64)


class Image(TypedDict):
    url: str


@pytest.mark.parametrize(
    ("value", "output", "expected"),
    [
        (["1"], list[int], [1]),
        ({"url": "u"}, Image, {"url": "u"}),
        (5, Annotated[int, Field(gt=1)], 5),
        (5, int | str, 5),
        ("5", Annotated[int, ["metadata that cannot be hashed"]], 5),
    ],
)
def test_output_becomes_any_pydantic_type(value: object, output: Any, expected: object) -> None:
    assert finalize_output(value, output, None) == expected


def test_result_is_a_valid_output_type() -> None:
    output = Result({"a": 1})
    assert finalize_output(output, Result, None) is output
    with pytest.raises(InvalidResponseError, match="must be of type Result"):
        finalize_output([1], Result, None)


def test_mismatched_output_names_the_request() -> None:
    output = Result({"w": "x"}, request_id="abc")
    with pytest.raises(InvalidResponseError, match="must be of type Picture") as caught:
        finalize_output(output, Picture, None)
    assert caught.value.request_id == "abc"
    assert caught.value.body is output  # which was paid for
    assert isinstance(caught.value.__cause__, ValidationError)


class Stranger:
    pass


@pytest.mark.parametrize("output", [Stranger, 7, list[Stranger], list["Nowhere"], "Nowhere"])  # type: ignore[name-defined] # noqa: F821 -- undefined on purpose
def test_invalid_output_type_sends_nothing(output: Any) -> None:
    with pytest.raises(InvalidRequestError, match="output must be a type"):
        check_output_type(output)
    with pytest.raises(InvalidRequestError):
        finalize_output({}, output, None)


@pytest.mark.parametrize("output", [None, Picture, dict, list[int], Result, str | None])
def test_valid_output_types_are_accepted(output: Any) -> None:
    check_output_type(output)
