"""Arguments to JSON, and outputs to types."""

from __future__ import annotations

import datetime as dt
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, field_serializer
from typing_extensions import TypedDict

from fal_async._protocol.bodies import (
    check_output_type,
    decode_json,
    encode_arguments,
    plain_arguments,
    validate_output,
)
from fal_async.errors import InvalidReplyError, InvalidRequestError
from fal_async.types import Result

if TYPE_CHECKING:
    from collections.abc import Callable


class Picture(BaseModel):
    url: str
    width: int = Field(512, alias="w")


class Broken(BaseModel):
    value: int = 1

    @field_serializer("value")
    def refuse(self, value: int) -> int:
        raise ValueError(f"{value} will not do")


def test_a_mapping_is_written_as_json() -> None:
    assert encode_arguments({"prompt": "café", "n": 1, "x": None}) == (
        '{"prompt":"café","n":1,"x":null}'.encode()
    )
    assert encode_arguments({}) == b"{}"


@dataclass
class Size:
    scale: float
    none: None = None


class Sized(BaseModel):
    scale: float = Field(1.0, serialization_alias="s")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda number: {"a": number}, r"\['a'\]"),
        (lambda number: {"a": [None, {"b": (1, number)}]}, r"\['a'\]\[1\]\['b'\]\[1\]"),
        (lambda number: MappingProxyType({"a": Size(number)}), r"\['a'\]\['scale'\]"),
        (lambda number: Sized(scale=number), r"\['s'\]"),
    ],
)
def test_numbers_that_json_has_no_word_for_are_not_sent_as_null(
    number: float, wrap: Callable[[float], Any], where: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"no word for the number at {where}"):
        encode_arguments(wrap(number))


def test_null_and_its_name_are_sent() -> None:
    arguments = {"a": [None, "null", 1.5], "b": Size(2.0), "c": MappingProxyType({"d": None})}
    assert encode_arguments(arguments) == (
        b'{"a":[null,"null",1.5],"b":{"scale":2.0,"none":null},"c":{"d":null}}'
    )


def test_a_mapping_need_not_be_a_dictionary() -> None:
    nested = MappingProxyType({"a": MappingProxyType({"b": 1})})
    assert encode_arguments(nested) == b'{"a":{"b":1}}'
    assert encode_arguments(Result({"a": 1})) == b'{"a":1}'


def test_a_model_is_written_by_its_aliases_also_within_a_mapping() -> None:
    picture = Picture(url="u", w=64)
    assert encode_arguments(picture) == b'{"url":"u","w":64}'
    assert encode_arguments({"pictures": [picture]}) == b'{"pictures":[{"url":"u","w":64}]}'


class Place(BaseModel):
    path: Path = Path("a")
    secret: bytes = b"x"


def test_what_a_model_holds_is_written_as_pydantic_writes_it() -> None:
    assert encode_arguments(Place()) == b'{"path":"a","secret":"x"}'


def test_dates_and_the_like_are_written_as_the_platform_writes_them() -> None:
    moment = dt.datetime(2026, 2, 17, tzinfo=dt.UTC)
    assert plain_arguments({"at": moment}) == {"at": "2026-02-17T00:00:00+00:00"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": object()},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {1: "a"},
        {"a": "\ud800"},
        {"a": 2**70},
        Broken(),
        {"a": Broken()},
        {"a": Picture},
        Picture,
        [1],
        "text",
        7,
        None,
        object(),
    ],
)
def test_arguments_that_cannot_be_sent_are_refused(arguments: Any) -> None:
    with pytest.raises(InvalidRequestError, match="arguments"):
        encode_arguments(arguments)


def test_arguments_that_hold_themselves_are_refused() -> None:
    arguments: dict[str, Any] = {}
    arguments["self"] = arguments
    with pytest.raises(InvalidRequestError):
        encode_arguments(arguments)


def test_the_error_says_what_cannot_be_written() -> None:
    with pytest.raises(InvalidRequestError, match="bytes is no type of JSON"):
        encode_arguments({"a": b"x"})
    with pytest.raises(InvalidRequestError, match="1 will not do"):
        encode_arguments(Broken())
    with pytest.raises(InvalidRequestError, match="mapping or a pydantic model, got list"):
        encode_arguments([])  # type: ignore[arg-type] # what is under test


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("x"), inner),
            max_leaves=4,
        ),
        max_size=3,
    )
)
@settings(max_examples=50)
def test_what_is_written_is_read_back(arguments: dict[str, Any]) -> None:
    assert json.loads(encode_arguments(arguments)) == arguments
    assert plain_arguments(arguments) == arguments


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":[1,2.5,"x",null,true]}', {"a": [1, 2.5, "x", None, True]}),
        (b"[Infinity,-Infinity]", [float("inf"), float("-inf")]),
        (b"\xef\xbb\xbf7", 7),
        (b'"\\ud800"', "\ud800"),
    ],
)
def test_json_is_read_as_python_reads_it(body: bytes, value: object) -> None:
    assert decode_json(body) == value


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"1 2", b"nan", b"'a'"])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- two decoders, two texts
        decode_json(body)


@given(st.binary())
def test_any_bytes_are_json_or_a_value_error(body: bytes) -> None:
    with suppress(ValueError):
        decode_json(body)


def test_without_a_type_an_output_is_taken_as_it_is() -> None:
    output = Result({"a": 1})
    assert validate_output(output, None) is output


def test_an_output_becomes_the_model_that_was_asked_for() -> None:
    picture = validate_output(Result({"url": "u", "w": 64}), Picture)
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
def test_an_output_becomes_any_type_that_pydantic_knows(
    value: object, output: Any, expected: object
) -> None:
    assert validate_output(value, output) == expected


def test_a_result_may_be_asked_for_by_name() -> None:
    output = Result({"a": 1})
    assert validate_output(output, Result) is output
    with pytest.raises(InvalidReplyError, match="not a Result"):
        validate_output([1], Result)


def test_an_output_of_another_shape_is_an_error_that_names_the_request() -> None:
    output = Result({"w": "x"}, request_id="abc")
    with pytest.raises(InvalidReplyError, match="not a Picture") as caught:
        validate_output(output, Picture)
    assert caught.value.request_id == "abc"
    assert caught.value.body is output  # which was paid for
    assert isinstance(caught.value.__cause__, ValidationError)


class Stranger:
    pass


@pytest.mark.parametrize("output", [Stranger, 7, list[Stranger], list["Nowhere"], "Nowhere"])  # type: ignore[name-defined] # noqa: F821 -- undefined on purpose
def test_what_is_no_type_of_outputs_is_found_before_anything_is_sent(output: Any) -> None:
    with pytest.raises(InvalidRequestError, match="is not a type of outputs"):
        check_output_type(output)
    with pytest.raises(InvalidRequestError):
        validate_output({}, output)


@pytest.mark.parametrize("output", [None, Picture, dict, list[int], Result, str | None])
def test_what_is_a_type_of_outputs_passes(output: Any) -> None:
    check_output_type(output)
