"""How a realtime function wants its inputs, and how it gives its outputs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from fal_async.emulator._inputs import evaluated
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the types of streams are called. They are told by name: a program may import them for type
#: checkers only.
_STREAMS = frozenset(
    {"AsyncGenerator", "AsyncIterable", "AsyncIterator", "Generator", "Iterable", "Iterator"}
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a function.

    Attributes:
        takes_stream: Whether it takes an iterator of all inputs, not one input.
        gives_stream: Whether it gives an iterator of outputs, not one output.
        model: What each input is validated as; ``None`` leaves it as it came.
        is_async: Whether it runs in the event loop, not in a thread.
        takes_job: Whether it takes the `Job`, too.
    """

    takes_stream: bool
    gives_stream: bool
    model: type[BaseModel] | None
    is_async: bool
    takes_job: bool


def shape_of(function: Callable[..., Any], *, batches: bool) -> Shape:
    """The shape of a function, by its signature.

    Args:
        function: The function.
        batches: Whether all its parameters are inputs, so that none is the `Job`.

    Raises:
        InvalidRequestError: It takes a stream, and is not async.
    """
    signature = inspect.signature(function)
    kinds = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    parameters = [p for p in signature.parameters.values() if p.kind not in kinds]
    annotation: Any = parameters[0].annotation if parameters else None
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    item = _item_of(annotation)
    if item is not None and not is_async:
        raise InvalidRequestError("a function that takes a stream of inputs must be async")
    return Shape(
        takes_stream=item is not None,
        gives_stream=_gives_stream(function, signature.return_annotation),
        model=_model_of(annotation if item is None else item, function),
        is_async=is_async,
        takes_job=len(parameters) > 1 and not batches,
    )


def _gives_stream(function: Callable[..., Any], annotation: Any) -> bool:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return True
    return _item_of(annotation) is not None


def _item_of(annotation: Any) -> Any:
    """What a stream is annotated to consist of; ``None`` when no stream is meant."""
    if isinstance(annotation, str):
        name, _, item = annotation.strip().removesuffix("]").partition("[")
        return (item or "Any") if name.rpartition(".")[2] in _STREAMS else None
    origin = get_origin(annotation) or annotation
    if getattr(origin, "__name__", "") not in _STREAMS:
        return None
    return next(iter(get_args(annotation)), Any)


def _model_of(annotation: Any, function: Callable[..., Any]) -> type[BaseModel] | None:
    if isinstance(annotation, str):
        annotation = evaluated(annotation, function)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
