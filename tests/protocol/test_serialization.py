"""JSON and msgpack: exactly the values of Python's own `json`, or an error."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import OrderedDict, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgpack  # type: ignore[import-untyped] # it has no types
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from fal_async._client.result import Result
from fal_async._protocol.serialization import (
    arguments_to_json,
    decode_json,
    decode_msgpack,
    encode_arguments,
    encode_json,
    encode_msgpack,
    json_text,
)
from fal_async.errors import InvalidRequestError, InvalidResponseError
from fal_async.types import ExtType

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


def test_mapping_is_serialized_as_json() -> None:
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
def test_nonfinite_numbers_are_not_sent_as_null(
    number: float, wrap: Callable[[float], Any], where: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"JSON cannot represent -?(nan|inf) at {where}"):
        encode_arguments(wrap(number))


def test_null_values_and_keys_are_sent() -> None:
    arguments = {"a": [None, "null", 1.5], "b": Size(2.0), "c": MappingProxyType({"d": None})}
    assert encode_arguments(arguments) == (
        b'{"a":[null,"null",1.5],"b":{"scale":2.0,"none":null},"c":{"d":null}}'
    )


def test_any_mapping_type_is_accepted() -> None:
    nested = MappingProxyType({"a": MappingProxyType({"b": 1})})
    assert encode_arguments(nested) == b'{"a":{"b":1}}'
    assert encode_arguments(Result({"a": 1})) == b'{"a":1}'


def test_nested_model_uses_its_aliases() -> None:
    picture = Picture(url="u", w=64)
    assert encode_arguments(picture) == b'{"url":"u","w":64}'
    assert encode_arguments({"pictures": [picture]}) == b'{"pictures":[{"url":"u","w":64}]}'


class Place(BaseModel):
    path: Path = Path("a")
    secret: bytes = b"x"


def test_model_fields_use_pydantic_serialization() -> None:
    assert encode_arguments(Place()) == b'{"path":"a","secret":"x"}'


def test_dates_use_the_platform_format() -> None:
    moment = dt.datetime(2026, 2, 17, tzinfo=dt.UTC)
    assert arguments_to_json({"at": moment}) == {"at": "2026-02-17T00:00:00+00:00"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": object()},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {b"a": 1},
        {"a": {(1, 2): 3}},
        {"a": Decimal("1.5")},
        {1: "a", "1": "b"},
        {"a": 10**5000},
        {"a": np.ones((2, 2))},
        {"a": np.longdouble(1)},
        {"a": 1j},
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
def test_unserializable_arguments_are_refused(arguments: Any) -> None:
    with pytest.raises(InvalidRequestError, match="arguments"):
        encode_arguments(arguments)


def test_circular_arguments_are_refused() -> None:
    arguments: dict[str, Any] = {}
    arguments["self"] = arguments
    with pytest.raises(InvalidRequestError):
        encode_arguments(arguments)


def test_error_names_the_unserializable_value() -> None:
    with pytest.raises(InvalidRequestError, match="JSON has no type for bytes"):
        encode_arguments({"a": b"x"})
    with pytest.raises(InvalidRequestError, match="1 will not do"):
        encode_arguments(Broken())
    with pytest.raises(InvalidRequestError, match="mapping or a pydantic model, got list"):
        encode_arguments([])  # type: ignore[arg-type] # what is under test


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":[1,2.5,"x",null,true]}', {"a": [1, 2.5, "x", None, True]}),
        (b"[Infinity,-Infinity]", [float("inf"), float("-inf")]),
        (b"\xef\xbb\xbf7", 7),
        (b'"\\ud800"', "\ud800"),
        (b'"\xed\xa0\x80"', "\ud800"),
        ('"\ud800"', "\ud800"),
        ("\ufeff7", 7),
        ("7".encode("utf-16"), 7),
        (b"1e400", math.inf),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 2**64),
        (b"-9223372036854775808", -(2**63)),
        (b"-9223372036854775809", -(2**63) - 1),
        (
            b'{"a":[18446744073709551617,NaN,"12345678901234567890"]}'.replace(b"NaN", b"null"),
            {"a": [2**64 + 1, None, "12345678901234567890"]},
        ),
    ],
)
def test_json_is_parsed_like_python_json(body: bytes, value: object) -> None:
    assert decode_json(body) == value


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"1 2", b"nan", b"'a'"])
def test_invalid_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- two decoders, two texts
        decode_json(body)


@given(st.binary())
def test_any_bytes_are_json_or_a_value_error(body: bytes) -> None:
    with suppress(ValueError):
        decode_json(body)


class Word(StrEnum):
    A = "a"


class OldWord(str, Enum):  # noqa: UP042 -- what code of before Python 3.11 has
    A = "a"


class Number(IntEnum):
    ONE = 1


class Size2(NamedTuple):
    width: object
    height: object


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Celsius(float):
    pass


class Bag(dict[Any, Any]):
    pass


WORDS = st.text(st.characters(codec=None, categories=None), max_size=4)  # surrogates, too
INTEGERS = st.integers() | st.integers(2**63 - 3, 2**64 + 3) | st.integers(-(2**64), -(2**63) + 3)
SCALARS = (
    st.none()
    | st.booleans()
    | INTEGERS
    | INTEGERS.map(Whole)
    | st.floats()
    | st.floats().map(Celsius)
    | st.floats(allow_nan=False).map(np.float64)
    | WORDS
    | WORDS.map(Text)
    | st.sampled_from([Word.A, OldWord.A, Number.ONE, "null", "9" * 20])
)
KEYS = WORDS | WORDS.map(Text) | st.integers() | st.floats() | st.none() | st.booleans()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.tuples(inner, inner).map(lambda pair: Size2(*pair))
        | st.dictionaries(
            KEYS | st.sampled_from([Word.A, OldWord.A, Number.ONE]), inner, max_size=3
        )
        | st.dictionaries(WORDS, inner, max_size=3).map(Bag)
        | st.dictionaries(WORDS, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(WORDS, inner, max_size=3).map(lambda items: defaultdict(list, items))
    ),
    max_leaves=6,
)


def same(one: object, other: object) -> bool:
    """Equal in type and value; NaN is as good as NaN."""
    return repr(one) == repr(other)


@given(VALUES)
@settings(max_examples=300)
def test_json_values_survive_a_round_trip(value: object) -> None:
    expected = json.loads(json.dumps(value))
    for indent in (False, True):
        written = encode_json(value, indent=indent)
        assert same(json.loads(written), expected)
        assert same(decode_json(written), expected)
        assert same(decode_json(written.decode()), expected)


def refuse(constant: str) -> None:
    raise ValueError(constant)


@pytest.mark.slow
@given(st.dictionaries(KEYS, VALUES, max_size=3))
@settings(max_examples=300)
def test_json_arguments_are_sent_unchanged(
    arguments: dict[str, Any],
) -> None:
    text = json.dumps(arguments)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(pairs)
        return dict(pairs)

    try:
        expected = json.loads(text, parse_constant=refuse, object_pairs_hook=distinct)
    except ValueError:  # NaN, or two keys that are written alike
        with pytest.raises(InvalidRequestError):
            encode_arguments(arguments)
        return
    assert same(json.loads(encode_arguments(arguments)), expected)
    assert same(arguments_to_json(arguments), expected)


NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@pytest.mark.slow
@given(
    NUMBERS
    | st.lists(NUMBERS, max_size=4).map(lambda numbers: f"[{' , '.join(numbers)}]")
    | VALUES.map(json.dumps)
    | VALUES.map(lambda value: json.dumps(value, indent=1))
    | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False))
    | st.text(alphabet='[]{}:,"-+.eE019NaIfty \\u d8', max_size=12)
)
@settings(max_examples=500)
@example("-0")
@example("1e400")
@example('{"a":1,"a":2}')
def test_json_text_is_parsed_like_python_json(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(body)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 -- two decoders, two texts
            decode_json(body)
    else:
        assert same(decode_json(body), expected)


class Mood(Enum):
    GOOD = 1


@dataclass
class Point:
    x: object
    _y: int = 0


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2026, 2, 17, 1, 2, 3, 4, tzinfo=dt.UTC),
        dt.datetime(26, 2, 17),  # noqa: DTZ001 -- naive on purpose
        dt.date(2026, 2, 17),
        dt.time(1, 2, 3),
        UUID(int=7),
        Point(1),
        {"a": [Point(None)]},
        Mood.GOOD,
        MappingProxyType({"a": 1}),
        Picture(url="u", w=1),
        np.float64(1.5),
        np.float32(0.1),
        np.int64(3),
        np.bool_(True),
        np.array(2),
    ],
)
def test_both_encoders_extend_json_alike(value: object) -> None:
    fast = encode_json({"a": value})
    exact = encode_json({"a": value, "large": 2**70})
    assert json.loads(exact) == {**json.loads(fast), "large": 2**70}


@pytest.mark.parametrize("number", [np.float32("nan"), np.float64("inf"), np.float16("-inf")])
def test_nonfinite_numpy_numbers_are_refused(number: object) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"JSON cannot represent -?(nan|inf) at \['a'\]\[0\]"
    ):
        encode_arguments({"a": [number]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": [{"b": {1, 2}}]}, r"JSON has no type for set at \['a'\]\[0\]\['b'\]"),
        ({"a": {b"k": 1}}, r"JSON cannot have keys of type bytes at \['a'\]\[b'k'\]"),
        ({"a": {1: 0, "1": 0}}, r"two of the keys \['1', '1'\] have the same text"),
        ({"big": 2**70, "a": object()}, r"JSON has no type for object at \['a'\]"),
    ],
)
def test_error_names_the_location(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        encode_arguments(arguments)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.slow
def test_nesting_limit_matches_python() -> None:
    assert json.loads(encode_arguments(nested(400))) == nested(400)
    assert decode_json(encode_json(nested(400))) == nested(400)
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        encode_arguments(nested(100_000))
    with pytest.raises(ValueError, match="nested too deeply"):
        encode_json(nested(100_000))
    assert json_text(nested(100_000)) == "a value of type dict"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ({"a": "é"}, '{"a":"é"}'),
        (["\ud800", math.nan, 2**70], '["\\ud800",NaN,1180591620717411303424]'),
        (b"bytes", "a value of type bytes"),
    ],
)
def test_any_value_has_a_text_form(value: object, text: str) -> None:
    assert json_text(value) == text


def message(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


MOMENTS = [
    (0, 0, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
    (2**32, 5000, dt.datetime(2106, 2, 7, 6, 28, 16, 5, tzinfo=dt.UTC)),
    (-1, 999_999_000, dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)),
    (2**34, 0, dt.datetime(2514, 5, 30, 1, 53, 4, tzinfo=dt.UTC)),
]


@pytest.mark.parametrize(("seconds", "nanoseconds", "moment"), MOMENTS)
def test_timestamps_are_parsed(seconds: int, nanoseconds: int, moment: dt.datetime) -> None:
    sent = message({"t": msgpack.Timestamp(seconds, nanoseconds)})
    assert decode_msgpack(sent) == {"t": moment}


@pytest.mark.parametrize(
    "timestamp", [msgpack.Timestamp(1, 1), msgpack.Timestamp(2**60), msgpack.Timestamp(-(2**60))]
)
def test_unrepresentable_timestamps_stay_exact(
    timestamp: msgpack.Timestamp,
) -> None:
    assert decode_msgpack(message([timestamp])) == [ExtType(-1, timestamp.to_bytes())]


@given(st.integers(-128, 127), st.binary(max_size=20))
@example(127, b"")
@example(-1, b"1234")
@example(-1, b"\xff" * 8)
def test_extension_types_are_preserved(code: int, data: bytes) -> None:
    extension = b"\xc7" + bytes([len(data), code % 256]) + data
    value = decode_msgpack(b"\x81\xa1a" + extension)["a"]
    if isinstance(value, dt.datetime):
        assert code == -1
        return
    assert value == ExtType(code, data)
    if code < 0:  # reserved by msgpack
        with pytest.raises(InvalidRequestError):
            encode_msgpack({"a": value})
    else:
        assert msgpack.unpackb(encode_msgpack({"a": value}), ext_hook=ExtType) == {"a": value}


def test_extensions_of_msgpack_package_are_sent() -> None:
    value = msgpack.ExtType(42, b"abc")
    assert msgpack.unpackb(encode_msgpack({"a": value})) == {"a": value}


@given(VALUES)
def test_messages_are_parsed_like_msgpack(value: object) -> None:
    try:
        packed = message(value)
        expected = msgpack.unpackb(packed, strict_map_key=False)
    except (OverflowError, ValueError, TypeError):  # no msgpack
        return
    assert same(decode_msgpack(packed), expected)
    for cut in range(len(packed)):
        with pytest.raises(InvalidResponseError) as caught:
            decode_msgpack(packed[:cut])
        assert caught.value.body == packed[:cut]


@pytest.mark.parametrize("kind", [b"\xc6", b"\xc9", b"\xdb", b"\xdd", b"\xdf"])
@pytest.mark.parametrize("size", [b"\x20\x00\x00\x00", b"\xff\xff\xff\xff"])
def test_announced_size_takes_no_memory(kind: bytes, size: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        decode_msgpack(kind + size + b"of message")


@given(st.binary(min_size=1, max_size=5))
def test_trailing_value_in_message_is_an_error(more: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        decode_msgpack(message({"a": 1}) + more)
