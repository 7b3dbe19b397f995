"""Validation of arguments, before anything is sent.

Callers may be untyped, and pass values from configurations. So the checks assume nothing about a
value, not even that its repr or a comparison works.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar, cast

from fal_async.errors import InvalidRequestError

__all__ = [
    "check_callback",
    "check_file_path",
    "check_flag",
    "check_instance",
    "check_mapping",
    "check_number",
    "check_sequence",
    "describe",
    "explain",
    "is_one_of",
    "seconds",
    "whole_number",
]

T = TypeVar("T")
#: The maximum length of a value in an error message, in characters.
MAX_SHOWN: Final = 200


def describe(value: object) -> str:
    """Return the repr of a value for an error message: short, and encodable in UTF-8."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 -- a method of the caller's object
        return f"<{type(value).__name__}>"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


def explain(error: Exception) -> str:
    """Return the message of an error, for the message of another."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- a method of the caller's object
        text = ""
    text = text.encode(errors="backslashreplace").decode()
    return text[:MAX_SHOWN] or type(error).__name__


def check_callback(name: str, value: object) -> None:
    """Check that a callback is callable or ``None``."""
    if value is not None and not callable(value):
        raise InvalidRequestError(f"{name} must be a function or None, got {describe(value)}")


def check_flag(name: str, value: object) -> bool:
    """Check a flag: any value with a truth value except text, since ``"false"`` is true."""
    try:
        is_set = None if isinstance(value, str | bytes) else bool(value)
    except Exception:  # noqa: BLE001 -- a method of the caller's object
        is_set = None
    if is_set is None:
        raise InvalidRequestError(f"{name} must be True or False, got {describe(value)}")
    return is_set


def check_instance(name: str, value: object, kind: type[T]) -> T:
    """Check that a value is an instance of a class."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise InvalidRequestError(
            f"{name} must be {article} {kind.__name__}, got {describe(value)}"
        )
    return value


def check_mapping(name: str, value: object) -> None:
    """Check that a value is a mapping."""
    if not isinstance(value, (dict, Mapping)):  # the check for a dict is faster
        raise InvalidRequestError(f"{name} must be a mapping, got {describe(value)}")


def check_sequence(name: str, value: object) -> None:
    """Check that a value is a sequence other than text."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidRequestError(f"{name} must be a list or a tuple, got {describe(value)}")


def is_one_of(value: object, choices: tuple[str, ...]) -> bool:
    """Return whether a value is one of the choices."""
    return isinstance(value, str) and value in choices


def check_file_path(name: str, value: object, expected: str = "the path of a file") -> str:
    """Return the text of a path that a file can have."""
    is_path = isinstance(value, str | os.PathLike)
    text = os.fsdecode(cast("str | os.PathLike[str]", value)) if is_path else ""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = ""
    if not text or "\0" in text:
        raise InvalidRequestError(f"{name} must be {expected}, got {describe(value)}")
    return text


def check_number(name: str, value: object, *, zero: bool = False, unit: str = "") -> float:
    """Check that a number is finite, and positive or, with `zero`, zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name} must be a number{unit}, got {describe(value)}")
    if not (value >= 0 if zero else value > 0) or not value <= sys.float_info.max:
        sign = "zero or a positive" if zero else "a positive"
        raise InvalidRequestError(
            f"{name} must be {sign}, finite number{unit}, got {describe(value)}"
        )
    return value


def seconds(name: str, value: object) -> float | None:
    """Check that a duration is a positive, finite number of seconds, or ``None``."""
    return None if value is None else check_number(name, value, unit=" of seconds")


def whole_number(name: str, value: object, *, at_least: int = 1, at_most: float = math.inf) -> int:
    """Check that a number is whole and within bounds."""
    # The platform's numbers have 64 bits.
    limit = min(at_most, 2**63 - 1)
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= limit:
        bounds = f"at least {at_least}" if at_most == math.inf else f"from {at_least} to {at_most}"
        raise InvalidRequestError(f"{name} must be a whole number, {bounds}, got {describe(value)}")
    return value
