"""Function signatures and argument validation, with the errors of real apps."""

from __future__ import annotations

import inspect
import json
from collections import ChainMap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from fal_async.emulator._responses import AppError
from fal_async.emulator._runners.base import count_arguments, positional_parameters
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._jobs import Job

#: Invalid input costs nothing.
_FREE = {"x-fal-billable-units": "0"}
#: The names of stream types. Types are compared by name, because a program may import them for
#: type checkers only.
_STREAMS = frozenset(
    {"AsyncGenerator", "AsyncIterable", "AsyncIterator", "Generator", "Iterable", "Iterator"}
)


class FunctionSignature:
    """The signature of a function: whether it has parameters, and the model of the first."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = positional_parameters(function)
        self._count = count_arguments(function, "the arguments, or of the arguments and the Job")
        self._model = _find_model(parameters[0].annotation, function) if parameters else None

    def arguments(self, job: Job) -> tuple[Any, ...]:
        """Return the positional arguments for a job.

        Raises:
            AppError: The input is not valid.
        """
        value: Any = _decode_body(job) if job.body else None
        if self._model is None:
            value = value if job.body else {}
        elif value is None:
            raise _invalid_input(
                {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}
            )
        else:
            try:
                value = self._model.model_validate(value, from_attributes=True)
            except ValidationError as error:
                details: list[dict[str, Any]] = json.loads(error.json(include_url=False))
                raise _invalid_input(
                    *({**detail, "loc": ["body", *detail["loc"]]} for detail in details)
                ) from None
        return (value, job)[: self._count]


def _decode_body(job: Job) -> Any:
    """Decode the JSON body of a job, with the errors of real apps, which clients know."""
    media_type = job.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise _invalid_input(
            {
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": f"<binary {len(job.body)} bytes>",
            }
        )
    try:
        return json.loads(job.body)
    except json.JSONDecodeError as error:
        raise _invalid_input(
            {
                "type": "json_invalid",
                "loc": ["body", error.pos],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": error.msg},
            }
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise AppError(400, "There was an error parsing the body") from None


def _invalid_input(*details: Mapping[str, Any]) -> AppError:
    return AppError(422, list(details), headers=_FREE)


@dataclass(frozen=True, slots=True)
class RealtimeSignature:
    """The signature of a realtime function.

    Attributes:
        takes_stream: Whether it takes an iterator of all inputs, not one input.
        returns_stream: Whether it returns an iterator of outputs, not one output.
        model: The model of an input. ``None`` disables validation.
        is_async: Whether it runs in the event loop, not in a thread.
        takes_job: Whether it also takes the `Job`.
    """

    takes_stream: bool
    returns_stream: bool
    model: type[BaseModel] | None
    is_async: bool
    takes_job: bool


def inspect_realtime(function: Callable[..., Any], *, batches: bool) -> RealtimeSignature:
    """Return the signature of a realtime function.

    Args:
        function: The function.
        batches: Whether all its parameters are inputs, so that none is the `Job`.

    Raises:
        InvalidRequestError: The function takes a stream and is not async.
    """
    signature = inspect.signature(function)
    kinds = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    parameters = [p for p in signature.parameters.values() if p.kind not in kinds]
    annotation: Any = parameters[0].annotation if parameters else None
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    item = _stream_item(annotation)
    if item is not None and not is_async:
        raise InvalidRequestError("a function that takes a stream of inputs must be async")
    return RealtimeSignature(
        takes_stream=item is not None,
        returns_stream=(
            inspect.isasyncgenfunction(function)
            or inspect.isgeneratorfunction(function)
            or _stream_item(signature.return_annotation) is not None
        ),
        model=_find_model(annotation if item is None else item, function),
        is_async=is_async,
        takes_job=len(parameters) > 1 and not batches,
    )


def _stream_item(annotation: Any) -> Any:
    """Return the item type of a stream type, or ``None`` for other types."""
    if isinstance(annotation, str):
        name, _, item = annotation.strip().removesuffix("]").partition("[")
        return (item or "Any") if name.rpartition(".")[2] in _STREAMS else None
    origin = get_origin(annotation) or annotation
    if getattr(origin, "__name__", "") not in _STREAMS:
        return None
    return next(iter(get_args(annotation)), Any)


def _find_model(annotation: Any, function: Callable[..., Any]) -> type[BaseModel] | None:
    """Return the annotation if it is a pydantic model.

    A postponed annotation is evaluated in the function's module, or where it is registered.
    """
    if isinstance(annotation, str):
        holder = type("Holder", (), {"__annotations__": {"arguments": annotation}})
        namespace = getattr(inspect.unwrap(function), "__globals__", {})
        scopes: list[dict[str, Any]] = []
        frame = inspect.currentframe()
        while frame is not None:
            scopes.append(frame.f_locals)
            frame = frame.f_back
        try:
            annotation = get_type_hints(holder, namespace, ChainMap(*scopes))["arguments"]
        except (NameError, TypeError, AttributeError):
            return None  # a name that only type checkers know, so it is no model
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
