"""The run and stream operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fal_async._core.checks import describe
from fal_async._protocol.error_mapping import raise_for_status
from fal_async._protocol.operation import (
    JSON_HEADERS,
    MAX_OUTPUT,
    Lane,
    Operation,
    Request,
    endpoint_url,
    response_parser,
)
from fal_async._protocol.response import parse_output
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import arguments_to_json, encode_arguments, json_text
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._config import Hosts
    from fal_async._protocol.endpoint import Endpoint
    from fal_async.types import Arguments

__all__ = ["run", "stream"]


def run(
    hosts: Hosts,
    endpoint: Endpoint,
    arguments: Arguments,
    *,
    method: str = "POST",
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> Operation[Any]:
    """Run an app directly. With GET the arguments become the query string.

    In the query string, lists repeat their name, nested values are JSON, and ``None`` is omitted.
    """
    named = cast("object", method)
    if not isinstance(named, str) or not (named.isalpha() and named.isascii()):
        raise InvalidRequestError(f"{describe(method)} is not an HTTP method")
    method = method.upper()
    bodiless = method in {"GET", "HEAD"}
    query: dict[str, list[str]] = {}
    for name, value in arguments_to_json(arguments).items() if bodiless else ():
        if value is not None:
            items = cast("list[object]", value) if isinstance(value, list) else [value]
            query[name] = [json_text(item) for item in items]
    return Operation(
        name="run",
        application=endpoint.id,
        request=Request(
            method,
            endpoint_url(hosts.run, endpoint, path, query),
            {**JSON_HEADERS, "accept": "*/*", **(headers or {})},
            b"" if bodiless else encode_arguments(arguments),
        ),
        parse=response_parser(parse_output),
        max_body=MAX_OUTPUT,
        retry=Retry.IF_REJECTED,
        lane=Lane.HELD,
        is_billable=True,
        stage="submit",
    )


def stream(
    hosts: Hosts,
    endpoint: Endpoint,
    arguments: Arguments,
    *,
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> Operation[None]:
    """Run an app directly and stream its output."""
    return Operation(
        name="stream",
        application=endpoint.id,
        request=Request(
            "POST",
            endpoint_url(hosts.run, endpoint, path, {}),
            {**JSON_HEADERS, "accept": "text/event-stream", **(headers or {})},
            encode_arguments(arguments),
        ),
        parse=raise_for_status,
        retry=Retry.IF_REJECTED,
        lane=Lane.HELD,
        is_billable=True,
        stage="submit",
    )
