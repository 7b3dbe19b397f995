"""Differences between two APIs for code that was written for the first one."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["differences"]

_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    """Yield each public name, parameter and default of the first API that the second lacks.

    Additions of the second API are no differences, unless they are required parameters.
    """
    if isinstance(theirs, ModuleType | type):
        for each in _public(theirs):
            path = f"{name}.{each}".lstrip(".")
            if hasattr(ours, each) or _is_field(ours, each):
                yield from differences(getattr(theirs, each, None), getattr(ours, each, None), path)
            else:
                yield path
        if isinstance(theirs, type):
            yield from _parameters(theirs, ours, name)
    elif callable(theirs):
        yield from _parameters(theirs, ours, name)
        if inspect.iscoroutinefunction(theirs) != inspect.iscoroutinefunction(ours):
            yield f"{name} is a coroutine function on one side"


def _public(thing: Any) -> list[str]:
    names = {name for name in dir(thing) if not name.startswith("_")}
    if is_dataclass(thing):
        names |= {field.name for field in fields(thing) if not field.name.startswith("_")}
    if isinstance(thing, ModuleType):
        names = {name for name in names if not isinstance(getattr(thing, name), ModuleType)}
    return sorted(names)


def _is_field(kind: Any, name: str) -> bool:
    """Whether instances have the attribute: fields of dataclasses, parameters of errors."""
    if is_dataclass(kind):
        return any(field.name == name for field in fields(kind))
    is_error = isinstance(kind, type) and issubclass(kind, Exception)
    return is_error and name in inspect.signature(kind).parameters


def _parameters(theirs: Any, ours: Any, name: str) -> Iterator[str]:
    try:
        expected = inspect.signature(theirs).parameters
    except ValueError:  # built in
        return
    given = inspect.signature(ours).parameters
    for each, parameter in expected.items():
        if each in given:
            yield from _parameter(parameter, given[each], f"{name}({each})")
        else:
            yield f"{name}({each})"
    for each in given.keys() - expected.keys():
        kinds = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        if given[each].default is inspect.Parameter.empty and given[each].kind not in kinds:
            yield f"{name}({each}) is required"


def _parameter(theirs: inspect.Parameter, ours: inspect.Parameter, name: str) -> Iterator[str]:
    if theirs.kind in _POSITIONAL and ours.kind not in _POSITIONAL:
        yield f"{name} has to be named"
    if theirs.default != ours.default:
        yield f"{name}: {_shown(theirs.default)} -> {_shown(ours.default)}"


def _shown(default: object) -> str:
    return "required" if default is inspect.Parameter.empty else repr(default)
