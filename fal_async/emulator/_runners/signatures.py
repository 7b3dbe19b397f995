"""From a call's body to the arguments of a function, refused as real apps refuse them."""

from __future__ import annotations

import inspect
import json
from collections import ChainMap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from fal_async.emulator._responses import AppError
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._jobs import Job

__all__ = []


#: Nothing is charged for an input that was refused.
_FREE = {"x-fal-billable-units": "0"}


class FunctionSignature:
    """What a function runner wants to be called with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = positional(function)
        self._count = min(len(parameters), 2)
        self._model = _model_of(parameters[0].annotation, function) if parameters else None

    def arguments(self, job: Job) -> tuple[Any, ...]:
        """The positional arguments for this job.

        Raises:
            AppError: The input is not valid; with the status and detail of a real app.
        """
        return (self._input(job), job)[: self._count]

    def _input(self, job: Job) -> Any:
        if not job.body:
            return self._empty_input()
        value = _decoded(job)
        if self._model is None:
            return value
        if value is None:
            return self._empty_input()
        try:
            return self._model.model_validate(value, from_attributes=True)
        except ValidationError as error:
            raise _refusal(*_problems(error)) from None

    def _empty_input(self) -> dict[str, Any]:
        if self._model is None:
            return {}
        raise _refusal({"type": "missing", "loc": ["body"], "msg": "Field required", "input": None})


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that can be given by position."""
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    parameters = inspect.signature(function).parameters.values()
    return [parameter for parameter in parameters if parameter.kind in kinds]


def _decoded(job: Job) -> Any:
    if not _is_json(job.headers.get("content-type", "")):
        raise _refusal(
            {
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": f"<binary {len(job.body)} bytes>",
            }
        )
    return _decode_as_real_apps_do(job.body)


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _decode_as_real_apps_do(body: bytes) -> Any:
    """Read JSON; what is wrong with it is said in words that clients know."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise _refusal(
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


def _problems(error: ValidationError) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = json.loads(error.json(include_url=False))
    return [{**problem, "loc": ["body", *problem["loc"]]} for problem in problems]


def _refusal(*problems: Mapping[str, Any]) -> AppError:
    return AppError(422, list(problems), headers=_FREE)


def evaluate_annotation(annotation: str, function: Callable[..., Any]) -> object:
    """What a postponed annotation means, in the function's module or where it is registered."""
    holder = type("Holder", (), {"__annotations__": {"arguments": annotation}})
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return get_type_hints(holder, namespace, _callers_locals())["arguments"]
    except (NameError, TypeError, AttributeError):
        return None  # a name that only type checkers see, so it is no model


def _callers_locals() -> ChainMap[str, Any]:
    scopes: list[dict[str, Any]] = []
    frame = inspect.currentframe()
    while frame is not None:
        scopes.append(frame.f_locals)
        frame = frame.f_back
    return ChainMap(*scopes)


#: What the types of streams are called. They are told by name: a program may import them for type
#: checkers only.
_STREAMS = frozenset(
    {"AsyncGenerator", "AsyncIterable", "AsyncIterator", "Generator", "Iterable", "Iterator"}
)


@dataclass(frozen=True, slots=True)
class RealtimeSignature:
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


def inspect_realtime(function: Callable[..., Any], *, batches: bool) -> RealtimeSignature:
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
    return RealtimeSignature(
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
        annotation = evaluate_annotation(annotation, function)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
