"""`Result`; the validation of outputs."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from fal_async._core.annotations import set_module
from fal_async._core.checks import describe, explain
from fal_async.errors import InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from decimal import Decimal

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from typing_extensions import TypeVar

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.file import File
    from fal_async._protocol.response import Output

    FileT = TypeVar("FileT", default=File)
else:
    from typing import TypeVar

    FileT = TypeVar("FileT")

__all__ = ["Result", "check_output_type", "finalize_output", "make_result"]

T = TypeVar("T")


@set_module("fal_async")
class Result(dict[str, Any], Generic[FileT]):
    """The output of a model: a dictionary with metadata of the request.

    Attributes:
        request_id: The id of the request; ``None`` if the platform did not send it.
        billable_units: The charged units; ``None`` if the platform did not send them.
        cost: The charged units times the price of one, in the currency of the price. ``None`` if
            one of them is unknown: the client must have asked for the price with
            ``client.models.prices`` within a day before.
        metrics: The metrics of the run; empty for calls that do not use the queue.
        retries: The number of retries of all requests of the call, such as those that submitted the
            job, asked for its status and fetched its output.
        headers: The response headers, names in lower case.

    Example:
        >>> result = Result({"seed": 7}, request_id="764cabcf")
        >>> result["seed"], result.request_id
        (7, '764cabcf')
    """

    __slots__ = (
        "_dispatcher",
        "billable_units",
        "cost",
        "headers",
        "metrics",
        "request_id",
        "retries",
    )

    def __init__(
        self,
        output: Mapping[str, Any],
        *,
        request_id: str | None = None,
        billable_units: float | None = None,
        cost: Decimal | None = None,
        metrics: Mapping[str, Any] | None = None,
        retries: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(output)
        self.request_id: str | None = request_id
        self.billable_units: float | None = billable_units
        self.cost: Decimal | None = cost
        self.metrics: Mapping[str, Any] = metrics or {}
        self.retries: int = retries
        self.headers: Mapping[str, str] = headers or {}
        self._dispatcher: object = None  # downloads the files of the output

    def files(self) -> list[FileT]:
        """Return all files in the output, at any depth; see `File`.

        The files of a result that was copied or pickled use the module-level client.
        """
        # Late, since it imports pydantic.
        from fal_async._files.file import File, files_in_output

        files = files_in_output(self, File, self._dispatcher)
        return cast("list[FileT]", files)  # a subclass with files of another class overrides this

    def _repr_html_(self) -> str:
        from fal_async._core.notebook import result_html  # only notebooks call this

        # This imports pydantic.
        from fal_async._files.file import File, files_in_output

        files = [file._repr_html_() for file in files_in_output(self, File, None)]
        return result_html(self, files, self.request_id, self.billable_units)

    def to_dict(self) -> dict[str, Any]:
        """Return the output and the metadata as JSON values, for `from_dict`.

        The cost is text, which is exact. Response headers are left out.

        Example:
            >>> Result({"seed": 7}, request_id="764cabcf").to_dict()["output"]
            {'seed': 7}
        """
        return {
            "output": dict(self),
            "request_id": self.request_id,
            "billable_units": self.billable_units,
            "cost": None if self.cost is None else str(self.cost),
            "metrics": dict(self.metrics),
            "retries": self.retries,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the result that `to_dict` has written. Unknown names are ignored.

        Args:
            data: The result as JSON values.

        Raises:
            InvalidRequestError: The data is not the data of a result.

        Example:
            >>> stored = Result({"seed": 7}, request_id="764cabcf").to_dict()
            >>> Result.from_dict(stored)["seed"]
            7
        """
        from decimal import Decimal, InvalidOperation  # slower to import than this module

        try:
            cost = data.get("cost")
            return cls(
                data["output"],
                request_id=data.get("request_id"),
                billable_units=data.get("billable_units"),
                cost=None if cost is None else Decimal(cost),
                metrics=data.get("metrics"),
                retries=data.get("retries", 0),
            )
        except (AttributeError, InvalidOperation, LookupError, TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"data must be that of a result, got {describe(data)}"
            ) from error

    def _metadata(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Result.__slots__ if name[0] != "_"}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema of a JSON object. A result that is validated stays the same object."""
        from pydantic_core import core_schema  # only pydantic itself calls this

        json_object = core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        from_object = core_schema.no_info_after_validator_function(cls, json_object)
        instance = core_schema.is_instance_schema(cls)
        return core_schema.json_or_python_schema(
            from_object,
            core_schema.union_schema([instance, from_object], mode="left_to_right"),
            serialization=core_schema.plain_serializer_function_ser_schema(
                dict, return_schema=json_object
            ),
        )

    def __reduce__(self) -> tuple[Callable[..., Result[FileT]], tuple[Any, ...]]:
        return self._unpickle, (dict(self), self._metadata())

    @classmethod
    def _unpickle(cls, output: dict[str, Any], attributes: dict[str, Any]) -> Result[FileT]:
        return cls(output, **attributes)


def make_result(
    output: Output, *, request_id: str | None = None, metrics: Mapping[str, Any] | None = None
) -> Any:
    """Make a `Result` of a JSON object; return any other output unchanged."""
    value: object = output.value
    if not isinstance(value, dict):
        return value
    return Result(
        cast("dict[str, Any]", value),
        request_id=output.request_id or request_id,
        billable_units=output.billable_units,
        metrics=metrics,
        retries=output.retries,
        headers=output.headers,
    )


def finalize_output(
    value: Any, output: type[T] | None, dispatcher: Dispatcher | None, endpoint_id: str = ""
) -> T:
    """Validate an output against its type, and bind it to the client, if there is one.

    Args:
        value: The output.
        output: Any type that pydantic can validate; ``None`` accepts every output.
        dispatcher: The dispatcher of the client, which knows the prices that were asked for; or
            ``None``.
        endpoint_id: The endpoint id, with the path of the call.

    Raises:
        InvalidResponseError: The output does not have the type.
    """
    result: object = value
    if isinstance(result, Result) and dispatcher is not None:
        result._dispatcher = dispatcher
        result.cost = dispatcher.resources.prices.cost(
            dispatcher.credentials, endpoint_id, result.billable_units
        )
    if output is None:
        return cast("T", value)
    from pydantic import ValidationError  # late, since it takes 0.1 s to import

    try:
        checked = cast("T", _validator(output)(value))
    except ValidationError as error:
        invalid = InvalidResponseError(
            f"output must be of type {getattr(output, '__name__', output)}: {error}",
            request_id=getattr(value, "request_id", None),
            body=value,
        )
        invalid.stage, invalid.started = "result", True
        raise invalid from error
    files = sys.modules.get("fal_async._files.file")
    # Without the module, the output contains no `File`.
    if files is not None and dispatcher is not None:
        files.bind_files(checked, dispatcher)
    return checked


def check_output_type(output: object) -> None:
    """Raise an error if outputs cannot be validated against a type."""
    if output is not None:
        _validator(output)


def _validator(output: object) -> Callable[[object], object]:
    try:
        hash(output)
    except Exception:  # noqa: BLE001 -- `__hash__` may raise anything
        build = _build_validator.__wrapped__  # annotations may contain lists
    else:
        build = _build_validator
    try:
        return build(output)
    except Exception as error:  # pydantic raises many kinds of errors for invalid types
        raise InvalidRequestError(
            f"output must be a type that pydantic can validate, got {describe(output)}: "
            f"{explain(error)}"
        ) from error


@lru_cache(maxsize=256)
def _build_validator(output: Hashable) -> Callable[[object], object]:
    from pydantic import InstanceOf, TypeAdapter  # slow to import

    kind = cast("type[object]", output)
    if isinstance(output, type) and issubclass(kind, Result):
        kind = InstanceOf[Result]
    adapter = TypeAdapter[object](kind)
    adapter.rebuild(raise_errors=True)
    return adapter.validate_python
