"""Checks of arguments against the schema of an endpoint, as its app makes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Union, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model

__all__ = ["InputSchema"]

_BOUNDS: Final = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
#: The types of values, and their limits by the name that pydantic has for them.
_SCALARS: Final[Mapping[str, tuple[Any, Mapping[str, str]]]] = {
    "string": (str, {"minLength": "min_length", "maxLength": "max_length"}),
    "integer": (int, _BOUNDS),
    "number": (float, _BOUNDS),
    "boolean": (bool, {}),
    "null": (None, {}),
}
_SIZES: Final = {"minItems": "min_length", "maxItems": "max_length"}

JSONSchema = Mapping[str, Any]


class InputSchema:
    """The schema of the input of an endpoint.

    Apps validate their input with pydantic, which converts some values: a text may be a number. So
    the schema becomes a type of pydantic, and what it cannot express is accepted.

    Args:
        document: The OpenAPI document of the endpoint.
    """

    def __init__(self, document: JSONSchema) -> None:
        self._schemas: JSONSchema = document.get("components", {}).get("schemas", {})
        self._types: dict[str, Any] = {}
        self._adapter: TypeAdapter[Any] = TypeAdapter(self._type(_find_input(document)))

    def errors(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return what the app would refuse, in words; empty for valid arguments."""
        try:
            self._adapter.validate_python(_with_urls(arguments))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found]
        return []

    def _type(self, schema: JSONSchema) -> Any:
        """Return the type of a schema."""
        if "$ref" in schema:
            return self._resolve(str(schema["$ref"]).rpartition("/")[2])
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if choices is not None:
            is_simple = all(isinstance(choice, str | int | None) for choice in choices)
            return Literal[tuple(choices)] if choices and is_simple else Any
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return _union(self._type(option) for option in options)
        if len(schema.get("allOf", ())) == 1:
            return self._type(schema["allOf"][0])
        return self._plain_type(schema)

    def _plain_type(self, schema: JSONSchema) -> Any:
        kind: Any = schema.get("type")
        if isinstance(kind, list):
            kinds = cast("list[str]", kind)
            return _union(self._type({**schema, "type": each}) for each in kinds)
        if kind == "object":
            return self._model(schema) if schema.get("properties") else dict[str, Any]
        if kind == "array":
            items: Any = self._type(schema.get("items", {}))
            return _with_limits(list[items], schema, _SIZES)
        if kind not in _SCALARS:
            return Any
        scalar, names = _SCALARS[kind]
        return _with_limits(scalar, schema, names)

    def _resolve(self, name: str) -> Any:
        if name not in self._types:
            self._types[name] = Any  # within its own definition
            self._types[name] = self._type(self._schemas.get(name, {}))
        return self._types[name]

    def _model(self, schema: JSONSchema) -> Any:
        """Return a model. Its fields have other names than the schema's, which may be reserved."""
        required = set(schema.get("required", ()))
        fields: dict[str, Any] = {}
        for number, (name, field) in enumerate(schema["properties"].items()):
            default: Any = ... if name in required else None
            fields[f"field_{number}"] = (self._type(field), Field(default, alias=name))
        return create_model("Input", __config__=ConfigDict(extra="allow"), **fields)


def _union(types: Iterable[Any]) -> Any:
    return Union[tuple(types)]  # noqa: UP007 -- of as many types as there are


def _with_limits(plain: Any, schema: JSONSchema, names: Mapping[str, str]) -> Any:
    """Return a type with the limits of a schema."""
    limits: dict[str, Any] = {name: schema[key] for key, name in names.items() if key in schema}
    return Annotated[plain, Field(**limits)] if limits else plain


def _find_input(document: JSONSchema) -> JSONSchema:
    """Return the schema of the only request body in a document; an empty one if there is none."""
    for operations in document.get("paths", {}).values():
        body = operations.get("post", {}).get("requestBody", {})
        for content in body.get("content", {}).values():
            return cast("JSONSchema", content.get("schema", {}))
    return {}


def _with_urls(value: Any) -> Any:
    """Return a copy of arguments with texts in place of files, which are uploaded."""
    if isinstance(value, Mapping):
        return {name: _with_urls(each) for name, each in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_with_urls(each) for each in cast("list[Any]", value)]
    return "https://file" if isinstance(value, os.PathLike) else value
