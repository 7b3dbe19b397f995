"""Checks of what callers pass: before anything is sent, and with an error that says what is wrong.

Callers may be untyped, and values come from configurations and other people's objects. So nothing
is assumed of a value, not even that it can be printed or compared.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from fal_async.errors import InvalidRequestError

__all__ = [
    "check_callback",
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
#: How much of a value an error shows, in characters.
SHOWN: Final = 200


def describe(value: object) -> str:
    """The repr of a value for an error: short, in characters that any log can hold, and always."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 -- whatever has no hash
        return f"<{type(value).__name__}>"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def explain(error: Exception) -> str:
    """What an error says, for another error."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- whatever has no hash
        text = ""
    text = text.encode(errors="backslashreplace").decode()
    return text[:SHOWN] or type(error).__name__


def check_callback(name: str, value: object) -> None:
    """Refuse a callback that cannot be called."""
    if value is not None and not callable(value):
        raise InvalidRequestError(f"{name} must be a function or None, got {describe(value)}")


def check_flag(name: str, value: object) -> bool:
    """Check a switch: what is true or false, and no text, since ``"false"`` would be true."""
    try:
        is_set = None if isinstance(value, str | bytes) else bool(value)
    except Exception:  # noqa: BLE001 -- whatever has no hash
        is_set = None
    if is_set is None:
        raise InvalidRequestError(f"{name} must be True or False, got {describe(value)}")
    return is_set


def check_instance(name: str, value: object, kind: type[T]) -> T:
    """Check that a value is of a class."""
    if not isinstance(value, kind):
        word = kind.__name__
        article = "an" if word[0] in "AEIOU" else "a"
        raise InvalidRequestError(f"{name} must be {article} {word}, got {describe(value)}")
    return value


def check_mapping(name: str, value: object) -> None:
    """Check that a value is a mapping."""
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{name} must be a mapping, got {describe(value)}")


def check_sequence(name: str, value: object) -> None:
    """Check that a value is a list, a tuple or the like, and no text."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidRequestError(f"{name} must be a list or a tuple, got {describe(value)}")


def is_one_of(value: object, words: tuple[str, ...]) -> bool:
    """Whether a value is one of some words."""
    return isinstance(value, str) and value in words


def check_number(name: str, value: object, *, zero: bool = False, unit: str = "") -> float:
    """Check a number: finite, and positive unless it may be zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name} must be a number{unit}, got {describe(value)}")
    if not (value >= 0 if zero else value > 0) or not value <= sys.float_info.max:
        sign = "zero or a positive" if zero else "a positive"
        raise InvalidRequestError(
            f"{name} must be {sign}, finite number{unit}, got {describe(value)}"
        )
    return value


def seconds(name: str, value: object) -> float | None:
    """Check a duration: a positive, finite number of seconds, or ``None``."""
    return None if value is None else check_number(name, value, unit=" of seconds")


def whole_number(name: str, value: object, *, at_least: int = 1, at_most: float = math.inf) -> int:
    """Check a number: whole, and within bounds."""
    # What JSON and headers hold has 64 bits.
    limit = min(at_most, 2**63 - 1)
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= limit:
        bounds = f"at least {at_least}" if at_most == math.inf else f"from {at_least} to {at_most}"
        raise InvalidRequestError(f"{name} must be a whole number, {bounds}, got {describe(value)}")
    return value
